/** Handing events of one subscription to its handler: once at a time for an id, a bounded number at once, again after a failure. */
import { type BackoffPolicy, backoffMs } from '../../base/backoff.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { LruMap } from '../../base/lru.ts'
import type { Scope } from '../../base/scope.ts'
import type { NostrEvent } from '../types.ts'

const MAX_AT_ONCE = 256
const MAX_WAITING = 20_000
/** Characters of the events that wait, at most: one may be long. */
const MAX_WAITING_CHARS = 64 * 1024 * 1024
const REMEMBERED = 50_000
const RETRY: BackoffPolicy = { minMs: 1000, maxMs: 60_000 }

interface Waiting {
  readonly event: NostrEvent
  readonly relay: string
  failures: number
  /** Who wants to hear when it is handled. */
  readonly onHandled: (() => void)[]
}

export interface DispatcherDeps {
  /** Of the subscription. */
  readonly scope: Scope
  readonly name: string
  readonly logger: Logger
  onEvent(event: NostrEvent, relay: string): Promise<void>
}

export class Dispatcher {
  readonly #deps: DispatcherDeps
  /** Ids whose handler resolved. */
  readonly #handled = new LruMap<string, true>(REMEMBERED)
  readonly #pending = new Map<string, Waiting>()
  readonly #queue: Waiting[] = []
  #waitingChars = 0
  #running = 0
  #failing = 0

  constructor(deps: DispatcherDeps) {
    this.#deps = deps
  }

  /** Events whose handler has rejected and will be called again. */
  get failing(): number {
    return this.#failing
  }

  /** Nothing more is handled. */
  get isClosing(): boolean {
    return this.#deps.scope.isClosing
  }

  isHandled(id: string): boolean {
    return this.#handled.has(id)
  }

  /** Calls `onHandled` once the handler has resolved. False when too many wait: the event is to be asked for again. */
  handle(event: NostrEvent, relay: string, onHandled: () => void): boolean {
    const known = this.#pending.get(event.id)
    if (known !== undefined) {
      known.onHandled.push(onHandled)
      return true
    }
    if (this.isClosing || this.#pending.size >= MAX_WAITING || this.#waitingChars >= MAX_WAITING_CHARS) return false
    const waiting: Waiting = { event, relay, failures: 0, onHandled: [onHandled] }
    this.#pending.set(event.id, waiting)
    this.#waitingChars += charsOf(event)
    this.#queue.push(waiting)
    this.#pump()
    return true
  }

  #pump(): void {
    while (!this.isClosing && this.#running < MAX_AT_ONCE) {
      const next = this.#queue.shift()
      if (next === undefined) return
      this.#running++
      this.#deps.scope.spawn('handler', () => this.#run(next))
    }
  }

  async #run(waiting: Waiting): Promise<void> {
    const { event, relay, failures } = waiting
    try {
      await this.#deps.onEvent(event, relay)
      if (failures > 0) this.#failing--
      this.#handled.set(event.id, true)
      this.#pending.delete(event.id)
      this.#waitingChars -= charsOf(event)
      for (const tell of waiting.onHandled) tell()
    } catch (error) {
      this.#retryLater(waiting, error)
    } finally {
      this.#running--
      this.#pump()
    }
  }

  /** The cursor waits for it, and so does every relay that sends it again. */
  #retryLater(waiting: Waiting, error: unknown): void {
    const { name, logger, scope } = this.#deps
    const { event } = waiting
    logger.error({ subscription: name, event_id: event.id, kind: event.kind, error: messageOf(error) }, 'an event was not handled')
    if (waiting.failures++ === 0) this.#failing++
    scope.after('retry', backoffMs(RETRY, waiting.failures, scope.random), () => {
      this.#queue.push(waiting)
      this.#pump()
    })
  }
}

function charsOf({ content, tags }: NostrEvent): number {
  let chars = content.length
  for (const tag of tags) for (const value of tag) chars += value.length
  return chars
}
