/** A command that was claimed, and the names that follow from it; pure. */
import { createHash } from 'node:crypto'
import type { ControlResult } from '../../nostr/control/envelopes.ts'
import type { ControlRequestRow } from '../../store/selling/control-requests.ts'
import type { Emit } from './machines.ts'

/** A claimed command while it runs. */
export interface Claimed {
  readonly requester: string
  readonly idempotencyKey: string
  /** Sets one try apart from the next of the same key. */
  readonly attemptId: string
  readonly emit: Emit
}

/** A command that was taken in: the next of the same requester comes after it, and its answer when it comes. */
export interface Begun {
  readonly answer: Promise<ControlResult>
}

export const attemptIdOf = (row: Pick<ControlRequestRow, 'createdAt' | 'attempts'>): string => `${row.createdAt}.${row.attempts}`

export function claimedOf(row: ControlRequestRow): Omit<Claimed, 'emit'> {
  return { requester: row.requester, idempotencyKey: row.idempotencyKey, attemptId: attemptIdOf(row) }
}

/** The same for the same try of the same command, so that a restart, and a repeat, find the lease again. */
export function leaseIdOf(claimed: Omit<Claimed, 'emit'>): string {
  const name = [claimed.requester, claimed.idempotencyKey, claimed.attemptId].join('\n')
  return createHash('sha256').update(`pylon lease\n${name}`).digest('hex').slice(0, 32)
}
