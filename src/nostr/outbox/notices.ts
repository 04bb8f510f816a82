/** Telling the parts of the node what became of what they published, accepted or given up: at least once, also after a restart. */
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { type Ended, markNotified, unnotified } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'

const PAGE = 500
const RETRY_MS = 10_000
const GATHER_MS = 50

export type EndedHandler = (message: Ended) => Promise<void>
export type Outcome = 'accepted' | 'given_up'

export interface NoticesDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

interface Listener {
  readonly outcome: Outcome
  readonly prefix: string
  readonly handler: EndedHandler
  /** It failed and is called again after a while. */
  failing: boolean
}

export class OutboxNotices {
  readonly #deps: NoticesDeps
  readonly #listeners: Listener[] = []
  readonly #running = new Set<Promise<void>>()
  #told: number[] = []
  #marking = false
  #looking = false
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

  listen(outcome: Outcome, prefix: string, handler: EndedHandler): void {
    const listener = { outcome, prefix, handler, failing: false }
    this.#listeners.push(listener)
    if (this.#started) this.#track(this.#tellStored(listener))
  }

  /** Tells of messages that have just ended. */
  tell(outcome: Outcome, messages: readonly Ended[]): void {
    if (messages.length > 0) this.#track(this.#tellAll(outcome, messages))
  }

  /** Tells of what ended in the table only: given up for want of a relay, or while no lane held it. */
  tellStored(): void {
    if (!this.#started || this.#closed || this.#looking) return
    this.#looking = true
    const given = this.#listeners.filter(({ outcome, failing }) => outcome === 'given_up' && !failing)
    this.#track(
      Promise.all(given.map((listener) => this.#tellStored(listener))).then(() => {
        this.#looking = false
      }),
    )
  }

  async #tellAll(outcome: Outcome, messages: readonly Ended[]): Promise<void> {
    await Promise.all(
      messages.map(async (message) => {
        if (await this.#tellOne(outcome, message)) this.#told.push(message.id)
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
  async #tellOne(outcome: Outcome, message: Ended): Promise<boolean> {
    const wanted = this.#listeners.filter((listener) => listener.outcome === outcome && message.key.startsWith(listener.prefix))
    if (wanted.length === 0) return false
    try {
      for (const { handler } of wanted) await handler(message)
      return true
    } catch (error) {
      for (const listener of wanted) this.#retryLater(listener, error)
      return false
    }
  }

  /** Tells of what ended while nobody listened: before a restart, or before this handler came. */
  async #tellStored(listener: Listener): Promise<void> {
    const { store } = this.#deps
    try {
      for (;;) {
        const messages = this.#closed ? [] : unnotified(store, listener.outcome, listener.prefix, PAGE)
        if (messages.length === 0) return
        for (const message of messages) await listener.handler(message)
        await store.write(markNotified({ messageIds: messages.map(({ id }) => id) }))
      }
    } catch (error) {
      this.#retryLater(listener, error)
    }
  }

  #retryLater(listener: Listener, error: unknown): void {
    const { clock, logger } = this.#deps
    if (listener.failing) return
    listener.failing = true
    logger.error(
      { prefix: listener.prefix, error: messageOf(error) },
      'the end of a publication could not be reported; it is reported again',
    )
    clock.after(RETRY_MS, () => {
      listener.failing = false
      if (!this.#closed) this.#track(this.#tellStored(listener))
    })
  }

  #track(work: Promise<void>): void {
    this.#running.add(work)
    void work.finally(() => this.#running.delete(work))
  }
}
