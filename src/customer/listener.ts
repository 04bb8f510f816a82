/** Hears every answer to the customer's jobs: one live query that is open (EOSE seen) before a request goes out. */
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/logger.ts'
import type { Nostr, NostrEvent, Subscription } from '../nostr/types.ts'

const FEEDBACK_KIND = 7000
/** Providers date their answers by their own clock. */
const SKEW_S = 600
const EOSE_TIMEOUT_MS = 5_000

export class AnswerListener {
  readonly #deps: { readonly nostr: Nostr; readonly clock: Clock; readonly logger: Logger }
  readonly #onEvent: (event: NostrEvent) => Promise<void>
  #kinds = new Set<number>()
  #sinceMs = Number.POSITIVE_INFINITY
  #subscription: Subscription | undefined
  #turn: Promise<void> = Promise.resolve()

  constructor(deps: { nostr: Nostr; clock: Clock; logger: Logger }, onEvent: (event: NostrEvent) => Promise<void>) {
    this.#deps = deps
    this.#onEvent = onEvent
  }

  /** Resolves once answers to all of these jobs are heard by every relay that is up. */
  cover(jobs: readonly { readonly kind: number; readonly createdAt: number }[]): Promise<void> {
    this.#turn = this.#turn.catch(() => undefined).then(() => this.#widen(jobs))
    return this.#turn
  }

  async #widen(jobs: readonly { readonly kind: number; readonly createdAt: number }[]): Promise<void> {
    const kinds = new Set(this.#kinds)
    for (const job of jobs) kinds.add(job.kind + 1000)
    const sinceMs = Math.min(this.#sinceMs, ...jobs.map((job) => job.createdAt))
    if (jobs.length === 0 || (kinds.size === this.#kinds.size && sinceMs === this.#sinceMs)) return
    const before = this.#subscription
    this.#subscription = await this.#deps.nostr.listen({
      filters: [
        {
          kinds: [FEEDBACK_KIND, ...kinds],
          '#p': [this.#deps.nostr.keyring.customer().pubkey],
          since: Math.floor(sinceMs / 1000) - SKEW_S,
        },
      ],
      timeoutMs: EOSE_TIMEOUT_MS,
      onEvent: (event) => {
        this.#onEvent(event).catch((error: unknown) => this.#deps.logger.warn({ event: event.id, err: String(error) }, 'answer failed'))
      },
    })
    this.#kinds = kinds
    this.#sinceMs = sinceMs
    before?.close()
  }

  close(): void {
    this.#subscription?.close()
  }
}
