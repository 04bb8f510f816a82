/** The outbox at work: takes new messages from the table after each commit, sends them by a lane a relay, records what came of it. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import {
  type DeliveryOutcome,
  expireDeliveries,
  type GivenUp,
  lastMessageId,
  outboxDepths,
  type PendingMessage,
  pendingAfter,
  pendingFor,
  recordDeliveries,
  remakeMessage,
  type StoredEvent,
} from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'
import { isAddressable, isEphemeral, isReplaceable, parseEvent, tagValue } from '../nips/nip01.ts'
import { wrapSeal } from '../nips/nip59.ts'
import type { RelayPool } from '../relay/pool.ts'
import { tryRelayUrl } from '../relay/relay-url.ts'
import type { Keyring, Signer } from '../types.ts'
import { Lane, type OutboxItem } from './lane.ts'
import { type EndedHandler, OutboxNotices, type Outcome } from './notices.ts'
import { mayBeAboutDate } from './verdict.ts'

const TICK_MS = 1000
/** How often the table is looked at though nobody nudged, in ticks. */
const SWEEP_TICKS = 30
const READ_LIMIT = 2000
/** Deliveries that one lane keeps in memory; the rest stays in the table until there is room. */
const LANE_LIMIT = 5000
/** Lanes in memory, beside those of our own relays: strangers name as many as they like. The others wait in the table for their turn. */
const MAX_LANES = 200
/** A wrap that is older than this and refused for its date is made again. */
const FRESH_S = 60
/** Ephemeral events are worth sending for so long. */
const EPHEMERAL_MS = 10_000
const CLOSE_MS = 2000
/** How long outcomes gather before one commit records them: each would cost an fsync, and nothing waits for them. */
const GATHER_MS = 50

export interface OutboxDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: RelayPool
  readonly keyring: Keyring
}

interface Item extends OutboxItem {
  readonly event: StoredEvent
  readonly seal: StoredEvent | undefined
  remaking: Promise<void> | undefined
  replace(newer: StoredEvent): void
}

export class Outbox {
  readonly #deps: OutboxDeps
  readonly #lanes = new Map<string, Lane>()
  /** Messages that some lane holds. */
  readonly #items = new Map<number, Item>()
  /** The newest message of a key, where newer ones replace older ones. */
  readonly #newestOfKey = new Map<string, Item>()
  readonly #notices: OutboxNotices
  #outcomes: { item: OutboxItem; outcome: DeliveryOutcome }[] = []
  #newestId = 0
  #ticks = 0
  /** Some relays have no lane for want of room. */
  #left = false
  #loadedUpTo = ''
  #started = false
  #closed = false
  #reading = false
  #flushing = false
  #lockedLogged = false
  #cancelTick: () => void = () => {}
  readonly #running = new Set<Promise<void>>()

  constructor(deps: OutboxDeps) {
    this.#deps = deps
    this.#notices = new OutboxNotices(deps)
  }

  start(): void {
    const { store } = this.#deps
    this.#started = true
    this.#newestId = lastMessageId(store)
    this.#load()
    this.#notices.start()
    this.#scheduleTick()
  }

