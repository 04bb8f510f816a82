/** What is made of a Lightning wallet's words about a payment: pure. Where they prove nothing, wait. */
import type { NwcResponse, NwcTransaction } from '../../nostr/nips/nip47.ts'

export type PaymentVerdict =
  | { readonly do: 'complete'; readonly preimage: string | undefined; readonly feeMsats: bigint }
  | { readonly do: 'fail'; readonly reason: string }
  | { readonly do: 'look'; readonly reason: string }
  | { readonly do: 'wait'; readonly reason: string }

/** Said before anything was tried. PAYMENT_FAILED is none: by NIP-47 it may be a timeout. */
const SURE = new Set([
  'RATE_LIMITED',
  'NOT_IMPLEMENTED',
  'INSUFFICIENT_BALANCE',
  'QUOTA_EXCEEDED',
  'RESTRICTED',
  'UNAUTHORIZED',
  'UNSUPPORTED_ENCRYPTION',
])

/** Of the answer to pay_invoice. */
export function judgeAnswer({ result, error }: NwcResponse): PaymentVerdict {
  if (error !== undefined) {
    const reason = `${error.message.slice(0, 300)} (${error.code})`
    return SURE.has(error.code) ? { do: 'fail', reason } : { do: 'look', reason }
  }
  const { preimage, fees_paid: fees } = result ?? {}
  if (typeof preimage !== 'string' || preimage === '') return { do: 'look', reason: 'the wallet answered without a preimage' }
  return { do: 'complete', preimage: preimage.toLowerCase(), feeMsats: feesOf(fees) }
}

const feesOf = (value: unknown): bigint => (typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? BigInt(value) : 0n)

/**
 * Of what lookup_invoice says.
 * @param found undefined where the wallet knows no such payment
 * @param isOver whether the wallet can not act on the request any more: it refused it, or the request has ended
 */
export function judgeLookup(found: NwcTransaction | undefined, isOver: boolean): PaymentVerdict {
  if (found === undefined) {
    return isOver
      ? { do: 'fail', reason: 'the wallet knows of no such payment' }
      : { do: 'wait', reason: 'the wallet knows of no such payment yet' }
  }
  if (found.state === 'settled') return { do: 'complete', preimage: found.preimage?.toLowerCase(), feeMsats: found.feesPaidMsats }
  if (found.type === 'outgoing' && found.state === 'failed') return { do: 'fail', reason: 'the wallet says that the payment failed' }
  // What it knows is its own invoice: only paid or not is of use.
  if (found.type === 'incoming' && isOver) return { do: 'fail', reason: 'the invoice is one of that wallet and is not paid' }
  return { do: 'wait', reason: 'the wallet says that the payment is on its way' }
}
