/** How often a mint is asked about what nobody pays. */
import { expect, test } from 'vitest'
import { nextCheck, type UnpaidQuote } from '../../../../src/wallet/mint/quote-schedule.ts'

const HOUR_MS = 3_600_000
const quote: UnpaidQuote = { createdAt: 0, expiresAt: HOUR_MS / 4, payableUntil: HOUR_MS, ofStranger: false }

/** The times at which one is asked about until it is closed. */
function looks(of: UnpaidQuote, options: { answered?: boolean; strangers?: number } = {}): number[] {
  const times: number[] = []
  let now: number | null = 1000
  while (now !== null) {
    times.push(now)
    now = nextCheck(of, now, options.answered ?? true, options.strangers ?? 0).nextCheckAt
  }
  return times
}

test('an invoice that nobody paid is asked about a few dozen times and no more once it cannot be paid', () => {
  const times = looks(quote)
  expect(times.length).toBeLessThan(80)
  expect(times.at(-1)).toBe(HOUR_MS + 150_000)
  // Soon while somebody may be paying.
  expect(times.filter((at) => at <= 10_000).length).toBeGreaterThanOrEqual(9)
})

test('a payment that comes late is looked for until the invoice itself has run out', () => {
  const late = looks(quote).filter((at) => at > quote.expiresAt)
  expect(late.length).toBeLessThan(16)
  expect(late.some((at) => at > quote.payableUntil)).toBe(true)
  expect(late[0]).toBeLessThan(quote.expiresAt + 120_000)
})

test('a mint that does not answer is asked for long, but seldom', () => {
  const times = looks(quote, { answered: false })
  expect(times.at(-1)).toBeGreaterThan(80 * 24 * HOUR_MS)
  expect(times.length).toBeLessThan(600)
})

test('of many invoices of strangers the mint is asked five times a second at most, late ones once', () => {
  const of = { ...quote, ofStranger: true }
  for (const strangers of [400, 4000]) {
    expect(((nextCheck(of, 1000, true, strangers).nextCheckAt ?? 0) - 1000) / strangers).toBeGreaterThanOrEqual(200)
    const now = quote.expiresAt + 1
    expect(((nextCheck(of, now, true, strangers / 2).nextCheckAt ?? 0) - now) / (strangers / 2)).toBeGreaterThanOrEqual(1000)
  }
  expect(nextCheck({ ...of, ofStranger: false }, 1000, true, 4000).nextCheckAt).toBe(2000)
})
