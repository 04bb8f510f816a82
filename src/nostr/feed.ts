/** One subscription on one relay: a live request, the pages before it, and a cursor that passes only what was handled. */
import type { Clock } from '../base/clock.ts'
import { PageCounter, readPages } from './backfill.ts'
import type { Delivery } from './delivery.ts'
import { admitEvent, type IngestDeps } from './ingest.ts'
import type { Relay } from './relay.ts'
import { LiveReq } from './req.ts'
import type { Filter, Signer } from './types.ts'

/** Where a relay states no limit, an answer this long may have been cut short. */
const SUSPICIOUS_COUNT = 50
const REPAGE_MS = 5000

export interface FeedDeps extends IngestDeps {
  readonly clock: Clock
  readonly relay: Relay
  readonly filters: readonly Filter[]
  readonly overlapS: number
  readonly backfillS: number
  readonly delivery: Delivery
  authSigners(): Signer[]
  /** The cursor stored by an earlier run (ms). */
  readonly cursor: number | undefined
  /** The cursor may have moved: worth writing soon. */
  onCaughtUp(): void
}

export class Feed {
  readonly #deps: FeedDeps
  readonly #req: LiveReq
  /** Events under way that came after we had caught up, with when they came (ms), oldest first. */
  readonly #live = new Map<number, number>()
  #token = 0
  /** Tokens of events under way that count as history. */
  readonly #demoted = new Set<number>()
  /** Events under way that came with history: they hold the cursor where it was. */
  #historic = 0
  /** Changes with every opening; what belongs to an older one no longer counts. */
  #epoch = 0
  /** The filters of this opening, as the relay was sent them. */
  #asked: Filter[] = []
  #counters: PageCounter[] = []
  #ids = new Set<string>()
  #firstEose = false
  #caughtUp = false
  /** Something was left out for want of room: ask again once there is some. */
  #missed = false
  #cursor: number | undefined
  #closed = false

  constructor(deps: FeedDeps) {
    this.#deps = deps
    this.#cursor = deps.cursor
    this.#req = new LiveReq({
      relay: deps.relay,
      clock: deps.clock,
      authSigners: () => deps.authSigners(),
      onOpen: () => this.#begin(),
      filters: () => this.#asked,
      onEvent: (raw) => this.#onRaw(raw),
      onEose: (hint) => void this.#onEose(hint),
    })
  }

  /** Milliseconds since the epoch; undefined until the relay was read to the end once. */
  get cursor(): number | undefined {
    return this.#cursor
  }

  get reason(): string | undefined {
    return this.#req.reason
  }

  get caughtUp(): boolean {
    return this.#caughtUp
  }

  reopen(): void {
    this.#req.reopen()
  }

  close(): void {
    this.#closed = true
    this.#epoch++
    this.#req.close()
  }

  /** Moves the cursor up to what is certain now. True when it moved. */
  advance(): boolean {
    const { relay } = this.#deps
    if (this.#missed && this.#live.size === 0 && this.#historic === 0) {
      this.#missed = false
      this.#req.reopen()
      return false
    }
    if (!this.#caughtUp || this.#missed || this.#historic > 0 || !relay.connected || !this.#req.live) return false
    const oldest = this.#live.values().next()
    const limits = [
      relay.lastAliveAt,
      relay.provenAt ?? Number.POSITIVE_INFINITY,
      oldest.done === true ? Number.POSITIVE_INFINITY : oldest.value - 1,
    ]
    const reached = Math.min(...limits)
    if (this.#cursor !== undefined && reached <= this.#cursor) return false
    this.#cursor = reached
    return true
  }

  #begin(): void {
    const { clock, overlapS, backfillS, filters } = this.#deps
    // Our clock went back: the cursor says nothing, and asked from there the relay would be silent until that time.
    if (this.#cursor !== undefined && this.#cursor > clock.now()) this.#cursor = undefined
    this.#epoch++
    this.#caughtUp = false
    this.#firstEose = false
    this.#historic += this.#live.size
    // What was under way before this opening counts as history now: the cursor waits for all of it.
    for (const token of this.#live.keys()) this.#demoted.add(token)
    this.#live.clear()
    const since = Math.max(0, Math.floor(this.#cursor === undefined ? clock.now() / 1000 - backfillS : this.#cursor / 1000 - overlapS))
    this.#asked = filters.map((filter) => ({ ...filter, since }))
    this.#counters = this.#asked.map((filter) => new PageCounter(filter))
    this.#ids = new Set()
  }

  #onRaw(raw: unknown): void {
    if (!this.#firstEose) for (const counter of this.#counters) counter.add(raw, this.#ids)
    this.#take(raw)
  }

  #take(raw: unknown): void {
    const { relay, delivery, clock } = this.#deps
    // With its since: what is older was not asked for, and the claim on it may be forgotten already.
    const event = admitEvent(this.#deps, raw, this.#asked, (id) => delivery.isDone(id))
    if (typeof event === 'string') return
    relay.lastEventAt = clock.now()
    const done = delivery.pending(event.id) ?? delivery.deliver(event, relay.url)
    if (done === undefined) {
      this.#missed = true
      return
    }
    this.#track(done)
  }

  #track(done: Promise<void>): void {
    const token = ++this.#token
    if (this.#caughtUp) this.#live.set(token, this.#deps.clock.now())
    else {
      this.#historic++
      this.#demoted.add(token)
    }
    void done.then(() => {
      if (!this.#demoted.delete(token)) {
        this.#live.delete(token)
        return
      }
      this.#historic--
      if (this.#historic === 0 && this.#caughtUp) this.#deps.onCaughtUp()
    })
  }

  async #onEose(hint: string | undefined): Promise<void> {
    const epoch = this.#epoch
    this.#firstEose = true
    if (!(await this.#readOlder(hint))) {
      if (epoch === this.#epoch) this.#deps.clock.after(REPAGE_MS, () => epoch === this.#epoch && !this.#closed && this.#req.reopen())
      return
    }
    if (epoch !== this.#epoch || this.#closed) return
    this.#caughtUp = true
    this.#ids = new Set()
    this.#deps.onCaughtUp()
  }

  /** Pages through what the first answer may have left out. */
  async #readOlder(hint: string | undefined): Promise<boolean> {
    const { relay, clock } = this.#deps
    if (hint === 'finish') return true
    const cap = relay.limits.maxLimit ?? SUSPICIOUS_COUNT
    const total = this.#counters.reduce((sum, counter) => sum + counter.count, 0)
    if (hint !== 'more' && total < cap) return true
    const counters = this.#counters
    for (const [index, filter] of this.#asked.entries()) {
      const complete = await readPages(relay, clock, filter, counters[index]?.oldest, this.#ids, (raw) => this.#take(raw))
      if (!complete) return false
    }
    return true
  }
}
