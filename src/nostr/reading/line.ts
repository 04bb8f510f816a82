/** One live request on one connection that carries the filters of many feeds, and what was stored before it. */
import type { Clock } from '../../base/clock.ts'
import { matchesFilter } from '../nips/nip01.ts'
import type { Relay } from '../relay/relay.ts'
import { collect, LiveReq } from '../relay/req.ts'
import type { Filter, NostrEvent } from '../types.ts'
import { pageSizeOf, Reading, readPages } from './backfill.ts'
import type { Feed, FeedLine } from './feed.ts'
import { shapeOf } from './ingest.ts'
import { missingIds } from './negentropy.ts'
import type { WireFilter } from './wire-plan.ts'

/** After a page that could not be read. */
const FIRST_REPAGE_MS = 5000
const MAX_REPAGE_MS = 60_000
/** Ids in one request. */
const IDS_AT_ONCE = 200
const FETCH_TIMEOUT_MS = 30_000
/** Ids of events that are remembered, so that the next comparison (NIP-77) has little to say. */
const MAX_HELD = 20_000

export interface LineDeps {
  readonly relay: Relay
  readonly clock: Clock
  readonly parts: readonly WireFilter<Feed>[]
  readonly isPrivate: boolean
  /** Part of a request that failed. */
  readonly isSuspect: boolean
  /** The relay has answered for the first time, or refused. */
  onSettled(line: Line): void
  /** No key that the relay was shown on this connection may read this. */
  onDenied(line: Line): void
  /** Refused, or not answered, for what it asks; it is tried again. */
  onFailed(line: Line): void
}

export class Line implements FeedLine {
  readonly #deps: LineDeps
  readonly #feeds: ReadonlySet<Feed>
  readonly #req: LiveReq
  /** Changes with every opening; what belongs to an older one no longer counts. */
  #epoch = 0
  #asked: Filter[] = []
  /** The same, but only as far back as is read to the end. */
  #toRead: Filter[] = []
  /** What the first answer of this opening brought for each filter. */
  #answers: Reading[] = []
  /** Ids of what came over this line, with their dates, for NIP-77. */
  readonly #held = new Map<string, number>()
  #eose = false
  isSettled = false
  #closed = false

