/** All subscriptions of the node: feeds for each of their relays, which share what is asked there, and cursors on disk. */
import type { Clock } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { type Cursor, cursorOf, putCursors } from '../../store/nostr/cursors.ts'
import type { Store } from '../../store/store.ts'
import type { RelayPool } from '../relay/pool.ts'
import { relayUrls } from '../relay/relay-url.ts'
import type { Filter, Keyring, Subscription, SubscriptionSpec } from '../types.ts'
import { Delivery } from './delivery.ts'
import { Desk } from './desk.ts'
import { Feed } from './feed.ts'
import type { Verifier } from './verify.ts'

/** Relays hear of an event later than it is dated: senders' clocks are slow, and their networks away for a while. */
const DEFAULT_OVERLAP_S = 3600
const WRITE_CURSORS_MS = 30_000
const MAX_RELAYS = 20
/** Kinds that relays serve only to those they concern: messages, gift wraps (also ephemeral ones). */
const PRIVATE_KINDS = new Set([4, 1059, 21_059])

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
  readonly feeds: { readonly url: string; readonly cursorName: string; readonly feed: Feed; readonly desk: Desk }[]
  readonly delivery: Delivery
}

export class Subscriptions {
  readonly #deps: SubscriptionsDeps
  readonly #active = new Map<string, Active>()
  readonly #desks = new Map<string, Desk>()
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
    const { clock, logger } = this.#deps
    const delivery = new Delivery({ name: spec.name, clock, logger, onEvent: (event, relay) => spec.onEvent(event, relay) })
    const active: Active = { name: spec.name, feeds: [], delivery }
    this.#active.set(spec.name, active)
    for (const url of relayUrls(spec.relays ?? this.#deps.ownRelays, MAX_RELAYS)) {
      const desk = this.#desk(url)
      if (desk === undefined) {
        logger.warn({ relay: url, subscription: spec.name }, 'too many relays are connected for this one')
        continue
      }
      for (const part of partsOf(spec)) {
        const feed = this.#feed(spec, part, url, delivery)
        active.feeds.push({ url, cursorName: part.cursorName, feed, desk })
        desk.add(feed)
      }
    }
    return { close: () => this.#close(active) }
  }

  #desk(url: string): Desk | undefined {
    const known = this.#desks.get(url)
    if (known !== undefined) return known
    const { pool, clock, keyring } = this.#deps
    const hold = pool.hold(url)
    if (hold === undefined) return undefined
    const desk = new Desk(hold, { pool, clock, keyring })
    this.#desks.set(url, desk)
    return desk
  }

  #feed(spec: SubscriptionSpec, part: Part, url: string, delivery: Delivery): Feed {
    const { store, clock, verifier, keyring } = this.#deps
    const overlapS = spec.overlapS ?? DEFAULT_OVERLAP_S
    return new Feed({
      clock,
      verifier,
      isWorthIt: (event) => spec.isWorthIt?.(event, url) ?? true,
      filters: part.filters,
      group: spec.alone === true ? `alone ${part.cursorName}` : part.isPrivate ? 'private' : 'public',
      isPrivate: part.isPrivate,
      owner: ownerOf(keyring, part.filters),
      overlapS,
      latenessS: spec.latenessS ?? overlapS,
      backfillS: spec.backfillS,
      delivery,
      cursor: cursorOf(store, url, part.cursorName),
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
    for (const { feed, desk } of active.feeds) {
      feed.advance()
      desk.remove(feed)
      if (!desk.isEmpty || this.#desks.get(desk.url) !== desk) continue
      this.#desks.delete(desk.url)
      desk.close()
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
    this.#desks.get(url)?.reopen()
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
    return active.feeds.flatMap(({ url, cursorName, feed }) => {
      const reachedAt = feed.cursor
      if (reachedAt === undefined || this.#written.get(`${url} ${cursorName}`) === reachedAt) return []
      return [{ relay: url, name: cursorName, reachedAt }]
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

interface Part {
  readonly filters: readonly Filter[]
  readonly isPrivate: boolean
  readonly cursorName: string
}

/** What relays may keep to themselves is asked apart from what they show to all, and has a cursor of its own. */
function partsOf({ name, filters }: SubscriptionSpec): Part[] {
  const open: Filter[] = []
  const closed: Filter[] = []
  for (const filter of filters) {
    const kinds = filter.kinds
    const priv = kinds?.filter((kind) => PRIVATE_KINDS.has(kind)) ?? []
    if (priv.length > 0) closed.push({ ...filter, kinds: priv })
    if (kinds === undefined || priv.length < kinds.length) {
      open.push(kinds === undefined ? filter : { ...filter, kinds: kinds.filter((kind) => !PRIVATE_KINDS.has(kind)) })
    }
  }
  const parts: Part[] = []
  if (open.length > 0) parts.push({ filters: open, isPrivate: false, cursorName: name })
  if (closed.length > 0) parts.push({ filters: closed, isPrivate: true, cursorName: open.length > 0 ? `${name}:private` : name })
  return parts
}

/** Our key that the filters are about: whom they mean, else who wrote. */
export function ownerOf(keyring: Pick<Keyring, 'owns'>, filters: readonly Filter[]): string | undefined {
  for (const filter of filters) {
    const owner = [...(filter['#p'] ?? []), ...(filter.authors ?? [])].find((pubkey) => keyring.owns(pubkey))
    if (owner !== undefined) return owner
  }
  return undefined
}
