/** Hears every answer to the customer's jobs: one live query that is open (EOSE seen) before a request goes out. */

import { messageOf } from '../base/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { Scope } from '../base/scope.ts'
import type { Nostr, NostrEvent, Subscription } from '../nostr/types.ts'
import type { CustomerDeps } from './deps.ts'

const FEEDBACK_KIND = 7000
/** Providers date their answers by their own clock. */
const SKEW_S = 600
const EOSE_TIMEOUT_MS = 5_000

export class AnswerListener {
  readonly #nostr: Nostr
  readonly #scope: Scope
  readonly #onEvent: (event: NostrEvent) => Promise<void>
  readonly #turns = new KeyedQueue()
  #kinds = new Set<number>()
  #sinceMs = Number.POSITIVE_INFINITY
  #subscription: Subscription | undefined

  constructor({ scope, nostr, logger }: Pick<CustomerDeps, 'scope' | 'nostr' | 'logger'>, onEvent: (event: NostrEvent) => Promise<void>) {
    this.#nostr = nostr
    this.#scope = scope.child('answers', { onFailure: ({ error }) => logger.warn({ err: messageOf(error) }, 'an answer was not taken') })
    this.#scope.atEnd('subscription', () => this.#subscription?.close())
    this.#onEvent = onEvent
  }

  /** Resolves once answers to all of these jobs are heard by every relay that is up. */
  cover(jobs: readonly { readonly kind: number; readonly createdAt: number }[]): Promise<void> {
    return this.#turns.run('cover', () => this.#widen(jobs))
  }

  /** Asks all relays once more for what they have: an answer may have been lost on its way, and no relay sends it again by itself. */
  askAgain(): Promise<void> {
    return this.#turns.run('cover', async () => {
      if (this.#subscription !== undefined) await this.#open(this.#kinds, this.#sinceMs)
    })
  }

  async #widen(jobs: readonly { readonly kind: number; readonly createdAt: number }[]): Promise<void> {
    const kinds = new Set(this.#kinds)
    for (const job of jobs) kinds.add(job.kind + 1000)
    const sinceMs = Math.min(this.#sinceMs, ...jobs.map((job) => job.createdAt))
    if (jobs.length === 0 || (kinds.size === this.#kinds.size && sinceMs === this.#sinceMs)) return
    await this.#open(kinds, sinceMs)
  }

  async #open(kinds: Set<number>, sinceMs: number): Promise<void> {
    const before = this.#subscription
    this.#subscription = await this.#nostr.listen({
      filters: [
        {
          kinds: [FEEDBACK_KIND, ...kinds],
          '#p': [this.#nostr.keyring.customer().pubkey],
          since: Math.floor(sinceMs / 1000) - SKEW_S,
        },
      ],
      timeoutMs: EOSE_TIMEOUT_MS,
      onEvent: (event) => this.#scope.spawn(event.id, () => this.#onEvent(event)),
    })
    this.#kinds = kinds
    this.#sinceMs = sinceMs
    before?.close()
  }
}