  /** Records what is known; what is still to be sent is in the table. */
  async close(): Promise<void> {
    this.#closed = true
    this.#cancelTick()
    for (const lane of this.#lanes.values()) lane.end()
    this.#track(this.#flush())
    // A handler that waits for something that is closing already must not hold the shutdown: it is called again after the start.
    const settled = Promise.allSettled([...this.#running]).then(() => this.#notices.close())
    await Promise.race([settled, this.#deps.clock.sleep(CLOSE_MS)])
  }

  nudge(): void {
    if (!this.#started || this.#closed || this.#reading) return
    this.#reading = true
    setImmediate(() => {
      this.#reading = false
      if (!this.#closed) this.#readNew()
    })
  }

  listen(outcome: Outcome, prefix: string, handler: EndedHandler): void {
    this.#notices.listen(outcome, prefix, handler)
  }

  /** Deliveries in memory that wait for this relay (normal URL). */
  depth(url: string): number {
    let depth = 0
    for (const [name, lane] of this.#lanes) if (tryRelayUrl(name) === url) depth += lane.depth
    return depth
  }

  #readNew(): void {
    for (;;) {
      const messages = pendingAfter(this.#deps.store, this.#newestId, READ_LIMIT)
      const last = messages.at(-1)
      if (last === undefined) break
      this.#newestId = last.id
      for (const message of messages) this.#take(message)
    }
    for (const lane of this.#lanes.values()) lane.pump()
  }

  #take(message: PendingMessage): void {
    for (const { relay, attempts, nextAt } of message.deliveries) {
      const lane = this.#lane(relay)
      if (lane === undefined) {
        this.#left = true
        continue
      }
      if (message.id <= lane.newestId) continue
      if (lane.overflow || lane.depth >= LANE_LIMIT) lane.overflow = true
      else lane.add(this.#item(message), attempts, nextAt)
    }
  }

  #item(message: PendingMessage): Item {
    const known = this.#items.get(message.id)
    if (known !== undefined) return known
    const { event } = message
    const ephemeral = isEphemeral(event.kind)
    const { keyring, clock } = this.#deps
    let frame: string | undefined
    let current = event
    const item: Item = {
      id: message.id,
      key: message.key,
      get eventId() {
        return current.id
      },
      get event() {
        return current
      },
      author: message.seal?.pubkey ?? event.pubkey,
      ephemeral,
      notAfter: ephemeral ? Math.min(message.notAfter, clock.now() + EPHEMERAL_MS) : message.notAfter,
      seal: message.seal,
      remaking: undefined,
      superseded: false,
      lanes: 0,
      replace(newer) {
        current = newer
        frame = undefined
      },
      frame() {
        frame ??= JSON.stringify(['EVENT', current.sig === undefined ? keyring.signer(current.pubkey).sign(current) : current])
        return frame
      },
    }
    this.#items.set(item.id, item)
    if (isReplaceable(event.kind) || isAddressable(event.kind)) this.#supersede(item)
    return item
  }

  #supersede(item: Item): void {
    const other = this.#newestOfKey.get(item.key)
    if (other !== undefined && other.id > item.id) {
      item.superseded = true
      return
    }
    if (other !== undefined) other.superseded = true
    this.#newestOfKey.set(item.key, item)
  }

  /** Gives lanes to the relays in the table that have none, by turns. */
  #load(): void {
    const waiting = [...outboxDepths(this.#deps.store).keys()].filter((relay) => !this.#lanes.has(relay)).sort()
    const next = waiting.findIndex((relay) => relay > this.#loadedUpTo)
    this.#left = false
    for (const relay of [...waiting.slice(Math.max(0, next)), ...waiting.slice(0, Math.max(0, next))]) {
      const lane = this.#lane(relay)
      if (lane === undefined) {
        this.#left = true
        continue
      }
      this.#loadedUpTo = relay
      lane.overflow = true
      this.#refill(relay, lane)
      lane.pump()
    }
  }

  /** Lanes of relays that could not be reached make room for those that wait. */
  #takeTurns(): void {
    for (const [name, lane] of this.#lanes) {
      if (!lane.resting) continue
      for (const item of lane.unload()) if (item.lanes === 0) this.#forget(item)
      this.#lanes.delete(name)
    }
    this.#load()
  }

  /** Undefined when there are too many. */
  #lane(relay: string): Lane | undefined {
    const known = this.#lanes.get(relay)
    if (known !== undefined) return known
    const { clock, pool, keyring } = this.#deps
    const foreign = !pool.isOwn(tryRelayUrl(relay) ?? relay)
    if (foreign && this.#lanes.size >= MAX_LANES) return undefined
    const lane: Lane = new Lane({
      clock,
      name: relay,
      hold: (as) => pool.hold(relay, as),
      foreign,
      signerOf: (pubkey) => ownSigner(keyring, pubkey),
      remake: (item, words) => this.#remake(item.id, words),
      onOutcome: (item, outcome) => this.#onOutcome(item, outcome),
      onLocked: () => this.#onLocked(),
      onRoom: () => this.#refill(relay, lane),
    })
    this.#lanes.set(relay, lane)
    return lane
  }

  /** Brings back from the table what a full lane had no room for. */
  #refill(relay: string, lane: Lane): void {
    const messages = pendingFor(this.#deps.store, relay, lane.newestId, READ_LIMIT)
    lane.overflow = messages.length === READ_LIMIT
    for (const message of messages) {
      for (const { attempts, nextAt } of message.deliveries) lane.add(this.#item(message), attempts, nextAt)
    }
  }

  /** A wrap that a relay refuses for its back-dated time is made again, dated now, for all that have not taken it yet; stored before it is sent. */
  #remake(id: number, words: string): Promise<void> | undefined {
    const { clock, store, logger } = this.#deps
    const item = this.#items.get(id)
    if (item?.seal === undefined || !mayBeAboutDate(words)) return undefined
    if (item.remaking !== undefined) return item.remaking
    const nowS = unixSeconds(clock)
    if (item.event.created_at > nowS - FRESH_S) return undefined
    const event = wrapSeal(parseEvent(item.seal), tagValue(item.event, 'p') ?? '', nowS, 'now')
    item.remaking = store
      .write(remakeMessage({ messageId: id, event }))
      .then(() => item.replace(event))
      .catch((error: unknown) =>
        logger.warn({ key: item.key, error: messageOf(error) }, 'a wrap could not be made again; it is tried again'),
      )
      .finally(() => {
        item.remaking = undefined
      })
    return item.remaking
  }

  #onLocked(): void {
    if (!this.#lockedLogged) this.#deps.logger.warn('the outbox waits: the keys are locked')
    this.#lockedLogged = true
  }

  #scheduleTick(): void {
    this.#cancelTick = this.#deps.clock.after(TICK_MS, () => {
      this.#tick()
      if (!this.#closed) this.#scheduleTick()
    })
  }

  #tick(): void {
    this.#ticks++
    for (const [name, lane] of this.#lanes) {
      lane.tick()
      if (tryRelayUrl(name) === undefined) lane.rejectAll('this is no relay URL')
      if (!lane.idle) lane.pump()
      else if (!this.#deps.pool.isOwn(tryRelayUrl(name) ?? name)) {
        lane.end()
        this.#lanes.delete(name)
      }
    }
    this.#readNew()
    this.#notices.tellStored()
    if (this.#left && this.#ticks % SWEEP_TICKS === 0) this.#takeTurns()
    if (this.#ticks % SWEEP_TICKS === 0) this.#track(this.#expire())
  }

  async #expire(): Promise<void> {
    const { store, clock, logger } = this.#deps
    await store
      .write(expireDeliveries({ now: clock.now() }))
      .then((givenUp) => this.#logGivenUp(givenUp))
      .catch((error: unknown) => logger.warn({ error: messageOf(error) }, 'the outbox could not be swept'))
  }

  #logGivenUp(givenUp: readonly GivenUp[]): void {
    for (const { id, why } of givenUp)
      this.#deps.logger.warn({ key: this.#items.get(id)?.key, id, why }, 'a message was given up: no relay takes it')
  }

  #onOutcome(item: OutboxItem, outcome: DeliveryOutcome): void {
    if (outcome.state === 'rejected') {
      this.#deps.logger.info({ relay: outcome.relay, key: item.key, error: outcome.error }, 'a relay refused an event')
    }
    this.#outcomes.push({ item, outcome })
    this.#flushSoon()
  }

  #flushSoon(): void {
    if (this.#flushing || this.#closed) return
    this.#flushing = true
    this.#deps.clock.after(GATHER_MS, () => {
      this.#flushing = false
      if (!this.#closed) this.#track(this.#flush())
    })
  }

  async #flush(): Promise<void> {
    const batch = this.#outcomes
    if (batch.length === 0) return
    this.#outcomes = []
    const { store, clock, logger } = this.#deps
    try {
      const { accepted, givenUp } = await store.write(recordDeliveries({ outcomes: batch.map(({ outcome }) => outcome), at: clock.now() }))
      const items = new Map(batch.map(({ item }) => [item.id, item]))
      const ended = (id: number, why: string | null) => {
        const item = items.get(id)
        return item === undefined ? [] : [{ id, key: item.key, eventId: item.eventId, why }]
      }
      this.#logGivenUp(givenUp)
      for (const { item } of batch) if (item.lanes === 0) this.#forget(item)
      this.#notices.tell(
        'accepted',
        accepted.flatMap((id) => ended(id, null)),
      )
      this.#notices.tell(
        'given_up',
        givenUp.flatMap(({ id, why }) => ended(id, why)),
      )
    } catch (error) {
      // The rows still say pending: what was accepted is sent again after a restart, and answered as a duplicate.
      logger.error({ error: messageOf(error), deliveries: batch.length }, 'deliveries could not be recorded')
      clock.after(TICK_MS, () => {
        this.#outcomes.unshift(...batch)
        this.#flushSoon()
      })
    }
  }

  #forget(item: OutboxItem): void {
    this.#items.delete(item.id)
    if (this.#newestOfKey.get(item.key) === item) this.#newestOfKey.delete(item.key)
  }

  #track(work: Promise<void>): void {
    this.#running.add(work)
    void work.finally(() => this.#running.delete(work))
  }
}

function ownSigner(keyring: Keyring, pubkey: string): Signer | undefined {
  return keyring.locked || !keyring.owns(pubkey) ? undefined : keyring.signer(pubkey)
}
