/** An answer as it is kept: what of it goes into which record. Pure. */
import { type Msats, msats } from '../base/amounts.ts'
import type { NostrEvent } from '../nostr/types.ts'
import type { OfferRow, PurchaseRow } from '../store/buying/purchases.ts'
import type { DecodedInvoice } from '../wallet/lightning/bolt11.ts'
import type { Answer } from './answers.ts'
import { paymentOf } from './claims.ts'

export type OfferAnswer = Extract<Answer, { type: 'offer' }>

/** How an answer stands to the purchase. */
export interface From {
  readonly requestId: string
  /** Of a key that was asked or paid. */
  readonly isBound: boolean
  /** To a request that was made of its key alone. */
  readonly isAlone: boolean
}

/** An answer to a purchase, and how it stands to it. */
export interface Heard {
  readonly row: PurchaseRow
  readonly event: NostrEvent
  readonly from: From
}

/** What two offers share when paying one pays the other. */
export function paymentIn({ bolt11, invoice }: OfferAnswer): string | undefined {
  return paymentOf({ bolt11, paymentHash: invoice?.paymentHash ?? null })
}

/** The same invoice of the same key, sent again. */
export function isSameOffer(known: OfferRow, event: NostrEvent, offer: OfferAnswer): boolean {
  const payment = paymentIn(offer)
  return known.provider === event.pubkey && payment !== undefined && paymentOf(known) === payment && known.amountMsats === offer.amountMsats
}

/** @param isBound somebody was asked or paid: a no before that ends nothing, and is kept apart from one after it */
export function newClaim({ row, event }: Heard, answer: Answer, isBound: boolean) {
  return {
    eventId: event.id,
    purchaseId: row.id,
    kind: event.kind,
    pubkey: event.pubkey,
    summary: !isBound && answer.type === 'error' ? `says no: ${answer.code}` : summarise(answer),
  }
}

export type NewOffer = ReturnType<typeof newOffer>

export function newOffer({ row, event, from }: Heard, offer: OfferAnswer, reason: string | null, at: number) {
  const { amountMsats, bolt11 } = offer
  const state: OfferRow['state'] = reason === null ? 'open' : 'unusable'
  const paymentHash = offer.invoice?.paymentHash ?? null
  return {
    ...{ eventId: event.id, purchaseId: row.id, provider: event.pubkey, requestId: from.requestId },
    ...{ amountMsats, bolt11, paymentHash, state, reason, at },
  }
}

/** What an offered invoice says; no amount where it cannot be read. */
export function termsOf(invoice: DecodedInvoice | undefined, now: number): { invoiceMsats: Msats | null; expired: boolean } {
  const amountMsats = invoice?.amountMsats
  return {
    invoiceMsats: amountMsats === undefined ? null : msats(amountMsats),
    expired: invoice !== undefined && invoice.expiresAt <= now,
  }
}

function summarise(answer: Answer): string {
  switch (answer.type) {
    case 'offer':
      return `payment-required ${answer.amountMsats} msats`
    case 'error':
      return `error ${answer.code}${answer.refundToken === null ? '' : ' with refund'}`
    case 'note':
      return answer.status
    default:
      return answer.type
  }
}
