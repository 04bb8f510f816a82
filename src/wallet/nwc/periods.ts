/** The periods of budgets, by the calendar in UTC; a week begins on Monday. Pure. */
import type { BudgetPeriod } from '../../store/money/nwc-service.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** Since when spends count (ms); 0 for a budget that is never renewed. */
export function periodStart(per: BudgetPeriod, nowMs: number): number {
  const now = new Date(nowMs)
  switch (per) {
    case 'hour':
      return nowMs - (nowMs % HOUR_MS)
    case 'day':
      return nowMs - (nowMs % DAY_MS)
    case 'week':
      return nowMs - (nowMs % DAY_MS) - ((now.getUTCDay() + 6) % 7) * DAY_MS
    case 'month':
      return Date.UTC(now.getUTCFullYear(), now.getUTCMonth())
    case 'total':
      return 0
  }
}

/** When the budget is renewed (ms); undefined for never. */
export function periodEnd(per: BudgetPeriod, nowMs: number): number | undefined {
  if (per === 'total') return undefined
  const start = periodStart(per, nowMs)
  if (per === 'month') {
    const from = new Date(start)
    return Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + 1)
  }
  return start + { hour: HOUR_MS, day: DAY_MS, week: 7 * DAY_MS }[per]
}
