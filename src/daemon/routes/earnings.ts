/** Handlers of the routes about earnings: reads of the ledger. */

import { msats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import type { earningsRoutes } from '../../control/contract/earnings.ts'
import type { Handlers } from '../../control/route.ts'
import { earningsSummary } from '../../store/money/earnings.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_RECENT = 20

export function earningsReadHandlers({ store }: Pick<ReadServices, 'store'>): Handlers<typeof earningsRoutes> {
  return {
    getEarnings: ({ since, limit }) => {
      const summary = earningsSummary(store, {
        limit: limit ?? DEFAULT_RECENT,
        ...(since === undefined ? {} : { sinceMs: Date.parse(since) }),
      })
      const sumOf = (rows: typeof summary.outgoing) => rows.reduce((sum, row) => sum + row.amountMsats, 0n)
      const costs = sumOf(summary.outgoing.filter(({ isCost }) => isCost))
      const byKind = Map.groupBy(summary.outgoing, ({ kind }) => kind)
      return {
        costs_msats: msats(costs),
        net_msats: msats(summary.totalMsats - costs),
        outgoing: [...byKind].map(([kind, rows]) => ({ kind, msats: msats(sumOf(rows)), is_cost: rows[0]?.isCost === true })),
        costs_by_day: summary.outgoing
          .filter(({ isCost }) => isCost)
          .map(({ day, kind, amountMsats }) => ({ day, kind, msats: msats(amountMsats) })),
        total_msats: summary.totalMsats,
        jobs_completed: summary.jobsCompleted,
        by_source: summary.bySource,
        internal_msats: summary.internalMsats,
        by_kind: summary.byKind.map((row) => ({ kind: row.kind, msats: row.amountMsats, jobs: row.jobs })),
        by_day: summary.byDay.map((row) => ({ day: row.day, msats: row.amountMsats })),
        recent: summary.recent.map((row) => ({
          id: row.id,
          source: row.source,
          job_id: row.jobId,
          owner: row.owner,
          amount_msats: row.amountMsats,
          earned_at: rfc3339(row.earnedAt),
        })),
      }
    },
  }
}
