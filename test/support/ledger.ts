/** What stands in the books, by the names of accounts. */
import type { Store } from '../../src/store/store.ts'

/** Every account whose name begins so, with its sum; accounts that are back at zero are left out. */
export function balancesByPrefix(store: Store, prefix: string): Map<string, bigint> {
  const rows = store
    .sql('SELECT account, amount_msats FROM account_balances WHERE account >= @prefix AND account < @prefix || char(1114111)')
    .all({ prefix })
  return new Map(rows.map((row) => [String(row['account']), row['amount_msats'] as bigint]))
}
