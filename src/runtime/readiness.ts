/** From a guest's files to a readiness that may be believed: right schema, right boot, and a probe named. Pure. */
import { messageOf } from '../base/errors.ts'
import { given } from '../base/given.ts'
import type { Readiness } from './adapter.ts'
import { decodeResult, decodeStatus, type RuntimeStatusSnapshot, type RuntimeTerminalResult } from './contract/lifecycle.ts'
import { readGuestDetails } from './contract/managed.ts'
import type { Protocol } from './contract/prompt.ts'

/** Lifecycle files are read no further than this, in bytes. */
export const MAX_STATUS_BYTES = 64 * 1024
export const MAX_RESULT_BYTES = 64 * 1024
export const MAX_EVENTS_BYTES = 4 * 1024 * 1024

export interface GuestEvidence {
  /** Whether the substrate says that the instance runs. */
  readonly alive: boolean
  /** Of the instance as it runs now, asked of the substrate and not of the guest; undefined where it could not be. */
  readonly bootId: string | undefined
  readonly statusText: string | undefined
  readonly resultText: string | undefined
  readonly protocol: Protocol | null
}

/** Never throws: what can't be believed is not ready, and the message says why. */
export function judgeReadiness(evidence: GuestEvidence): Readiness {
  const boot = given({ bootId: evidence.bootId })
  const status = believe(evidence)
  const result = decoded(() => (evidence.resultText === undefined ? undefined : decodeResult(evidence.resultText, 'result.json')))
  const terminal = result.value
  if (!evidence.alive) return { ...boot, ...ended(terminal, result.problem ?? status.problem), ...given({ status: status.value }) }
  if (status.value === undefined) {
    return { ...boot, state: 'starting', message: status.problem ?? 'the guest has not reported yet' }
  }
  // A result is believed with a status of this boot beside it: a disk may hold one of an earlier life.
  if (terminal !== undefined && (status.value.state === 'completed' || status.value.state === 'failed')) {
    // Whatever it says: while its instance runs, its tenant has it.
    return { ...boot, ...lastWord(terminal), byGuest: true, status: status.value }
  }
  return { ...boot, ...running(status.value, evidence.protocol), status: status.value }
}

/** Ends that the guest program writes down and that what runs inside has not chosen: the program died, was told to stop, or booted anew. */
const NOT_BY_GUEST: readonly unknown[] = ['guest_died', 'guest_bootstrap_failed', 'terminated', 'instance_restarted']

function lastWord({ status, message, details }: RuntimeTerminalResult): Pick<Readiness, 'state' | 'message' | 'byGuest'> {
  return { state: status, message, ...(NOT_BY_GUEST.includes(details?.['failure_reason']) ? {} : { byGuest: true }) }
}

function ended(result: RuntimeTerminalResult | undefined, problem: string | undefined): Pick<Readiness, 'state' | 'message' | 'byGuest'> {
  if (result !== undefined) return lastWord(result)
  return { state: 'failed', message: problem ?? 'the guest ended and left no result' }
}

function running(status: RuntimeStatusSnapshot, protocol: Protocol | null): Pick<Readiness, 'state' | 'message'> {
  switch (status.state) {
    case 'failed':
    case 'completed':
      // The result is written last: a guest that has one to give has not ended before.
      return { state: 'starting', message: `the guest ends: ${status.message}` }
    case 'ready':
      return protocol === null ? { state: 'ready', message: status.message } : managed(status, protocol)
    default:
      return { state: 'starting', message: status.message }
  }
}

function managed(status: RuntimeStatusSnapshot, protocol: Protocol): Pick<Readiness, 'state' | 'message'> {
  const details = readGuestDetails(status.details)
  if (details?.agent_kind !== protocol || details.probe === undefined || !details.service_probe_satisfied) {
    return { state: 'starting', message: 'the guest says ready without a probe that this runtime asks for' }
  }
  return { state: 'ready', message: status.message }
}

function believe(evidence: GuestEvidence): { value?: RuntimeStatusSnapshot; problem?: string } {
  const { statusText, bootId } = evidence
  if (statusText === undefined) return {}
  const status = decoded(() => decodeStatus(statusText, 'status.json'))
  if (status.value === undefined) return status
  // A guest that has ended can't be asked for its boot: then the file is taken for what it is worth, a last word.
  if (!evidence.alive && bootId === undefined) return status
  if (bootId === undefined) return { problem: 'the boot id of the instance could not be read' }
  if (status.value.boot_id !== bootId) return { problem: 'the status is of another boot' }
  return status
}

function decoded<T>(read: () => T | undefined): { value?: T; problem?: string } {
  try {
    const value = read()
    return value === undefined ? {} : { value }
  } catch (error) {
    return { problem: messageOf(error) }
  }
}
