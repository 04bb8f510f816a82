/** An error of the control plane as an error of ours: the codes that mean the same, and one for all others. Pure. */
import { type ErrorCode, PylonError } from '../../base/errors.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'

const SAME: Readonly<Record<string, ErrorCode>> = {
  runtime_not_found: 'runtime_not_found',
  idempotency_conflict: 'idempotency_conflict',
  runtime_unreachable: 'runtime_unreachable',
  unsupported_operation: 'runtime_unsupported',
  output_too_large: 'output_too_large',
  invalid_command: 'invalid_request',
  rate_limited: 'rate_limited',
  timeout: 'timeout',
}

const MAX_CHARS = 2000

/** @param error.code of a node of ours one of CONTROL_ERROR_CODES; details keep it, hint and detail */
export function errorOfNode(
  server: string,
  error: { readonly code: string; readonly hint?: string | undefined; readonly detail?: string | undefined },
): PylonError {
  const code = SAME[error.code] ?? 'control_refused'
  const words = [error.detail, error.hint].filter((part) => part !== undefined && part !== '').join('; ')
  return new PylonError(code, `${npubOf(server).slice(0, 16)} says ${error.code}: ${words}`.slice(0, MAX_CHARS), {
    details: {
      control_code: error.code,
      ...(error.hint === undefined ? {} : { hint: error.hint.slice(0, MAX_CHARS) }),
      ...(error.detail === undefined ? {} : { detail: error.detail.slice(0, MAX_CHARS) }),
    },
  })
}
