/** Requests to one relay: live ones that are kept open whatever happens, and single ones that end with EOSE. */
import { randomBytes, randomInt } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Relay } from './relay.ts'
import { prefixOf } from './relay-frames.ts'
import type { Filter, Signer } from './types.ts'

/** EOSE must come this soon after the last frame of the request, else it is asked anew. */
const EOSE_TIMEOUT_MS = 30_000
const MIN_BACKOFF_MS = 1000
const MAX_BACKOFF_MS = 60_000
/** A request that was live so long was good. */
const STABLE_MS = 30_000
/** After a refusal that is not likely to change. */
const REFUSED_BACKOFF_MS = 300_000
/** EOSE missed so often in a row: the connection itself is suspect. */
const MISSED_BEFORE_RECONNECT = 2

const PROCESS = randomBytes(4).toString('hex')
let counter = 0

/** Never used before on any connection of this process. */
const freshSubId = (): string => `${PROCESS}:${++counter}`

export interface LiveReqOptions {
  readonly relay: Relay
  readonly clock: Clock
  /** Asked at every opening. */
  filters(): readonly Filter[]
  /** Whose keys the relay may want to see before it serves this; proven where policy allows. */
  authSigners(): Signer[]
  onOpen?(): void
  onEvent(event: unknown): void
  onEose(hint: string | undefined): void
}

export class LiveReq {
  readonly #options: LiveReqOptions
  #id: string | undefined
  #eose = false
  #failures = 0
  #eoseAt = 0
  #missed = 0
  #closed = false
  #reason: string | undefined
  #cancelTimer: () => void = () => {}
  readonly #unlisten: () => void

  constructor(options: LiveReqOptions) {
    this.#options = options
    this.#unlisten = options.relay.listen({
      onUp: () => {
        this.#failures = 0
        this.#open()
      },
      onDown: () => this.#forget(),
      onAuth: (pubkey) => {
        // What is served may depend on who we are: ask again as the key that was proven.
        if (options.authSigners().some((signer) => signer.pubkey === pubkey)) this.reopen()
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
    if (this.#closed) return
    const old = this.#id
    this.#forget()
    if (old !== undefined) this.#options.relay.closeReq(old)
    this.#open()
  }

  close(): void {
    this.#closed = true
    this.#unlisten()
    if (this.#id !== undefined) this.#options.relay.closeReq(this.#id)
    this.#forget()
  }

  #forget(): void {
    this.#id = undefined
    this.#eose = false
    this.#cancelTimer()
  }

  #open(): void {
    if (this.#closed || this.#id !== undefined) return
    const { relay, filters, onOpen, onEvent, onEose } = this.#options
    this.#cancelTimer()
    for (const signer of this.#options.authSigners()) void relay.auth(signer)
    const id = freshSubId()
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
        this.#eoseAt = this.#options.clock.now()
        this.#missed = 0
        this.#reason = undefined
        this.#cancelTimer()
        onEose(hint)
      },
      onClosed: (message) => {
        if (this.#id === id) this.#onClosed(message)
      },
    })
    if (!opened) return
    this.#id = id
    this.#watch(id)
  }

  #watch(id: string): void {
    this.#cancelTimer()
    this.#cancelTimer = this.#options.clock.after(EOSE_TIMEOUT_MS, () => {
      if (this.#id !== id || this.#eose) return
      this.#reason = 'no EOSE'
      this.#missed++
      if (this.#missed >= MISSED_BEFORE_RECONNECT) {
        this.#missed = 0
        this.#options.relay.reconnect('no EOSE')
        return
      }
      this.reopen()
    })
  }

  #onClosed(message: string): void {
    // A relay that closes again at once is not asked again at once, though it sent EOSE before.
    if (this.#eose && this.#options.clock.now() - this.#eoseAt >= STABLE_MS) this.#failures = 0
    this.#forget()
    this.#failures++
    this.#reason = `closed by the relay: ${message || 'no reason'}`
    const prefix = prefixOf(message)
    if (prefix === 'auth-required' || prefix === 'restricted') {
      // The proof may be under way, or was given and not enough: onAuth asks again, and so does the timer.
      for (const signer of this.#options.authSigners()) void this.#options.relay.auth(signer)
    }
    const hopeless = (prefix === 'blocked' || prefix === 'invalid' || prefix === 'unsupported') && this.#failures > 3
    const ceiling = hopeless ? REFUSED_BACKOFF_MS : Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** Math.min(this.#failures - 1, 6))
    this.#cancelTimer = this.#options.clock.after(Math.round(ceiling * (0.7 + randomInt(600) / 1000)), () => this.#open())
  }
}

export type CollectEnd = { readonly end: 'eose'; readonly hint: string | undefined } | { readonly end: 'closed' | 'timeout' | 'down' }

/** One request to its end; only `eose` means that the relay has sent all it wants to. */
export function collect(
  relay: Relay,
  clock: Clock,
  filters: readonly Filter[],
  timeoutMs: number,
  onEvent: (event: unknown) => void,
): Promise<CollectEnd> {
  return new Promise((resolve) => {
    const id = freshSubId()
    const cancel = clock.after(timeoutMs, () => finish({ end: 'timeout' }))
    const unlisten = relay.listen({ onDown: () => finish({ end: 'down' }) })
    const finish = (end: CollectEnd) => {
      cancel()
      unlisten()
      relay.closeReq(id)
      resolve(end)
    }
    const opened = relay.openReq(id, filters, {
      onEvent,
      onEose: (hint) => finish({ end: 'eose', hint }),
      onClosed: () => finish({ end: 'closed' }),
    })
    if (!opened) finish({ end: 'down' })
  })
}

/** Resolves when the relay is connected; false after the time, or as soon as it is known to be down. */
export function whenConnected(relay: Relay, clock: Clock, timeoutMs: number): Promise<boolean> {
  if (relay.connected) return Promise.resolve(true)
  if (relay.state === 'down') return Promise.resolve(false)
  return new Promise((resolve) => {
    const finish = (up: boolean) => {
      cancel()
      unlisten()
      resolve(up)
    }
    const cancel = clock.after(timeoutMs, () => finish(false))
    const unlisten = relay.listen({ onUp: () => finish(true), onFailed: () => finish(false) })
  })
}
