/** Finds machines to rent: the offers of all nodes on the relays, filtered, the cheapest first. */
import type { Clock } from '../../base/clock.ts'
import { parseOffer, RUNTIME_OFFER_KIND, type RuntimeOffer } from '../../nostr/control/offers.ts'
import type { ControlProtocol, ControlProvider } from '../../nostr/control/vocabulary.ts'
import { supersedes, tagValue } from '../../nostr/nips/nip01.ts'
import type { Nostr, NostrEvent } from '../../nostr/types.ts'

export interface OfferFilter {
  /** 64 hex digits. */
  readonly server?: string
  readonly region?: string
  readonly protocol?: ControlProtocol
  readonly provider?: ControlProvider
  readonly runtimeClass?: string
  readonly maxMsatsPerHour?: bigint
  /** Also those that have nothing free now. */
  readonly full?: boolean
}

export interface FoundOffer extends RuntimeOffer {
  readonly server: string
  readonly eventId: string
  /** Milliseconds since the epoch. */
  readonly publishedAt: number
}

/** Classes of one node that are looked at: what one key says stands before nobody else's. */
const MAX_OF_NODE = 50

export async function findOffers(deps: { readonly nostr: Nostr; readonly clock: Clock }, filter: OfferFilter): Promise<FoundOffer[]> {
  const { events } = await deps.nostr.query([
    {
      kinds: [RUNTIME_OFFER_KIND],
      ...(filter.server === undefined ? {} : { authors: [filter.server] }),
      ...(filter.runtimeClass === undefined ? {} : { '#d': [filter.runtimeClass] }),
      // No limit: all pages of it, since one would be used up by whoever says most.
    },
  ])
  return chooseOffers(events, filter, deps.clock.now())
}

/** Pure. Of one address only the newest counts, and none that has expired. */
export function chooseOffers(events: readonly NostrEvent[], filter: OfferFilter, nowMs: number): FoundOffer[] {
  const newest = new Map<string, NostrEvent>()
  for (const event of events) {
    const address = `${event.pubkey}:${tagValue(event, 'd') ?? ''}`
    const other = newest.get(address)
    if (other === undefined || supersedes(event, other)) newest.set(address, event)
  }
  const ofNode = new Map<string, number>()
  return [...newest.values()]
    .filter((event) => {
      const count = (ofNode.get(event.pubkey) ?? 0) + 1
      ofNode.set(event.pubkey, count)
      return count <= MAX_OF_NODE
    })
    .filter((event) => Number(tagValue(event, 'expiration') ?? Number.POSITIVE_INFINITY) * 1000 > nowMs)
    .flatMap((event) => {
      const offer = parseOffer(event)
      return offer === undefined ? [] : [{ ...offer, server: event.pubkey, eventId: event.id, publishedAt: event.created_at * 1000 }]
    })
    .filter((offer) => fits(offer, filter))
    .sort(
      (a, b) => compare(a.priceMsatsPerHour, b.priceMsatsPerHour) || b.capacity.free - a.capacity.free || (a.server < b.server ? -1 : 1),
    )
}

function fits(offer: FoundOffer, filter: OfferFilter): boolean {
  return (
    (filter.server === undefined || offer.server === filter.server) &&
    (filter.region === undefined || offer.region === filter.region) &&
    (filter.protocol === undefined || offer.protocols.includes(filter.protocol)) &&
    (filter.provider === undefined || offer.provider === filter.provider) &&
    (filter.runtimeClass === undefined || offer.runtimeClass === filter.runtimeClass) &&
    (filter.maxMsatsPerHour === undefined || offer.priceMsatsPerHour <= filter.maxMsatsPerHour) &&
    (filter.full === true || offer.capacity.free > 0)
  )
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0
}