  constructor(deps: LineDeps) {
    this.#deps = deps
    this.#feeds = new Set(deps.parts.flatMap(({ by }) => [...by]))
    for (const feed of this.#feeds) feed.join(this)
    this.#req = new LiveReq({
      relay: deps.relay,
      clock: deps.clock,
      isPrivate: deps.isPrivate,
      isSuspect: deps.isSuspect,
      onOpen: () => this.#begin(),
      filters: () => this.#asked,
      onEvent: (raw) => this.#onRaw(raw),
      onEose: (hint) => this.#onEose(hint),
      onDenied: () => {
        this.#settle()
        if (!this.#closed) deps.onDenied(this)
      },
      onFailed: () => {
        this.#settle()
        if (!this.#closed) deps.onFailed(this)
      },
    })
  }

  get parts(): readonly WireFilter<Feed>[] {
    return this.#deps.parts
  }

  get feeds(): ReadonlySet<Feed> {
    return this.#feeds
  }

  get live(): boolean {
    return this.#req.live
  }

  get reason(): string | undefined {
    return this.#req.reason
  }

  carries(parts: readonly WireFilter<Feed>[]): boolean {
    const mine = this.#deps.parts
    if (mine.length !== parts.length) return false
    return parts.every(({ filter, by }, index) => {
      const own = mine[index]
      return own !== undefined && own.by.size === by.size && [...by].every((feed) => own.by.has(feed)) && isSame(own.filter, filter)
    })
  }

  reopen(): void {
    this.#held.clear()
    this.#req.reopen()
  }

  close(): void {
    this.#closed = true
    this.#epoch++
    this.#req.close()
    for (const feed of this.#feeds) feed.leave(this)
  }

  #settle(): void {
    if (this.isSettled) return
    this.isSettled = true
    this.#deps.onSettled(this)
  }

  #begin(): void {
    const { parts, relay } = this.#deps
    this.#epoch++
    this.#eose = false
    const begun = new Map([...this.#feeds].map((feed) => [feed, feed.begin(this)]))
    const least = (by: ReadonlySet<Feed>, key: 'since' | 'readSince') => Math.min(...[...by].map((feed) => begun.get(feed)?.[key] ?? 0))
    const limit = pageSizeOf(relay)
    this.#asked = parts.map(({ filter, by }) => ({ ...filter, since: least(by, 'since'), limit }))
    this.#toRead = parts.map(({ filter, by }) => ({ ...filter, since: least(by, 'readSince') }))
    this.#answers = this.#asked.map((filter) => new Reading(filter))
  }

  #onRaw(raw: unknown): void {
    const event = shapeOf(raw)
    if (event === undefined) return
    if (!this.#eose) for (const answer of this.#answers) answer.add(event)
    this.#take(event)
  }

  #take(event: NostrEvent): void {
    if (this.#deps.relay.comparesSets && this.#held.size < MAX_HELD) this.#held.set(event.id, event.created_at)
    for (const feed of this.#feeds) feed.take(event)
  }

  #onEose(hint: string | undefined): void {
    this.#eose = true
    this.#settle()
    if (!this.#closed) void this.#readToTheEnd(this.#epoch, hint)
  }

  async #readToTheEnd(epoch: number, hint: string | undefined): Promise<void> {
    const { clock } = this.#deps
    for (let waitMs = FIRST_REPAGE_MS; !(await this.#readOlder(epoch, hint)); waitMs = Math.min(waitMs * 2, MAX_REPAGE_MS)) {
      if (epoch !== this.#epoch) return
      await clock.sleep(waitMs)
      if (epoch !== this.#epoch) return
    }
    if (epoch !== this.#epoch) return
    this.#answers = []
    for (const feed of this.#feeds) feed.settled(this)
  }

  /** What the first answer left out: an answer says nothing of what is not in it, however short it is. */
  async #readOlder(epoch: number, hint: string | undefined): Promise<boolean> {
    const { relay, clock } = this.#deps
    if (hint === 'finish') return true
    const isEmpty = hint !== 'more' && this.#answers.every((answer) => answer.ids.size === 0)
    const onEvent = (event: NostrEvent) => this.#take(event)
    for (const [index, filter] of this.#toRead.entries()) {
      if (await this.#compare(filter)) continue
      if (epoch !== this.#epoch) return false
      // Nothing at all: there is nothing older either.
      if (isEmpty) continue
      const read = this.#answers[index] ?? new Reading(filter)
      if (!(await readPages({ relay, clock, filter, read, onEvent }))) return false
    }
    return true
  }

  /** By NIP-77, where the relay offers it. False: to be read page by page. */
  async #compare(filter: Filter): Promise<boolean> {
    const { relay, clock } = this.#deps
    if (!relay.comparesSets) return false
    const since = filter.since ?? 0
    const have = new Map([...this.#held].filter(([, createdAt]) => createdAt >= since))
    const missing = await missingIds(relay, clock, filter, have)
    if (missing === undefined) {
      if (relay.connected) relay.noteNegentropyFailure()
      return false
    }
    return this.#fetch(filter, missing)
  }

  async #fetch(filter: Filter, ids: readonly string[]): Promise<boolean> {
    const { relay, clock } = this.#deps
    const size = Math.max(1, Math.min(IDS_AT_ONCE, pageSizeOf(relay)))
    const missing = new Set(ids)
    // A relay may give fewer than asked: what did not come is asked for as long as something comes.
    for (let before = Number.POSITIVE_INFINITY; missing.size > 0 && missing.size < before; ) {
      before = missing.size
      const left = [...missing]
      for (let at = 0; at < left.length; at += size) {
        const end = await collect(relay, clock, [{ ids: left.slice(at, at + size) }], FETCH_TIMEOUT_MS, (raw) => {
          const event = shapeOf(raw)
          if (event === undefined || !missing.delete(event.id)) return
          if (matchesFilter(filter, event)) this.#take(event)
        })
        if (end.end !== 'eose') return false
      }
    }
    return missing.size === 0
  }
}

const isSame = (a: Filter, b: Filter): boolean => JSON.stringify(a) === JSON.stringify(b)
