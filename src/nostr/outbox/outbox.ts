/** The outbox at work: takes new messages from the table after each commit, and sends them by a lane a relay. */
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { expireDeliveries, lastMessageId, outboxDepths, type PendingMessage, pendingAfter, pendingFor } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'
import type { RelayPool } from '../relay/pool.ts'
import { tryRelayUrl } from '../relay/relay-url.ts'
import type { Keyring, Signer } from '../types.ts'
import { Lane } from './lane.ts'
import { OutboxMessages } from './messages.ts'
import { type EndedHandler, OutboxNotices, type Outcome } from './notices.ts'
import { Outcomes } from './outcomes.ts'

const TICK_MS = 1000
/** How often the table is looked at though nobody nudged, in ticks. */
const SWEEP_TICKS = 30
const READ_LIMIT = 2000
/** Deliveries that one lane keeps in memory; the rest stays in the table until there is room. */
const LANE_LIMIT = 5000
/** Lanes in memory, beside those of our own relays: strangers name as many as they like. The others wait in the table for their turn. */
const MAX_LANES = 200

export interface OutboxDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly pool: RelayPool
  readonly keyring: Keyring
}

export class Outbox {
  readonly #deps: OutboxDeps
  readonly #lanes = new Map<string, Lane>()
  readonly #messages: OutboxMessages
  readonly #notices: OutboxNotices
  readonly #outcomes: Outcomes
  #newestId = 0
  /** Of the store, when the table was looked at last: nothing is new before the next. */
  #seenCommits = -1
  #ticks = 0
  /** Some relays have no lane for want of room. */
  #left = false
  #loadedUpTo = ''
  #isStarted = false
  #lockedLogged = false

  constructor(deps: OutboxDeps) {
    const { scope } = deps
    this.#deps = deps
    // The last ends first: lanes, then what is recorded of their deliveries, then what is told of that.
    this.#messages = new OutboxMessages({ ...deps, scope: scope.child('messages') })
    this.#notices = new OutboxNotices({ ...deps, scope: scope.child('notices') })
    this.#outcomes = new Outcomes({ ...deps, scope: scope.child('outcomes'), messages: this.#messages, notices: this.#notices })
  }

  start(): void {
    const { scope, store } = this.#deps
    this.#isStarted = true
    this.#newestId = lastMessageId(store)
    this.#load()
    this.#notices.start()
    scope.every('tick', TICK_MS, () => this.#tick())
  }

  nudge(): void {
    if (this.#isStarted) this.#deps.scope.gather('read', 0, () => this.#readNew())
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
      else lane.add(this.#messages.take(message), attempts, nextAt)
    }
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
      for (const message of lane.unload()) this.#messages.forgetIfDone(message)
      this.#lanes.delete(name)
    }
    this.#load()
  }

  /** Undefined when there are too many. */
  #lane(relay: string): Lane | undefined {
    const known = this.#lanes.get(relay)
    if (known !== undefined) return known
    const { scope, logger, pool, keyring } = this.#deps
    const foreign = !pool.isOwn(tryRelayUrl(relay) ?? relay)
    if (scope.isClosing || (foreign && this.#lanes.size >= MAX_LANES)) return undefined
    const lane: Lane = new Lane({
      scope: scope.child(relay),
      name: relay,
      hold: (as) => pool.hold(relay, as),
      foreign,
      signerOf: (pubkey) => ownSigner(keyring, pubkey),
      remake: (message, words) => this.#messages.remake(message, words),
      onOutcome: (message, outcome) => {
        if (outcome.state === 'rejected') logger.info({ relay, key: message.key, error: outcome.error }, 'a relay refused an event')
        this.#outcomes.add(message, outcome)
      },
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
      for (const { attempts, nextAt } of message.deliveries) lane.add(this.#messages.take(message), attempts, nextAt)
    }
  }

  #onLocked(): void {
    if (!this.#lockedLogged) this.#deps.logger.warn('the outbox waits: the keys are locked')
    this.#lockedLogged = true
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
    const { commits } = this.#deps.store
    if (commits !== this.#seenCommits) {
      this.#seenCommits = commits
      this.#readNew()
      this.#notices.tellStored()
    }
    if (this.#left && this.#ticks % SWEEP_TICKS === 0) this.#takeTurns()
    if (this.#ticks % SWEEP_TICKS === 0) this.#deps.scope.spawn('expire', () => this.#expire())
  }

  async #expire(): Promise<void> {
    const { scope, store, logger } = this.#deps
    try {
      this.#outcomes.logGivenUp(await store.write(expireDeliveries({ now: scope.clock.now() })))
    } catch (error) {
      logger.warn({ error: messageOf(error) }, 'the outbox could not be swept')
    }
  }
}

function ownSigner(keyring: Keyring, pubkey: string): Signer | undefined {
  return keyring.locked || !keyring.owns(pubkey) ? undefined : keyring.signer(pubkey)
}
