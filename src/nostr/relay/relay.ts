/** One relay, connected to for ever: tried again after each loss, told apart as up only once it can be asked, with what it takes. */

import { type BackoffPolicy, backoffMs } from '../../base/backoff.ts'
import type { Dialer, WebSocket } from '../../base/dialer.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import type { Filter, Signer } from '../types.ts'
import { Connection } from './connection.ts'
import type { OkHandler, ReqHandler } from './frame-router.ts'
import { LimitsSource, type RelayLimits } from './relay-info.ts'
import { RelaySlots, type SlotKind, saysTooManyReqs, subIdFor } from './slots.ts'

const HANDSHAKE_TIMEOUT_MS = 10_000
/** Frames above this end the connection: 512 KiB of content and its envelope, with room for escapes. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
/** Its limits are waited for so long before anything is sent. */
const LIMITS_WAIT_MS = 2000
/** A relay that asks for AUTH mostly does so at once: a connection made for one key waits for it so long. */
const CHALLENGE_WAIT_MS = 1000
const RETRY: BackoffPolicy = { minMs: 1000, maxMs: 60_000, jitter: 0.3 }
/** A connection that held so long is good, and sooner when it answered a request: the next wait is the shortest again. */
const STABLE_MS = 30_000
const STABLE_ANSWERED_MS = 5000
/** Tries after which a relay that answers and then hangs up at once is no longer waited for longer. */
const ANSWERED_FAILURES = 3

export interface RelayListener {
  onUp?(): void
  onDown?(): void
  /** The connection could not be made or was lost; the next try comes after a while. */
  onFailed?(): void
  /** A key was proven to the relay. */
  onAuth?(pubkey: string): void
  /** The relay asks who we are. */
  onChallenge?(): void
  /** What the relay takes has changed: stated anew, or learned from a refusal. */
  onLimits?(): void
}

export interface RelayDeps {
  /** Of this relay alone. */
  readonly scope: Scope
  readonly dialer: Dialer
  readonly logger: Logger
  /** The key that this connection is made as, if it is unlocked: proven as soon as the relay asks. None on relays of others. */
  identity(): Signer | undefined
  /** The connection is of use only as that key: it counts as up once the relay has seen the key, or asks for none. */
  readonly forOneKey?: boolean
}

export class Relay {
  readonly url: string
  readonly #scope: Scope
  readonly #deps: RelayDeps
  readonly #listeners = new Set<RelayListener>()
  readonly #slots: RelaySlots
  readonly #limits: LimitsSource
  readonly #subIdPrefix: string
  #subIds = 0
  /** Also while it is being made. */
  #connection: Connection | undefined
  /** What is sent goes out once the connection is open; listeners are told only when it is up. */
  #isUp = false
  /** Connections in a row that could not be made, or did not hold. */
  #failures = 0
  #cancelRetry: () => void = () => {}
  #reason: string | undefined = 'not started'
  /** Milliseconds since the epoch of the last verified event; set by who verifies. */
  lastEventAt: number | undefined
  /** When the relay was last seen to deliver (see canary.ts); undefined: unknown on this connection. */
  provenAt: number | undefined
  /** Set by the canary while the relay is connected and delivers nothing. */
  deaf = false
  /** The dialer refuses the address: no use in waiting. */
  refused: string | undefined

  constructor(url: string, deps: RelayDeps) {
    const { scope, dialer } = deps
    this.url = url
    this.#scope = scope
    this.#deps = deps
    this.#subIdPrefix = randomHex(scope.random, 4)
    this.#limits = new LimitsSource({ scope, dialer, url, onChange: () => this.#onLimits() })
    this.#slots = new RelaySlots(
      () => this.#limits.now,
      () => this.#connection?.openReqs ?? 0,
    )
    scope.atEnd('down', () => this.#down('closed'))
  }

