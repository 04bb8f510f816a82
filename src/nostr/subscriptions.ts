/** All subscriptions of the node: a feed for each of their relays, and cursors on disk. */
import type { Clock } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { type Cursor, cursorOf, putCursors } from '../store/cursors.ts'
import type { Store } from '../store/store.ts'
import { Delivery } from './delivery.ts'
import { Feed } from './feed.ts'
import type { Hold, RelayPool } from './pool.ts'
import { relayUrls } from './relay-url.ts'
import type { Filter, Keyring, Signer, Subscription, SubscriptionSpec } from './types.ts'
import type { Verifier } from './verify.ts'

const DEFAULT_OVERLAP_S = 120
const WRITE_CURSORS_MS = 30_000
const MAX_RELAYS = 20
/** Kinds that relays serve only to those they concern. */
const PRIVATE_KINDS = new Set([4, 1059])

export interface SubscriptionsDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: RelayPool
  readonly verifier: Verifier
  readonly keyring: Keyring
  readonly ownRelays: readonly string[]
}

interface Active {
  readonly name: string
  readonly feeds: { readonly url: string; readonly feed: Feed; readonly hold: Hold }[]
  readonly delivery: Delivery
}

export class Subscriptions {
  readonly #deps: SubscriptionsDeps
  readonly #active = new Map<string, Active>()
  /** What is on disk, by relay and name. */
  readonly #written = new Map<string, number>()
  #cancelTimer: () => void = () => {}
  #writeSoon = false

  constructor(deps: SubscriptionsDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#cancelTimer = this.#deps.clock.after(WRITE_CURSORS_MS, () => {
      void this.#writeCursors()
      this.start()
    })
  }

  /** @throws usage for a bad or taken name */
  open(spec: SubscriptionSpec): Subscription {
    if (!/^[a-z0-9:.-]{1,40}$/.test(spec.name)) throw new PylonError('internal', `Bad subscription name ${spec.name}.`)
    if (this.#active.has(spec.name)) throw new PylonError('internal', `The subscription ${spec.name} is open already.`)
    const { clock, logger, pool } = this.#deps
    const delivery = new Delivery({ name: spec.name, clock, logger, onEvent: (event, relay) => spec.onEvent(event, relay) })
    const active: Active = { name: spec.name, feeds: [], delivery }
    this.#active.set(spec.name, active)
    for (const url of relayUrls(spec.relays ?? this.#deps.ownRelays, MAX_RELAYS)) {
      const hold = pool.hold(url)
      if (hold === undefined) logger.warn({ relay: url, subscription: spec.name }, 'too many relays are connected for this one')
      else active.feeds.push({ url, hold, feed: this.#feed(spec, hold, delivery) })
    }
    return { close: () => this.#close(active) }
  }

  #feed(spec: SubscriptionSpec, hold: Hold, delivery: Delivery): Feed {
    const { store, clock, verifier, keyring } = this.#deps
    return new Feed({
      clock,
      verifier,
      isWorthIt: (event) => spec.isWorthIt?.(event, hold.relay.url) ?? true,
      relay: hold.relay,
      filters: spec.filters,
      overlapS: spec.overlapS ?? DEFAULT_OVERLAP_S,
      backfillS: spec.backfillS,
      delivery,
      authSigners: () => signersFor(keyring, spec.filters),
      cursor: cursorOf(store, hold.relay.url, spec.name),
      onCaughtUp: () => this.#writeCursorsSoon(),
    })
  }

  #close(active: Active): void {
    if (this.#active.get(active.name) !== active) return
    this.#active.delete(active.name)
    this.#stop(active)
    void this.#write(this.#movedOf(active))
  }

  #stop(active: Active): void {
    for (const { feed, hold } of active.feeds) {
      feed.advance()
      feed.close()
      hold.release()
    }
    active.delivery.close()
  }

  /** Ends all and writes how far they came. */
  async close(): Promise<void> {
    this.#cancelTimer()
    const all = [...this.#active.values()]
    this.#active.clear()
    for (const active of all) this.#stop(active)
    await this.#write(all.flatMap((active) => this.#movedOf(active)))
  }

  /** Asks again everywhere on one relay: it was connected and delivered nothing. */
  reopen(url: string): void {
    for (const { feeds } of this.#active.values()) for (const entry of feeds) if (entry.url === url) entry.feed.reopen()
  }

  /** Seconds between now and the cursor that is furthest behind on a relay; undefined when nothing is subscribed there. */
  lagS(url: string): number | undefined {
    let oldest: number | undefined
    for (const { feeds } of this.#active.values()) {
      for (const entry of feeds) {
        if (entry.url !== url) continue
        entry.feed.advance()
        if (entry.feed.cursor === undefined) return undefined
        oldest = Math.min(oldest ?? Number.POSITIVE_INFINITY, entry.feed.cursor)
      }
    }
    return oldest === undefined ? undefined : Math.max(0, Math.floor((this.#deps.clock.now() - oldest) / 1000))
  }

  /** Why something on this relay is not live, or undefined. */
  reasonOn(url: string): string | undefined {
    for (const { name, feeds, delivery } of this.#active.values()) {
      for (const entry of feeds) if (entry.url === url && entry.feed.reason !== undefined) return `${name}: ${entry.feed.reason}`
      if (delivery.failing > 0) return `${name}: ${delivery.failing} events could not be handled yet`
    }
    return undefined
  }

  #writeCursorsSoon(): void {
    if (this.#writeSoon) return
    this.#writeSoon = true
    setImmediate(() => {
      this.#writeSoon = false
      void this.#writeCursors()
    })
  }

  #writeCursors(): Promise<void> {
    for (const { feeds } of this.#active.values()) for (const { feed } of feeds) feed.advance()
    return this.#write([...this.#active.values()].flatMap((active) => this.#movedOf(active)))
  }

  #movedOf(active: Active): Cursor[] {
    return active.feeds.flatMap(({ url, feed }) => {
      const reachedAt = feed.cursor
      if (reachedAt === undefined || this.#written.get(`${url} ${active.name}`) === reachedAt) return []
      return [{ relay: url, name: active.name, reachedAt }]
    })
  }

  async #write(cursors: readonly Cursor[]): Promise<void> {
    if (cursors.length === 0) return
    try {
      await this.#deps.store.write(putCursors({ cursors, at: this.#deps.clock.now() }))
      for (const cursor of cursors) this.#written.set(`${cursor.relay} ${cursor.name}`, cursor.reachedAt)
    } catch (error) {
      this.#deps.logger.warn({ error: messageOf(error) }, 'cursors could not be written; they are written again')
    }
  }
}

/** Our keys that the filters ask about privately: a relay may serve such events only to them. */
export function signersFor(keyring: Keyring, filters: readonly Filter[]): Signer[] {
  if (keyring.locked) return []
  const pubkeys = new Set<string>()
  for (const filter of filters) {
    if (filter.kinds?.some((kind) => PRIVATE_KINDS.has(kind)) !== true) continue
    for (const pubkey of filter['#p'] ?? []) if (keyring.owns(pubkey)) pubkeys.add(pubkey)
  }
  return [...pubkeys].map((pubkey) => keyring.signer(pubkey))
}
