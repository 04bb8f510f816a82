/** The store's own guards over operations: one payment a hash, legal moves alone, a key and a token that change once. */

import { join } from 'node:path'
import { beforeEach, expect, it, onTestFinished } from 'vitest'
import type { OperationState } from '../../../../src/base/states.ts'
import {
  atRiskSats,
  freeFailedKey,
  getOperation,
  insertOperation,
  moveOperation,
  type NewOperation,
  operationByKey,
  paidByUs,
  setTokenState,
} from '../../../../src/store/money/operations.ts'
import type { Store } from '../../../../src/store/store.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

const OWNER = { kind: 'agent', pubkey: 'ab'.repeat(32) } as const
let store: Store

beforeEach(() => {
  store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
})

const insert = (id: string, more: Partial<NewOperation> = {}) =>
  store.write(
    insertOperation({
      ...{ id, kind: 'melt', owner: OWNER, mintUrl: 'https://mint.test', idempotencyKey: `key-${id}`, requestDigest: 'd' },
      ...{ cause: { type: 'owner', id: 'x' }, amountSats: 5n, heldSats: 7n, plan: {}, at: 1000, ...more },
    }),
  )
/** With what a row of that state has. */
const move = (id: string, to: OperationState, more: { tokenState?: 'pending' } = {}) => {
  const end = to === 'failed' ? { error: { code: 'payment_failed', message: 'no' } } : { result: {} }
  return store.write(moveOperation({ id, to, reason: 'test', at: 2000, nextTryAt: null, ...end, ...more }))
}

it('pays one hash once, unless the payment failed', async () => {
  await insert('a', { paymentHash: 'h' })
  await expect(insert('b', { paymentHash: 'h' })).rejects.toMatchObject({ code: 'payment_in_progress' })
  await move('a', 'completed')
  await expect(insert('b', { paymentHash: 'h' })).rejects.toMatchObject({ code: 'invoice_paid' })
  expect(paidByUs(store, 'h', 1000)).toBe(true)
  expect(paidByUs(store, 'h', 1001)).toBe(false)
  await insert('c', { paymentHash: 'i' })
  await move('c', 'submitted')
  await move('c', 'failed')
  expect(paidByUs(store, 'i', 1000)).toBe(false)
  await insert('d', { paymentHash: 'i' })
})

it('moves where its steps lead, and nowhere else', async () => {
  await insert('a')
  await expect(move('a', 'failed')).rejects.toMatchObject({ code: 'conflict' })
  expect(getOperation(store, 'a')?.state).toBe('prepared')
  await expect(move('b', 'submitted')).rejects.toMatchObject({ code: 'conflict' })
})

it('frees the key of what failed alone', async () => {
  await insert('a')
  await store.write(freeFailedKey({ id: 'a' }))
  expect(operationByKey(store, 'key-a')?.id).toBe('a')
  await move('a', 'submitted')
  await move('a', 'failed')
  await store.write(freeFailedKey({ id: 'a' }))
  expect(operationByKey(store, 'key-a')).toBeUndefined()
  await insert('b', { idempotencyKey: 'key-a' })
})

it('has a token claimed or taken back, not both', async () => {
  await insert('a', { kind: 'send' })
  await move('a', 'completed', { tokenState: 'pending' })
  await store.write(setTokenState({ id: 'a', to: 'claimed', nextTryAt: null, at: 2000 }))
  await expect(store.write(setTokenState({ id: 'a', to: 'reclaimed', nextTryAt: null, at: 2000 }))).rejects.toMatchObject({
    code: 'conflict',
  })
  expect(getOperation(store, 'a')?.tokenState).toBe('claimed')
})

it('has at risk what every unfinished operation holds', async () => {
  for (const id of ['prepared', 'submitted', 'unknown', 'completed', 'failed']) await insert(id)
  for (const id of ['submitted', 'unknown', 'completed', 'failed'] as const) await move(id, 'submitted')
  for (const id of ['unknown', 'completed', 'failed'] as const) await move(id, id)
  expect(atRiskSats(store, OWNER.pubkey)).toBe(21n)
})
