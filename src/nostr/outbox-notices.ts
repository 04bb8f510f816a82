/** Telling the parts of the node that what they published was accepted: at least once, also after a restart. */
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { markNotified, unnotified } from '../store/outbox.ts'
import type { Store } from '../store/store.ts'

const PAGE = 500
const RETRY_MS = 10_000
const GATHER_MS = 50

export type PublishedHandler = (key: string, eventId: string) => Promise<void>

export interface Published {
  readonly id: number
  readonly key: string
  readonly eventId: string
}

export interface NoticesDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

interface Listener {
  readonly prefix: string
  readonly handler: PublishedHandler
}

export class OutboxNotices {
  readonly #deps: NoticesDeps
  readonly #listeners: Listener[] = []
  readonly #running = new Set<Promise<void>>()
  #told: number[] = []
  #marking = false
  #started = false
  #closed = false

  constructor(deps: NoticesDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#started = true
    for (const listener of this.#listeners) this.#track(this.#tellStored(listener))
  }

  /** Resolves when no handler runs any more. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.allSettled([...this.#running])
    await this.#mark()
  }

  listen(prefix: string, handler: PublishedHandler): void {
    const listener = { prefix, handler }
    this.#listeners.push(listener)
    if (this.#started) this.#track(this.#tellStored(listener))
  }

  /** Tells of messages that were just accepted for the first time. */
  tell(messages: readonly Published[]): void {
    if (messages.length > 0) this.#track(this.#tellAll(messages))
  }

  async #tellAll(messages: readonly Published[]): Promise<void> {
    await Promise.all(
      messages.map(async (message) => {
        if (await this.#tellOne(message)) this.#told.push(message.id)
      }),
    )
    this.#markSoon()
  }

  /** What is told and not yet marked is told again after a crash, which handlers expect: so this may wait for more. */
  #markSoon(): void {
    if (this.#marking || this.#closed) return
    this.#marking = true
    this.#deps.clock.after(GATHER_MS, () => {
      this.#marking = false
      if (!this.#closed) this.#track(this.#mark())
    })
  }

  async #mark(): Promise<void> {
    const messageIds = this.#told
    if (messageIds.length === 0) return
    this.#told = []
    await this.#deps.store.write(markNotified({ messageIds })).catch((error: unknown) => {
      this.#deps.logger.warn({ error: messageOf(error) }, 'publications are reported again after a restart')
    })
  }

  /** Whether somebody was told and has dealt with it. */
  async #tellOne(message: Published): Promise<boolean> {
    const wanted = this.#listeners.filter(({ prefix }) => message.key.startsWith(prefix))
    if (wanted.length === 0) return false
    try {
      for (const { handler } of wanted) await handler(message.key, message.eventId)
      return true
    } catch (error) {
      for (const listener of wanted) this.#retryLater(listener, error)
      return false
    }
  }

  /** Tells of what was accepted while nobody listened: before a restart, or before this handler came. */
  async #tellStored(listener: Listener): Promise<void> {
    const { store } = this.#deps
    try {
      for (;;) {
        const messages = this.#closed ? [] : unnotified(store, listener.prefix, PAGE)
        if (messages.length === 0) return
        for (const { key, eventId } of messages) await listener.handler(key, eventId)
        await store.write(markNotified({ messageIds: messages.map(({ id }) => id) }))
      }
    } catch (error) {
      this.#retryLater(listener, error)
    }
  }

  #retryLater(listener: Listener, error: unknown): void {
    const { clock, logger } = this.#deps
    logger.error({ prefix: listener.prefix, error: messageOf(error) }, 'a publication could not be reported; it is reported again')
    clock.after(RETRY_MS, () => {
      if (!this.#closed) this.#track(this.#tellStored(listener))
    })
  }

  #track(work: Promise<void>): void {
    this.#running.add(work)
    void work.finally(() => this.#running.delete(work))
  }
}
