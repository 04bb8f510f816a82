/** What the engine knows of a job, whichever transport brought it, and what a transport does for it. */
import type { Msats } from '../../base/amounts.ts'
import type { ErrorCode } from '../../base/errors.ts'
import type { OutboxEntry } from '../../nostr/types.ts'
import { jobResultMessage } from '../../store/keys.ts'
import type { JobRow } from '../../store/selling/jobs.ts'
import type { JobParams } from '../backends/backend.ts'

export type InputType = 'text' | 'url' | 'event' | 'job'

export interface JobInput {
  readonly type: InputType
  /** The text itself, an address, or the id of an event or of another job. */
  readonly data: string
  /** Where to look for an event or job. */
  readonly relay: string | undefined
}

/** A request, decoded and decrypted, with everything that admission decides on. */
export interface Order {
  /** 64 hex digits, unique: the claim. */
  readonly id: string
  readonly kind: number
  readonly customerPubkey: string
  /** Whether it named us: only then may it be refused aloud. */
  readonly directed: boolean
  readonly encryption: JobRow['encryption']
  readonly requestedAtS: number
  /** Milliseconds since the epoch after which nobody wants the result. */
  readonly deadline: number
  readonly bidMsats: Msats | undefined
  readonly inputs: readonly JobInput[]
  readonly params: JobParams
  readonly output: string | undefined
  readonly token: string | undefined
  /** Whether the token came where only we could read it. */
  readonly tokenPrivate: boolean
  readonly answerRelays: readonly string[]
  /** The request as it came: stored, so that a restart can decode it again. */
  readonly request: unknown
}

/** The part of an order that answering it needs. */
export type Addressee = Pick<Order, 'id' | 'kind' | 'customerPubkey' | 'encryption' | 'answerRelays' | 'request'>

export interface Feedback {
  readonly status: 'payment-required' | 'processing' | 'error' | 'success' | 'partial'
  readonly code?: ErrorCode
  /** For people. */
  readonly message?: string
  readonly amountMsats?: Msats
  readonly invoice?: string
  /** Only for the customer's eyes: always encrypted. */
  readonly secret?: Readonly<Record<string, string>>
  /** Makes this message another one than those before (a refund that is sent again). */
  readonly revision?: number
}

/** Brings answers to the customer; knows the wire, not the state machine. */
export interface Transport {
  /** The order of a stored job. @throws decrypt_failed, event_invalid */
  restore(job: JobRow): Promise<Order>
  feedback(to: Addressee, feedback: Feedback): Promise<OutboxEntry>
  /** Whether its answers are encrypted by a bunker elsewhere, which may take long or be cut short. */
  isAskedElsewhere(to: Addressee): boolean
  /** @throws output_too_large */
  result(to: Addressee, output: string): Promise<OutboxEntry>
  /** The stored result event as an entry again: the same id, so that no second result comes about. */
  resultAgain(job: JobRow): OutboxEntry
  /** The same event for relays that the customer named beyond those it went to; undefined when there are none. */
  resultElsewhere(job: JobRow): Promise<OutboxEntry | undefined>
}

/** The prefix of the outbox keys of results; acceptance of one is delivery. */
export const RESULT_KEY_PREFIX = jobResultMessage.of('')
