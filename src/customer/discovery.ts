/** Finds who sells a kind: announcements (NIP-89), the cheapest that fits first. */
import { type Sats, sats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { ANNOUNCEMENT_KIND, type AnnouncedPrice, type Announcement, parseAnnouncement } from '../nostr/nips/nip89.ts'
import type { Nostr, NostrEvent } from '../nostr/types.ts'
import type { Order } from './order.ts'

/** What is needed to pay in advance. */
export interface PaidProvider {
  readonly priceSats: Sats
  readonly mintUrl: string
  /** Compressed key that the token is locked to. */
  readonly lockPubkey: string
}

export interface FoundProvider {
  readonly pubkey: string
  /** Present when the order pays by token and the kind is not free. */
  readonly paid?: PaidProvider
}

/**
 * The provider that the order names, or the cheapest that announces its kind.
 * @param limit the most that it may cost; @param mints those that we and the provider may share.
 * @throws no_offer, price_too_high, mint_not_allowed
 */
export async function findProvider(nostr: Nostr, wanted: { order: Order; limit: Sats; mints: readonly string[] }): Promise<FoundProvider> {
  const { order, limit, mints } = wanted
  const needsTerms = order.payWith === 'token'
  if (order.provider !== undefined && !needsTerms) return { pubkey: order.provider }
  const candidates = await announcementsOf(nostr, order)
  if (candidates.length === 0) {
    const who = order.provider === undefined ? 'Nobody' : npubOf(order.provider)
    throw new PylonError('no_offer', `${who} announces kind ${order.kind} on the relays of this node: try another kind, relay or provider.`)
  }
  if (!needsTerms) return { pubkey: (candidates[0] as Candidate).pubkey }
  const refusals: PylonError[] = []
  for (const candidate of candidates) {
    const terms = termsOf(candidate, order, limit, mints)
    if (!(terms instanceof PylonError)) return terms
    refusals.push(terms)
  }
  throw refusals[0] as PylonError
}

interface Candidate {
  readonly pubkey: string
  readonly announcement: Announcement
  readonly priceMsats: bigint | undefined
}

async function announcementsOf(nostr: Nostr, order: Order): Promise<Candidate[]> {
  const { events } = await nostr.query([
    {
      kinds: [ANNOUNCEMENT_KIND],
      '#k': [String(order.kind)],
      // No limit: all pages of it, since one would be used up by whoever says most.
      ...(order.provider === undefined ? {} : { authors: [order.provider] }),
    },
  ])
  return events
    .flatMap((event) => readCandidate(event, order))
    .sort((a, b) => Number((a.priceMsats ?? 2n ** 53n) - (b.priceMsats ?? 2n ** 53n)))
}

function readCandidate(event: NostrEvent, order: Order): Candidate[] {
  try {
    const announcement = parseAnnouncement(event)
    if (!announcement.kinds.includes(order.kind)) return []
    return [{ pubkey: event.pubkey, announcement, priceMsats: priceOf(announcement.pricing[String(order.kind)], order) }]
  } catch {
    // An announcement that can't be read offers nothing.
    return []
  }
}

/** Undefined where the price can't be known before the provider quotes it. */
function priceOf(price: AnnouncedPrice | undefined, order: Order): bigint | undefined {
  if (price === undefined) return undefined
  if (price.unit === 'job') return price.amountMsats
  if (price.unit !== '1k_chars') return undefined
  const chars = order.inputs.reduce((sum, input) => sum + input.data.length, 0)
  return price.amountMsats * BigInt(Math.max(1, Math.ceil(chars / 1000)))
}

function termsOf(candidate: Candidate, order: Order, limit: Sats, mints: readonly string[]): FoundProvider | PylonError {
  const { announcement, priceMsats, pubkey } = candidate
  if (priceMsats === undefined)
    return new PylonError('no_offer', `${npubOf(pubkey)} announces no fixed price for kind ${order.kind}: use --pay-with invoice.`)
  if (priceMsats === 0n) return { pubkey }
  const priceSats = sats((priceMsats + 999n) / 1000n)
  if (priceSats > limit)
    return new PylonError('price_too_high', `${npubOf(pubkey)} asks ${priceSats} sats and the limit is ${limit}: raise --max-sats.`)
  const mint = announcement.mints.find((offered) => offered.unit === 'sat' && mints.some((url) => sameUrl(url, offered.url)))
  if (announcement.lockPubkey === undefined || mint === undefined) {
    return new PylonError(
      'mint_not_allowed',
      `${npubOf(pubkey)} takes no token of a mint on our list: use --pay-with invoice, or add one of its mints.`,
    )
  }
  return { pubkey, paid: { priceSats, mintUrl: mint.url, lockPubkey: announcement.lockPubkey } }
}

function sameUrl(a: string, b: string): boolean {
  return a.replace(/\/+$/, '') === b.replace(/\/+$/, '')
}
