/** Charts for a terminal: one bar a day. Pure. */
import { formatSats, msats } from '../../base/amounts.ts'

export interface Day {
  /** `2026-03-01` */
  readonly day: string
  readonly msats: bigint
}

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']
const DAY_MS = 86_400_000

/** The last `count` days up to `today`, those without earnings too; never before the first day with any. */
export function fillDays(days: readonly Day[], today: string, count: number): Day[] {
  const known = new Map(days.map(({ day, msats }) => [day, msats]))
  const firstKnown = [...known.keys(), today].toSorted()[0] ?? today
  const from = Math.max(Date.parse(today) - (count - 1) * DAY_MS, Date.parse(firstKnown))
  const filled: Day[] = []
  for (let at = from; at <= Date.parse(today); at += DAY_MS) {
    const day = new Date(at).toISOString().slice(0, 10)
    filled.push({ day, msats: known.get(day) ?? 0n })
  }
  return filled
}

/** A line a day: the date, a bar against the best day, the amount. */
export function drawDays(days: readonly Day[], width = 40): string {
  const most = days.map((day) => day.msats).toSorted((a, b) => (a > b ? -1 : 1))[0] ?? 0n
  const amounts = days.map((day) => formatSats(msats(day.msats)))
  const amountWidth = Math.max(0, ...amounts.map((text) => text.length))
  return days
    .map((day, i) => `${day.day}  ${bar(day.msats, most, width).padEnd(width)}  ${(amounts[i] ?? '').padStart(amountWidth)}`)
    .join('\n')
}

/** Whatever is above zero shows at least the thinnest bar. */
export function bar(value: bigint, most: bigint, width: number): string {
  if (value <= 0n || most <= 0n) return ''
  const eighths = Math.max(1, Number((value * BigInt(width * 8)) / most))
  return '█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? '')
}
