/**
 * The life of a sale, whatever is sold and by whichever transport it came: its states, what a payment does in each, and whose
 * money a deposit becomes; pure.
 *
 *   quoted ---(paid the price in time)---> paid ---(delivered)---> earned
 *     |  |                                 ^  |                      |
 *     |  '--(not paid in time)--> expired -'  |(failed, called off,  | (paid once more)
 *     |                (paid late,   |        | or paid too much)    |
 *     |             still wanted)    |        v                      |
 *     '--(called off)--> withdrawn --+--> refunding <----------------'
 *                                    ^        |  ^
 *             (paid late or too little)       v  | (paid once more)
 *                                          refunded
 *
 * What lies on the deposit account of a sale is what was paid for it and is neither earned nor given back yet: the ledger
 * says it, not who tells of a payment. So the wallet may tell twice, late or never, and a customer may pay by invoice and
 * token both: the same rule is asked again with what the ledger holds then.
 *
 * A market needs no other machine. What is paid for in one go (an HTTP request with a token) goes from `quoted` over `paid` to
 * `earned` within one call. A balance that is drawn down in millisats is one sale that stays `paid`: each draw is a posting
 * from its deposit to income, and when it is closed `settle` takes what was drawn last, and gives the rest back.
 */
import { type Account, accountOf } from '../../base/accounts.ts'
import { type Msats, msats, msatsToSatsDown, msatsToSatsUp, satsToMsats } from '../../base/amounts.ts'
import { stepsOf } from '../../base/states.ts'
import type { Deposit, Posting } from '../../store/money/ledger.ts'

/** By which way sales come; `http` and `contextvm` will be others. */
export type SaleTransport = 'nip90' | 'control'

export const SALE_STEPS = stepsOf({
  quoted: ['paid', 'expired', 'withdrawn'],
  expired: ['paid'],
  // Of money that came too late or is too little `paid` is noted, and left in the same commit.
  paid: ['earned', 'withdrawn', 'refunding'],
  withdrawn: ['refunding'],
  earned: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
})
export type SaleState = keyof typeof SALE_STEPS

/** What the rule of payments looks at. */
export interface Payable {
  readonly state: SaleState
  readonly priceMsats: Msats
  /** What was paid in all, as of the last step. */
  readonly paidMsats: Msats
  /** Paid by then (ms) it is still delivered. */
  readonly wantedUntil: number
}

/** Why money goes back as soon as it came. */
export type BackReason = 'late' | 'little' | 'withdrawn' | 'again'

export type PaymentVerdict =
  | { readonly type: 'nothing' }
  | { readonly type: 'paid' }
  /** Paid more while it is being delivered: what that means is settled at its end. */
  | { readonly type: 'more' }
  | { readonly type: 'back'; readonly why: BackReason }

/** What follows from what the ledger holds for a sale. */
export function judgePayment(sale: Payable, deposit: Deposit, nowMs: number): PaymentVerdict {
  if (deposit.heldMsats <= 0n) return { type: 'nothing' }
  switch (sale.state) {
    case 'quoted':
    case 'expired':
      if (sale.wantedUntil <= nowMs) return { type: 'back', why: 'late' }
      return deposit.heldMsats < sale.priceMsats ? { type: 'back', why: 'little' } : { type: 'paid' }
    case 'paid':
      return deposit.paidMsats > sale.paidMsats ? { type: 'more' } : { type: 'nothing' }
    case 'withdrawn':
      return { type: 'back', why: 'withdrawn' }
    case 'earned':
    case 'refunded':
      return { type: 'back', why: 'again' }
    case 'refunding':
      // First what is on its way back; then this is asked again.
      return { type: 'nothing' }
  }
}

/** What goes back of a sale in `refunding`: what was noted as paid and left its deposit neither as income nor in an earlier refund. */
export function refundOwed(sale: Pick<Payable, 'paidMsats'>, deposit: Deposit): Msats {
  const owed = sale.paidMsats - (deposit.paidMsats - deposit.heldMsats)
  return msats(owed > 0n ? owed : 0n)
}

export interface SettlementTerms {
  /** What was delivered, at its price. */
  readonly dueMsats: Msats
  readonly income: 'job' | 'lease'
  /** What was paid beyond the price: a tip, or given back. */
  readonly over: 'tip' | 'back'
  /** Paid by a key of our own. */
  readonly internal: boolean
}

export interface Settlement {
  readonly earnedMsats: Msats
  /** Whole sats; they stay on the deposit until their token is made. */
  readonly refundMsats: Msats
  /** Empty when nothing leaves the deposit. */
  readonly postings: readonly Posting[]
}

/** What is due becomes income, what the next whole sat added is rounding, and what was paid beyond that is a tip or goes back. */
export function settle(account: Account, heldMsats: Msats, { dueMsats, income, over, internal }: SettlementTerms): Settlement {
  const earned = smaller(heldMsats, dueMsats)
  const asked = satsToMsats(msatsToSatsUp(dueMsats))
  const beyond = msats(heldMsats > asked ? heldMsats - asked : 0n)
  const refund = over === 'back' ? satsToMsats(msatsToSatsDown(beyond)) : msats(0n)
  const kept = msats(heldMsats - refund)
  const tip = over === 'tip' ? beyond : 0n
  const credits: readonly Posting[] = internal
    ? [{ account: accountOf('node', 'income', 'internal'), amountMsats: -kept }]
    : [
        { account: accountOf('node', 'income', income), amountMsats: -earned },
        { account: accountOf('node', 'income', 'rounding'), amountMsats: -(kept - earned - tip) },
        { account: accountOf('node', 'income', 'tip'), amountMsats: -tip },
      ]
  return { earnedMsats: earned, refundMsats: refund, postings: kept === 0n ? [] : [{ account, amountMsats: kept }, ...credits] }
}

function smaller(a: Msats, b: Msats): Msats {
  return a < b ? a : b
}
