/** What was earned and spent by hour and day, kept by the command that posts: no reader goes through the history. */
import { parseAccount } from '../../base/accounts.ts'
import { type Msats, msats } from '../../base/amounts.ts'
import type { Sql } from '../commands.ts'
import { countOf, int, isThere, sumOf } from '../row.ts'
import { column, type RowOfTable, Selection } from '../table.ts'
import type { Entry } from './ledger.ts'

export const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000

/** Adds what an entry posted to income and expenses. Inside the command that posts it. */
export function addToSums(sql: Sql, { id, cause, at }: Pick<Entry, 'id' | 'cause' | 'at'>, postings: ReadonlyMap<string, bigint>): void {
  // The first by name is the one that counts the job, as in the rows of an entry.
  const summed = [...postings]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([account, amountMsats]) => {
      const { class: accountClass, detail } = parseAccount(account)
      return amountMsats !== 0n && (accountClass === 'income' || accountClass === 'expense') ? [{ accountClass, detail, amountMsats }] : []
    })
  if (summed.length === 0) return
  const kind = cause.type === 'job' ? countOf(sql, 'SELECT kind FROM jobs WHERE id = ?', cause.id) : 0
  let isFirst = kind !== 0 && !wasPaidBefore(sql, cause.id, id)
  for (const { accountClass, detail, amountMsats } of summed) {
    const counts = isFirst && accountClass === 'income' && detail !== 'internal'
    if (counts) isFirst = false
    for (const periodMs of [HOUR_MS, DAY_MS]) {
      sql(
        `INSERT INTO ledger_sums (period_ms, start_at, class, detail, kind, amount_msats, jobs) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET amount_msats = amount_msats + excluded.amount_msats, jobs = jobs + excluded.jobs`,
      ).run(BigInt(periodMs), BigInt(at - (at % periodMs)), accountClass, detail, BigInt(kind), amountMsats, counts ? 1n : 0n)
    }
  }
}

/** Whether another entry of this job brought income from others. */
const wasPaidBefore = (sql: Sql, jobId: string, entryId: string): boolean =>
  isThere(
    sql,
    `SELECT 1 FROM ledger_entries e JOIN postings p ON p.entry_id = e.id
     WHERE e.cause_type = 'job' AND e.cause_id = ? AND e.id <> ? AND p.class = 'income' AND p.detail <> 'internal' LIMIT 1`,
    jobId,
    entryId,
  )

/** Where whole hours and whole days begin after a time; before them single rows are read, or hours. */
const edges = (sinceMs: number) => ({
  since: BigInt(sinceMs),
  hour: BigInt(Math.ceil(sinceMs / HOUR_MS) * HOUR_MS),
  day: BigInt(Math.ceil(sinceMs / DAY_MS) * DAY_MS),
})

/** What was posted to income and expenses since a time: of whole days and hours their sums, of the hour that it is in each posting. */
const SINCE = `(SELECT start_at AS at, class, detail, kind, amount_msats, jobs FROM ledger_sums WHERE period_ms = ${DAY_MS} AND start_at >= @day
  UNION ALL SELECT start_at, class, detail, kind, amount_msats, jobs FROM ledger_sums WHERE period_ms = ${HOUR_MS} AND start_at >= @hour AND start_at < @day
  UNION ALL SELECT e.created_at, p.class, p.detail, coalesce(j.kind, 0), p.amount_msats, j.id IS NOT NULL AND p.class = 'income' AND p.detail <> 'internal'
      AND NOT EXISTS (SELECT 1 FROM ledger_entries f JOIN postings q ON q.entry_id = f.id WHERE f.cause_type = 'job' AND f.cause_id = j.id
        AND q.class = 'income' AND q.detail <> 'internal' AND (f.created_at, f.rowid, q.account) < (e.created_at, e.rowid, p.account))
    FROM ledger_entries e JOIN postings p ON p.entry_id = e.id LEFT JOIN jobs j ON e.cause_type = 'job' AND j.id = e.cause_id
    WHERE e.created_at >= @since AND e.created_at < @hour AND p.class IN ('income', 'expense'))`
const IS_EARNED = "class = 'income' AND detail <> 'internal'"
const DAY = `at - at % ${DAY_MS}`

