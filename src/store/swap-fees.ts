/** What swaps of a wallet's own coins cost that were made for something else: to break, gather or move them. */
import { amount } from './row.ts'
import type { Store } from './store.ts'

/**
 * Millisats in fees of swaps under this key, of those that broke or gathered coins for it, and of none else.
 * @param owner as in the ledger, `agent:<pubkey>`
 * @param key the idempotency key of the payment or transfer that they were made for
 */
export function swapFeesOf(store: Store, owner: string, key: string): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(p.amount_msats), 0) AS total FROM ledger_entries e JOIN postings p ON p.entry_id = e.id
       WHERE p.account = @owner || '/expense/fee' AND e.cause_type = 'transfer'
         AND (e.cause_id IN (@key, 'break:' || @key) OR (e.cause_id > 'gather:' || @key || ':' AND e.cause_id < 'gather:' || @key || ';'))`,
    )
    .get({ owner, key })
  return row === undefined ? 0n : amount(row, 'total')
}
