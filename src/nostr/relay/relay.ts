/** One connection to one relay, kept for ever: backoff, ping and forced close, AUTH, and what is sent over it. */
import { randomBytes } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import type { Dialer, WebSocket } from '../../base/dialer.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Filter, Signer } from '../types.ts'
import { RelayAuth } from './auth.ts'
import { FrameInbox } from './frame-inbox.ts'
import { FrameRouter, type OkHandler, type ReqHandler } from './frame-router.ts'
import { RelayPing } from './ping.ts'
import { RelayBackoff } from './relay-backoff.ts'
import { LimitsSource, type RelayLimits } from './relay-info.ts'
import { RelaySlots, type SlotKind, saysTooManyReqs, subIdFor } from './slots.ts'

const HANDSHAKE_TIMEOUT_MS = 10_000
/** Frames above this end the connection: 512 KiB of content and its envelope, with room for escapes. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
const CLOSE_MS = 500
/** Its limits are waited for so long before anything is sent. */
const LIMITS_WAIT_MS = 2000
/** A relay that asks for AUTH mostly does so at once: a connection made for one key waits for it so long. */
const CHALLENGE_WAIT_MS = 1000
/** Each challenge costs signatures and new requests: a relay that asks more often on one connection is left for a while. */
const MAX_CHALLENGES = 50

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
  readonly dialer: Dialer
  readonly clock: Clock
  readonly logger: Logger
  /** The key that this connection is made as, if it is unlocked: proven as soon as the relay asks. None on relays of others. */
  identity(): Signer | undefined
  /** The connection is of use only as that key: it counts as up once the relay has seen the key, or asks for none. */
  readonly forOneKey?: boolean
}

let counter = 0
const PROCESS = randomBytes(4).toString('hex')

export class Relay {
  readonly url: string
  readonly #deps: RelayDeps
  readonly #router: FrameRouter
  readonly #listeners = new Set<RelayListener>()
  readonly #auth: RelayAuth
  readonly #inbox: FrameInbox
  readonly #slots: RelaySlots
  readonly #limits: LimitsSource
  readonly #backoff = new RelayBackoff()
  readonly #ping: RelayPing
  #socket: WebSocket | undefined
  /** What is sent goes out; listeners are told only when it is up. */
  #open = false
  #up = false
  #closed = true
  #cancelTimer: () => void = () => {}
  #challenges = 0
  #reason: string | undefined = 'not started'
  /** Milliseconds since the epoch of the last verified event; set by who verifies. */
  lastEventAt: number | undefined
  /** Of the last frame or pong on this connection. */
  lastAliveAt = 0
  /** When the relay was last seen to deliver (see canary.ts); undefined: unknown on this connection. */
  provenAt: number | undefined
  /** Set by the canary while the relay is connected and delivers nothing. */
  deaf = false
  /** The dialer refuses the address: no use in waiting. */
  refused: string | undefined

