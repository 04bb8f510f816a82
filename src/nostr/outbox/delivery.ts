/** One message on its way to one relay, and what is recorded of that. */
import { type BackoffPolicy, backoffMs } from '../../base/backoff.ts'
import type { ScopePorts } from '../../base/scope.ts'
import type { DeliveryOutcome, DeliveryState } from '../../store/nostr/outbox.ts'
import { prefixOf } from '../relay/frames.ts'
import type { OutboxMessage } from './message.ts'
import { reasonOfRefusal } from './verdict.ts'

const KEY_AGAIN: BackoffPolicy = { minMs: 5000, maxMs: 5000, jitter: 0.3 }
const RETRY: BackoffPolicy = { minMs: 1000, maxMs: 300_000, jitter: 0.3 }
/** So often a relay may refuse an event in words that mean nothing to us; some minutes go by until then. */
const MAX_UNEXPLAINED = 8

export interface DeliveryRecord {
  /** The relay, as the rows name it. */
  readonly name: string
  onOutcome(message: OutboxMessage, outcome: DeliveryOutcome): void
}

export class Delivery {
  readonly message: OutboxMessage
  readonly #record: DeliveryRecord
  #attempts: number
  /** What was recorded of it last. */
  #lastError: string | undefined
  #unexplained = 0
  /** When to try again, or when it was sent (ms). */
  at: number
  /** The event that was sent. */
  sentId = ''
  triedAuth = false
  /** Connections that were lost while it was under way. */
  losses = 0

  constructor(message: OutboxMessage, record: DeliveryRecord, before: { readonly attempts: number; readonly nextAt: number }) {
    this.message = message
    this.#record = record
    this.#attempts = before.attempts
    this.at = before.nextAt
  }

  /** The relay has said something of it. */
  get hasError(): boolean {
    return this.#lastError !== undefined
  }

  /** A relay that goes on refusing in words that are no prefix of NIP-01 means it; `error:` is its own trouble, which may end. */
  isUnexplained(words: string): boolean {
    return prefixOf(words) !== 'error' && ++this.#unexplained >= MAX_UNEXPLAINED
  }

  settle(state: DeliveryState, error: string | null): void {
    this.message.lanes--
    if (state === 'accepted') this.#attempts++
    this.#report(state, error)
  }

  /** To be tried again after a while. */
  postpone({ clock, random }: ScopePorts, error: string): void {
    this.#attempts++
    this.triedAuth = false
    this.at = clock.now() + backoffMs(RETRY, this.#attempts, random)
    this.#report('pending', error)
  }

  /** The key that is to sign it is elsewhere and silent, which is no failure of the relay's: asking again costs little. */
  awaitKey({ clock, random }: ScopePorts, words: string): void {
    const at = clock.now() + backoffMs(KEY_AGAIN, 1, random)
    if (this.#lastError !== words) this.#report('pending', words)
    this.at = at
  }

  /** It waits for the relay, whose words are recorded once. */
  note(words: string): void {
    if (this.#lastError === words) return
    this.at = 0
    this.#report('pending', words)
  }

  #report(state: DeliveryState, error: string | null): void {
    if (error !== null) this.#lastError = error
    const { message } = this
    const reason = state === 'rejected' ? { reason: reasonOfRefusal(error ?? '') } : {}
    const nextAt = state === 'pending' ? this.at : 0
    const { name: relay } = this.#record
    this.#record.onOutcome(message, { messageId: message.id, relay, state, attempts: this.#attempts, error, nextAt, ...reason })
  }
}
