/** All that is asked live on one connection: the feeds of each group share few requests, and a request that fails fails alone. */
import type { Clock } from '../../base/clock.ts'
import type { Relay } from '../relay/relay.ts'
import type { Feed } from './feed.ts'
import { Line } from './line.ts'
import { halveFilter, type PlanRules, planRequests, shapeOfFilter, type WireFilter } from './wire-plan.ts'

/** Filters of one request, where the relay states nothing. */
const UNSTATED_FILTERS = 10
const UNSTATED_CHARS = 60_000
/** Live requests beside the feeds': the canary, and answers that somebody waits for. */
const OTHER_LIVE = 3

interface BoardDeps {
  readonly relay: Relay
  readonly clock: Clock
  onDenied(feeds: ReadonlySet<Feed>): void
}

export class Board {
  readonly #deps: BoardDeps
  readonly #groups = new Map<string, Group>()
  readonly #unlisten: () => void

  constructor(deps: BoardDeps) {
    this.#deps = deps
    this.#unlisten = deps.relay.listen({
      // Before the requests themselves open, as the relay may take other ones than before.
      onUp: () => {
        for (const group of this.#groups.values()) group.replan()
      },
      onLimits: () => {
        for (const group of this.#groups.values()) group.replanSoon()
      },
    })
  }

  get size(): number {
    let size = 0
    for (const group of this.#groups.values()) size += group.feeds.size
    return size
  }

  add(feed: Feed): void {
    const group = this.#groups.get(feed.group) ?? new Group(this.#deps, () => this.#requestsEach())
    this.#groups.set(feed.group, group)
    feed.attach(this.#deps.relay)
    group.feeds.add(feed)
    group.replanSoon()
  }

  remove(feed: Feed): void {
    const group = this.#groups.get(feed.group)
    if (group?.feeds.delete(feed) !== true) return
    if (group.feeds.size > 0) {
      group.replanSoon()
      return
    }
    group.close()
    this.#groups.delete(feed.group)
  }

  reopen(): void {
    for (const group of this.#groups.values()) for (const line of group.lines) line.reopen()
  }

  close(): void {
    this.#unlisten()
    for (const group of this.#groups.values()) group.close()
    this.#groups.clear()
  }

  /** How many requests each group may have. */
  #requestsEach(): number {
    return Math.max(1, Math.floor((this.#deps.relay.slots.maxLive - OTHER_LIVE) / Math.max(1, this.#groups.size)))
  }
}

class Group {
  readonly feeds = new Set<Feed>()
  readonly #deps: BoardDeps
  readonly #maxRequests: () => number
  #lines: Line[] = []
  /** Replaced by the lines above, and heard until those are. */
  #retiring: Line[] = []
  /** What relays have refused by itself. */
  readonly #apart = new Set<string>()
  #isScheduled = false
  #isDirty = false
  #closed = false

  constructor(deps: BoardDeps, maxRequests: () => number) {
    this.#deps = deps
    this.#maxRequests = maxRequests
  }

  get lines(): readonly Line[] {
    return this.#lines
  }

  /** With all that has changed until then, and not before the last change is through. */
  replanSoon(): void {
    this.#isDirty = true
    if (this.#isScheduled || this.#retiring.length > 0) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      if (!this.#closed && this.#isDirty) this.replan()
    })
  }

  close(): void {
    this.#closed = true
    for (const line of [...this.#lines, ...this.#retiring]) line.close()
    this.#lines = []
    this.#retiring = []
  }

  #rules(): PlanRules {
    const { limits } = this.#deps.relay
    return {
      maxFilters: limits.maxFilters ?? UNSTATED_FILTERS,
      maxChars: limits.maxMessageLength ?? UNSTATED_CHARS,
      maxRequests: this.#maxRequests(),
      apart: this.#apart,
    }
  }

  replan(): void {
    // What the relay takes is not known before it is up.
    if (!this.#deps.relay.connected) return
    this.#isDirty = false
    const wanted = [...this.feeds].flatMap((feed) => feed.filters.map((filter) => ({ filter, by: feed })))
    const plan = planRequests(wanted, this.#rules())
    const old = new Set(this.#lines)
    const kept: Line[] = []
    const added: (readonly WireFilter<Feed>[])[] = []
    for (const parts of plan) {
      const same = [...old].find((line) => line.carries(parts))
      if (same === undefined) added.push(parts)
      else {
        old.delete(same)
        kept.push(same)
      }
    }
    this.#replace([...old], kept, added)
  }

  #replace(old: readonly Line[], kept: readonly Line[], added: readonly (readonly WireFilter<Feed>[])[], isSuspect = false): void {
    const { slots } = this.#deps.relay
    // Where there is no room for both, the old ones make it.
    const isTight = added.length === 0 || slots.open + added.length > slots.maxLive
    if (isTight) for (const line of old) line.close()
    else this.#retiring.push(...old)
    const feeds = this.feeds
    const isPrivate = [...feeds].some((feed) => feed.isPrivate)
    this.#lines = [
      ...kept,
      ...added.map(
        (parts) =>
          new Line({
            ...this.#deps,
            parts,
            isPrivate,
            isSuspect,
            onSettled: () => this.#retire(),
            onDenied: (line) => this.#deps.onDenied(line.feeds),
            onFailed: (line) => this.#onFailed(line),
          }),
      ),
    ]
  }

  #retire(): void {
    if (this.#closed || this.#retiring.length === 0 || !this.#lines.every((line) => line.isSettled)) return
    for (const line of this.#retiring.splice(0)) line.close()
    if (this.#isDirty) this.replanSoon()
  }

  /** Which of its filters is it? Each half is tried by itself, and what is left in the end stays apart. */
  #onFailed(line: Line): void {
    if (!this.#lines.includes(line)) return
    const { slots } = this.#deps.relay
    const { parts } = line
    const [only] = parts
    if (parts.length === 1 && only !== undefined) this.#apart.add(shapeOfFilter(only.filter))
    const halves = parts.length > 1 ? halvesOf(parts) : (only === undefined ? undefined : halveFilter(only))?.map((part) => [part])
    if (halves === undefined || slots.open + halves.length > slots.maxLive) return
    const kept = this.#lines.filter((other) => other !== line)
    line.close()
    this.#replace([], kept, halves, true)
  }
}

function halvesOf<T>(parts: readonly T[]): T[][] {
  const middle = Math.ceil(parts.length / 2)
  return [parts.slice(0, middle), parts.slice(middle)]
}
