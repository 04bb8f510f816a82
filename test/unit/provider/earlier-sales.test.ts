/** Sales of a home that an earlier version left: what was paid is served, what goes back goes back once, at the amounts that were noted then. */

import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { msats, sats } from '../../../src/base/amounts.ts'
import type { JobState } from '../../../src/base/states.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { all, type Command } from '../../../src/store/commands.ts'
import { saleInvoiceKey, saleRefundKey } from '../../../src/store/keys.ts'
import { accountBalance, balancesOf, depositOf, postEntry } from '../../../src/store/money/ledger.ts'
import { claimJob, type JobPatch, type NewJob, transitionJob } from '../../../src/store/selling/job-steps.ts'
import { MINT } from '../../support/memory-mint.ts'
import { openStore } from '../../support/store.ts'
import { request, scriptedBackend, startNode, World } from './world.ts'

const PRICE = msats(2500)
const PAID = msats(3000)

/** A job as the engine of before moved it, by the same commands. */
function moved(world: World, event: NostrEvent, steps: readonly [JobState, JobPatch?][]): Command<unknown> {
  const at = world.clock.now()
  const about = { kind: 5001, directed: true, requestedAtS: event.created_at, deadline: at + 3_600_000, priceMsats: PRICE }
  const answered = { answerRelays: ['wss://relay.test'], request: event, customerPubkey: event.pubkey }
  const job: NewJob = { id: event.id, transport: 'nip90', encryption: 'none', paymentMethod: 'invoice', ...about, ...answered }
  let from: JobState = 'received'
  const commands: Command<unknown>[] = [claimJob({ job, at, reason: 'ordered from us' })]
  for (const [to, patch = {}] of steps) {
    commands.push(transitionJob({ id: event.id, from, to, reason: 'of before', at, patch }))
    from = to
  }
  return all(...commands)
}

/** The wallet's side: an invoice that was paid, credited to the deposit under the name that the wallet of the world gives it. */
function paid(world: World, { id }: NostrEvent): Command<unknown> {
  const cause = { type: 'job', id } as const
  const key = saleInvoiceKey(cause)
  world.invoices.set(key, {
    ...{ id: key, quoteId: key, request: `lnbcrt3-${key}`, paymentHash: '00'.repeat(32), amountSats: sats(3), mintUrl: MINT },
    ...{ expiresAt: world.clock.now() + 3_600_000, state: 'settled' },
  })
  return entry(`receive:${key}`, world, id, PAID)
}

function entry(entryId: string, world: World, id: string, amountMsats: bigint): Command<unknown> {
  const cause = { type: 'job', id } as const
  const postings = [
    { account: `node/wallet/${MINT}`, amountMsats },
    { account: depositOf(cause), amountMsats: -amountMsats },
  ] as const
  return postEntry({ id: entryId, cause, at: world.clock.now(), postings })
}

test('a home of before: paid, failed with money in hand, and two refunds, one of them sent already', async () => {
  const world = new World()
  const [runs, fails, owed, sent] = ['a', 'b', 'c', 'd'].map((name) => request(world, { tags: [['t', name]] }))
  if (runs === undefined || fails === undefined || owed === undefined || sent === undefined) throw new Error('no requests')
  const bill = { bill: { request: 'lnbcrt3', expiresAt: world.clock.now() + 900_000 }, mintUrl: MINT }
  const toPaid: [JobState, JobPatch?][] = [
    ['quoted', bill],
    ['paid', { paidMsats: PAID }],
  ]
  const failed = { errorCode: 'backend_failed', error: 'It broke.' }
  const token = world.token(3n, { lock: `02${sent.pubkey}` })
  const refund = saleRefundKey({ type: 'job', id: sent.id }, 1)
  world.sent.set(refund, { operationId: refund, token, amountSats: sats(3), feeSats: sats(0), mintUrl: MINT, state: 'pending' })
  const store = openStore(join(world.dir, 'pylon.db'))
  await store.write(
    all(
      ...[runs, fails, owed, sent].map((event) => paid(world, event)),
      moved(world, runs, toPaid),
      moved(world, fails, [...toPaid, ['running', { attempts: 1 }], ['failed', failed]]),
      moved(world, owed, [...toPaid, ['running', { attempts: 1 }], ['failed', failed], ['refunding']]),
      moved(world, sent, [
        ...toPaid,
        ['running', { attempts: 1 }],
        ['failed', failed],
        ['refunding', { refundSends: 1, refundNextAt: world.clock.now() + 60_000 }],
      ]),
      entry(`send:${refund}`, world, sent.id, -PAID),
    ),
  )
  store.close()

  const node = await startNode(world, { backends: [scriptedBackend((work) => Promise.resolve(work.input))] })
  await vi.waitFor(() => expect(node.job(runs.id).status).toBe('settled'))
  await world.clock.advance(120_000)
  for (const { id } of [fails, owed, sent]) {
    expect(node.job(id)).toMatchObject({ status: 'refunding', paidMsats: PAID })
    const made = world.sent.get(saleRefundKey({ type: 'job', id }, 1))
    expect(made?.amountSats).toBe(3n)
    expect(world.feedback(id).some((feedback) => feedback.refundToken === made?.token)).toBe(true)
    await node.wallets.claimRefund(id)
    expect(node.job(id).status).toBe('refunded')
  }
  expect(world.sent.size).toBe(3)
  expect(world.sent.get(refund)?.token).toBe(token)
  expect([...balancesOf(node.store, 'node', 'deposit')]).toEqual([])
  expect(accountBalance(node.store, 'node/income/job')).toBe(-PRICE)
  await node.stop()
  world.close()
})
