/** Telling the parts of the node what became of what they published, accepted or given up: at least once, also after a restart. */
import { messageOf } from '../../base/errors.ts'
import { type Ended, isAnyUntold, markNotified, unnotified } from '../../store/nostr/outbox.ts'
import type { OutboxDeps } from './outbox.ts'

const PAGE = 500
const RETRY_MS = 10_000
const GATHER_MS = 50

export type EndedHandler = (message: Ended) => Promise<void>
export type Outcome = 'accepted' | 'given_up'

type NoticesDeps = Pick<OutboxDeps, 'scope' | 'store' | 'logger'>

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
  #told: number[] = []
  #isStarted = false

  constructor(deps: NoticesDeps) {
    this.#deps = deps
    deps.scope.atEnd('mark', () => this.#mark())
  }

  start(): void {
    this.#isStarted = true
    for (const listener of this.#listeners) this.#spawnTelling(listener)
  }

  listen(outcome: Outcome, prefix: string, handler: EndedHandler): void {
    const listener = { outcome, prefix, handler, failing: false }
    this.#listeners.push(listener)
    if (this.#isStarted) this.#spawnTelling(listener)
  }

  /** Tells of messages that have just ended. */
  tell(outcome: Outcome, messages: readonly Ended[]): void {
    if (messages.length > 0) this.#deps.scope.spawn('tell', () => this.#tellAll(outcome, messages))
  }

  /** Tells of what ended in the table only: given up for want of a relay, or while no lane held it. */
  tellStored(): void {
    // Asked after every commit: mostly there is nothing to tell, which is one question and not one for each listener.
    if (!this.#isStarted || !isAnyUntold(this.#deps.store, 'given_up')) return
    for (const listener of this.#listeners) if (listener.outcome === 'given_up' && !listener.failing) this.#spawnTelling(listener)
  }

  async #tellAll(outcome: Outcome, messages: readonly Ended[]): Promise<void> {
    await Promise.all(
      messages.map(async (message) => {
        if (await this.#tellOne(outcome, message)) this.#told.push(message.id)
      }),
    )
    // What is told and not yet marked is told again after a crash, which handlers expect: so this may wait for more.
    this.#deps.scope.gather('mark', GATHER_MS, () => this.#mark())
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

  /** One at a time for each listener. */
  #spawnTelling(listener: Listener): void {
    const { scope } = this.#deps
    scope.spawn('tell stored', () => scope.once(`listener ${this.#listeners.indexOf(listener)}`, () => this.#tellStored(listener)))
  }

  /** Tells of what ended while nobody listened: before a restart, or before this handler came. */
  async #tellStored(listener: Listener): Promise<void> {
    const { scope, store } = this.#deps
    try {
      for (;;) {
        const messages = scope.isClosing ? [] : unnotified(store, listener.outcome, listener.prefix, PAGE)
        if (messages.length === 0) return
        for (const message of messages) await listener.handler(message)
        await store.write(markNotified({ messageIds: messages.map(({ id }) => id) }))
      }
    } catch (error) {
      this.#retryLater(listener, error)
    }
  }

  #retryLater(listener: Listener, error: unknown): void {
    const { scope, logger } = this.#deps
    if (listener.failing) return
    listener.failing = true
    logger.error(
      { prefix: listener.prefix, error: messageOf(error) },
      'the end of a publication could not be reported; it is reported again',
    )
    scope.after('tell again', RETRY_MS, () => {
      listener.failing = false
      this.#spawnTelling(listener)
    })
  }
}
