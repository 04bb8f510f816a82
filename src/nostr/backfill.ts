/** Reading all that a relay has stored, page by page, past the caps that relays put on an answer. */
import type { Clock } from '../base/clock.ts'
import { matchesFilter, parseEvent } from './nips/nip01.ts'
import type { Relay } from './relay.ts'
import { collect } from './req.ts'
import type { Filter } from './types.ts'

/** Asked for where the relay states no limit. */
const DEFAULT_PAGE = 500
const PAGE_TIMEOUT_MS = 30_000
/** A bound against a relay that never ends. */
const MAX_PAGES = 2000

/** Keeps count of what one answer brought, for one filter. */
export class PageCounter {
  readonly #filter: Filter
  count = 0
  fresh = 0
  oldest: number | undefined
  newest: number | undefined

  constructor(filter: Filter) {
    this.#filter = filter
  }

  add(raw: unknown, ids: Set<string>): void {
    const event = shapeOf(raw)
    if (event === undefined || !matchesFilter(this.#filter, event)) return
    this.count++
    if (!ids.has(event.id)) this.fresh++
    ids.add(event.id)
    if (this.oldest === undefined || event.created_at < this.oldest) this.oldest = event.created_at
    if (this.newest === undefined || event.created_at > this.newest) this.newest = event.created_at
  }
}

function shapeOf(raw: unknown): ReturnType<typeof parseEvent> | undefined {
  try {
    return parseEvent(raw)
  } catch {
    return undefined
  }
}

/**
 * Reads what the relay has for the filter, newest first from `until`, until a page brings nothing new.
 * @param filter with `since`; `until` inclusive, as ties share a second.
 * @param endsAt ms since the epoch; not read to the end by then, it is given up.
 * @returns whether all of it was read: every page ended in a real EOSE.
 */
export async function readPages(
  relay: Relay,
  clock: Clock,
  filter: Filter,
  until: number | undefined,
  ids: Set<string>,
  onEvent: (raw: unknown) => void,
  endsAt = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  let at = until
  for (let page = 0; page < MAX_PAGES; page++) {
    const timeoutMs = Math.min(PAGE_TIMEOUT_MS, endsAt - clock.now())
    if (timeoutMs <= 0) return false
    const limit = relay.limits.maxLimit ?? DEFAULT_PAGE
    const counter = new PageCounter(filter)
    const asked: Filter = { ...filter, limit, ...(at === undefined ? {} : { until: at }) }
    const end = await collect(relay, clock, [asked], timeoutMs, (raw) => {
      counter.add(raw, ids)
      onEvent(raw)
    })
    if (end.end !== 'eose') return false
    if (counter.oldest === undefined || end.hint === 'finish') return true
    if (counter.fresh > 0) {
      at = counter.oldest
    } else if (counter.oldest === counter.newest && counter.oldest === at && counter.count > 1) {
      // A whole page within one second, all known: what else that second holds cannot be asked for; go on below it.
      at = counter.oldest - 1
    } else {
      return true
    }
  }
  return false
}
