/** All subscriptions of the node: each on each of its relays, which share what is asked there, and cursors on disk. */
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { type Cursor, cursorOf, putCursors } from '../../store/nostr/cursors.ts'
import type { Store } from '../../store/store.ts'
import { relayUrls } from '../relay/relay-url.ts'
import type { Filter, Keyring, Subscription, SubscriptionSpec } from '../types.ts'
import { Dispatcher } from './dispatcher.ts'
import type { QueryDeps } from './query.ts'
import { RelayReader } from './relay-reader.ts'
import { RelaySubscription } from './relay-subscription.ts'

/** Relays hear of an event later than it is dated: senders' clocks are slow, and their networks away for a while. */
const DEFAULT_OVERLAP_S = 3600
const WRITE_CURSORS_MS = 30_000
const MAX_RELAYS = 20
/** For handlers under way when a subscription ends. */
const DRAIN_MS = 2000
/** Kinds that relays serve only to those they concern: messages, gift wraps (also ephemeral ones). */
const PRIVATE_KINDS = new Set([4, 1059, 21_059])

export interface SubscriptionsDeps extends QueryDeps {
  readonly store: Store
  readonly logger: Logger
}

interface Place {
  readonly url: string
  readonly cursorName: string
  readonly subscription: RelaySubscription
  readonly reader: RelayReader
}

interface Active {
  readonly name: string
  readonly places: readonly Place[]
  readonly dispatcher: Dispatcher
}

export class Subscriptions {
  readonly #deps: SubscriptionsDeps
  readonly #scope: Scope
  readonly #active = new Map<string, Active>()
  readonly #readers = new Map<string, RelayReader>()
  /** What is on disk, by relay and name. */
  readonly #written = new Map<string, number>()

  constructor(deps: SubscriptionsDeps) {
    this.#deps = deps
    this.#scope = deps.scope
    // How far all came, in one commit.
    this.#scope.atEnd('cursors', () => this.#write(this.#moved()))
  }

  start(): void {
    this.#scope.every('cursors', WRITE_CURSORS_MS, () => this.#writeCursors())
  }

  /** @throws internal for a bad or taken name, shutting_down */
  open(spec: SubscriptionSpec): Subscription {
    const { name } = spec
    if (!/^[a-z0-9:.-]{1,40}$/.test(name)) throw new PylonError('internal', `Bad subscription name ${name}.`)
    if (this.#active.has(name)) throw new PylonError('internal', `The subscription ${name} is open already.`)
    const { logger } = this.#deps
    const readers = relayUrls(spec.relays ?? this.#deps.ownRelays, MAX_RELAYS).flatMap((url) => {
      const reader = this.#reader(url)
      if (reader === undefined) logger.warn({ relay: url, subscription: name }, 'too many relays are connected for this one')
      return reader ?? []
    })
    // After the readers, so that it ends before them.
    const scope = this.#scope.child(name)
    const dispatcher = new Dispatcher({ scope, name, logger, onEvent: (event, relay) => spec.onEvent(event, relay) })
    const places = readers.flatMap((reader) =>
      partsOf(spec).map((part): Place => {
        const subscription = this.#make(spec, part, reader.url, dispatcher)
        reader.add(subscription)
        return { url: reader.url, cursorName: part.cursorName, subscription, reader }
      }),
    )
    const active = { name, places, dispatcher }
    this.#active.set(name, active)
    scope.atEnd('leave', () => this.#leave(active))
    if (spec.rereadMs !== undefined)
      scope.every('read again', spec.rereadMs, () => {
        for (const { subscription } of places) subscription.readAgain()
      })
    return {
      close: () => {
        if (this.#active.get(name) !== active) return
        this.#active.delete(name)
        this.#leave(active)
        scope.end(DRAIN_MS)
        this.#scope.spawn('cursors', () => this.#write(this.#movedOf(active)))
      },
    }
  }

  #reader(url: string): RelayReader | undefined {
    const known = this.#readers.get(url)
    if (known !== undefined) return known
    const { pool, keyring } = this.#deps
    const hold = pool.hold(url)
    if (hold === undefined) return undefined
    const reader = new RelayReader(hold, { scope: this.#scope.child(url), pool, keyring })
    this.#readers.set(url, reader)
    return reader
  }

  #make(spec: SubscriptionSpec, part: Part, url: string, dispatcher: Dispatcher): RelaySubscription {
    const { store, verifier, keyring } = this.#deps
    const overlapS = spec.overlapS ?? DEFAULT_OVERLAP_S
    return new RelaySubscription({
      clock: this.#scope.clock,
      verifier,
      isWorthIt: (event) => spec.isWorthIt?.(event, url) ?? true,
      repeats: spec.repeats === true,
      filters: part.filters,
      group: spec.alone === true ? `alone ${part.cursorName}` : part.isPrivate ? 'private' : 'public',
      isPrivate: part.isPrivate,
      owner: ownerOf(keyring, part.filters),
      overlapS,
      latenessS: spec.latenessS ?? overlapS,
      backfillS: spec.backfillS,
      dispatcher,
      cursor: cursorOf(store, url, part.cursorName),
      onCaughtUp: () => this.#scope.gather('cursors soon', 0, () => this.#writeCursors()),
    })
  }

  /** With the cursors where they can be now. */
  #leave({ places }: Active): void {
    for (const { subscription, reader } of places) {
      subscription.advance()
      reader.remove(subscription)
      if (!reader.isEmpty || this.#readers.get(reader.url) !== reader) continue
      this.#readers.delete(reader.url)
      reader.close()
    }
  }

  /** Asks again everywhere on one relay: it was connected and delivered nothing. */
  reopen(url: string): void {
    this.#readers.get(url)?.reopen()
  }

  /** Seconds between now and the cursor that is furthest behind on a relay; undefined when nothing is subscribed there. */
  lagS(url: string): number | undefined {
    let oldest: number | undefined
    for (const { places } of this.#active.values()) {
      for (const { url: other, subscription } of places) {
        if (other !== url) continue
        subscription.advance()
        if (subscription.cursor === undefined) return undefined
        oldest = Math.min(oldest ?? Number.POSITIVE_INFINITY, subscription.cursor)
      }
    }
    return oldest === undefined ? undefined : Math.max(0, Math.floor((this.#scope.clock.now() - oldest) / 1000))
  }

  /** Why something on this relay is not live, or undefined. */
  reasonOn(url: string): string | undefined {
    for (const { name, places, dispatcher } of this.#active.values()) {
      const reason = places.find((place) => place.url === url && place.subscription.reason !== undefined)?.subscription.reason
      if (reason !== undefined) return `${name}: ${reason}`
      if (dispatcher.failing > 0) return `${name}: ${dispatcher.failing} events could not be handled yet`
    }
    return undefined
  }

  #writeCursors(): Promise<void> {
    for (const { places } of this.#active.values()) for (const { subscription } of places) subscription.advance()
    return this.#write(this.#moved())
  }

  #moved(): Cursor[] {
    return [...this.#active.values()].flatMap((active) => this.#movedOf(active))
  }

  #movedOf(active: Active): Cursor[] {
    return active.places.flatMap(({ url, cursorName, subscription }) => {
      const reachedAt = subscription.cursor
      if (reachedAt === undefined || this.#written.get(`${url} ${cursorName}`) === reachedAt) return []
      return [{ relay: url, name: cursorName, reachedAt }]
    })
  }

  async #write(cursors: readonly Cursor[]): Promise<void> {
    if (cursors.length === 0) return
    try {
      await this.#deps.store.write(putCursors({ cursors, at: this.#scope.clock.now() }))
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
