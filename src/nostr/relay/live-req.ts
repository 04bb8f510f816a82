/** A request to one relay that is kept open whatever happens. */
import { type BackoffPolicy, backoffMs } from '../../base/backoff.ts'
import type { Scope } from '../../base/scope.ts'
import type { Filter } from '../types.ts'
import { AFTER_NOTICE_MS, collect, isDenied } from './collect.ts'
import { prefixOf } from './frames.ts'
import type { Relay } from './relay.ts'
import { saysTooManyReqs } from './slots.ts'

/** EOSE must come this soon after the last frame of the request, else it is asked anew. */
const EOSE_TIMEOUT_MS = 30_000
/** For a request that is part of one which got no answer. */
const SUSPECT_TIMEOUT_MS = 10_000
/** What every relay answers at once, if it answers anything. */
const PROBE: Filter = { ids: ['0'.repeat(64)], limit: 1 }
const PROBE_TIMEOUT_MS = 10_000
const RETRY: BackoffPolicy = { minMs: 1000, maxMs: 60_000, jitter: 0.3 }
/** A request that was live so long was good. */
const STABLE_MS = 10_000
/** After a refusal that is not likely to change. */
const RETRY_REFUSED: BackoffPolicy = { minMs: 300_000, maxMs: 300_000, jitter: 0.3 }
/** EOSE missed so often in a row: is it the request, or the connection? */
const MISSED_BEFORE_PROBE = 2
/** Refused so often in a row: the request itself is why. */
const FAILURES_OF_ITSELF = 2
/** Proofs that are tried in a row before the refusal counts. */
const MAX_PROOFS = 2

export interface LiveReqOptions {
  /** Of this request alone. */
  readonly scope: Scope
  readonly relay: Relay
  /** Asked at every opening. */
  filters(): readonly Filter[]
  /** What is served may depend on the key: asked again whenever one was proven. */
  readonly isPrivate?: boolean
  /** Part of a request that failed: what happens to it now is its own doing. */
  readonly isSuspect?: boolean
  onOpen?(): void
  onEvent(event: unknown): void
  onEose(hint: string | undefined): void
  /** The relay serves this to none of the keys that it was shown on this connection. */
  onDenied?(): void
  /** Refused or not answered, also when tried again, while the relay answers others: it is tried on and on, unless the owner closes it. */
  onFailed?(): void
}

export class LiveReq {
  readonly #options: LiveReqOptions
  readonly #scope: Scope
  #id: string | undefined
  #eose = false
  #failures = 0
  #proofs = 0
  /** A key was proven after this was sent: the refusal may be from before. */
  #provenSince = false
  #eoseAt = 0
  #missed = 0
  #reason: string | undefined
  #complaint: string | undefined
  #cancelTimer: () => void = () => {}
  #cancelWait: () => void = () => {}
  readonly #unlisten: () => void

