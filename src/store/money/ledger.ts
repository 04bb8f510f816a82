/** The double-entry ledger: balanced sets of postings, each posted once, and the sums over them. */
import { type Account, type AccountClass, type AccountOwner, accountOf, isMintSql, parseAccount } from '../../base/accounts.ts'
import { type Msats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand } from '../commands.ts'
import { amount, sumOf, text, textOrNull, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection, table } from '../table.ts'
import { addToSums, driftedSums } from './sums.ts'

/** What caused a movement of value. */
export interface Cause {
  readonly type: 'job' | 'purchase' | 'tick' | 'action' | 'zap' | 'lease' | 'owner' | 'transfer'
  readonly id: string
}

export interface Posting {
  readonly account: Account
  /** Added to the account: assets positive when we hold, income, deposit and equity negative when they owe. */
  readonly amountMsats: bigint
}

export interface Entry {
  /** Says what happened, e.g. `job:<id>:settled`: a second entry of the same id is not posted. */
  readonly id: string
  readonly cause: Cause
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly memo?: string
  readonly postings: readonly Posting[]
}

/**
 * Posts an entry; false when its id was posted before (settle once). Postings of one account are summed, zeros left out.
 * @throws internal when the postings do not sum to zero or an account is misnamed.
 */
export const postEntry = defineCommand('post_entry', (sql, entry: Entry): boolean => {
  const sums = new Map<string, bigint>()
  let total = 0n
  for (const { account, amountMsats } of entry.postings) {
    parseAccount(account)
    sums.set(account, (sums.get(account) ?? 0n) + amountMsats)
    total += amountMsats
  }
  if (total !== 0n) throw new PylonError('internal', `The entry ${entry.id} does not balance: its postings sum to ${total} msats.`)
  if (!entries.insert(sql, entry, 'ON CONFLICT (id) DO NOTHING')) return false
  for (const [account, amountMsats] of sums) {
    if (amountMsats === 0n) continue
    sql('INSERT INTO postings (entry_id, account, amount_msats) VALUES (?, ?, ?)').run(entry.id, account, amountMsats)
    sql(
      `INSERT INTO account_balances (account, amount_msats) VALUES (?, ?)
       ON CONFLICT (account) DO UPDATE SET amount_msats = amount_msats + excluded.amount_msats`,
    ).run(account, amountMsats)
    // Accounts of one operation or one job come and go: back at zero they leave no row.
    sql('DELETE FROM account_balances WHERE account = ? AND amount_msats = 0').run(account)
  }
  addToSums(sql, entry, sums)
  return true
})

/** The sum of an account's postings, in millisats, with its sign. */
export const accountBalance = (store: Store, account: Account): bigint =>
  sumOf(store.sql, 'SELECT amount_msats FROM account_balances WHERE account = ?', account)

/** What stands on an owner's accounts of one class, msats by the account's detail; accounts that are back at zero are left out. */
export function balancesOf(store: Store, owner: AccountOwner, accountClass: AccountClass): Map<string, bigint> {
  const rows = store
    .sql('SELECT detail, amount_msats FROM account_balances WHERE owner = ? AND class = ? ORDER BY account')
    .all(owner, accountClass)
  return new Map(rows.map((row) => [text(row, 'detail'), amount(row, 'amount_msats')]))
}

/** What all wallets hold, msats by mint. */
export function heldByMint(store: Store): Map<string, bigint> {
  const rows = store
    .sql(
      `SELECT detail AS mint_url, sum(amount_msats) AS total FROM account_balances WHERE class = 'wallet' AND ${isMintSql('detail')} GROUP BY detail`,
    )
    .all()
  return new Map(rows.map((row) => [text(row, 'mint_url'), amount(row, 'total')]))
}

/** Where what was paid for a job or a lease lies until it is income or goes back: the account is named after its cause. */
export const depositOf = (cause: Cause): Account => accountOf('node', 'deposit', `${cause.type}:${cause.id}`)

const deposits = new Selection({ paidMsats: column.amount<Msats>(), heldMsats: column.amount<Msats>() })

/** What was paid for a job or lease in all, and what of it lies on its deposit still: neither income nor given back. */
export type Deposit = RowOfTable<typeof deposits>

export function depositNow(store: Store, cause: Cause): Deposit {
  const found = deposits.get(
    store.sql,
    `SELECT coalesce(-sum(min(p.amount_msats, 0)), 0) AS paid_msats, coalesce(-sum(p.amount_msats), 0) AS held_msats
     FROM ledger_entries e JOIN postings p ON p.entry_id = e.id WHERE e.cause_type = ? AND e.cause_id = ? AND p.account = ?`,
    cause.type,
    cause.id,
    depositOf(cause),
  )
  return found ?? { paidMsats: msats(0), heldMsats: msats(0) }
}

/** What the node holds for jobs or leases that are not settled, msats by their ids. */
export function depositsFor(store: Store, type: Cause['type']): Map<string, bigint> {
  const prefix = `${type}:`
  const those = [...balancesOf(store, 'node', 'deposit')].filter(([detail]) => detail.startsWith(prefix))
  return new Map(those.map(([detail, amountMsats]) => [detail.slice(prefix.length), amountMsats]))
}