  get state(): 'connected' | 'connecting' | 'down' {
    if (this.#isUp) return 'connected'
    return this.#failures > 0 ? 'down' : 'connecting'
  }

  get reason(): string | undefined {
    if (this.#isUp) return this.deaf ? 'deaf' : undefined
    return this.#reason
  }

  get connected(): boolean {
    return this.#isUp
  }

  get limits(): RelayLimits {
    return this.#limits.now
  }

  /** Whether it can be asked by NIP-77. */
  get comparesSets(): boolean {
    return this.#limits.now.negentropy && !this.#limits.negentropyFailed
  }

  noteNegentropyFailure(): void {
    this.#limits.negentropyFailed = true
  }

  /** Bytes that the socket has not sent yet. */
  get bufferedBytes(): number {
    return this.#connection?.bufferedBytes ?? 0
  }

  /** Of the last frame or pong on this connection. */
  get lastAliveAtMs(): number {
    return this.#connection?.lastAliveAtMs ?? 0
  }

  get slots(): RelaySlots {
    return this.#slots
  }

  /** The relay has asked who we are on this connection. */
  get challenged(): boolean {
    return this.#connection?.challenged ?? false
  }

  /** The key that this connection is made as. */
  get identity(): Signer | undefined {
    return this.#deps.identity()
  }

  isProven(pubkey: string): boolean {
    return this.#connection?.isProven(pubkey) ?? false
  }

  /** An id for a request, never used before on this connection and no longer than the relay takes. */
  freshSubId(): string {
    return subIdFor(this.#limits.now, `${this.#subIdPrefix}:${(++this.#subIds).toString(36)}`)
  }

  listen(listener: RelayListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Connects, from now on for ever; to be called once. */
  start(): void {
    this.#connect()
  }

  /** Connects at once where the dialer refused the address and would not any more: the owner has named it meanwhile. */
  recheck(): void {
    if (this.refused === undefined || !this.#deps.dialer.isAllowed(this.url, true)) return
    this.refused = undefined
    this.#cancelRetry()
    if (this.#connection === undefined) this.#connect()
  }

  /** For good. */
  close(): void {
    this.#scope.end()
  }

  /** Ends the connection for one that works. */
  reconnect(reason: string): void {
    this.#connection?.drop(reason)
  }

  /** Sends a REQ and hears its answers. False when the relay is not connected. */
  openReq(id: string, filters: readonly Filter[], handler: ReqHandler): boolean {
    return this.#connection?.request(JSON.stringify(['REQ', id, ...filters]), id, handler) ?? false
  }

  /** Opens a reconciliation (NIP-77). False when the relay is not connected. */
  openNeg(id: string, filter: Filter, hex: string, handler: ReqHandler): boolean {
    return this.#connection?.request(JSON.stringify(['NEG-OPEN', id, filter, hex]), id, handler) ?? false
  }

  sendNeg(id: string, hex: string): void {
    this.#connection?.send(JSON.stringify(['NEG-MSG', id, hex]))
  }

  closeReq(id: string, type: 'CLOSE' | 'NEG-CLOSE' = 'CLOSE'): void {
    if (this.#connection?.dropReq(id) !== true) return
    this.#connection.send(JSON.stringify([type, id]))
    this.#slots.serve()
  }

  /** Calls `run`, which opens a request, as soon as the relay takes one more. The returned function cancels. */
  whenFree(kind: SlotKind, run: () => void): () => void {
    return this.#slots.whenFree(kind, run)
  }

  /** @param frame `["EVENT", ...]` as text. `onOk` may never be called: the caller keeps the time. False when not connected. */
  sendEvent(frame: string, eventId: string, onOk: OkHandler): boolean {
    return this.#connection?.sendEvent(frame, eventId, onOk) ?? false
  }

  /** Stops waiting for an OK. */
  forgetOk(eventId: string): void {
    this.#connection?.forgetOk(eventId)
  }

  /** Proves a key (NIP-42): only where the relay has shown that it needs it. False when it has not asked, or refuses; undefined when the key is away. */
  async auth(signer: Signer): Promise<boolean | undefined> {
    const connection = this.#connection
    return connection === undefined ? false : await connection.prove(signer)
  }

  #connect(): void {
    if (this.#scope.isClosing) return
    const { dialer, logger, identity } = this.#deps
    let socket: WebSocket
    try {
      socket = dialer.connectWebSocket(this.url, {
        namedByStranger: true,
        maxPayloadBytes: MAX_PAYLOAD_BYTES,
        handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      })
    } catch (error) {
      this.#noteRefusal(error)
      this.#failures++
      this.#retryLater(messageOf(error))
      return
    }
    this.#limits.refresh()
    const scope = this.#scope.child('connection')
    const connection = new Connection(socket, {
      url: this.url,
      scope,
      logger,
      onOpen: () => {
        this.#reason = undefined
        this.refused = undefined
        scope.spawn('settle in', () => this.#settleIn(connection))
      },
      onLost: (reason) => this.#onLost(connection, reason),
      onError: (error) => this.#noteRefusal(error),
      onChallenge: () => {
        const signer = identity()
        if (signer !== undefined) scope.spawn('auth', () => connection.prove(signer))
        this.#tell((listener) => listener.onChallenge?.())
      },
      onProven: (pubkey) => this.#tell((listener) => listener.onAuth?.(pubkey)),
      onAnswer: (type) => {
        if (type === 'CLOSED') this.#slots.serve()
      },
      onComplaint: (message) => this.#onComplaint(connection, message),
    })
    this.#connection = connection
  }

  #noteRefusal(error: unknown): void {
    if (isPylonError(error, 'address_refused')) this.refused = error.message
  }

  /** Nothing is asked before the relay's limits are known, nor under a key that it has not seen. */
  async #settleIn(connection: Connection): Promise<void> {
    const { scope } = connection
    const { forOneKey = false, identity } = this.#deps
    await scope.hear<void>(LIMITS_WAIT_MS, (tell) => this.#limits.whenKnown(tell))
    const signer = identity()
    if (forOneKey && signer !== undefined) {
      if (!connection.challenged) await scope.hear<void>(CHALLENGE_WAIT_MS, (tell) => this.listen({ onChallenge: tell }))
      await connection.prove(signer)
    }
    if (scope.isClosing) return
    this.#isUp = true
    this.#tell((listener) => listener.onUp?.())
  }

  #onLimits(): void {
    this.#slots.forget()
    if (this.#isUp) this.#tell((listener) => listener.onLimits?.())
  }

  #onComplaint(connection: Connection, message: string): void {
    if (!saysTooManyReqs(message) || !this.#slots.learn(connection.answeredReqs)) return
    this.#deps.logger.info({ relay: this.url, max: this.#slots.max, message }, 'the relay takes no more requests than these')
    this.#tell((listener) => listener.onLimits?.())
  }

  #tell(what: (listener: RelayListener) => void): void {
    for (const listener of [...this.#listeners]) what(listener)
  }

  #onLost(connection: Connection, reason: string): void {
    this.#failures = failuresAfter(this.#failures, connection)
    this.#down(reason)
    this.#retryLater(reason)
  }

  #down(reason: string): void {
    const wasUp = this.#isUp
    this.#connection = undefined
    this.#isUp = false
    this.#reason = reason
    this.provenAt = undefined
    this.deaf = false
    if (wasUp) this.#tell((listener) => listener.onDown?.())
  }

  #retryLater(reason: string): void {
    const { scope, logger } = this.#deps
    // Only the owner can change that an address is refused.
    const waitMs = this.refused === undefined ? backoffMs(RETRY, this.#failures, scope.random) : RETRY.maxMs
    this.#reason = `${reason || 'unreachable'} (attempt ${this.#failures}, next in ${Math.ceil(waitMs / 1000)} s)`
    logger.info({ relay: this.url, reason: this.#reason }, 'relay down')
    this.#cancelRetry()
    this.#cancelRetry = scope.after('retry', waitMs, () => this.#connect())
    this.#tell((listener) => listener.onFailed?.())
  }
}

/** Failures in a row, with this one: fewer after a connection that was of use. */
function failuresAfter(before: number, { heldMs, hasAnswered }: Connection): number {
  if (heldMs >= (hasAnswered ? STABLE_ANSWERED_MS : STABLE_MS)) return 1
  return hasAnswered ? Math.min(before + 1, ANSWERED_FAILURES) : before + 1
}
