/** The relay without its sockets: what clients send comes in, what they hear goes out; one transaction per turn of the event loop. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Random } from '../../base/random.ts'
import type { Faults } from '../faults.ts'
import { isEphemeral, type NostrEvent } from '../nostr-event.ts'
import { Connection, type Peer } from './connection.ts'
import type { Filter } from './filter.ts'
import { RELAY_LIMITS } from './limits.ts'
import { EventStore, type InsertOutcome } from './store.ts'
import { type Subscription, SubscriptionIndex } from './subscriptions.ts'

export interface RelayDeps {
  readonly databasePath: string
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly faults: Faults
  readonly authForDms: boolean
  /** Whether `url` names this relay. */
  isOwnUrl(url: string): boolean
}

interface Pending {
  readonly event: NostrEvent
  readonly from: Connection | undefined
  /** Told the outcome, or undefined when nothing was stored. */
  readonly done?: (outcome: InsertOutcome | undefined) => void
}

const EXPIRY_SWEEP_MS = 60_000
const OK_MESSAGES: Record<InsertOutcome, [boolean, string]> = {
  stored: [true, ''],
  duplicate: [true, 'duplicate: already have this event'],
  superseded: [true, 'duplicate: a newer version is stored'],
  deleted: [false, 'blocked: deleted by its author'],
}

export class Relay {
  readonly #deps: RelayDeps
  readonly #store: EventStore
  readonly #index = new SubscriptionIndex<Connection>()
  readonly #connections = new Set<Connection>()
  #pending: Pending[] = []
  #cancelFlush: (() => void) | undefined
  #cancelSweep = () => {}

  constructor(deps: RelayDeps) {
    this.#deps = deps
    this.#store = new EventStore(deps.databasePath)
    this.#sweepLater()
  }

  close(): void {
    this.#cancelSweep()
    this.#flush()
    this.dropConnections()
    this.#store.close()
  }

  /** A client has come; what it sends goes to `receive` of its connection. */
  connect(peer: Peer): Connection {
    const connection = new Connection(peer, this)
    this.#connections.add(connection)
    return connection
  }

  /** The client is gone. */
  disconnect(connection: Connection): void {
    connection.closeSubscriptions()
    this.#connections.delete(connection)
  }

  /** Publishes an event of the sandbox itself; resolves once it is committed and forwarded. */
  publishOwn(event: NostrEvent): Promise<InsertOutcome> {
    return new Promise((resolve, reject) => {
      const done = (outcome: InsertOutcome | undefined) => (outcome === undefined ? reject(new Error('not stored')) : resolve(outcome))
      this.#enqueue({ event, from: undefined, done })
    })
  }

  closeAllSubscriptions(): void {
    for (const connection of this.#connections) connection.closeSubscriptions('error: closed by the relay')
  }

  dropConnections(): void {
    for (const connection of this.#connections) connection.cut()
  }

  get random(): Random {
    return this.#deps.random
  }

  nowSeconds(): number {
    return unixSeconds(this.#deps.clock)
  }

  get authForDms(): boolean {
    return this.#deps.authForDms
  }

  isOwnUrl(url: string): boolean {
    return this.#deps.isOwnUrl(url)
  }

  publish(event: NostrEvent, from: Connection): void {
    this.#enqueue({ event, from })
  }

  /** Stored events of each filter; everything published before is visible. */
  stored(filters: readonly Filter[]): { id: string; json: string }[][] {
    this.#flush()
    return filters.map((filter) => this.#store.query(filter, RELAY_LIMITS.maxLimit, this.nowSeconds()))
  }

  count(filters: readonly Filter[]): number {
    this.#flush()
    return this.#store.count(filters, this.nowSeconds())
  }

  subscribe(subscription: Subscription<Connection>): void {
    this.#index.add(subscription)
  }

  unsubscribe(subscription: Subscription<Connection>): void {
    this.#index.remove(subscription)
  }

  #enqueue(pending: Pending): void {
    this.#pending.push(pending)
    if (this.#cancelFlush !== undefined) return
    const immediate = setImmediate(() => this.#flush())
    this.#cancelFlush = () => clearImmediate(immediate)
  }

  /** Commits what gathered in this turn, then answers OK, then forwards: nobody hears of an event that may be lost. */
  #flush(): void {
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    const batch = this.#pending
    if (batch.length === 0) return
    this.#pending = []
    const texts = batch.map(({ event }) => JSON.stringify(event))
    let outcomes: InsertOutcome[]
    try {
      outcomes = this.#store.transaction(() =>
        batch.map(({ event }, i) => (isEphemeral(event.kind) ? 'stored' : this.#store.insert(event, texts[i] as string))),
      )
    } catch (error) {
      this.#deps.logger.error({ err: messageOf(error) }, 'relay could not store events')
      for (const { event, from, done } of batch) {
        from?.send(['OK', event.id, false, 'error: could not be stored'])
        done?.(undefined)
      }
      return
    }
    for (const [i, { event, from, done }] of batch.entries()) {
      const outcome = outcomes[i] as InsertOutcome
      const [accepted, message] = OK_MESSAGES[outcome]
      if (from !== undefined && !this.#deps.faults.takeDropOk()) from.send(['OK', event.id, accepted, message])
      if (outcome === 'stored') this.#forward(event, texts[i] as string)
      done?.(outcome)
    }
  }

  #forward(event: NostrEvent, text: string): void {
    const times = this.#deps.faults.deliverDuplicates ? 2 : 1
    for (const { owner, id } of this.#index.matching(event)) {
      if (!owner.maySee(event)) continue
      for (let i = 0; i < times; i++) owner.sendText(`["EVENT",${JSON.stringify(id)},${text}]`)
    }
  }

  #sweepLater(): void {
    this.#cancelSweep = this.#deps.clock.after(EXPIRY_SWEEP_MS, () => {
      this.#store.deleteExpired(this.nowSeconds())
      this.#sweepLater()
    })
  }
}
