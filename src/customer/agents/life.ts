/** What is due for a managed agent, and what the words of a node mean for it; pure. Which step leads where stands in base/states.ts. */
import { msatsToSatsUp } from '../../base/amounts.ts'
import { type Cleanup, canStep, MANAGED_STEPS, type ManagedPhase } from '../../base/states.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import { parseLeaseQuote } from '../machines/quote.ts'

/** Whether it is still on its way to ready. */
export const isComing = (phase: ManagedPhase): boolean => canStep(MANAGED_STEPS, phase, 'failed')

export type ManagedTask = 'provision' | 'learn its key' | 'invite' | 'hand over the welcome' | 'be ready' | 'tear down' | 'end' | 'rest'

/** What of a record says what is due. */
export interface ManagedFacts {
  readonly phase: ManagedPhase
  readonly cleanup: Cleanup
  /** The node answered that it runs. */
  readonly isProvisioned: boolean
  readonly botPubkey: string | null
  readonly groupId: string | null
  /** Welcomes that the runtime is still to be handed. */
  readonly welcomesLeft: number
}

export function taskOf(facts: ManagedFacts): ManagedTask {
  const { phase, cleanup } = facts
  if (phase === 'ended' || phase === 'ready') return 'rest'
  if (phase === 'failed') return cleanup === 'due' ? 'tear down' : 'rest'
  if (phase === 'ending') return cleanup === 'due' ? 'tear down' : 'end'
  if (!facts.isProvisioned) return 'provision'
  if (facts.botPubkey === null) return 'learn its key'
  if (facts.groupId === null) return 'invite'
  return facts.welcomesLeft > 0 ? 'hand over the welcome' : 'be ready'
}

const STARTUP: Readonly<Record<string, ManagedPhase>> = {
  provisioning_vm: 'provisioning',
  booting_guest: 'booting',
  waiting_for_service_ready: 'waiting_for_service_ready',
  waiting_for_keypackage_publish: 'waiting_for_keypackage_publish',
}

/** The phase that a status of the control plane tells of; undefined where it tells of none. */
export function phaseOfStatus(status: { readonly phase: string; readonly startupPhase?: string | undefined }): ManagedPhase | undefined {
  const named = status.startupPhase === undefined ? undefined : STARTUP[status.startupPhase]
  if (named !== undefined) return named
  return status.phase === 'provisioning' ? 'provisioning' : undefined
}

/** What its owner is told of a status: where it asks for a payment, how much that is. */
export function wordsOfStatus({ phase, message = phase, progress }: Pick<ControlStatus, 'phase' | 'message' | 'progress'>): string {
  const quote = parseLeaseQuote(progress)
  if (quote === undefined) return message
  const time = quote.leaseSeconds === undefined ? '' : ` for ${quote.leaseSeconds} s`
  return `${message}: ${msatsToSatsUp(quote.amountMsats)} sats${time}`
}
