/** What is to be done for a runtime in each state of its life, pure; its steps stand in base/states.ts. */

import type { RuntimeState } from '../../base/states.ts'
import type { ControlPhase } from '../../nostr/control/vocabulary.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import { destroysItself } from '../../runtime/retention.ts'
import type { Command } from '../../store/commands.ts'
import { moveRuntime, type RuntimePatch, type RuntimeRow } from '../../store/selling/runtimes.ts'
import type { Sight } from './lookout.ts'

/** States that take a place of the capacity. */
export const LIVING_STATES: readonly RuntimeState[] = ['provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown']

/** A step as a command. */
export function step(
  from: Pick<RuntimeRow, 'id' | 'state'>,
  to: RuntimeState,
  reason: string,
  at: number,
  patch?: RuntimePatch,
): Command<void> {
  return moveRuntime({ id: from.id, from: from.state, to, reason: reason.slice(0, 500), at, ...(patch === undefined ? {} : { patch }) })
}

/** Whether there may be an instance on the substrate. */
export function mayHaveInstance(state: RuntimeState): boolean {
  return state !== 'requested' && state !== 'gone'
}

type Lived = Pick<RuntimeRow, 'state' | 'protocol' | 'spec'>

/** A managed runtime that runs: its tenant works with it. */
export function isServing({ state, protocol }: Pick<RuntimeRow, 'state' | 'protocol'>): boolean {
  return protocol !== null && (state === 'ready' || state === 'unreachable')
}

/** A run that is over and leaves by itself. */
function leaves(row: Lived): boolean {
  return row.state === 'ended' && destroysItself(decodeRuntimeSpec(row.spec).policies)
}

/** What brings a runtime further. */
export type Task = 'take a place' | 'provision' | 'watch the run' | 'clean up' | 'give up' | 'rest'

export function taskOf(row: Lived): Task {
  switch (row.state) {
    case 'requested':
      return 'take a place'
    case 'provisioning':
      return 'provision'
    case 'ready':
    case 'unreachable':
      return row.protocol === null ? 'watch the run' : 'rest'
    case 'ended':
      return leaves(row) ? 'clean up' : 'rest'
    case 'failed':
      return 'give up'
    case 'teardown':
    case 'gone':
      return 'rest'
  }
}

/** What is done after a restart for one that no command goes on with. */
export function afterRestart(row: Lived): 'bring' | 'tear down' | 'rest' {
  if (row.state === 'gone') return 'rest'
  if (row.state === 'teardown' || row.state === 'failed' || row.state === 'requested' || leaves(row)) return 'tear down'
  // A run whose command nobody waits for any more.
  if (row.protocol === null && row.state !== 'ended') return 'tear down'
  return row.state === 'provisioning' ? 'bring' : 'rest'
}

/** Nobody has to bring it further: it serves, or is a run that is kept for a look. */
export function isKept(row: Lived): boolean {
  return isServing(row) || (row.state === 'ended' && !leaves(row))
}

/** What a look at a serving runtime means for it. */
export type Verdict = 'as before' | 'back' | 'away' | 'away for another reason' | 'lost'

/** @param patienceMs how long one that has an end may be unreachable */
export function verdictOf(
  row: Pick<RuntimeRow, 'state' | 'away' | 'expiresAt'>,
  { away, isGone }: Sight,
  nowMs: number,
  patienceMs: number,
): Verdict {
  if (isGone) return 'lost'
  if (away === null) return row.state === 'ready' ? 'as before' : 'back'
  if (row.state === 'ready') return 'away'
  // One that ended by itself waits for its tenant as long as its lease runs.
  const isTooLong = away.cause !== 'guest' && nowMs - away.since > patienceMs
  if (isTooLong && row.expiresAt !== null) return 'lost'
  return away.cause === row.away?.cause ? 'as before' : 'away for another reason'
}

/** The published phase of a state: `teardown` also once it is gone, as records that are kept show it. */
export function phaseOf(state: RuntimeState): ControlPhase {
  switch (state) {
    case 'requested':
      return 'queued'
    case 'provisioning':
      return 'provisioning'
    case 'ready':
    case 'unreachable':
    case 'ended':
      return 'ready'
    case 'failed':
      return 'failed'
    case 'teardown':
    case 'gone':
      return 'teardown'
  }
}
