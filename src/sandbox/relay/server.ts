/** The relay of the sandbox: websockets and NIP-11 on one port; one transaction per turn of the event loop. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Random } from '../../base/random.ts'
import { inlineMoreWasm } from '../../base/wasm-inlining.ts'
import type { Faults } from '../faults.ts'
import { listen } from '../http.ts'
import { isEphemeral, type NostrEvent } from '../nostr-event.ts'
import { Connection, type RelayCore } from './connection.ts'
import type { Filter } from './filter.ts'
import { RELAY_LIMITS, relayDocument } from './limits.ts'
import { EventStore, type InsertOutcome } from './store.ts'
import { type Subscription, SubscriptionIndex } from './subscriptions.ts'

export interface RelayOptions {
  readonly databasePath: string
  readonly host: string
  readonly port: number
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly faults: Faults
  readonly authForDms: boolean
}

interface Pending {
  readonly event: NostrEvent
  readonly from: Connection | undefined
  /** Told the outcome, or undefined when nothing was stored. */
  readonly done?: (outcome: InsertOutcome | undefined) => void
}

const PING_INTERVAL_MS = 30_000
const EXPIRY_SWEEP_MS = 60_000
const OK_MESSAGES: Record<InsertOutcome, [boolean, string]> = {
  stored: [true, ''],
  duplicate: [true, 'duplicate: already have this event'],
  superseded: [true, 'duplicate: a newer version is stored'],
  deleted: [false, 'blocked: deleted by its author'],
}

/** Starts the relay. Resolves when it listens. @throws port_taken */
export async function startRelay(options: RelayOptions): Promise<RelayServer> {
  inlineMoreWasm()
  const relay = new RelayServer(options)
  try {
    await relay.open()
  } catch (error) {
    await relay.close()
    throw error
  }
  return relay
}

export class RelayServer implements RelayCore {
  readonly authForDms: boolean
  #url = ''
  readonly #options: RelayOptions
  readonly #store: EventStore
  readonly #index = new SubscriptionIndex<Connection>()
  readonly #connections = new Set<Connection>()
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: RELAY_LIMITS.maxMessageBytes, perMessageDeflate: false })
  #pending: Pending[] = []
  #cancelFlush: (() => void) | undefined
  #cancelTimers: (() => void)[] = []
  #closeServer: () => Promise<void> = async () => {}

  constructor(options: RelayOptions) {
    this.#options = options
    this.authForDms = options.authForDms
    this.#store = new EventStore(options.databasePath)
  }

  /** `ws://127.0.0.1:PORT` */
  get url(): string {
    return this.#url
  }

  get port(): number {
    return Number(new URL(this.#url).port)
  }

  async open(): Promise<void> {
    const server = await listen({
      name: 'relay',
      host: this.#options.host,
      port: this.#options.port,
      onRequest: (request, response) => this.#serveDocument(request, response),
      onUpgrade: (request, socket, head) => {
        if (this.#options.faults.relayDown) return socket.destroy()
        this.#sockets.handleUpgrade(request, socket, head, (ws) => this.#accept(ws, socket))
      },
    })
    this.#closeServer = server.close
    this.#url = `ws://${this.#options.host}:${server.port}`
    this.#repeat(PING_INTERVAL_MS, () => {
      for (const connection of this.#connections) connection.ping()
    })
    this.#repeat(EXPIRY_SWEEP_MS, () => this.#store.deleteExpired(this.nowSeconds()))
  }

  async close(): Promise<void> {
    for (const cancel of this.#cancelTimers) cancel()
    this.#flush()
    for (const connection of this.#connections) connection.cut()
    await this.#closeServer()
    this.#store.close()
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
    return this.#options.random
  }

  nowSeconds(): number {
    return unixSeconds(this.#options.clock)
  }

  /** Whether `url` names this relay: same port on a loopback name, whatever the path. */
  isOwnUrl(url: string): boolean {
    const parsed = URL.parse(url)
    if (parsed === null || parsed.protocol !== 'ws:') return false
    return (parsed.hostname === '127.0.0.1' || parsed.hostname === 'localhost') && parsed.port === String(this.port)
  }

  publish(event: NostrEvent, from: Connection): void {
    this.#enqueue({ event, from })
  }

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

  #accept(socket: WebSocket, stream: Duplex): void {
    const connection = new Connection(socket, stream, this)
    this.#connections.add(connection)
    socket.on('close', () => {
      connection.closeSubscriptions()
      this.#connections.delete(connection)
    })
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
      this.#options.logger.error({ err: messageOf(error) }, 'relay could not store events')
      for (const { event, from, done } of batch) {
        from?.send(['OK', event.id, false, 'error: could not be stored'])
        done?.(undefined)
      }
      return
    }
    for (const [i, { event, from, done }] of batch.entries()) {
      const outcome = outcomes[i] as InsertOutcome
      const [accepted, message] = OK_MESSAGES[outcome]
      if (from !== undefined && !this.#options.faults.takeDropOk()) from.send(['OK', event.id, accepted, message])
      if (outcome === 'stored') this.#forward(event, texts[i] as string)
      done?.(outcome)
    }
  }

  #forward(event: NostrEvent, text: string): void {
    const times = this.#options.faults.deliverDuplicates ? 2 : 1
    for (const { owner, id } of this.#index.matching(event)) {
      if (!owner.maySee(event)) continue
      for (let i = 0; i < times; i++) owner.sendText(`["EVENT",${JSON.stringify(id)},${text}]`)
    }
  }

  #serveDocument(request: IncomingMessage, response: ServerResponse): void {
    const wantsDocument = request.headers.accept?.includes('application/nostr+json') === true
    response.setHeader('access-control-allow-origin', '*')
    response.setHeader('access-control-allow-headers', '*')
    response.setHeader('access-control-allow-methods', 'GET')
    if (wantsDocument) {
      response.writeHead(200, { 'content-type': 'application/nostr+json' }).end(JSON.stringify(relayDocument()))
    } else response.writeHead(200, { 'content-type': 'text/plain' }).end('A Nostr relay: connect with a websocket.\n')
  }

  #repeat(everyMs: number, fn: () => void): void {
    let cancel = () => {}
    const next = () => {
      cancel = this.#options.clock.after(everyMs, () => {
        fn()
        next()
      })
    }
    next()
    this.#cancelTimers.push(() => cancel())
  }
}