const income = new Selection({ detail: column.text(), kind: column.int(), amountMsats: column.amount<Msats>(), jobs: column.int() })
const days = new Selection({ at: column.int(), amountMsats: column.amount<Msats>() })
const expenses = new Selection({ at: column.int(), detail: column.text(), amountMsats: column.amount<Msats>() })

/** Since a time, by what it was for and the kind of the job; what own keys paid (`internal`) too. */
export const incomeSince = (sql: Sql, sinceMs: number): RowOfTable<typeof income>[] =>
  income.all(
    sql,
    `SELECT detail, kind, -sum(amount_msats) AS amount_msats, sum(jobs) AS jobs FROM ${SINCE} WHERE class = 'income' GROUP BY detail, kind`,
    edges(sinceMs),
  )

/** What others paid since a time, by the begin of the UTC day, oldest first. */
export const incomeByDay = (sql: Sql, sinceMs: number): RowOfTable<typeof days>[] =>
  days.all(
    sql,
    `SELECT ${DAY} AS at, -sum(amount_msats) AS amount_msats FROM ${SINCE} WHERE ${IS_EARNED} GROUP BY 1 ORDER BY 1`,
    edges(sinceMs),
  )

/** Since a time, by the begin of the UTC day and what it was for, oldest first. */
export const expensesByDay = (sql: Sql, sinceMs: number): RowOfTable<typeof expenses>[] =>
  expenses.all(
    sql,
    `SELECT ${DAY} AS at, detail, sum(amount_msats) AS amount_msats FROM ${SINCE} WHERE class = 'expense' GROUP BY 1, detail ORDER BY 1, detail`,
    edges(sinceMs),
  )

/** All that others ever paid. */
export const earnedInAll = (sql: Sql): Msats =>
  msats(sumOf(sql, `SELECT coalesce(-sum(amount_msats), 0) FROM account_balances WHERE ${IS_EARNED}`))

/** Jobs that were delivered since a time, free ones and those of own keys too. */
export const completedSince = (sql: Sql, sinceMs: number): number =>
  countOf(
    sql,
    `SELECT coalesce(sum(n), 0) FROM (
       SELECT completed AS n FROM job_sums WHERE period_ms = ${DAY_MS} AND start_at >= @day
       UNION ALL SELECT completed FROM job_sums WHERE period_ms = ${HOUR_MS} AND start_at >= @hour AND start_at < @day
       UNION ALL SELECT count(*) FROM jobs INDEXED BY jobs_completed WHERE completed_at >= @since AND completed_at < @hour AND status IN ('delivered', 'settled'))`,
    edges(sinceMs),
  )

/** Hours (their begin) in which others paid something, newest first, from the one that a time is in. */
export function* hoursOfIncome(sql: Sql, sinceMs: number): Generator<number> {
  for (let before = BigInt(Number.MAX_SAFE_INTEGER); ; ) {
    const row = sql(
      `SELECT start_at FROM ledger_sums WHERE period_ms = ${HOUR_MS} AND start_at < ? AND start_at > ? AND ${IS_EARNED}
       ORDER BY start_at DESC LIMIT 1`,
    ).get(before, BigInt(sinceMs - HOUR_MS))
    if (row === undefined) return
    before = BigInt(int(row, 'start_at'))
    yield Number(before)
  }
}

const drifted = new Selection({ day: column.text(), detail: column.text() })

/** Accounts and days whose sums are not what the entries of that day, or of its hours, say. */
export const driftedSums = (sql: Sql): RowOfTable<typeof drifted>[] =>
  drifted.all(
    sql,
    `SELECT date(at / 1000, 'unixepoch') AS day, class || '/' || detail AS detail FROM (
       SELECT e.created_at AS at, p.class AS class, p.detail AS detail, p.amount_msats AS by_day, p.amount_msats AS by_hour
         FROM postings p JOIN ledger_entries e ON e.id = p.entry_id WHERE p.class IN ('income', 'expense')
       UNION ALL SELECT start_at, class, detail, iif(period_ms = ${DAY_MS}, -amount_msats, 0), iif(period_ms = ${HOUR_MS}, -amount_msats, 0) FROM ledger_sums)
     GROUP BY 1, 2 HAVING sum(by_day) <> 0 OR sum(by_hour) <> 0 LIMIT 10`,
  )
