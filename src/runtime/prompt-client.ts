/** Speaks to a runtime's prompt endpoint over a Unix socket of this machine, with a fresh launch ticket. */
import { request } from 'node:http'
import { type ErrorCode, messageOf, PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import type { PromptCall } from './adapter.ts'
import {
  decodePromptError,
  decodePromptResult,
  MAX_ANSWER_BYTES,
  PROMPT_PATH,
  type PromptErrorCode,
  type PromptRequestInput,
  type PromptResult,
} from './contract/prompt.ts'

/** Beyond the guest's own limit, so that its answer about a timeout arrives. */
const GRACE_MS = 5000

/** The body of a prompt. */
export function promptBody({ sessionId, idempotencyKey, protocol, message, timeoutMs }: PromptCall): PromptRequestInput {
  return { session_id: sessionId, idempotency_key: idempotencyKey, protocol, message, timeout_ms: timeoutMs }
}

/** What an endpoint's answer means, whatever carried it. @throws as promptOverSocket does */
export function readPromptAnswer(status: number, text: string, source: string): PromptResult {
  const body = parseJson(text)
  if (status === 200) return decodePromptResult(body, source)
  const error = decodePromptError(body)
  if (error === undefined) throw new PylonError('runtime_failed', `${source} answered ${status} with something that is no prompt answer.`)
  throw new PylonError(AS[error.error], error.message, { details: { prompt_error: error.error } })
}

/** What the codes of an endpoint are to who asked for a prompt. */
const AS: Readonly<Record<PromptErrorCode, ErrorCode>> = {
  invalid_request: 'invalid_request',
  request_too_large: 'request_too_large',
  idempotency_conflict: 'idempotency_conflict',
  overloaded: 'overloaded',
  timeout: 'timeout',
  unsupported_protocol: 'runtime_unsupported',
  agent_unavailable: 'runtime_unreachable',
  agent_failed: 'runtime_failed',
  unauthorized: 'runtime_failed',
  not_found: 'runtime_failed',
  method_not_allowed: 'runtime_failed',
}

/**
 * @throws invalid_request, request_too_large, idempotency_conflict, overloaded, timeout, runtime_unsupported (protocol),
 *   runtime_unreachable (no endpoint, or no agent behind it), runtime_failed (the agent's words); the signal's reason
 */
export async function promptOverSocket(socketPath: string, ticket: string, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
  const limit = AbortSignal.timeout(call.timeoutMs + GRACE_MS)
  try {
    const { status, text } = await post(socketPath, ticket, JSON.stringify(promptBody(call)), AbortSignal.any([signal, limit]))
    return readPromptAnswer(status, text, 'The runtime')
  } catch (error) {
    if (error instanceof PylonError) throw error
    signal.throwIfAborted()
    if (limit.aborted) throw new PylonError('timeout', `The runtime did not answer within ${call.timeoutMs} ms.`)
    throw new PylonError(
      'runtime_unreachable',
      `The prompt endpoint of the runtime does not answer (${messageOf(error)}); look at its logs.`,
    )
  }
}

function post(socketPath: string, ticket: string, body: string, signal: AbortSignal): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${ticket}`, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    const outgoing = request({ socketPath, path: PROMPT_PATH, method: 'POST', headers, signal }, (response) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > MAX_ANSWER_BYTES) outgoing.destroy(new Error('the answer is too long'))
        else chunks.push(chunk)
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }))
      response.on('error', reject)
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
