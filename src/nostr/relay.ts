/** One connection to one relay, kept for ever: backoff, ping and forced close, AUTH, and what is sent over it. */
import { randomInt } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Dialer, WebSocket } from '../base/dialer.ts'
import { isPylonError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { FrameInbox } from './frame-inbox.ts'
import { FrameRouter, type OkHandler, type ReqHandler } from './frame-router.ts'
import { RelayAuth } from './relay-auth.ts'
import { fetchLimits, NO_LIMITS, type RelayLimits } from './relay-info.ts'
import type { Filter, Signer } from './types.ts'

const MIN_BACKOFF_MS = 1000
const MAX_BACKOFF_MS = 60_000
/** A connection that held so long is good: the next failure starts from the shortest wait again. */
const STABLE_MS = 30_000
const PING_MS = 30_000
const HANDSHAKE_TIMEOUT_MS = 10_000
/** Frames above this end the connection: 512 KiB of content and its envelope, with room for escapes. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
const CLOSE_MS = 500
const LIMITS_MAX_AGE_MS = 3_600_000
/** Each challenge costs signatures and new requests: a relay that asks more often on one connection is left for a while. */
const MAX_CHALLENGES = 50

export interface RelayListener {
  onUp?(): void
  onDown?(): void
  /** The connection could not be made or was lost; the next try comes after a while. */
  onFailed?(): void
  /** A key was proven to the relay. */
  onAuth?(pubkey: string): void
}

export interface RelayDeps {
  readonly dialer: Dialer
  readonly clock: Clock
  readonly logger: Logger
  /** Whether our keys may be shown to this relay. */
  mayAuth(url: string): boolean
  /** The key to prove at once when the relay asks, if it is unlocked. */
  authSigner(): Signer | undefined
}

export class Relay {
  readonly url: string
  readonly #deps: RelayDeps
  readonly #router: FrameRouter
  readonly #listeners = new Set<RelayListener>()
  readonly #auth: RelayAuth
  readonly #inbox: FrameInbox
  #socket: WebSocket | undefined
  #up = false
  #everTried = false
  #failures = 0
  #upAt = 0
  #closed = true
  #cancelTimer: () => void = () => {}
  #cancelPing: () => void = () => {}
  #awaitingPong = false
  #challenges = 0
  #reason: string | undefined = 'not started'
  #limits = NO_LIMITS
  #limitsAt = 0
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
    this.#router = new FrameRouter({ url, logger: deps.logger, onChallenge: (challenge) => this.#onChallenge(challenge) })
    this.#inbox = new FrameInbox({
      onFrame: (frame) => this.#router.route(frame),
      pause: () => this.#socket?.pause(),
      resume: () => this.#socket?.resume(),
    })
    this.#auth = new RelayAuth({
      url,
      clock: deps.clock,
      logger: deps.logger,
      allowed: deps.mayAuth(url),
      send: (frame, eventId, onOk) => this.sendEvent(frame, eventId, onOk),
      forget: (eventId) => this.forgetOk(eventId),
      onProven: (pubkey) => {
        for (const listener of [...this.#listeners]) listener.onAuth?.(pubkey)
      },
    })
  }

  get state(): 'connected' | 'connecting' | 'down' {
    if (this.#up) return 'connected'
    return this.#everTried && this.#failures > 0 ? 'down' : 'connecting'
  }

  get reason(): string | undefined {
    if (this.#up) return this.deaf ? 'deaf' : undefined
    return this.#reason
  }

  get connected(): boolean {
    return this.#up
  }

  get limits(): RelayLimits {
    return this.#limits
  }

  /** Bytes that the socket has not sent yet. */
  get bufferedBytes(): number {
    return this.#socket?.bufferedAmount ?? 0
  }

  get openReqs(): number {
    return this.#router.openReqs
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
    this.#cancelPing()
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

  closeReq(id: string): void {
    if (this.#router.dropReq(id)) this.#send(JSON.stringify(['CLOSE', id]))
  }

  /** @param frame `["EVENT", ...]` as text. `onOk` may never be called: the caller keeps the time. False when not connected. */
  sendEvent(frame: string, eventId: string, onOk: OkHandler): boolean {
    if (!this.#send(frame)) return false
    this.#router.addOk(eventId, onOk)
    return true
  }

  /** Stops waiting for an OK. */
  forgetOk(eventId: string): void {
    this.#router.dropOks(eventId)
  }

  /** Proves a key (NIP-42) where policy allows and the relay has asked; false otherwise or when the relay refuses. */
  auth(signer: Signer): Promise<boolean> {
    return this.#auth.prove(signer)
  }

  #send(text: string): boolean {
    if (!this.#up || this.#socket === undefined) return false
    this.#socket.send(text)
    return true
  }

  #connect(): void {
    if (this.#closed) return
    this.#everTried = true
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
      const forced = this.#up ? this.#reason : undefined
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
    this.#up = true
    this.#upAt = this.#deps.clock.now()
    this.#reason = undefined
    this.refused = undefined
    this.#alive()
    this.#schedulePing(socket)
    this.#refreshLimits()
    for (const listener of [...this.#listeners]) listener.onUp?.()
  }

  #refreshLimits(): void {
    const now = this.#deps.clock.now()
    if (this.#limitsAt !== 0 && now - this.#limitsAt < LIMITS_MAX_AGE_MS) return
    this.#limitsAt = now
    void fetchLimits(this.#deps.dialer, this.url).then((limits) => {
      this.#limits = limits
    })
  }

  #alive(): void {
    this.lastAliveAt = this.#deps.clock.now()
    this.#awaitingPong = false
  }

  #schedulePing(socket: WebSocket): void {
    this.#awaitingPong = false
    this.#cancelPing = this.#deps.clock.after(PING_MS, () => {
      if (this.#socket !== socket) return
      // Nothing came since the last ping: the connection is dead, whatever the kernel believes.
      if (this.#awaitingPong && !this.#inbox.paused) {
        this.reconnect('no answer to ping')
        return
      }
      this.#schedulePing(socket)
      this.#awaitingPong = true
      socket.ping()
    })
  }

  #down(reason: string): void {
    const wasUp = this.#up
    this.#up = false
    this.#cancelPing()
    this.#reason = reason
    this.#inbox.clear()
    this.#challenges = 0
    this.#auth.challenge(undefined)
    this.#router.clear()
    this.provenAt = undefined
    this.deaf = false
    if (wasUp) for (const listener of [...this.#listeners]) listener.onDown?.()
  }

  #retryLater(reason: string): void {
    if (this.#closed) return
    const now = this.#deps.clock.now()
    this.#failures = this.#upAt !== 0 && now - this.#upAt >= STABLE_MS ? 1 : this.#failures + 1
    this.#upAt = 0
    const ceiling = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** Math.min(this.#failures - 1, 10))
    const waitMs = this.refused === undefined ? Math.round(ceiling * (0.7 + randomInt(600) / 1000)) : MAX_BACKOFF_MS
    this.#reason = `${reason || 'unreachable'} (attempt ${this.#failures}, next in ${Math.ceil(waitMs / 1000)} s)`
    this.#deps.logger.info({ relay: this.url, reason: this.#reason }, 'relay down')
    this.#cancelTimer()
    this.#cancelTimer = this.#deps.clock.after(waitMs, () => this.#connect())
    for (const listener of [...this.#listeners]) listener.onFailed?.()
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
    const signer = this.#deps.mayAuth(this.url) ? this.#deps.authSigner() : undefined
    if (signer !== undefined) void this.auth(signer)
  }
}
