/** A mint that is reached at another address: the same mint, so everything that names it gets the new name. */
import { type AccountOwner, accountOf } from '../../base/accounts.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { text, textsOf } from '../row.ts'
import type { Store } from '../store.ts'

/** Every column that names a mint by its address, but the list itself. */
const COLUMNS = [
  ...(['proofs', 'mint_keysets', 'operations', 'mint_quotes', 'owed_signatures', 'lnurl_addresses', 'jobs', 'leases'] as const).map(
    (table) => ({ table, column: 'mint_url' }),
  ),
  { table: 'purse_moves', column: 'from_url' },
  { table: 'purse_moves', column: 'to_url' },
]

interface Move {
  readonly from: string
  readonly to: string
}

/** Moves a mint of the list. What was under way ends under the old name: `renameMint` catches it afterwards. */
export const moveMint = defineCommand('move_mint', (sql, p: Move & { info: unknown }) => {
  const info = JSON.stringify(p.info)
  sql(
    `INSERT INTO mints (url, cap_sats, added_at, info_json, max_inputs) SELECT ?, cap_sats, added_at, ?, max_inputs FROM mints WHERE url = ?
     ON CONFLICT (url) DO UPDATE SET cap_sats = max(cap_sats, excluded.cap_sats), info_json = excluded.info_json`,
  ).run(p.to, info, p.from)
  sql('DELETE FROM mints WHERE url = ?').run(p.from)
  sql('UPDATE mint_former_urls SET mint_url = ? WHERE mint_url = ?').run(p.to, p.from)
  sql('DELETE FROM mint_former_urls WHERE url = ?').run(p.to)
  sql('INSERT INTO mint_former_urls (url, mint_url) VALUES (?, ?) ON CONFLICT (url) DO UPDATE SET mint_url = excluded.mint_url').run(
    p.from,
    p.to,
  )
  renameColumns(sql, p)
  renameAccounts(sql, p, 'postings')
})

/** Gives what still has an old name the new one; does nothing where all has it. */
export const renameMint = defineCommand('rename_mint', (sql, p: Move) => {
  renameColumns(sql, p)
  // The accounts of the old name were at zero: what came since shows.
  renameAccounts(sql, p, 'account_balances')
})

function renameColumns(sql: Sql, { from, to }: Move): void {
  for (const { table, column } of COLUMNS) sql(`UPDATE ${table} SET ${column} = ? WHERE ${column} = ?`).run(to, from)
}

/** @param known where the owners that have an account of the old name are found */
function renameAccounts(sql: Sql, { from, to }: Move, known: 'postings' | 'account_balances'): void {
  for (const row of sql(`SELECT DISTINCT owner FROM ${known} WHERE class = 'wallet' AND detail = ?`).all(from)) {
    const owner = text(row, 'owner') as AccountOwner
    const [former, now] = [accountOf(owner, 'wallet', from), accountOf(owner, 'wallet', to)]
    sql('UPDATE postings SET account = ? WHERE account = ?').run(now, former)
    sql(
      `INSERT INTO account_balances (account, amount_msats) SELECT ?, amount_msats FROM account_balances WHERE account = ?
       ON CONFLICT (account) DO UPDATE SET amount_msats = amount_msats + excluded.amount_msats`,
    ).run(now, former)
    sql('DELETE FROM account_balances WHERE account = ? OR (account = ? AND amount_msats = 0)').run(former, now)
  }
}

/** Where the mint of an address that it left is now. */
export function mintNow(store: Store, url: string): string | undefined {
  const row = store.sql('SELECT mint_url FROM mint_former_urls WHERE url = ?').get(url)
  return row === undefined ? undefined : text(row, 'mint_url')
}

export const formerMints = (store: Store): Move[] =>
  store
    .sql('SELECT url, mint_url FROM mint_former_urls')
    .all()
    .map((row) => ({ from: text(row, 'url'), to: text(row, 'mint_url') }))

/** The keysets of a mint that coins of ours are of, also of those that we gave away and may take back. */
export const keysetsWithCoins = (store: Store, mintUrl: string): string[] =>
  textsOf(store.sql, `SELECT DISTINCT keyset_id FROM proofs WHERE mint_url = ? AND state IN ('unspent', 'reserved', 'sent')`, mintUrl)
