/** One subscription on one relay: what it takes of what comes, and a cursor that passes only what was handled. */
import type { Relay } from '../relay/relay.ts'
import type { Filter, NostrEvent } from '../types.ts'
import type { Dispatcher } from './dispatcher.ts'
import { admitEvent, type IngestDeps } from './ingest.ts'

export interface RelaySubscriptionDeps extends IngestDeps {
  readonly filters: readonly Filter[]
  /** Where it is asked: subscriptions of one group share their requests. */
  readonly group: string
  /** Relays may serve it only to its key, and some do so without a word. */
  readonly isPrivate: boolean
  /** Our key that it is for. */
  readonly owner: string | undefined
  readonly overlapS: number
  readonly latenessS: number
  readonly backfillS: number
  readonly dispatcher: Dispatcher
  /** What was handled is handed over again when it comes again. */
  readonly repeats: boolean
  /** The cursor stored by an earlier run (ms). */
  readonly cursor: number | undefined
  /** The cursor may have moved: worth writing soon. */
  onCaughtUp(): void
}

/** A request that carries something of a subscription. */
export interface CarryingRequest {
  readonly live: boolean
  readonly reason: string | undefined
  reopen(): void
}

export class RelaySubscription {
  readonly #deps: RelaySubscriptionDeps
  #relay: Relay | undefined
  /** The requests that carry it, and whether all was read over each. */
  readonly #requests = new Map<CarryingRequest, boolean>()
  /** Events under way that came after we had caught up, with when they came (ms), oldest first. */
  readonly #live = new Map<number, number>()
  #token = 0
  /** Tokens of events under way that count as history. */
  readonly #demoted = new Set<number>()
  /** Events under way that came with history: they hold the cursor where it was. */
  #historic = 0
  /** The filters of this opening. */
  #asked: Filter[] = []
  /** Something was left out for want of room: ask again once there is some. */
  #missed = false
  #cursor: number | undefined

  constructor(deps: RelaySubscriptionDeps) {
    this.#deps = deps
    this.#cursor = deps.cursor
  }

  get filters(): readonly Filter[] {
    return this.#deps.filters
  }

  get group(): string {
    return this.#deps.group
  }

  get isPrivate(): boolean {
    return this.#deps.isPrivate
  }

  get owner(): string | undefined {
    return this.#deps.owner
  }

  /** Milliseconds since the epoch; undefined until the relay was read to the end once. */
  get cursor(): number | undefined {
    return this.#cursor
  }

  get reason(): string | undefined {
    for (const request of this.#requests.keys()) if (request.reason !== undefined) return request.reason
    return undefined
  }

  /** Which connection it is asked on from now on. */
  attach(relay: Relay): void {
    this.#relay = relay
  }

  /** A request that will carry it is being made. */
  join(request: CarryingRequest): void {
    this.#requests.set(request, false)
  }

  leave(request: CarryingRequest): void {
    this.#requests.delete(request)
  }

  /** A request opens. @returns from when to ask live, and how far back to read to the end; unix seconds */
  begin(request: CarryingRequest): { since: number; readSince: number } {
    const { clock, overlapS, latenessS, backfillS, filters } = this.#deps
    const now = clock.now()
    // Our clock went back: the cursor says nothing, and asked from there the relay would be silent until that time.
    if (this.#cursor !== undefined && this.#cursor > now) this.#cursor = undefined
    this.#requests.set(request, false)
    this.#historic += this.#live.size
    // What was under way before this opening counts as history now: the cursor waits for all of it.
    for (const token of this.#live.keys()) this.#demoted.add(token)
    this.#live.clear()
    const readSince = Math.max(0, Math.floor(this.#cursor === undefined ? now / 1000 - backfillS : this.#cursor / 1000 - overlapS))
    const since = Math.max(0, Math.min(readSince, Math.floor(now / 1000 - latenessS)))
    this.#asked = filters.map((filter) => ({ ...filter, since }))
    return { since, readSince }
  }

  take(event: NostrEvent): void {
    const { dispatcher, clock } = this.#deps
    const relay = this.#relay
    if (relay === undefined) return
    // With its since: what is older was not asked for, and the claim on it may be forgotten already.
    const isKnown = (id: string) => !this.#deps.repeats && dispatcher.isHandled(id)
    if (typeof admitEvent(this.#deps, event, this.#asked, isKnown) === 'string') return
    relay.lastEventAt = clock.now()
    const token = ++this.#token
    if (!dispatcher.handle(event, relay.url, () => this.#onHandled(token))) {
      this.#missed = true
      return
    }
    if (this.#caughtUp) this.#live.set(token, clock.now())
    else {
      this.#historic++
      this.#demoted.add(token)
    }
  }

  #onHandled(token: number): void {
    if (!this.#demoted.delete(token)) {
      this.#live.delete(token)
      return
    }
    this.#historic--
    if (this.#historic === 0 && this.#caughtUp) this.#deps.onCaughtUp()
  }

  /** Everything was read over this request. */
  settled(request: CarryingRequest): void {
    if (!this.#requests.has(request)) return
    this.#requests.set(request, true)
    if (this.#caughtUp) this.#deps.onCaughtUp()
  }

  /** Moves the cursor up to what is certain now. True when it moved. */
  advance(): boolean {
    const relay = this.#relay
    if (this.#missed && this.#live.size === 0 && this.#historic === 0 && !this.#deps.dispatcher.isClosing) {
      this.#missed = false
      this.#reopen()
      return false
    }
    if (relay?.connected !== true || !this.#isLive || this.#missed || this.#historic > 0) return false
    const oldest = this.#live.values().next()
    const limits = [
      relay.lastAliveAtMs,
      relay.provenAt ?? Number.POSITIVE_INFINITY,
      oldest.done === true ? Number.POSITIVE_INFINITY : oldest.value - 1,
    ]
    const reached = Math.min(...limits)
    if (this.#cursor !== undefined && reached <= this.#cursor) return false
    this.#cursor = reached
    return true
  }

  /** Asks for what may have come lately once more; where it is being read there is nothing to be repeated. */
  readAgain(): void {
    if (this.#isLive) this.#reopen()
  }

  #reopen(): void {
    for (const request of [...this.#requests.keys()]) request.reopen()
  }

  get #isLive(): boolean {
    return this.#caughtUp && [...this.#requests.keys()].every(({ live }) => live)
  }

  get #caughtUp(): boolean {
    if (this.#requests.size === 0) return false
    for (const settled of this.#requests.values()) if (!settled) return false
    return true
  }
}
