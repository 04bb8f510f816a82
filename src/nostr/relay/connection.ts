/** One WebSocket to one relay, from dialling to its end: frames in slices, ping and forced close, AUTH, and what is sent over it. */
import type { WebSocket } from '../../base/dialer.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { Signer } from '../types.ts'
import { RelayAuth } from './auth.ts'
import { FrameInbox } from './frame-inbox.ts'
import { FrameRouter, type OkHandler, type ReqHandler } from './frame-router.ts'

/** Silence until the next ping is the end, whatever the kernel believes. */
const PING_MS = 30_000
const CLOSE_MS = 500
/** Each challenge costs signatures and new requests: a relay that asks more often on one connection is left for a while. */
const MAX_CHALLENGES = 50

export interface ConnectionDeps {
  readonly url: string
  /** Of this connection alone. */
  readonly scope: Scope
  readonly logger: Logger
  onOpen(): void
  /** It could not be made, or was lost: for this reason. */
  onLost(reason: string): void
  onError(error: Error): void
  /** The relay asks who we are. */
  onChallenge(): void
  /** A key was proven. */
  onProven(pubkey: string): void
  /** A request was answered by EOSE or CLOSED. */
  onAnswer(type: 'EOSE' | 'CLOSED'): void
  /** A request was refused, or a notice came while some waited. */
  onComplaint(message: string): void
}

export class Connection {
  readonly scope: Scope
  readonly #deps: ConnectionDeps
  readonly #socket: WebSocket
  readonly #router: FrameRouter
  readonly #inbox: FrameInbox
  readonly #auth: RelayAuth
  #isOpen = false
  #openedAtMs: number | undefined
  #hasAnswered = false
  #isPongDue = false
  #challenges = 0
  #whyDropped: string | undefined
  /** Of the last frame or pong. */
  lastAliveAtMs = 0

  constructor(socket: WebSocket, deps: ConnectionDeps) {
    const { url, scope, logger } = deps
    this.scope = scope
    this.#deps = deps
    this.#socket = socket
    this.#router = new FrameRouter({
      url,
      logger,
      onChallenge: (challenge) => this.#onChallenge(challenge),
      onAnswer: (type) => {
        this.#hasAnswered ||= type === 'EOSE'
        deps.onAnswer(type)
      },
      onComplaint: (message) => deps.onComplaint(message),
      onNotice: (message) => this.#auth.notice(message),
    })
    this.#inbox = new FrameInbox({
      clock: scope.clock,
      onFrame: (frame) => this.#router.route(frame),
      pause: () => socket.pause(),
      resume: () => socket.resume(),
    })
    this.#auth = new RelayAuth({
      url,
      scope,
      logger,
      send: (frame, eventId, onOk) => this.#sendFor(frame, eventId, onOk, 'AUTH'),
      onProven: (pubkey) => deps.onProven(pubkey),
    })
    scope.atEnd('goodbye', () => this.#leave())
    this.#hear(socket)
  }

  #hear(socket: WebSocket): void {
    let failure: string | undefined
    socket.on('open', () => this.#onOpen())
    socket.on('message', (data) => {
      if (this.scope.isClosing) return
      this.#alive()
      this.#inbox.push(data as Buffer)
    })
    socket.on('pong', () => this.#alive())
    socket.on('error', (error) => {
      failure = messageOf(error)
      if (!this.scope.isClosing) this.#deps.onError(error)
    })
    socket.on('close', (code) => {
      if (this.scope.isClosing) return
      this.#isOpen = false
      this.scope.end()
      this.#deps.onLost(failure ?? this.#whyDropped ?? `closed by the relay (${code})`)
    })
  }

  /** What was held so long was good: ms from when it opened, 0 where it never did. */
  get heldMs(): number {
    return this.#openedAtMs === undefined ? 0 : this.scope.clock.now() - this.#openedAtMs
  }

  /** A request came to its EOSE. */
  get hasAnswered(): boolean {
    return this.#hasAnswered
  }

  /** Requests that are open. */
  get openReqs(): number {
    return this.#router.openReqs
  }

  /** Open requests that the relay has taken. */
  get answeredReqs(): number {
    return this.#router.answeredReqs
  }

  /** Bytes that the socket has not sent yet. */
  get bufferedBytes(): number {
    return this.#socket.bufferedAmount
  }

  get challenged(): boolean {
    return this.#auth.challenged
  }

  isProven(pubkey: string): boolean {
    return this.#auth.isProven(pubkey)
  }

  prove(signer: Signer): Promise<boolean | undefined> {
    return this.#auth.prove(signer)
  }

  /** False when it is not open. */
  send(text: string): boolean {
    if (!this.#isOpen) return false
    this.#socket.send(text)
    return true
  }

  /** Sends what opens a request, and hears its answers. False when it is not open. */
  request(text: string, id: string, handler: ReqHandler): boolean {
    if (!this.send(text)) return false
    this.#router.addReq(id, handler)
    return true
  }

  /** False when the relay has ended it already. */
  dropReq(id: string): boolean {
    return this.#router.dropReq(id)
  }

  /** `onOk` may never be called. False when it is not open. */
  sendEvent(frame: string, eventId: string, onOk: OkHandler): boolean {
    return this.#sendFor(frame, eventId, onOk, 'EVENT')
  }

  /** Stops waiting for an OK. */
  forgetOk(eventId: string): void {
    this.#router.dropOks(eventId)
  }

  /** Ends it at once. */
  drop(reason: string): void {
    this.#whyDropped = reason
    this.#socket.terminate()
  }

  #sendFor(frame: string, eventId: string, onOk: OkHandler, type: 'AUTH' | 'EVENT'): boolean {
    if (!this.send(frame)) return false
    this.#router.addOk(eventId, onOk, type)
    return true
  }

  #onOpen(): void {
    if (this.scope.isClosing) {
      this.#socket.terminate()
      return
    }
    this.#isOpen = true
    this.#openedAtMs = this.scope.clock.now()
    this.#alive()
    this.scope.every('ping', PING_MS, () => this.#ping())
    this.#deps.onOpen()
  }

  #alive(): void {
    this.lastAliveAtMs = this.scope.clock.now()
    this.#isPongDue = false
  }

  #ping(): void {
    // While we hold the socket back, silence says nothing.
    if (this.#isPongDue && !this.#inbox.paused) {
      this.drop('no answer to ping')
      return
    }
    this.#isPongDue = true
    this.#socket.ping()
  }

  #onChallenge(challenge: string): void {
    if (++this.#challenges > MAX_CHALLENGES) {
      this.drop('the relay asks for AUTH without end')
      return
    }
    this.#auth.challenge(challenge)
    this.#deps.onChallenge()
  }

  /** Not waited for: a peer that does not answer the closing handshake must hold nobody up. */
  #leave(): void {
    this.#isOpen = false
    this.#inbox.clear()
    this.#router.clear()
    if (this.#socket.readyState === this.#socket.CLOSED) return
    this.#socket.close(1000)
    const cancel = this.scope.clock.after(CLOSE_MS, () => this.#socket.terminate())
    this.#socket.on('close', cancel)
  }
}
