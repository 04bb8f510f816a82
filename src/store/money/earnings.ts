/** Earnings: what this home was paid by others, summed from the ledger's income accounts. */
import { amount, int, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export type EarningSource = 'job' | 'zap' | 'lease' | 'tip' | 'other'

export interface Earning {
  readonly id: string
  readonly source: EarningSource
  readonly jobId: string | null
  /** `node` or `agent:<pubkey>`. */
  readonly owner: string
  readonly amountMsats: bigint
  /** Milliseconds since the epoch. */
  readonly earnedAt: number
}

export interface EarningsSummary {
  readonly totalMsats: bigint
  /** Delivered and settled jobs, free ones and those of own keys too. */
  readonly jobsCompleted: number
  readonly bySource: Readonly<Record<EarningSource, bigint>>
  /** Paid by own keys: reported, never counted. */
  readonly internalMsats: bigint
  readonly byKind: readonly { readonly kind: number; readonly amountMsats: bigint; readonly jobs: number }[]
  /** UTC days, oldest first. */
  readonly byDay: readonly { readonly day: string; readonly amountMsats: bigint }[]
  /** Newest first. */
  readonly recent: readonly Earning[]
}

/** @param options.sinceMs milliseconds since the epoch; @param options.limit of `recent`. */
export function earningsSummary(store: Store, options: { sinceMs?: number; limit: number }): EarningsSummary {
  const since = BigInt(options.sinceMs ?? 0)
  const bySource: Record<EarningSource, bigint> = { job: 0n, zap: 0n, lease: 0n, tip: 0n, other: 0n }
  let totalMsats = 0n
  for (const row of store.sql('SELECT source, sum(amount_msats) AS total FROM earnings WHERE earned_at >= ? GROUP BY source').all(since)) {
    bySource[text(row, 'source') as EarningSource] = amount(row, 'total')
    totalMsats += amount(row, 'total')
  }
  const internal = store
    .sql(
      `SELECT coalesce(-sum(p.amount_msats), 0) AS total FROM postings p JOIN ledger_entries e ON e.id = p.entry_id
       WHERE p.class = 'income' AND p.detail = 'internal' AND e.created_at >= ?`,
    )
    .get(since)
  const completed = store
    .sql(`SELECT count(*) AS jobs FROM jobs WHERE status IN ('delivered', 'settled') AND coalesce(completed_at, updated_at) >= ?`)
    .get(since)
  return {
    totalMsats,
    jobsCompleted: completed === undefined ? 0 : int(completed, 'jobs'),
    bySource,
    internalMsats: internal === undefined ? 0n : amount(internal, 'total'),
    byKind: earningsByKind(store, since),
    byDay: store
      .sql(
        `SELECT date(earned_at / 1000, 'unixepoch') AS day, sum(amount_msats) AS total FROM earnings WHERE earned_at >= ?
         GROUP BY day ORDER BY day`,
      )
      .all(since)
      .map((row) => ({ day: text(row, 'day'), amountMsats: amount(row, 'total') })),
    recent: listEarnings(store, options),
  }
}

function earningsByKind(store: Store, since: bigint): EarningsSummary['byKind'] {
  return store
    .sql(
      `SELECT j.kind AS kind, sum(e.amount_msats) AS total, count(DISTINCT e.job_id) AS jobs FROM earnings e JOIN jobs j ON j.id = e.job_id
       WHERE e.earned_at >= ? GROUP BY j.kind ORDER BY total DESC`,
    )
    .all(since)
    .map((row) => ({ kind: int(row, 'kind'), amountMsats: amount(row, 'total'), jobs: int(row, 'jobs') }))
}

/** The rows of the view `earnings`, newest first. */
export function listEarnings(store: Store, options: { sinceMs?: number; limit: number }): Earning[] {
  return store
    .sql('SELECT * FROM earnings WHERE earned_at >= ? ORDER BY earned_at DESC, id LIMIT ?')
    .all(BigInt(options.sinceMs ?? 0), BigInt(options.limit))
    .map((row) => ({
      id: text(row, 'id'),
      source: text(row, 'source') as EarningSource,
      jobId: textOrNull(row, 'job_id'),
      owner: text(row, 'owner'),
      amountMsats: amount(row, 'amount_msats'),
      earnedAt: int(row, 'earned_at'),
    }))
}