  constructor(url: string, deps: RelayDeps) {
    this.url = url
    this.#deps = deps
    this.#router = new FrameRouter({
      url,
      logger: deps.logger,
      onChallenge: (challenge) => this.#onChallenge(challenge),
      onAnswer: (type) => this.#onAnswer(type),
      onComplaint: (message) => this.#onComplaint(message),
      onNotice: (message) => this.#auth.notice(message),
    })
    this.#limits = new LimitsSource({ ...deps, url, onChange: () => this.#onLimits() })
    this.#ping = new RelayPing({
      clock: deps.clock,
      ping: () => this.#socket?.ping(),
      isPaused: () => this.#inbox.paused,
      onDead: () => this.reconnect('no answer to ping'),
    })
    this.#slots = new RelaySlots(
      () => this.#limits.now,
      () => this.#router.openReqs,
    )
    this.#inbox = new FrameInbox({
      onFrame: (frame) => this.#router.route(frame),
      pause: () => this.#socket?.pause(),
      resume: () => this.#socket?.resume(),
    })
    this.#auth = new RelayAuth({
      url,
      clock: deps.clock,
      logger: deps.logger,
      send: (frame, eventId, onOk) => this.#sendFor(frame, eventId, onOk, 'AUTH'),
      onProven: (pubkey) => this.#tell((listener) => listener.onAuth?.(pubkey)),
    })
  }

  get state(): 'connected' | 'connecting' | 'down' {
    if (this.#up) return 'connected'
    return this.#backoff.failures > 0 ? 'down' : 'connecting'
  }

  get reason(): string | undefined {
    if (this.#up) return this.deaf ? 'deaf' : undefined
    return this.#reason
  }

  get connected(): boolean {
    return this.#up
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
    return this.#socket?.bufferedAmount ?? 0
  }

  get slots(): RelaySlots {
    return this.#slots
  }

  /** The relay has asked who we are on this connection. */
  get challenged(): boolean {
    return this.#auth.challenged
  }

  /** The key that this connection is made as. */
  get identity(): Signer | undefined {
    return this.#deps.identity()
  }

  isProven(pubkey: string): boolean {
    return this.#auth.isProven(pubkey)
  }

  /** An id for a request, never used before on this connection and no longer than the relay takes. */
  freshSubId(): string {
    return subIdFor(this.#limits.now, `${PROCESS}:${(++counter).toString(36)}`)
  }

  listen(listener: RelayListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  start(): void {
    if (!this.#closed) return
    this.#closed = false
    this.#connect()
  }

  /** Connects at once where the dialer refused the address and would not any more: the owner has named it meanwhile. */
  recheck(): void {
    if (this.refused === undefined || this.#closed || !this.#deps.dialer.isAllowed(this.url, true)) return
    this.refused = undefined
    this.#cancelTimer()
    if (this.#socket === undefined) this.#connect()
  }

  close(): void {
    this.#closed = true
    this.#cancelTimer()
    this.#ping.stop()
    const socket = this.#socket
    socket?.close(1000)
    // A peer that does not answer the closing handshake must not keep the process alive.
    setTimeout(() => socket?.terminate(), CLOSE_MS).unref()
    this.#down('closed')
  }

  /** Ends the connection for one that works. */
  reconnect(reason: string): void {
    if (this.#socket === undefined) return
    this.#reason = reason
    this.#socket.terminate()
  }

  /** Sends a REQ and hears its answers. False when the relay is not connected. */
  openReq(id: string, filters: readonly Filter[], handler: ReqHandler): boolean {
    if (!this.#send(JSON.stringify(['REQ', id, ...filters]))) return false
    this.#router.addReq(id, handler)
    return true
  }

  /** Opens a reconciliation (NIP-77). False when the relay is not connected. */
  openNeg(id: string, filter: Filter, hex: string, handler: ReqHandler): boolean {
    if (!this.#send(JSON.stringify(['NEG-OPEN', id, filter, hex]))) return false
    this.#router.addReq(id, handler)
    return true
  }

  sendNeg(id: string, hex: string): void {
    this.#send(JSON.stringify(['NEG-MSG', id, hex]))
  }

  closeReq(id: string, type: 'CLOSE' | 'NEG-CLOSE' = 'CLOSE'): void {
    if (!this.#router.dropReq(id)) return
    this.#send(JSON.stringify([type, id]))
    this.#slots.serve()
  }

  /** Calls `run`, which opens a request, as soon as the relay takes one more. The returned function cancels. */
  whenFree(kind: SlotKind, run: () => void): () => void {
    return this.#slots.whenFree(kind, run)
  }

  /** @param frame `["EVENT", ...]` as text. `onOk` may never be called: the caller keeps the time. False when not connected. */
  sendEvent(frame: string, eventId: string, onOk: OkHandler): boolean {
    return this.#sendFor(frame, eventId, onOk, 'EVENT')
  }

  #sendFor(frame: string, eventId: string, onOk: OkHandler, type: 'AUTH' | 'EVENT'): boolean {
    if (!this.#send(frame)) return false
    this.#router.addOk(eventId, onOk, type)
    return true
  }

  /** Stops waiting for an OK. */
  forgetOk(eventId: string): void {
    this.#router.dropOks(eventId)
  }

  /** Proves a key (NIP-42): only where the relay has shown that it needs it. False when it has not asked, or refuses. */
  auth(signer: Signer): Promise<boolean> {
    return this.#auth.prove(signer)
  }

  #send(text: string): boolean {
    if (!this.#open || this.#socket === undefined) return false
    this.#socket.send(text)
    return true
  }

  #connect(): void {
    if (this.#closed) return
    let socket: WebSocket
    try {
      socket = this.#deps.dialer.connectWebSocket(this.url, {
        namedByStranger: true,
        maxPayloadBytes: MAX_PAYLOAD_BYTES,
        handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      })
    } catch (error) {
      this.#refuse(error)
      this.#retryLater(messageOf(error))
      return
    }
    this.#socket = socket
    this.#limits.refresh()
    let failure: string | undefined
    socket.on('open', () => this.#onOpen(socket))
    socket.on('message', (data) => this.#onData(socket, data as Buffer))
    socket.on('pong', () => this.#alive())
    socket.on('error', (error) => {
      failure = messageOf(error)
      this.#refuse(error)
    })
    socket.on('close', (code) => {
      if (this.#socket !== socket) return
      this.#socket = undefined
      const forced = this.#open ? this.#reason : undefined
      this.#down(failure ?? forced ?? `closed by the relay (${code})`)
      this.#retryLater(this.#reason ?? '')
    })
  }

  #refuse(error: unknown): void {
    if (isPylonError(error, 'address_refused')) this.refused = error.message
  }

  #onOpen(socket: WebSocket): void {
    if (this.#closed || this.#socket !== socket) {
      socket.terminate()
      return
    }
    this.#open = true
    this.#backoff.opened(this.#deps.clock.now())
    this.#reason = undefined
    this.refused = undefined
    this.#alive()
    this.#ping.start()
    void this.#settleIn(socket)
  }

  /** Nothing is asked before the relay's limits are known, nor under a key that it has not seen. */
  async #settleIn(socket: WebSocket): Promise<void> {
    await this.#within(LIMITS_WAIT_MS, this.#limits.known)
    const { forOneKey = false, identity } = this.#deps
    const signer = identity()
    if (forOneKey && signer !== undefined) {
      if (!this.challenged) await this.#challengeComes()
      await this.auth(signer)
    }
    if (this.#socket !== socket || !this.#open) return
    this.#up = true
    this.#tell((listener) => listener.onUp?.())
  }

  /** Or does not, within the time. */
  async #challengeComes(): Promise<void> {
    let unlisten = () => {}
    const comes = new Promise<void>((resolve) => {
      unlisten = this.listen({ onChallenge: resolve, onFailed: resolve })
    })
    await this.#within(CHALLENGE_WAIT_MS, comes)
    unlisten()
  }

  async #within(ms: number, work: Promise<void>): Promise<void> {
    const timeout = new AbortController()
    await Promise.race([work, this.#deps.clock.sleep(ms, timeout.signal).catch(() => undefined)])
    timeout.abort()
  }

  #onLimits(): void {
    this.#slots.forget()
    if (this.#up) this.#tell((listener) => listener.onLimits?.())
  }

  #tell(what: (listener: RelayListener) => void): void {
    for (const listener of [...this.#listeners]) what(listener)
  }

  #onAnswer(type: 'EOSE' | 'CLOSED'): void {
    if (type === 'EOSE') this.#backoff.answered()
    else this.#slots.serve()
  }

  #onComplaint(message: string): void {
    if (!saysTooManyReqs(message) || !this.#slots.learn(this.#router.answeredReqs)) return
    this.#deps.logger.info({ relay: this.url, max: this.#slots.max, message }, 'the relay takes no more requests than these')
    this.#tell((listener) => listener.onLimits?.())
  }

  #alive(): void {
    this.lastAliveAt = this.#deps.clock.now()
    this.#ping.alive()
  }

  #down(reason: string): void {
    const wasUp = this.#up
    this.#open = false
    this.#up = false
    this.#ping.stop()
    this.#reason = reason
    this.#inbox.clear()
    this.#challenges = 0
    this.#auth.challenge(undefined)
    this.#router.clear()
    this.provenAt = undefined
    this.deaf = false
    if (wasUp) this.#tell((listener) => listener.onDown?.())
  }

  #retryLater(reason: string): void {
    if (this.#closed) return
    const waitMs = this.#backoff.failed(this.#deps.clock.now(), this.refused !== undefined)
    this.#reason = `${reason || 'unreachable'} (attempt ${this.#backoff.failures}, next in ${Math.ceil(waitMs / 1000)} s)`
    this.#deps.logger.info({ relay: this.url, reason: this.#reason }, 'relay down')
    this.#cancelTimer()
    this.#cancelTimer = this.#deps.clock.after(waitMs, () => this.#connect())
    this.#tell((listener) => listener.onFailed?.())
  }

  #onData(socket: WebSocket, data: Buffer): void {
    if (this.#socket !== socket) return
    this.#alive()
    this.#inbox.push(data)
  }

  #onChallenge(challenge: string): void {
    if (++this.#challenges > MAX_CHALLENGES) {
      this.reconnect('the relay asks for AUTH without end')
      return
    }
    this.#auth.challenge(challenge)
    const signer = this.#deps.identity()
    if (signer !== undefined) void this.auth(signer)
    this.#tell((listener) => listener.onChallenge?.())
  }
}
