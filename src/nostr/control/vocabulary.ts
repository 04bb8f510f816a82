/** The enums of the runtime control plane as they are on the wire: providers, protocols, phases and error codes. */

export const CONTROL_PROVIDERS = ['fly', 'workers', 'microvm', 'incus', 'local'] as const
export type ControlProvider = (typeof CONTROL_PROVIDERS)[number]

export const CONTROL_PROTOCOLS = ['pi', 'acp'] as const
export type ControlProtocol = (typeof CONTROL_PROTOCOLS)[number]

/** `phase` of a status and `lifecycle_phase` of a runtime. */
export const CONTROL_PHASES = ['queued', 'provisioning', 'ready', 'failed', 'teardown'] as const
export type ControlPhase = (typeof CONTROL_PHASES)[number]

/** Codes of error envelopes. Those above the line are published, those below are ours; docs/control-plane.md explains each. */
export const CONTROL_ERROR_CODES = [
  'invalid_command_json',
  'invalid_schema',
  'provision_unauthorized',
  'provider_temporarily_disabled',
  'runtime_class_unavailable',
  'unsupported_protocol',
  'provision_failed',
  'state_persist_failed',
  'runtime_not_found',
  'process_welcome_failed',
  'teardown_failed',
  // ----
  'idempotency_conflict',
  'invalid_command',
  'request_not_found',
  'capacity_exhausted',
  'payment_required',
  'payment_failed',
  'lease_expired',
  'runtime_not_ready',
  'runtime_unreachable',
  'unsupported_operation',
  'operation_failed',
  'output_too_large',
  'timeout',
  'rate_limited',
  'shutting_down',
  'internal',
] as const
export type ControlErrorCode = (typeof CONTROL_ERROR_CODES)[number]

/** What a command is refused or fails with. */
export class ControlError extends Error {
  override readonly name = 'ControlError'
  readonly code: ControlErrorCode
  /** What to do next. */
  readonly hint: string | undefined
  /** What happened. */
  readonly detail: string | undefined

  constructor(code: ControlErrorCode, hint?: string, detail?: string, options: { cause?: unknown } = {}) {
    super([code, detail, hint].filter((part) => part !== undefined).join(': '), options.cause === undefined ? undefined : options)
    this.code = code
    this.hint = hint
    this.detail = detail
  }
}