/** What an owner holds for customers whose jobs and leases are not settled, msats by mint ('' for what came by no mint): it becomes income, or goes back. */
export function depositsByMint(store: Store, owner: AccountOwner): Map<string, bigint> {
  const sums = new Map<string, bigint>()
  for (const [detail, amountMsats] of balancesOf(store, owner, 'deposit')) {
    const at = detail.indexOf(':')
    const cause = { type: detail.slice(0, at), id: detail.slice(at + 1) }
    const mintUrl = mintOfCause(store, owner, cause) ?? ''
    sums.set(mintUrl, (sums.get(mintUrl) ?? 0n) - amountMsats)
  }
  return sums
}

/** The mint at which a payment for this job or lease came in. */
export const mintOfCause = (store: Store, owner: AccountOwner, cause: { readonly type: string; readonly id: string }): string | undefined =>
  textsOf(
    store.sql,
    `SELECT p.detail AS mint_url FROM ledger_entries e JOIN postings p ON p.entry_id = e.id
     WHERE e.cause_type = @type AND e.cause_id = @id AND p.amount_msats > 0 AND p.owner = @owner AND p.class = 'wallet' AND ${isMintSql('p.detail')}
     ORDER BY e.created_at, e.id LIMIT 1`,
    { owner, type: cause.type, id: cause.id },
  )[0]

const entries = table('ledger_entries', {
  id: column.text(),
  cause: column.group({ type: column.text<Cause['type']>('cause_type'), id: column.text('cause_id') }),
  memo: column.orNull(column.text()),
  at: column.int('created_at'),
})
/** What was stored was checked when it was posted. */
const postings = new Selection({ account: column.text<Account>(), amountMsats: column.amount() })

/** With those postings alone that are of the owner who was asked for. */
export type HistoryRow = RowOfTable<typeof entries> & { readonly postings: readonly Posting[] }

/** The newest entries that touch an owner's accounts, newest first. */
export function ledgerHistory({ sql }: Store, options: { owner?: string; limit: number; sinceMs?: number }): HistoryRow[] {
  const owner = options.owner ?? null
  const found = entries.all(
    sql,
    `e WHERE created_at >= @since AND (@owner IS NULL OR EXISTS (SELECT 1 FROM postings p WHERE p.entry_id = e.id AND p.owner = @owner))
     ORDER BY created_at DESC, rowid DESC LIMIT @limit`,
    { owner, since: BigInt(options.sinceMs ?? 0), limit: BigInt(options.limit) },
  )
  const ofEntry = 'SELECT account, amount_msats FROM postings WHERE entry_id = @id AND (@owner IS NULL OR owner = @owner) ORDER BY account'
  return found.map((entry) => ({ ...entry, postings: postings.all(sql, ofEntry, { id: entry.id, owner }) }))
}

export interface LedgerAudit {
  readonly ok: boolean
  /** Each is one sentence for a person. */
  readonly problems: readonly string[]
}

/** Proves the books: every entry balances; per owner and mint the proofs we hold are worth what the ledger says. */
export function auditLedger(store: Store): LedgerAudit {
  const problems: string[] = []
  for (const row of store.sql('SELECT entry_id, sum(amount_msats) AS total FROM postings GROUP BY entry_id HAVING total <> 0').all()) {
    problems.push(`The ledger entry ${text(row, 'entry_id')} is off balance by ${amount(row, 'total')} msats.`)
  }
  const drifted = store.sql(
    `SELECT account FROM (SELECT account, amount_msats FROM postings UNION ALL SELECT account, -amount_msats FROM account_balances)
     GROUP BY account HAVING sum(amount_msats) <> 0`,
  )
  for (const row of drifted.all()) problems.push(`The balance of the account ${text(row, 'account')} is not the sum of its postings.`)
  for (const { day, detail } of driftedSums(store.sql)) problems.push(`The sums of ${detail} on ${day} are not those of its entries.`)
  const ledger = new Map<string, bigint>()
  const proofs = new Map<string, bigint>()
  const add = (sums: Map<string, bigint>, key: string, value: bigint) => sums.set(key, (sums.get(key) ?? 0n) + value)
  const held = store.sql(
    `SELECT p.owner, o.mint_url, sum(p.amount_msats) AS total FROM postings p
     LEFT JOIN operations o ON o.id = p.detail WHERE p.class = 'held' GROUP BY p.owner, o.mint_url`,
  )
  for (const row of held.all()) add(ledger, `${text(row, 'owner')} at ${textOrNull(row, 'mint_url')}`, amount(row, 'total'))
  const wallets = store.sql(
    `SELECT owner, detail AS mint_url, sum(amount_msats) AS total FROM postings WHERE class = 'wallet' AND ${isMintSql('detail')} GROUP BY account`,
  )
  for (const row of wallets.all()) add(ledger, `${text(row, 'owner')} at ${text(row, 'mint_url')}`, amount(row, 'total'))
  const owned = store.sql(
    `SELECT o.account_owner AS owner, p.mint_url, sum(p.amount_sats) * 1000 AS total FROM proofs p
     JOIN wallet_owners o ON o.pubkey = p.owner_pubkey WHERE p.state IN ('unspent', 'reserved') GROUP BY p.owner_pubkey, p.mint_url`,
  )
  for (const row of owned.all()) add(proofs, `${text(row, 'owner')} at ${text(row, 'mint_url')}`, amount(row, 'total'))
  for (const key of new Set([...ledger.keys(), ...proofs.keys()])) {
    const books = ledger.get(key) ?? 0n
    const held = proofs.get(key) ?? 0n
    if (books !== held) problems.push(`The wallet of ${key} holds proofs worth ${held} msats, the ledger says ${books} msats.`)
  }
  return { ok: problems.length === 0, problems }
}
