/** What is forgotten of money after its time, and what never is. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { insertOperation, moveOperation, operationByKey, sweepMoney } from '../../../src/store/money/operations.ts'
import { insertProofs } from '../../../src/store/money/proofs.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

it('forgets the request and the spent proofs of what ended, never the key or the outcome, nor what is open', async () => {
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const operation = (id: string) => ({
    id,
    kind: 'receive' as const,
    owner: { kind: 'node' as const, pubkey: 'ab'.repeat(32) },
    mintUrl: 'https://mint.example',
    idempotencyKey: `key-${id}`,
    requestDigest: 'digest',
    cause: { type: 'job' as const, id: 'j' },
    amountSats: 5n,
    heldSats: 0n,
    plan: { body: 'secret' },
    at: 1000,
  })
  const proof = (y: string, operationId: string) => ({
    y,
    secret: `secret ${y}`,
    keysetId: '00aa',
    amountSats: 4n,
    c: '02',
    dleq: null,
    mintUrl: 'https://mint.example',
    ownerPubkey: 'ab'.repeat(32),
    state: 'spent' as const,
    operationId,
  })
  await store.write(insertOperation(operation('ended')))
  await store.write(insertOperation(operation('open')))
  await store.write(insertProofs({ proofs: [proof('y1', 'ended'), proof('y2', 'open')], at: 1000 }))
  const result = { amount_sats: 5 }
  await store.write(moveOperation({ id: 'ended', to: 'completed', reason: 'done', at: 2000, nextTryAt: null, result }))
  expect(await store.write(sweepMoney({ before: 2000, limit: 10 }))).toBe(0)
  expect(await store.write(sweepMoney({ before: 2001, limit: 10 }))).toBe(1)
  expect(await store.write(sweepMoney({ before: 2001, limit: 10 }))).toBe(0)
  expect(operationByKey(store, 'key-ended')).toMatchObject({ state: 'completed', plan: {}, result, requestDigest: 'digest' })
  expect(operationByKey(store, 'key-open')).toMatchObject({ state: 'prepared', plan: { body: 'secret' } })
  expect(store.sql('SELECT y FROM proofs').all()).toEqual([{ y: 'y2' }])
})
