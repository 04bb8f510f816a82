/** When a mint is asked again about an invoice that is not paid: the older, the rarer; of many that strangers left, all together seldom. Pure. */

const MIN_CHECK_MS = 1000
const MAX_CHECK_MS = 60_000
/** Between two looks for a late payment, at least and at most. */
const MIN_LATE_CHECK_MS = 15_000
const MAX_LATE_CHECK_MS = 3_600_000
/** After the invoice itself ran out nobody can pay it, and nodes hold the parts of a payment for two minutes at most: what was on its way has arrived. */
const SETTLING_MS = 150_000
/** The same where the mint does not say: it may have been paid before the mint fell silent. */
const SILENT_GRACE_MS = 90 * 86_400_000
const MAX_SILENT_CHECK_MS = 6 * 3_600_000
/** Of all open invoices of strangers one is asked about this often, and of all that ran out. */
const STRANGERS_APART_MS = 200
const LATE_STRANGERS_APART_MS = 1000

export interface UnpaidQuote {
  readonly createdAt: number
  /** Nobody should pay it after this. */
  readonly expiresAt: number
  /** Nobody can pay it after this: the expiry in the invoice. */
  readonly payableUntil: number
  /** Made for somebody who has not paid here before. */
  readonly ofStranger: boolean
}

export interface NextCheck {
  readonly state: 'unpaid' | 'expired' | 'closed'
  readonly nextCheckAt: number | null
}

/**
 * @param answered whether the mint said that it is not paid
 * @param strangers how many invoices of strangers are in the same state
 */
export function nextCheck(quote: UnpaidQuote, now: number, answered: boolean, strangers: number): NextCheck {
  const { createdAt, expiresAt, payableUntil, ofStranger } = quote
  const end = Math.max(expiresAt, payableUntil) + (answered ? SETTLING_MS : SILENT_GRACE_MS)
  if (now >= end) return { state: 'closed', nextCheckAt: null }
  if (now <= expiresAt) {
    const delay = Math.min(MAX_CHECK_MS, Math.max(MIN_CHECK_MS, (now - createdAt) / 10))
    return { state: 'unpaid', nextCheckAt: at(now, ofStranger ? Math.max(delay, strangers * STRANGERS_APART_MS) : delay) }
  }
  const longest = answered ? MAX_LATE_CHECK_MS : MAX_SILENT_CHECK_MS
  const delay = Math.min(longest, Math.max(MIN_LATE_CHECK_MS, (now - expiresAt) / 2))
  // The last look is at the very end.
  return {
    state: 'expired',
    nextCheckAt: Math.min(end, at(now, ofStranger ? Math.max(delay, strangers * LATE_STRANGERS_APART_MS) : delay)),
  }
}

const at = (now: number, delay: number): number => Math.ceil(now + delay)
