/** Handing events of one subscription to its consumer: once at a time for an id, a bounded number at once, again after a failure. */
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { LruMap } from '../../base/lru.ts'
import type { NostrEvent } from '../types.ts'

const MAX_AT_ONCE = 256
const MAX_WAITING = 20_000
/** Characters of the events that wait, at most: one may be long. */
const MAX_WAITING_CHARS = 64 * 1024 * 1024
const REMEMBERED = 50_000
const MIN_RETRY_MS = 1000
const MAX_RETRY_MS = 60_000

interface Waiting {
  readonly event: NostrEvent
  readonly relay: string
  attempts: number
  readonly done: Promise<void>
  resolve(): void
}

export interface DeliveryDeps {
  readonly name: string
  readonly clock: Clock
  readonly logger: Logger
  onEvent(event: NostrEvent, relay: string): Promise<void>
}

export class Delivery {
  readonly #deps: DeliveryDeps
  /** Ids whose handler resolved. */
  readonly #done = new LruMap<string, true>(REMEMBERED)
  readonly #pending = new Map<string, Waiting>()
  readonly #queue: Waiting[] = []
  #waitingChars = 0
  #running = 0
  #failing = 0
  #closed = false

  constructor(deps: DeliveryDeps) {
    this.#deps = deps
  }

  /** Events whose handler has rejected and will be called again. */
  get failing(): number {
    return this.#failing
  }

  isDone(id: string): boolean {
    return this.#done.has(id)
  }

  /** What to wait for when the event is being handled already. */
  pending(id: string): Promise<void> | undefined {
    return this.#pending.get(id)?.done
  }

  /** Resolves once the handler has; undefined when too many wait, so the event is to be asked for again. */
  deliver(event: NostrEvent, relay: string): Promise<void> | undefined {
    if (this.#closed || this.#pending.size >= MAX_WAITING || this.#waitingChars >= MAX_WAITING_CHARS) return undefined
    let resolve = () => {}
    const done = new Promise<void>((fulfil) => {
      resolve = fulfil
    })
    const waiting: Waiting = { event, relay, attempts: 0, done, resolve }
    this.#pending.set(event.id, waiting)
    this.#waitingChars += charsOf(event)
    this.#queue.push(waiting)
    this.#pump()
    return done
  }

  close(): void {
    this.#closed = true
    this.#queue.length = 0
  }

  #pump(): void {
    while (!this.#closed && this.#running < MAX_AT_ONCE) {
      const next = this.#queue.shift()
      if (next === undefined) return
      this.#running++
      void this.#run(next)
    }
  }

  async #run(waiting: Waiting): Promise<void> {
    try {
      await this.#deps.onEvent(waiting.event, waiting.relay)
      if (waiting.attempts > 0) this.#failing--
      this.#done.set(waiting.event.id, true)
      this.#pending.delete(waiting.event.id)
      this.#waitingChars -= charsOf(waiting.event)
      waiting.resolve()
    } catch (error) {
      this.#retryLater(waiting, error)
    } finally {
      this.#running--
      this.#pump()
    }
  }

  /** The cursor waits for it, and so does every relay that sends it again. */
  #retryLater(waiting: Waiting, error: unknown): void {
    const { name, logger, clock } = this.#deps
    logger.error(
      { subscription: name, event_id: waiting.event.id, kind: waiting.event.kind, error: messageOf(error) },
      'an event was not handled',
    )
    if (waiting.attempts++ === 0) this.#failing++
    const waitMs = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** Math.min(waiting.attempts - 1, 6))
    clock.after(waitMs, () => {
      if (this.#closed) return
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
