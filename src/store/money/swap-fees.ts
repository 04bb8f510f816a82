/** What it cost beside the thing itself: fees of the operation, and of the swaps of own coins and the moves between mints that were made for it. */
import type { AccountOwner } from '../../base/accounts.ts'
import { operationDone, ownSwapKeys, purseKeys } from '../keys.ts'
import { sumOf } from '../row.ts'
import type { Store } from '../store.ts'

/** Millisats in fees of what was done for the operation under this key: swaps that broke or gathered coins, moves from other mints with theirs. */
export function swapFeesOf(store: Store, owner: AccountOwner, key: string): bigint {
  const ranges = [...ownSwapKeys(key), ...purseKeys(key)]
  const feesIn = ({ from, to }: { readonly from: string; readonly to: string }) =>
    sumOf(
      store.sql,
      `SELECT coalesce(sum(p.amount_msats), 0) AS total FROM operations o JOIN postings p ON p.entry_id = ${operationDone.sql('o.id')}
       WHERE p.owner = @owner AND p.class = 'expense' AND p.detail = 'fee' AND o.idempotency_key >= @from AND o.idempotency_key < @to`,
      { owner, from, to },
    )
  return ranges.reduce((sum, range) => sum + feesIn(range), 0n)
}

/** Millisats in fees, of whichever wallet of this home, that one cause brought about. */
export const feesOfCause = (store: Store, cause: { readonly type: string; readonly id: string }): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(p.amount_msats), 0) AS total FROM ledger_entries e JOIN postings p ON p.entry_id = e.id
       WHERE e.cause_type = ? AND e.cause_id = ? AND p.class = 'expense' AND p.detail = 'fee'`,
    cause.type,
    cause.id,
  )
