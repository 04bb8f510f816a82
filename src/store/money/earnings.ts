/** Earnings: what this home was paid by others, summed from the ledger's income accounts. */
import { type Msats, msats } from '../../base/amounts.ts'
import type { Sql } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection } from '../table.ts'
import { completedSince, expensesByDay, HOUR_MS, hoursOfIncome, incomeByDay, incomeSince } from './sums.ts'

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
/** What earning costs: fees of mints and routing (those of refunds too), and what was lost. All else was spent on something. */
const COSTS: readonly string[] = ['fee', 'lost']

const SOURCES: readonly string[] = ['job', 'zap', 'lease', 'tip'] satisfies EarningSource[]

/** @param options.sinceMs milliseconds since the epoch; @param options.limit of `recent`. */
export function earningsSummary({ sql }: Store, options: { sinceMs?: number; limit: number }) {
  const since = Math.max(0, Math.floor(options.sinceMs ?? 0))
  const income = incomeSince(sql, since)
  const ofOthers = income.filter(({ detail }) => detail !== 'internal')
  const bySource = { job: msats(0), zap: msats(0), lease: msats(0), tip: msats(0), other: msats(0) }
  for (const { detail, amountMsats } of ofOthers) {
    const source = (SOURCES.includes(detail) ? detail : 'other') as EarningSource
    bySource[source] = msats(bySource[source] + amountMsats)
  }
  const kinds = [...Map.groupBy(ofOthers, ({ kind }) => kind)].filter(([kind]) => kind !== 0)
  return {
    totalMsats: totalOf(ofOthers),
    /** By what it was for, UTC days, oldest first: `isCost` of what earning cost, else what was bought and given. */
    outgoing: expensesByDay(sql, since).map(({ at, detail: kind, amountMsats }) => {
      return { day: dayOf(at), kind, amountMsats, isCost: COSTS.includes(kind) }
    }),
    /** Delivered and settled jobs, free ones and those of own keys too. */
    jobsCompleted: completedSince(sql, since),
    bySource,
    /** Paid by own keys: reported, never counted. */
    internalMsats: totalOf(income.filter(({ detail }) => detail === 'internal')),
    /** What earned most first. */
    byKind: kinds
      .map(([kind, those]) => ({ kind, amountMsats: totalOf(those), jobs: those.reduce((sum, { jobs }) => sum + jobs, 0) }))
      .sort((a, b) => Number(b.amountMsats - a.amountMsats)),
    /** UTC days, oldest first. */
    byDay: incomeByDay(sql, since).map(({ at, amountMsats }) => ({ day: dayOf(at), amountMsats })),
    /** Newest first. */
    recent: recentEarnings(sql, since, options.limit),
  }
}

const totalOf = (rows: readonly { readonly amountMsats: bigint }[]): Msats =>
  msats(rows.reduce((sum, { amountMsats }) => sum + amountMsats, 0n))

/** Of UTC. */
const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)

/** Newest first. By the hours in which something was earned: what is between them is not looked at. */
function recentEarnings(sql: Sql, sinceMs: number, limit: number): RowOfTable<typeof earnings>[] {
  const found: RowOfTable<typeof earnings>[] = []
  for (const hour of hoursOfIncome(sql, sinceMs)) {
    if (found.length >= limit) break
    const [from, to, left] = [Math.max(hour, sinceMs), hour + HOUR_MS, limit - found.length]
    const those = 'SELECT * FROM earnings WHERE earned_at >= ? AND earned_at < ? ORDER BY earned_at DESC, id LIMIT ?'
    found.push(...earnings.all(sql, those, BigInt(from), BigInt(to), BigInt(left)))
  }
  return found
}
