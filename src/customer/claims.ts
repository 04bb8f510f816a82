/**
 * Who claims what. An offer is public: anybody can copy its invoice under another key, before or after it was paid, and nobody
 * can tell from outside who made it. So an invoice that two keys name is not paid while there is another way, and once one is
 * paid, all keys that name it are listened to until the deadline.
 */
import type { NostrEvent } from '../nostr/types.ts'
import { listOffers, type OfferRow, type PurchaseRow } from '../store/buying/purchases.ts'
import type { Store } from '../store/store.ts'

/** What two offers share when paying one pays the other. */
export function paymentOf(offer: Pick<OfferRow, 'paymentHash' | 'bolt11'>): string | undefined {
  return offer.paymentHash ?? offer.bolt11?.toLowerCase()
}

/** Whether anybody may answer the request: it names nobody. */
export function isOpenRequest(row: PurchaseRow): boolean {
  const tags = (row.request as Pick<NostrEvent, 'tags'> | null)?.tags ?? []
  return !tags.some((tag) => tag[0] === 'p')
}

/** Whether an offer answers a request that was made of its key alone: then nobody else has a say in it. */
export function isPrivate(row: PurchaseRow, offer: OfferRow): boolean {
  return offer.requestId !== null && offer.requestId !== row.eventId
}

/**
 * Offers whose invoice another key names too. One that was made to us alone is never among them, but copies of it are; and such
 * an answer that is no offer of its key's own contests nobody's.
 */
export function contestedOffers(row: PurchaseRow, offers: readonly OfferRow[]): ReadonlySet<OfferRow> {
  const namedBy = new Map<string, Set<string>>()
  for (const offer of offers) {
    const payment = paymentOf(offer)
    if (payment === undefined || (isPrivate(row, offer) && offer.state === 'unusable')) continue
    const keys = namedBy.get(payment) ?? new Set()
    namedBy.set(payment, keys.add(offer.provider))
  }
  return new Set(offers.filter((offer) => !isPrivate(row, offer) && (namedBy.get(paymentOf(offer) ?? '')?.size ?? 0) > 1))
}

/** The offer that is paid, or being paid. */
export function paidOffer(offers: readonly OfferRow[]): OfferRow | undefined {
  return offers.find((offer) => offer.state === 'paying' || offer.state === 'paid')
}

/** The keys whose answers count: the one that was asked, or all that name the invoice that was paid; undefined while anybody may offer. */
export function claimantsOf(store: Store, row: PurchaseRow): readonly string[] | undefined {
  const offers = listOffers(store, row.id)
  const paid = paidOffer(offers)
  if (paid === undefined) return row.provider === null ? undefined : [row.provider]
  if (isPrivate(row, paid) || !isOpenRequest(row)) return [paid.provider]
  const payment = paymentOf(paid)
  // The one that was paid first.
  return [...new Set([paid.provider, ...offers.filter((offer) => paymentOf(offer) === payment).map((offer) => offer.provider)])]
}
