/** POST /v1/runtime/prompt: request, answer and errors of a runtime's prompt endpoint; published in docs/runtime-prompt.schema.json. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { shapeError } from './spec.ts'

export const PROMPT_PATH = '/v1/runtime/prompt'
export const PROMPT_SCHEMA_VERSION = 1
export const PROTOCOLS = ['pi', 'acp'] as const
export type Protocol = (typeof PROTOCOLS)[number]

/** The body of a request, in bytes. */
export const MAX_PROMPT_BYTES = 512 * 1024
/** The body of an answer, in bytes: a client reads no further. */
export const MAX_ANSWER_BYTES = 4 * 1024 * 1024
const MAX_MESSAGE_CHARS = 256 * 1024

const promptRequest = z.strictObject({
  schema_version: z.literal(PROMPT_SCHEMA_VERSION).default(PROMPT_SCHEMA_VERSION),
  session_id: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{1,128}$/, 'must be 1 to 128 of A-Z a-z 0-9 . _ : -')
    .describe('The conversation: prompts of one session run in order and share their history as far as the agent keeps one.'),
  idempotency_key: z
    .string()
    .min(1)
    .max(128)
    .optional()
    .describe('The same key in the same session gives the first answer again; with another message it is idempotency_conflict.'),
  protocol: z.enum(PROTOCOLS).describe('How the runtime talks to its agent; unsupported_protocol where it talks another.'),
  message: z.string().min(1).max(MAX_MESSAGE_CHARS).describe('What to say to the agent, as plain text.'),
  timeout_ms: z.int().min(1).max(3_600_000).default(120_000).describe('After this the turn is cancelled and the answer is timeout.'),
})

export const STOP_REASONS = ['end_turn', 'max_tokens', 'max_turn_requests', 'refusal', 'cancelled', 'error'] as const

const promptEvent = z.strictObject({
  type: z.enum(['text', 'thought', 'tool_call', 'tool_result', 'notice']),
  text: z.string().optional(),
  name: z.string().optional(),
})

const promptResult = z.strictObject({
  schema_version: z.literal(PROMPT_SCHEMA_VERSION).default(PROMPT_SCHEMA_VERSION),
  session_id: z.string().max(128),
  reply: z.string().describe('What the agent said in this turn.'),
  stop_reason: z.enum(STOP_REASONS).describe('Why the turn ended.'),
  events: z.array(promptEvent).max(1000).optional().describe('What happened in between, in order; the oldest first, capped.'),
})

export const PROMPT_ERRORS = {
  unauthorized: 401,
  invalid_request: 400,
  unsupported_protocol: 409,
  idempotency_conflict: 409,
  request_too_large: 413,
  overloaded: 429,
  agent_failed: 502,
  agent_unavailable: 503,
  timeout: 504,
  not_found: 404,
  method_not_allowed: 405,
} as const
export type PromptErrorCode = keyof typeof PROMPT_ERRORS

const promptError = z.strictObject({
  error: z.enum(Object.keys(PROMPT_ERRORS) as [PromptErrorCode, ...PromptErrorCode[]]),
  message: z.string(),
})

export type PromptRequestInput = z.input<typeof promptRequest>
export type PromptRequest = Readonly<z.output<typeof promptRequest>>
export type PromptEvent = Readonly<z.output<typeof promptEvent>>
export type PromptResult = Readonly<z.output<typeof promptResult>>

/** @throws invalid_request */
export function decodePromptRequest(value: unknown): PromptRequest {
  const parsed = promptRequest.safeParse(value)
  if (!parsed.success) throw shapeError('The prompt', 'invalid_request', parsed.error)
  return parsed.data
}

/** @throws runtime_failed when a runtime answered with something else */
export function decodePromptResult(value: unknown, source: string): PromptResult {
  const parsed = promptResult.safeParse(value)
  if (parsed.success) return parsed.data
  throw new PylonError('runtime_failed', `${source} gave an answer that does not follow docs/runtime-prompt.schema.json; look at its logs.`)
}

/** The error of an endpoint, or undefined where the body is none. */
export function decodePromptError(value: unknown): { error: PromptErrorCode; message: string } | undefined {
  const parsed = promptError.safeParse(value)
  return parsed.success ? parsed.data : undefined
}

/** The published JSON Schema (draft 2020-12) of the endpoint. */
export function promptJsonSchema(): Record<string, unknown> {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'POST /v1/runtime/prompt',
    description:
      'The prompt endpoint of a runtime. Authorization: Bearer <launch ticket>. Body: request. 200: response; else error, with the status that the code names.',
    $defs: {
      request: definition(promptRequest, 'input'),
      response: definition(promptResult, 'output'),
      error: definition(promptError, 'output'),
    },
    'x-error-status': PROMPT_ERRORS,
    'x-limits': { request_bytes: MAX_PROMPT_BYTES, response_bytes: MAX_ANSWER_BYTES },
  }
}

function definition(schema: z.ZodType, io: 'input' | 'output'): Record<string, unknown> {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io })
  return rest
}
