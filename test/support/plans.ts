/**
 * No read that serves grows with history: every statement of ours that a test prepares is asked for its plan, and none may go
 * through a table that grows with what the node has done, unless it stands below with its reason. Part of every lane in process.
 */
import Sqlite from 'better-sqlite3'
import { afterAll, expect } from 'vitest'

/** Tables whose rows are as many as the things that were done, not as those that are set up or open. */
const GROWING = new Set(
  `jobs job_transitions job_cancellations forgotten_jobs leases lease_transitions runtimes runtime_transitions runtime_outputs control_requests
   outbox_messages outbox_deliveries seen_events ledger_entries postings operations operation_transitions proofs mint_quotes
   spend_holds zap_sends nutzaps nutzap_sends purse_moves purse_move_transitions payouts payment_requests request_payments request_sends
   nwc_requests nwc_invoices nwc_payments bunker_requests audit_log purchases purchase_events purchase_offers purchase_transitions
   purchase_requests purchase_results refund_tokens rentals ticks actions heard said approvals memories opened_wraps agent_transitions
   direct_messages letters_in letters_out session_messages address_invoices wallet_events`.split(/\s+/),
)

/** Of rows that are open: to be asked again, sent, answered. They leave it when they are done. */
const OPEN =
  /USING (?:COVERING )?INDEX (?:\w+_(?:open|pending|waiting)|mint_quotes_(?:paid|unpaid|strangers)|refund_tokens_waiting|control_requests_running|runtimes_(?:state|outputs))$/

/** How the text of a statement begins, once its white space is one, and why it may go through all rows. */
const ALLOWED: readonly (readonly [string, string])[] = [
  ['SELECT count(*) AS n, coalesce(sum(', 'jobs that nobody paid are bounded in all'],
  ['SELECT coalesce(sum(coalesce(octet_length(request)', 'jobs that nobody paid are bounded in all'],
  ['DELETE FROM mint_quotes WHERE id IN (SELECT id FROM mint_quotes WHERE of_stranger = 1', 'invoices of those jobs'],
  ['DELETE FROM job_cancellations', 'bounded in all and by key'],
  ['SELECT * FROM wallet_events', 'what was told goes: these are on their way'],
  ['SELECT DISTINCT cause_type FROM wallet_events', 'what was told goes: these are on their way'],
  ['SELECT q.*, o.error_message', 'a page, newest first; closed ones are swept'],
  ['SELECT * FROM nwc_invoices WHERE (@owner', 'a page, newest first; closed ones are swept'],
  ['SELECT * FROM payouts WHERE @owner', 'a page, newest first; a payout is rare'],
  ['SELECT * FROM request_sends WHERE (@owner', 'a page, newest first; the owner pays them by hand'],
  ['SELECT EXISTS (SELECT 1 FROM proofs WHERE mint_url = @url', 'the owner takes a mint off the list'],
  ['SELECT DISTINCT owner FROM postings', 'the owner follows a mint to another address'],
  ...['jobs', 'leases', 'operations', 'proofs', 'mint_quotes'].map(
    (table) => [`UPDATE ${table} SET mint_url`, 'the owner follows a mint to another address'] as const,
  ),
  ['UPDATE postings SET account', 'the owner follows a mint to another address'],
  ['UPDATE purse_moves SET from_url', 'the owner follows a mint to another address'],
  ['UPDATE purse_moves SET to_url', 'the owner follows a mint to another address'],
  ['DELETE FROM control_requests WHERE', 'what keeps them bounded in all'],
  ['UPDATE nwc_wallets SET', 'the owner connects or disconnects a wallet'],
  ['SELECT COUNT(*) FROM "', 'a backup is verified'],
  // Inspections, by a worker.
  ['SELECT entry_id, sum(amount_msats) AS total FROM postings', 'the books are audited'],
  ['SELECT account FROM (SELECT account, amount_msats FROM postings', 'the books are audited'],
  ["SELECT date(at / 1000, 'unixepoch') AS day, class || '/' || detail", 'the books are audited'],
  ['SELECT owner, detail AS mint_url, sum(amount_msats) AS total FROM postings', 'the books are audited'],
  ['SELECT p.owner, o.mint_url, sum(p.amount_msats) AS total FROM postings p', 'the books are audited'],
  ['SELECT o.account_owner AS owner, p.mint_url, sum(p.amount_sats)', 'the books are audited'],
]

const seen = new Set<string>()
const found: string[] = []
const prepare = Sqlite.prototype.prepare
Sqlite.prototype.prepare = function (this: Sqlite.Database, text: string) {
  const statement = prepare.call(this, text)
  if (!seen.has(text) && /^\s*(SELECT|UPDATE|DELETE|INSERT|WITH)/i.test(text) && isOurs() && isFresh(this)) {
    seen.add(text)
    found.push(...scansOf(prepare.call(this, `EXPLAIN QUERY PLAN ${text}`), text))
  }
  return statement
} as typeof prepare

const fresh = new WeakMap<Sqlite.Database, boolean>()
/** A node's database, not the sandbox's, of which SQLite has no statistics: of a few rows it would rather read all. */
function isFresh(db: Sqlite.Database): boolean {
  const known = fresh.get(db)
  if (known !== undefined) return known
  const has = (table: string) => prepare.call(db, 'SELECT 1 FROM sqlite_schema WHERE name = ?').get(table) !== undefined
  const is = has('outbox_messages') && !has('sqlite_stat1')
  fresh.set(db, is)
  return is
}

/** Whether it was asked for by the program, not by a test. */
function isOurs(): boolean {
  const frames = (new Error('where').stack ?? '').split('\n').slice(3)
  const asker = frames.find((frame) => !/\/src\/store\/(commands|table|row|store)\.ts/.test(frame))
  return asker?.includes('/src/') === true
}

function scansOf(plan: Sqlite.Statement, text: string): string[] {
  const words = text.replace(/\s+/g, ' ').trim()
  const names = new Map(
    [...words.matchAll(/(?:FROM|JOIN|UPDATE) (\w+)(?: AS)?(?: (?!WHERE|JOIN|LEFT|ON|ORDER|INDEXED|SET|GROUP|LIMIT|UNION)(\w+))?/gi)].map(
      ([, table = '', alias = table]) => [alias, table],
    ),
  )
  for (const [, name = ''] of words.matchAll(/\) AS (\w+)/g)) names.set(name, '')
  const scans = plan.all(...paramsFor(words)).flatMap((row) => {
    const { detail } = row as { detail: string }
    const name = /^SCAN (\w+)/.exec(detail)?.[1]
    return name !== undefined && GROWING.has(names.get(name) ?? name) && !OPEN.test(detail) ? [detail] : []
  })
  if (scans.length === 0 || isPage(words) || ALLOWED.some(([begin]) => words.startsWith(begin))) return []
  return [`${words}: ${scans.join(', ')}`]
}

/** Without a condition, and in the order of an index: the first rows of it. */
const isPage = (words: string): boolean => !/ WHERE /.test(words) && / LIMIT (?:\?|\d+|@\w+)$/.test(words)

function paramsFor(words: string): unknown[] {
  const named = [...new Set([...words.matchAll(/@(\w+)/g)].map(([, name = '']) => name))]
  const ones: unknown[] = Array.from(words.match(/\?/g) ?? [], () => 1)
  return named.length === 0 ? ones : [...ones, Object.fromEntries(named.map((name) => [name, 1]))]
}

afterAll(() => {
  expect(found.splice(0), 'statements that go through what grows').toEqual([])
})
