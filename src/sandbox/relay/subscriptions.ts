/** Open subscriptions, indexed by the most selective field of each filter, so that an event meets few of them. */
import type { NostrEvent } from '../nostr-event.ts'
import { type Filter, matchesFilter } from './filter.ts'

export interface Subscription<Owner> {
  readonly id: string
  readonly owner: Owner
  readonly filters: readonly Filter[]
}

const EVERYTHING = '*'

/** The index keys under which a filter is found: an event that matches has at least one of them. */
function keysOf(filter: Filter): string[] {
  if (filter.ids !== undefined) return [...filter.ids].map((id) => `i${id}`)
  let best: string[] | undefined
  for (const [name, values] of filter.tags) {
    if (best === undefined || values.size < best.length) best = [...values].map((value) => `#${name}${value}`)
  }
  if (best !== undefined) return best
  if (filter.authors !== undefined) return [...filter.authors].map((author) => `a${author}`)
  if (filter.kinds !== undefined) return [...filter.kinds].map((kind) => `k${kind}`)
  return [EVERYTHING]
}

export class SubscriptionIndex<Owner> {
  readonly #byKey = new Map<string, Set<Subscription<Owner>>>()

  add(subscription: Subscription<Owner>): void {
    for (const filter of subscription.filters) {
      for (const key of keysOf(filter)) {
        const bucket = this.#byKey.get(key)
        if (bucket === undefined) this.#byKey.set(key, new Set([subscription]))
        else bucket.add(subscription)
      }
    }
  }

  remove(subscription: Subscription<Owner>): void {
    for (const filter of subscription.filters) {
      for (const key of keysOf(filter)) {
        const bucket = this.#byKey.get(key)
        if (bucket?.delete(subscription) && bucket.size === 0) this.#byKey.delete(key)
      }
    }
  }

  /** Every subscription that wants the event, each once. */
  matching(event: NostrEvent): Set<Subscription<Owner>> {
    const found = new Set<Subscription<Owner>>()
    this.#collect(`k${event.kind}`, event, found)
    this.#collect(`a${event.pubkey}`, event, found)
    this.#collect(`i${event.id}`, event, found)
    this.#collect(EVERYTHING, event, found)
    for (const tag of event.tags) {
      if (tag[0]?.length === 1 && tag[1] !== undefined) this.#collect(`#${tag[0]}${tag[1]}`, event, found)
    }
    return found
  }

  #collect(key: string, event: NostrEvent, found: Set<Subscription<Owner>>): void {
    const bucket = this.#byKey.get(key)
    if (bucket === undefined) return
    for (const subscription of bucket) {
      if (!found.has(subscription) && subscription.filters.some((filter) => matchesFilter(filter, event))) found.add(subscription)
    }
  }
}
