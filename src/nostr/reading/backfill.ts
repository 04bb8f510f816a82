/** Reading all that a relay has stored, page by page, whatever a relay gives of it at once. */
import type { Scope } from '../../base/scope.ts'
import { matchesFilter } from '../nips/nip01.ts'
import { collect } from '../relay/collect.ts'
import type { Relay } from '../relay/relay.ts'
import type { Filter, NostrEvent } from '../types.ts'
import { shapeOf } from './ingest.ts'

/** Asked for where the relay states no limit. */
const DEFAULT_PAGE = 500
/** However many a relay would give. */
const MAX_PAGE = 5000
const PAGE_TIMEOUT_MS = 30_000
/** A bound against a relay that never ends. */
const MAX_PAGES = 2000

/** How many events to ask a relay for at once: an answer without a limit may hold a fraction of what it would give. */
export const pageSizeOf = (relay: Relay): number => Math.min(relay.limits.maxLimit ?? DEFAULT_PAGE, MAX_PAGE)

/** What was read of one filter. */
export class Reading {
  readonly filter: Filter
  readonly ids = new Set<string>()
  oldest: number | undefined

  constructor(filter: Filter) {
    this.filter = filter
  }

  /** Whether the event is one of those asked for. */
  add(event: NostrEvent): boolean {
    if (!matchesFilter(this.filter, event)) return false
    this.ids.add(event.id)
    if (this.oldest === undefined || event.created_at < this.oldest) this.oldest = event.created_at
    return true
  }
}

export interface PagesOptions {
  readonly scope: Scope
  readonly relay: Relay
  /** With `since`, if any. Its limit is set here. */
  readonly filter: Filter
  /** What was read of it so far. */
  readonly read: Reading
  onEvent(event: NostrEvent): void
  /** Ms since the epoch; not read to the end by then, it is given up. */
  readonly endsAt?: number
  /** Enough when so many were read in all. */
  readonly enough?: number
}

/**
 * Reads what the relay has for the filter, newest first, until a page is empty: that a page is shorter than was asked for says
 * nothing, and neither does one that holds only what is known, as many may share a second.
 * @returns whether all of it was read: every page ended in a real EOSE.
 */
export async function readPages(options: PagesOptions): Promise<boolean> {
  const { scope, relay, filter, read, onEvent, endsAt = Number.POSITIVE_INFINITY, enough = Number.POSITIVE_INFINITY } = options
  let until = read.oldest
  for (let page = 0; page < MAX_PAGES; page++) {
    if (read.ids.size >= enough || (until !== undefined && until < (filter.since ?? 0))) return true
    const timeoutMs = Math.min(PAGE_TIMEOUT_MS, endsAt - scope.clock.now())
    if (timeoutMs <= 0) return false
    const asked: Filter = { ...filter, limit: pageSizeOf(relay), ...(until === undefined ? {} : { until }) }
    const answer = new Reading(asked)
    const known = read.ids.size
    const end = await collect(scope, relay, [asked], timeoutMs, (raw) => {
      const event = shapeOf(raw)
      if (event === undefined || !answer.add(event)) return
      read.add(event)
      onEvent(event)
    })
    if (end.end !== 'eose') return false
    if (answer.oldest === undefined || end.hint === 'finish') return true
    // Inclusive, as a page may end within a second. What a second holds beyond a page cannot be asked for: on below it.
    until = read.ids.size > known ? answer.oldest : answer.oldest - 1
  }
  return false
}
