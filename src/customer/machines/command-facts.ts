/** What can be told of a command before it is sent: whether it may cost something, for how long, and how long an answer may take. Pure. */
import { PylonError } from '../../base/errors.ts'
import { type ControlCommand, type ControlCommandInput, controlCommand } from '../../nostr/control/commands.ts'
import type { ControlResult } from '../../nostr/control/envelopes.ts'

/** As the control plane has it. */
const DEFAULT_RUN_S = 600
/** What a node needs beyond the time that the command itself names. */
export const GRACE_MS = 60_000
/** Pulling an image, booting, and the first reply of a busy relay. */
const PROVISION_MS = 360_000

/** @throws invalid_request */
export function decodeOrder(command: ControlCommandInput): ControlCommand {
  const parsed = controlCommand.safeParse(command)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new PylonError('invalid_request', `${(issue?.path ?? []).map(String).join('.') || 'command'}: ${issue?.message ?? 'is malformed'}.`)
}

type Payable = Extract<ControlCommandInput, { command: 'provision' | 'run' | 'extend_lease' }>

export function isPayable(command: ControlCommandInput): command is Payable {
  return command.command === 'provision' || command.command === 'run' || command.command === 'extend_lease'
}

/** How long is to be paid for; undefined where the node decides. */
export function leaseSecondsOf(command: ControlCommandInput): number | undefined {
  if (command.command === 'run') return Math.max(command.timeout_s ?? DEFAULT_RUN_S, command.lease_seconds ?? 0)
  return command.command === 'provision' || command.command === 'extend_lease' ? command.lease_seconds : undefined
}

/** How long the node may take for it. */
export function timeoutMsOf(command: ControlCommandInput): number {
  switch (command.command) {
    case 'provision':
      return PROVISION_MS
    case 'run':
      return PROVISION_MS + (command.timeout_s ?? DEFAULT_RUN_S) * 1000
    case 'exec':
      return GRACE_MS + (command.timeout_s ?? 60) * 1000
    case 'prompt':
      return GRACE_MS + (command.timeout_s ?? 120) * 1000
    case 'recover':
    case 'restore':
    case 'snapshot':
    case 'teardown':
    case 'extend_lease':
      return 3 * GRACE_MS
    default:
      return GRACE_MS
  }
}

/** The id of the runtime that a command was about: the one it named, or the one it made. */
export function runtimeOf(command: ControlCommandInput, { runtime }: ControlResult): string {
  return 'runtime_id' in command ? command.runtime_id : runtime.runtime_id
}
