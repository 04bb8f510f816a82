/** One live request on one connection that carries the filters of many subscriptions, and what was stored before it. */
import type { BackoffPolicy } from '../../base/backoff.ts'
import type { Scope } from '../../base/scope.ts'
import { matchesFilter } from '../nips/nip01.ts'
import { collect } from '../relay/collect.ts'
import { LiveReq } from '../relay/live-req.ts'
import type { Relay } from '../relay/relay.ts'
import type { Filter, NostrEvent } from '../types.ts'
import { pageSizeOf, Reading, readPages } from './backfill.ts'
import { shapeOf } from './ingest.ts'
import { missingIds } from './negentropy.ts'
import type { CarryingRequest, RelaySubscription } from './relay-subscription.ts'
import type { WireFilter } from './wire-plan.ts'

/** After a page that could not be read. */
const RETRY_PAGE: BackoffPolicy = { minMs: 5000, maxMs: 60_000 }
/** Ids in one request. */
const IDS_AT_ONCE = 200
const FETCH_TIMEOUT_MS = 30_000
/** Ids of events that are remembered, so that the next comparison (NIP-77) has little to say. */
const MAX_HELD = 20_000

export interface SharedRequestDeps {
  /** Of this request alone. */
  readonly scope: Scope
  readonly relay: Relay
  readonly parts: readonly WireFilter<RelaySubscription>[]
  readonly isPrivate: boolean
  /** Part of a request that failed. */
  readonly isSuspect: boolean
  /** The relay has answered for the first time, or refused. */
  onSettled(request: SharedRequest): void
  /** No key that the relay was shown on this connection may read this. */
  onDenied(request: SharedRequest): void
  /** Refused, or not answered, for what it asks; it is tried again. */
  onFailed(request: SharedRequest): void
}

export class SharedRequest implements CarryingRequest {
  readonly #deps: SharedRequestDeps
  readonly #subscriptions: ReadonlySet<RelaySubscription>
  readonly #req: LiveReq
  /** Of what is read for the opening that counts: a new one ends it. */
  #opening: Scope | undefined
  #asked: Filter[] = []
  /** The same, but only as far back as is read to the end. */
  #toRead: Filter[] = []
  /** What the first answer of this opening brought for each filter. */
  #answers: Reading[] = []
  /** Ids of what came over this request, with their dates, for NIP-77. */
  readonly #held = new Map<string, number>()
  #eose = false
  isSettled = false

  constructor(deps: SharedRequestDeps) {
    this.#deps = deps
    this.#subscriptions = new Set(deps.parts.flatMap(({ by }) => [...by]))
    for (const subscription of this.#subscriptions) subscription.join(this)
    this.#req = new LiveReq({
      scope: deps.scope,
      relay: deps.relay,
      isPrivate: deps.isPrivate,
      isSuspect: deps.isSuspect,
      onOpen: () => this.#begin(),
      filters: () => this.#asked,
      onEvent: (raw) => this.#onRaw(raw),
      onEose: (hint) => this.#onEose(hint),
      onDenied: () => {
        this.#settle()
        if (!deps.scope.isClosing) deps.onDenied(this)
      },
      onFailed: () => {
        this.#settle()
        if (!deps.scope.isClosing) deps.onFailed(this)
      },
    })
  }

  get parts(): readonly WireFilter<RelaySubscription>[] {
    return this.#deps.parts
  }

  get subscriptions(): ReadonlySet<RelaySubscription> {
    return this.#subscriptions
  }

  get live(): boolean {
    return this.#req.live
  }

  get reason(): string | undefined {
    return this.#req.reason
  }

  carries(parts: readonly WireFilter<RelaySubscription>[]): boolean {
    const mine = this.#deps.parts
    if (mine.length !== parts.length) return false
    return parts.every(({ filter, by }, index) => {
      const own = mine[index]
      return (
        own !== undefined &&
        own.by.size === by.size &&
        [...by].every((subscription) => own.by.has(subscription)) &&
        isSame(own.filter, filter)
      )
    })
  }

  reopen(): void {
    this.#held.clear()
    this.#req.reopen()
  }

  close(): void {
    this.#req.close()
    for (const subscription of this.#subscriptions) subscription.leave(this)
  }

  #settle(): void {
    if (this.isSettled) return
    this.isSettled = true
    this.#deps.onSettled(this)
  }

  #begin(): void {
    const { scope, parts, relay } = this.#deps
    this.#opening?.end()
    this.#opening = scope.child('opening')
    this.#eose = false
    const begun = new Map([...this.#subscriptions].map((subscription) => [subscription, subscription.begin(this)]))
    const least = (by: ReadonlySet<RelaySubscription>, key: 'since' | 'readSince') =>
      Math.min(...[...by].map((subscription) => begun.get(subscription)?.[key] ?? 0))
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
    for (const subscription of this.#subscriptions) subscription.take(event)
  }

  #onEose(hint: string | undefined): void {
    this.#eose = true
    this.#settle()
    const opening = this.#opening
    opening?.spawn('read to the end', () => this.#readToTheEnd(opening, hint))
  }

  async #readToTheEnd(opening: Scope, hint: string | undefined): Promise<void> {
    const backoff = opening.backoff(RETRY_PAGE)
    while (!(await this.#readOlder(opening, hint))) await backoff.wait()
    if (opening.isClosing) return
    this.#answers = []
    for (const subscription of this.#subscriptions) subscription.settled(this)
  }

  /** What the first answer left out: an answer says nothing of what is not in it, however short it is. */
  async #readOlder(opening: Scope, hint: string | undefined): Promise<boolean> {
    const { relay } = this.#deps
    if (hint === 'finish') return true
    const isEmpty = hint !== 'more' && this.#answers.every((answer) => answer.ids.size === 0)
    const onEvent = (event: NostrEvent) => this.#take(event)
    for (const [index, filter] of this.#toRead.entries()) {
      if (await this.#compare(opening, filter)) continue
      // Nothing at all: there is nothing older either.
      if (isEmpty) continue
      const read = this.#answers[index] ?? new Reading(filter)
      if (!(await readPages({ scope: opening, relay, filter, read, onEvent }))) return false
    }
    return true
  }

  /** By NIP-77, where the relay offers it. False: to be read page by page. */
  async #compare(opening: Scope, filter: Filter): Promise<boolean> {
    const { relay } = this.#deps
    if (!relay.comparesSets) return false
    const since = filter.since ?? 0
    const have = new Map([...this.#held].filter(([, createdAt]) => createdAt >= since))
    const missing = await missingIds(opening, relay, filter, have)
    if (missing === undefined) {
      if (relay.connected) relay.noteNegentropyFailure()
      return false
    }
    return await this.#fetch(opening, filter, missing)
  }

  async #fetch(opening: Scope, filter: Filter, ids: readonly string[]): Promise<boolean> {
    const { relay } = this.#deps
    const size = Math.max(1, Math.min(IDS_AT_ONCE, pageSizeOf(relay)))
    const missing = new Set(ids)
    // A relay may give fewer than asked: what did not come is asked for as long as something comes.
    for (let before = Number.POSITIVE_INFINITY; missing.size > 0 && missing.size < before; ) {
      before = missing.size
      const left = [...missing]
      for (let at = 0; at < left.length; at += size) {
        const end = await collect(opening, relay, [{ ids: left.slice(at, at + size) }], FETCH_TIMEOUT_MS, (raw) => {
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