  constructor(options: LiveReqOptions) {
    this.#options = options
    this.#scope = options.scope
    this.#scope.atEnd('leave', () => this.#leave())
    this.#unlisten = options.relay.listen({
      onUp: () => {
        this.#failures = 0
        this.#proofs = 0
        this.#open()
      },
      onDown: () => this.#forget(),
      onAuth: () => {
        this.#provenSince = true
        if (this.#id === undefined || options.isPrivate === true) this.reopen()
      },
    })
    if (options.relay.connected) this.#open()
  }

  /** Why it is not live, or undefined. */
  get reason(): string | undefined {
    return this.#reason
  }

  get live(): boolean {
    return this.#id !== undefined && this.#eose
  }

  reopen(): void {
    this.#end()
    this.#open()
  }

  /** For good; its place is free at once. */
  close(): void {
    this.#scope.end()
    this.#leave()
  }

  #leave(): void {
    this.#unlisten()
    this.#end()
  }

  #end(): void {
    const old = this.#id
    this.#forget()
    if (old !== undefined) this.#options.relay.closeReq(old)
  }

  #forget(): void {
    this.#id = undefined
    this.#eose = false
    this.#complaint = undefined
    this.#cancelTimer()
    this.#cancelWait()
  }

  #open(): void {
    if (this.#scope.isClosing || this.#id !== undefined || !this.#options.relay.connected) return
    this.#cancelTimer()
    this.#cancelWait()
    let sent = false
    this.#cancelWait = this.#options.relay.whenFree('live', () => {
      sent = true
      this.#send()
    })
    if (!sent) this.#reason = 'the relay takes no more requests than are open: this one waits for its turn'
  }

  #send(): void {
    const { relay, filters, onOpen, onEvent, onEose } = this.#options
    const id = relay.freshSubId()
    this.#provenSince = false
    onOpen?.()
    const opened = relay.openReq(id, filters(), {
      onEvent: (event) => {
        if (this.#id !== id) return
        if (!this.#eose) this.#watch(id)
        onEvent(event)
      },
      onEose: (hint) => {
        if (this.#id !== id || this.#eose) return
        this.#eose = true
        this.#eoseAt = this.#scope.clock.now()
        this.#missed = 0
        this.#proofs = 0
        this.#reason = undefined
        this.#cancelTimer()
        onEose(hint)
      },
      onClosed: (message) => {
        if (this.#id === id) this.#onClosed(message)
      },
      onNotice: (message) => {
        if (this.#id !== id || this.#eose) return
        this.#complaint ??= message
        this.#watch(id)
      },
    })
    if (!opened) return
    this.#id = id
    this.#watch(id)
  }

  #watch(id: string): void {
    this.#cancelTimer()
    const patienceMs = this.#options.isSuspect === true ? SUSPECT_TIMEOUT_MS : EOSE_TIMEOUT_MS
    const waitMs = this.#complaint === undefined ? patienceMs : AFTER_NOTICE_MS
    this.#cancelTimer = this.#scope.after('answer', waitMs, () => {
      if (this.#id === id && !this.#eose) this.#onSilence()
    })
  }

  /** Only this request is given up: whether others are answered decides about the connection. */
  #onSilence(): void {
    const complaint = this.#complaint
    this.#missed++
    this.#end()
    this.#reason = complaint === undefined ? 'no EOSE' : `not answered but by a notice: ${complaint}`
    if (complaint !== undefined) this.#fail(complaint)
    else if (this.#missed >= MISSED_BEFORE_PROBE || this.#options.isSuspect === true) this.#scope.spawn('probe', () => this.#probe())
    else this.#open()
  }

  async #probe(): Promise<void> {
    const { relay } = this.#options
    const { end } = await collect(this.#scope, relay, [PROBE], PROBE_TIMEOUT_MS, () => {})
    if (this.#id !== undefined || end === 'down') return
    if (end !== 'timeout') {
      this.#failures = Math.max(this.#failures, FAILURES_OF_ITSELF - 1)
      this.#fail('')
      return
    }
    this.#missed = 0
    relay.reconnect('no EOSE')
  }

  #onClosed(message: string): void {
    // A relay that closes again at once is not asked again at once, though it sent EOSE before.
    if (this.#eose && this.#scope.clock.now() - this.#eoseAt >= STABLE_MS) this.#failures = 0
    const wasLive = this.#eose
    this.#forget()
    this.#reason = `closed by the relay: ${message || 'no reason'}`
    this.#fail(message, wasLive)
  }

  #fail(message: string, wasLive = false): void {
    const { relay, onDenied, onFailed, isSuspect } = this.#options
    this.#failures++
    const prefix = prefixOf(message)
    const hopeless = (prefix === 'blocked' || prefix === 'invalid' || prefix === 'unsupported') && this.#failures > 3
    const waitMs = backoffMs(hopeless ? RETRY_REFUSED : RETRY, this.#failures, this.#scope.random)
    this.#cancelTimer = this.#scope.after('retry', waitMs, () => this.#open())
    if (isDenied(message)) {
      if (this.#provenSince) return
      const { identity } = relay
      // The proof may be under way, or the challenge still to come: onAuth asks again, and so does the timer.
      if (identity !== undefined && !relay.isProven(identity.pubkey) && this.#proofs++ < MAX_PROOFS)
        this.#scope.spawn('auth', () => relay.auth(identity))
      else onDenied?.()
      return
    }
    const isItself = this.#failures >= FAILURES_OF_ITSELF || isSuspect === true
    if (isItself && !wasLive && prefix !== 'rate-limited' && !saysTooManyReqs(message)) onFailed?.()
  }
}
