/**
 * Makes the database of a node that has worked for long, for benchmarks and for trying:
 *
 *     node bench/large.mjs FILE [JOBS]
 *
 * Each job was paid, done and settled: nine postings, seven steps. The newest are from now, the oldest of three years ago.
 */
import { Store } from '../src/store/store.ts'

const [file, jobs = '1000000'] = process.argv.slice(2)
if (file === undefined) {
  console.error('usage: node bench/large.mjs FILE [JOBS]')
  process.exit(2)
}
Store.open(file).close()
const { default: Sqlite } = await import('better-sqlite3')
const db = new Sqlite(file)
db.pragma('synchronous = OFF')
db.pragma('journal_mode = MEMORY')
const [count, now] = [Number(jobs), Date.now()]
const step = Math.floor((3 * 365 * 86_400_000) / count)
const id = "substr(printf('%016x', n * 2654435761 % 9223372036854775807) || printf('%048x', n), 1, 64)"
const at = `(${now} - (${count} - n) * ${step})`
const numbers = `WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${count})`
const run = (sql) => db.prepare(sql).run()

db.exec('BEGIN')
run(`${numbers} INSERT INTO jobs (id, transport, kind, customer_pubkey, status, directed, encryption, request, answer_relays, requested_at_s, deadline,
  price_msats, payment_method, mint_url, paid_msats, attempts, result, result_event, created_at, started_at, completed_at, updated_at)
  SELECT ${id}, 'nip90', 5001 + n % 3 * 49, printf('%064x', n % 5000), 'received', 1, 'none',
  json_object('id', ${id}, 'content', '', 'tags', json_array(json_array('i', printf('a text of some length %d', n), 'text'))), '["wss://relay.example.com"]',
  ${at} / 1000, ${at} + 3600000, 2000, 'invoice', 'https://mint.example.com', 2000, 1, 'a summary', '{}', ${at}, ${at} + 900, ${at} + 1000, ${at} + 1100 FROM numbers`)
run("UPDATE jobs SET status = 'delivered'")
run("UPDATE jobs SET status = 'settled'")
for (const [i, [from, to]] of [
  [null, 'received'],
  ['received', 'quoted'],
  ['quoted', 'paid'],
  ['paid', 'running'],
  ['running', 'ready'],
  ['ready', 'delivered'],
  ['delivered', 'settled'],
].entries())
  run(
    `${numbers} INSERT INTO job_transitions (job_id, from_state, to_state, reason, at) SELECT ${id}, ${from === null ? 'NULL' : `'${from}'`}, '${to}', 'so it was', ${at} + ${i} * 100 FROM numbers`,
  )
const entry = (name, delay, postings) => {
  run(
    `${numbers} INSERT INTO ledger_entries (id, cause_type, cause_id, created_at) SELECT '${name}:' || ${id}, 'job', ${id}, ${at} + ${delay} FROM numbers`,
  )
  for (const [account, amount] of postings)
    run(`${numbers} INSERT INTO postings (entry_id, account, amount_msats) SELECT '${name}:' || ${id}, ${account}, ${amount} FROM numbers`)
}
const deposit = `'node/deposit/job:' || ${id}`
entry('receive', 500, [
  ["'node/wallet/https://mint.example.com'", 2000],
  [deposit, -2000],
])
entry('settle', 1100, [
  [deposit, 2000],
  ["'node/income/job'", -1500],
  ["'node/income/rounding'", -500],
])
entry('fee', 1200, [
  ["'node/wallet/https://mint.example.com'", -1000],
  ["'node/expense/fee'", 1000],
])
entry('spend', 1300, [
  ["'customer/wallet/https://mint.example.com'", -100],
  ["'customer/expense/job'", 50],
  ["'customer/expense/fee'", 50],
])
run(
  'INSERT OR REPLACE INTO account_balances (account, amount_msats) SELECT account, sum(amount_msats) FROM postings GROUP BY account HAVING sum(amount_msats) <> 0',
)
db.exec('DELETE FROM ledger_sums')
for (const period of [3_600_000, 86_400_000])
  run(`INSERT INTO ledger_sums (period_ms, start_at, class, detail, kind, amount_msats, jobs)
    SELECT ${period}, e.created_at / ${period} * ${period}, p.class, p.detail, j.kind, sum(p.amount_msats), sum(p.detail = 'job' AND p.class = 'income')
    FROM postings p JOIN ledger_entries e ON e.id = p.entry_id JOIN jobs j ON j.id = e.cause_id WHERE p.class IN ('income', 'expense') GROUP BY 1, 2, 3, 4, 5`)
db.exec('COMMIT')
db.pragma('journal_mode = WAL')
console.log(`${count} jobs, ${db.prepare('SELECT count(*) AS n FROM postings').get().n} postings`)
db.close()
