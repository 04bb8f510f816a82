/** The store's own guards over proofs: one is reserved once, and what is reserved is still ours. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { heldSats, insertProofs, listProofs, moveProofs, type ProofRow } from '../../../../src/store/money/proofs.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

const OWNER = 'ab'.repeat(32)
const MINT = 'https://mint.test'

it('is reserved by one operation, and counts as ours until it is spent', async () => {
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const proofs = ['a', 'b'].map(
    (y): ProofRow => ({
      ...{ y, secret: y, keysetId: 'k', amountSats: 4n, c: 'c', dleq: null, mintUrl: MINT, ownerPubkey: OWNER },
      ...{ state: 'unspent', operationId: null },
    }),
  )
  await store.write(insertProofs({ proofs, at: 1000 }))
  const reserve = (ys: readonly string[], operationId: string | null) =>
    store.write(moveProofs({ ys, from: 'unspent', to: 'reserved', operationId, at: 2000 }))
  await reserve(['a'], null)
  // All or none: the one that is free stays free.
  await expect(reserve(['b', 'a'], null)).rejects.toMatchObject({ code: 'conflict' })
  expect(listProofs(store, { pubkey: OWNER, mintUrl: MINT, state: 'unspent' }).map(({ y }) => y)).toEqual(['b'])
  expect(heldSats(store, OWNER, MINT)).toBe(8n)
  await store.write(moveProofs({ ys: ['a'], from: 'reserved', to: 'spent', operationId: null, at: 3000 }))
  expect(heldSats(store, OWNER, MINT)).toBe(4n)
})
