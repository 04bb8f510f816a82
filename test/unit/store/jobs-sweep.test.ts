/** What the sweep of jobs must not forget. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { insertQuote, moveQuote } from '../../../src/store/money/quotes.ts'
import { claimJob, transitionJob, transitionsOf } from '../../../src/store/selling/job-steps.ts'
import { getJob, hasJob, sweepJobs } from '../../../src/store/selling/jobs.ts'
import { sweepUnpaidJobs } from '../../../src/store/selling/unpaid-jobs.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

it('keeps a job that nobody paid for as long as its invoice may still be paid', async () => {
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const id = 'a'.repeat(64)
  const job = {
    id,
    transport: 'nip90' as const,
    kind: 5001,
    customerPubkey: 'b'.repeat(64),
    directed: true,
    encryption: 'none' as const,
    request: { kind: 5001, content: 'translate this' },
    answerRelays: [],
    requestedAtS: 1,
    deadline: 2000,
    priceMsats: msats(2000),
    paymentMethod: 'invoice' as const,
  }
  await store.write(claimJob({ job, at: 1000, reason: 'ordered' }))
  await store.write(
    transitionJob({
      id,
      from: 'received',
      to: 'quoted',
      reason: 'named',
      at: 1000,
      patch: { bill: { request: 'lnbcrt1', expiresAt: 2000 } },
    }),
  )
  await store.write(transitionJob({ id, from: 'quoted', to: 'expired', reason: 'ran out', at: 1000 }))
  const quote = {
    id: 'q1',
    idempotencyKey: `job:${id}:invoice`,
    requestDigest: 'd',
    owner: { kind: 'node' as const, pubkey: 'c'.repeat(64) },
    mintUrl: 'https://mint.test',
    quoteId: 'quote',
    quotePubkey: `02${'c'.repeat(64)}`,
    request: 'lnbcrt1',
    paymentHash: 'd'.repeat(64),
    amountSats: 2n,
    creditAccount: `node/deposit/job:${id}` as const,
    cause: { type: 'job' as const, id },
    state: 'unpaid' as const,
    expiresAt: 1500,
    nextCheckAt: 1000,
    createdAt: 1000,
  }
  await store.write(insertQuote(quote))
  expect(await store.write(sweepJobs({ before: 5000, cancelsBefore: 0, limit: 10 }))).toBe(0)
  expect(await store.write(sweepUnpaidJobs({ before: 1000, keepDone: 10, limit: 10 }))).toBe(0)
  expect(transitionsOf(store, id)).toHaveLength(3)
  // After a while one line of it is left, whatever its deadline: who pays that late is refunded.
  expect(await store.write(sweepUnpaidJobs({ before: 1500, keepDone: 10, limit: 10 }))).toBe(1)
  expect(getJob(store, id)).toMatchObject({ status: 'expired', request: null })
  expect(transitionsOf(store, id).map(({ reason }) => reason)).toEqual(['ran out'])
  expect(await store.write(sweepUnpaidJobs({ before: 1500, keepDone: 10, limit: 10 }))).toBe(0)
  expect(hasJob(store, id)).toBe(true)
  await store.write(moveQuote({ id: 'q1', from: ['unpaid'], to: 'closed', nextCheckAt: null, at: 5000 }))
  expect(await store.write(sweepJobs({ before: 5000, cancelsBefore: 0, limit: 10 }))).toBe(1)
})
