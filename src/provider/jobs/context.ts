/** What the parts of the job engine share: its dependencies, one way to step a job and what a customer is told. */

import type { Msats } from '../../base/amounts.ts'
import type { Config } from '../../base/config.ts'
import type { ErrorCode } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { JobState } from '../../base/states.ts'
import { isUnheard } from '../../nostr/keys/away.ts'
import type { OutboxEntry } from '../../nostr/types.ts'
import type { Command } from '../../store/commands.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { type JobPatch, transitionJob } from '../../store/selling/job-steps.ts'
import type { Store } from '../../store/store.ts'
import type { Wallet } from '../../wallet/types.ts'
import type { Backend } from '../backends/backend.ts'
import type { Resolved } from './inputs.ts'
import type { Feedback, Order, Transport } from './order.ts'

export interface EngineDeps {
  readonly store: Store
  /** Owns all that runs here; time and chance come from it. */
  readonly scope: Scope
  readonly logger: Logger
  readonly config: () => Config
  readonly transport: Transport
  /** The node's wallet. @throws locked */
  readonly wallet: () => Wallet
  readonly hasMint: () => boolean
  /** A mint was named and has not answered yet. */
  readonly expectsMint: () => boolean
  /** Whether a key is one of this home. */
  readonly owns: (pubkey: string) => boolean
  readonly backendFor: (kind: number) => Backend | undefined
  readonly resolve: (order: Order, signal: AbortSignal) => Promise<Resolved>
  /** Sends what was put in the outbox. */
  readonly nudge: () => void
  /** A job now waits (for payment, inputs or a slot) and may be cancelled meanwhile. */
  readonly onWaiting: () => void
}

/** A job on its way to be run, in memory; the database has the same. */
export interface Ticket {
  readonly order: Order
  readonly from: 'queued' | 'paid' | 'running'
  readonly attempts: number
  readonly priceMsats: Msats
  /** It holds money: it comes first, and what becomes of that is told at its end. */
  readonly isPaid: boolean
}

/** A step as a command. */
export function step(id: string, from: JobState, to: JobState, reason: string, at: number, patch?: JobPatch): Command<void> {
  return transitionJob({ id, from, to, reason: reason.slice(0, 500), at, ...(patch === undefined ? {} : { patch }) })
}

export function publish(entry: OutboxEntry, at: number): Command<boolean> {
  return enqueueEvent({ ...entry, at })
}

/** What is only news is left out while the node's key is away. */
export async function newsOf(
  deps: Pick<EngineDeps, 'transport'>,
  order: Order,
  feedback: Feedback,
  at: number,
): Promise<Command<boolean>[]> {
  try {
    return [publish(await deps.transport.feedback(order, feedback), at)]
  } catch (error) {
    if (isUnheard(error)) return []
    throw error
  }
}

const KEY_AWAY = 'The key of this node is not at hand now.'
const PRIVATE_REASONS: Partial<Record<ErrorCode, string>> = {
  bunker_unreachable: KEY_AWAY,
  bunker_refused: KEY_AWAY,
  bunker_approval: KEY_AWAY,
  bunker_answer_invalid: KEY_AWAY,
  bunker_key_changed: KEY_AWAY,
  internal: 'The node had a fault of its own.',
  backend_unavailable: 'What serves this kind is not reachable now; try again later.',
  backend_failed: 'What serves this kind failed on this request, or took too long.',
  output_too_large: 'The result is over the output limit.',
  address_refused: 'The address of an input may not be read: only https addresses on the public internet are.',
  fetch_failed: 'The address of an input could not be read.',
  mint_unreachable: 'The mint of this node does not answer now; try again later.',
  mint_rejected: 'The mint of this node refused to take part.',
  mint_cap_exceeded: 'This node takes no payment of that size now.',
  relay_unreachable: 'No relay took the result: name others that do in a relays tag.',
}

/** Every code that a customer can get; docs/nip90.md says what each means. Others are faults of this node, and told as such. */
export const TOLD_CODES = [
  'kind_unsupported',
  'input_invalid',
  'param_invalid',
  'amount_invalid',
  'bid_too_low',
  'job_expired',
  'rate_limited',
  'overloaded',
  'backend_unavailable',
  'backend_failed',
  'output_too_large',
  'address_refused',
  'fetch_failed',
  'relay_unreachable',
  'no_mint',
  'mint_unreachable',
  'mint_rejected',
  'mint_cap_exceeded',
  'mint_not_allowed',
  'token_invalid',
  'token_spent',
  'token_locked',
  'token_bare',
  'token_amount',
  'cancelled',
  'internal',
] as const satisfies readonly ErrorCode[]

/** The code that a customer is told. */
export const toldCode = (code: ErrorCode): ErrorCode => TOLD_CODES.find((told) => told === code) ?? 'internal'

/** What a customer may be told of an error: nothing of the inside of this machine (paths, addresses, what a name resolves to, what it holds). */
export function tellable(code: ErrorCode, message: string): string {
  return PRIVATE_REASONS[toldCode(code)] ?? message
}
