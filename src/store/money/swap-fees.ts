/** What it cost beside the thing itself: fees of the operation, and of the swaps of own coins that were made for it. */
import { amount } from '../row.ts'
import type { Store } from '../store.ts'

/** Idempotency keys of the swaps that are made for the operation of this key. */
export const breakKey = (key: string): string => `break:${key}`
export const gatherKey = (key: string, round: number): string => `gather:${key}:${round}`

/**
 * Millisats in fees of swaps that broke or gathered coins for the operation under this key.
 * @param owner as in the ledger, `agent:<pubkey>`
 */
export function swapFeesOf(store: Store, owner: string, key: string): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(p.amount_msats), 0) AS total FROM operations o JOIN postings p ON p.entry_id = 'op:' || o.id || ':done'
       WHERE p.account = @owner || '/expense/fee'
         AND (o.idempotency_key = 'break:' || @key OR (o.idempotency_key > 'gather:' || @key || ':' AND o.idempotency_key < 'gather:' || @key || ';'))`,
    )
    .get({ owner, key })
  return row === undefined ? 0n : amount(row, 'total')
}

/** Millisats in fees, of whichever wallet of this home, that one cause brought about. */
export function feesOfCause(store: Store, cause: { readonly type: string; readonly id: string }): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(p.amount_msats), 0) AS total FROM ledger_entries e JOIN postings p ON p.entry_id = e.id
       WHERE e.cause_type = ? AND e.cause_id = ? AND p.account GLOB '*/expense/fee'`,
    )
    .get(cause.type, cause.id)
  return row === undefined ? 0n : amount(row, 'total')
}
