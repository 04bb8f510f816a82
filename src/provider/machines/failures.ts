/** From any error beneath to the code that a requester is told, with nothing of the inside of this machine; pure. */
import { type ErrorCode, isPylonError, messageOf } from '../../base/errors.ts'
import { ControlError, type ControlErrorCode } from '../../nostr/control/vocabulary.ts'

const HINTS: Partial<Record<ControlErrorCode, string>> = {
  provision_failed: 'check provider credentials/config and retry',
  process_welcome_failed: 'check provider runtime state and welcome payload',
  teardown_failed: 'manual cleanup may be required',
  invalid_command: 'correct the field that the detail names',
  capacity_exhausted: 'try again later, another class, or another node',
  runtime_unreachable: 'try again; if it stays so: recover',
  unsupported_operation: 'this substrate cannot do that; docs/control-plane.md says which can',
  runtime_not_ready: 'ask get_runtime until its phase is ready',
  payment_failed: 'send another token with the same idempotency key, or pay the invoice',
  timeout: 'look at the state before trying again',
  shutting_down: 'send the same command with the same idempotency key again in a while',
  internal: 'the owner of the node finds the reason in its log',
}

/** Where the machine is well, and what was to run in it is not. */
const AGENT_HINT = 'try the command by hand: pylon runtime run'
const isOfAgent = (words: string): boolean => /\bthe agent (?:exited|was not found|did not start|did not answer)\b/.test(words)

/** Codes beneath that say the same whatever was being done. */
const KNOWN: Partial<Record<ErrorCode, ControlErrorCode>> = {
  invalid_request: 'invalid_command',
  address_refused: 'invalid_command',
  overloaded: 'capacity_exhausted',
  incus_limit_reached: 'capacity_exhausted',
  incus_no_space: 'capacity_exhausted',
  runtime_unsupported: 'unsupported_operation',
  runtime_unreachable: 'runtime_unreachable',
  incus_unreachable: 'runtime_unreachable',
  token_invalid: 'payment_failed',
  token_spent: 'payment_failed',
  token_locked: 'payment_failed',
  token_amount: 'payment_failed',
  mint_not_allowed: 'payment_failed',
  mint_rejected: 'payment_failed',
  mint_cap_exceeded: 'payment_failed',
  no_mint: 'payment_failed',
  mint_unreachable: 'payment_failed',
  payment_unknown: 'payment_failed',
  idempotency_conflict: 'idempotency_conflict',
  timeout: 'timeout',
  shutting_down: 'shutting_down',
  disk_full: 'state_persist_failed',
}

/** Words that are ours, or the substrate's to the owner of the node, and not for strangers. */
const PRIVATE: readonly ErrorCode[] = ['internal', 'config_invalid', 'locked', 'home_unusable', 'incus_untrusted']

/** @param fallback what failed, where the error beneath says nothing that holds everywhere */
export function toControlError(error: unknown, fallback: ControlErrorCode): ControlError {
  if (error instanceof ControlError) return error
  if (!isPylonError(error)) return new ControlError(fallback, HINTS[fallback], 'the node had a fault of its own', { cause: error })
  const code = error.code.startsWith('spec_') ? 'invalid_command' : (KNOWN[error.code] ?? fallback)
  const hint = code === 'provision_failed' && isOfAgent(error.message) ? AGENT_HINT : HINTS[code]
  const detail = PRIVATE.includes(error.code) ? 'the node is not set up for this' : `${error.code}: ${messageOf(error)}`.slice(0, 1000)
  return new ControlError(code, hint, detail, { cause: error })
}

export function fail(code: ControlErrorCode, detail: string, hint: string | undefined = HINTS[code]): ControlError {
  return new ControlError(code, hint, detail)
}

/** One answer for what is not there and for what is somebody else's. */
export function runtimeNotFound(runtimeId: string): ControlError {
  return new ControlError('runtime_not_found', 'list_runtimes names your runtimes', `there is no runtime ${runtimeId}`)
}
