/** Earnings: what this home was paid by others, summed from the ledger's income accounts. */
import { type Msats, msats } from '../../base/amounts.ts'
import { countOf, sumOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, Selection } from '../table.ts'

export type EarningSource = 'job' | 'zap' | 'lease' | 'tip' | 'other'

const earnings = new Selection({
  id: column.text(),
  source: column.text<EarningSource>(),
  jobId: column.orNull(column.text()),
  /** `node` or `agent:<pubkey>`. */
  owner: column.text(),
  amountMsats: column.amount<Msats>(),
  /** Milliseconds since the epoch. */
  earnedAt: column.int(),
})
const bySources = new Selection({ source: column.text<EarningSource>(), total: column.amount<Msats>() })
const byKinds = new Selection({ kind: column.int(), amountMsats: column.amount<Msats>(), jobs: column.int() })
const byDays = new Selection({ day: column.text(), amountMsats: column.amount<Msats>() })

const spent = new Selection({ day: column.text(), kind: column.text(), amountMsats: column.amount<Msats>() })
/** What earning costs: fees of mints and routing (those of refunds too), and what was lost. All else was spent on something. */
const COSTS: readonly string[] = ['fee', 'lost']

/** @param options.sinceMs milliseconds since the epoch; @param options.limit of `recent`. */
export function earningsSummary({ sql }: Store, options: { sinceMs?: number; limit: number }) {
  const since = BigInt(options.sinceMs ?? 0)
  const sources = bySources.all(sql, 'SELECT source, sum(amount_msats) AS total FROM earnings WHERE earned_at >= ? GROUP BY source', since)
  const outgoing = spent.all(
    sql,
    `SELECT date(e.created_at / 1000, 'unixepoch') AS day, p.detail AS kind, sum(p.amount_msats) AS amount_msats
     FROM postings p JOIN ledger_entries e ON e.id = p.entry_id WHERE p.class = 'expense' AND e.created_at >= ? GROUP BY day, kind ORDER BY day, kind`,
    since,
  )
  const none = { job: msats(0), zap: msats(0), lease: msats(0), tip: msats(0), other: msats(0) }
  return {
    totalMsats: msats(sources.reduce((sum, { total }) => sum + total, 0n)),
    /** By what it was for, UTC days, oldest first: `isCost` of what earning cost, else what was bought and given. */
    outgoing: outgoing.map((row) => ({ ...row, isCost: COSTS.includes(row.kind) })),
    /** Delivered and settled jobs, free ones and those of own keys too. */
    jobsCompleted: countOf(
      sql,
      `SELECT count(*) FROM jobs WHERE status IN ('delivered', 'settled') AND coalesce(completed_at, updated_at) >= ?`,
      since,
    ),
    bySource: { ...none, ...Object.fromEntries(sources.map(({ source, total }) => [source, total])) },
    /** Paid by own keys: reported, never counted. */
    internalMsats: msats(
      sumOf(
        sql,
        `SELECT coalesce(-sum(p.amount_msats), 0) FROM postings p JOIN ledger_entries e ON e.id = p.entry_id
         WHERE p.class = 'income' AND p.detail = 'internal' AND e.created_at >= ?`,
        since,
      ),
    ),
    byKind: byKinds.all(
      sql,
      `SELECT j.kind AS kind, sum(e.amount_msats) AS amount_msats, count(DISTINCT e.job_id) AS jobs FROM earnings e JOIN jobs j ON j.id = e.job_id
       WHERE e.earned_at >= ? GROUP BY j.kind ORDER BY sum(e.amount_msats) DESC`,
      since,
    ),
    /** UTC days, oldest first. */
    byDay: byDays.all(
      sql,
      `SELECT date(earned_at / 1000, 'unixepoch') AS day, sum(amount_msats) AS amount_msats FROM earnings WHERE earned_at >= ?
       GROUP BY day ORDER BY day`,
      since,
    ),
    /** Newest first. */
    recent: earnings.all(
      sql,
      'SELECT * FROM earnings WHERE earned_at >= ? ORDER BY earned_at DESC, id LIMIT ?',
      since,
      BigInt(options.limit),
    ),
  }
}
