/** What a customer asks for, validated; and the limits it puts on the price. Pure. */
import { type Msats, type Sats, sats, satsToMsats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'

export type InputType = 'text' | 'url' | 'event' | 'job'

export interface Order {
  /** 5000 to 5999. */
  readonly kind: number
  readonly inputs: readonly { readonly data: string; readonly type: InputType }[]
  readonly params: readonly (readonly [string, string])[]
  /** Hex key of the one provider that may serve it. */
  readonly provider?: string
  readonly bidSats?: number
  readonly maxSats?: number
  readonly encrypt: boolean
  readonly pay: 'auto' | 'ask' | 'never'
  readonly payWith: 'invoice' | 'token'
  readonly timeoutMs: number
}

/** What a job may cost when the owner names neither a bid nor a limit. */
export const DEFAULT_MAX_SATS = 100

const MAX_INPUT_BYTES = 256_000

/** @throws invalid_request, input_invalid */
export function checkOrder(order: Order): void {
  if (!Number.isInteger(order.kind) || order.kind < 5000 || order.kind > 5999) {
    throw new PylonError('invalid_request', `Kind ${order.kind} is no job request: NIP-90 uses 5000 to 5999.`)
  }
  if (order.inputs.length === 0 || order.inputs.every((input) => input.data === '')) {
    throw new PylonError('input_invalid', 'The job has no input: give --input TEXT, @file or - for standard input.')
  }
  const bytes = order.inputs.reduce((sum, input) => sum + Buffer.byteLength(input.data), 0)
  if (bytes > MAX_INPUT_BYTES) {
    throw new PylonError(
      'input_invalid',
      `The input is ${bytes} bytes and an event carries at most ${MAX_INPUT_BYTES}: publish it and send its URL with --input-type url.`,
    )
  }
  for (const input of order.inputs) {
    if (['event', 'job'].includes(input.type) && !/^[0-9a-f]{64}$/.test(input.data)) {
      throw new PylonError('input_invalid', `An input of type ${input.type} is an event id of 64 hex digits.`)
    }
    if (input.type === 'url' && !/^https?:\/\//.test(input.data))
      throw new PylonError('input_invalid', 'An input of type url starts with http:// or https://.')
  }
}

/** The most that its price may be: the lower of bid and limit. */
export function priceLimit(order: Order): Sats {
  const limits = [order.bidSats, order.maxSats].filter((value) => value !== undefined)
  return sats(limits.length === 0 ? DEFAULT_MAX_SATS : Math.min(...limits))
}

/** The most that may leave for this order, fees and all; undefined where its owner named a bid alone. */
export function costLimit(order: Order): Sats | undefined {
  if (order.maxSats !== undefined) return sats(order.maxSats)
  return order.bidSats === undefined ? sats(DEFAULT_MAX_SATS) : undefined
}

/** @param isDear it is a good offer for somebody who pays more */
export type OfferVerdict = { readonly usable: true } | { readonly usable: false; readonly isDear?: true; readonly reason: string }

/** Whether an asked price may be paid: within the limit, with an invoice, and the invoice says the same amount. */
export function judgeOffer(
  order: Order,
  offer: { amountMsats: Msats; bolt11: string | null; invoiceMsats: Msats | null; expired: boolean },
): OfferVerdict {
  const limit = satsToMsats(priceLimit(order))
  if (offer.amountMsats > limit) return { usable: false, isDear: true, reason: `asks ${offer.amountMsats} msats, the limit is ${limit}` }
  if (offer.bolt11 === null) return { usable: false, reason: 'carries no invoice' }
  if (offer.invoiceMsats === null) return { usable: false, reason: 'carries an invoice that cannot be read or has no amount' }
  if (offer.invoiceMsats !== offer.amountMsats)
    return { usable: false, reason: `asks ${offer.amountMsats} msats but its invoice says ${offer.invoiceMsats}` }
  if (offer.expired) return { usable: false, reason: 'its invoice has expired' }
  return { usable: true }
}
