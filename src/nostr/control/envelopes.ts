/** The v1 envelopes of the control plane (kinds 24910 to 24913): JSON inside NIP-44, one `p` tag, nothing else in the clear. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { type Json, parseJson, stringify } from '../../base/json.ts'
import type { EventTemplate, Signer } from '../types.ts'
import { type ControlCommand, type ControlCommandInput, controlCommand } from './commands.ts'
import { type RuntimeDescriptor, runtimeDescriptor } from './descriptor.ts'
import { CONTROL_PHASES, CONTROL_PROVIDERS, ControlError } from './vocabulary.ts'

export const CONTROL_CMD_KIND = 24_910
export const CONTROL_STATUS_KIND = 24_911
export const CONTROL_RESULT_KIND = 24_912
export const CONTROL_ERROR_KIND = 24_913

export const CMD_SCHEMA_V1 = 'agent.control.cmd.v1'
export const STATUS_SCHEMA_V1 = 'agent.control.status.v1'
export const RESULT_SCHEMA_V1 = 'agent.control.result.v1'
export const ERROR_SCHEMA_V1 = 'agent.control.error.v1'

/** NIP-44 takes no longer plaintext. */
export const MAX_ENVELOPE_BYTES = 65_535
/** Request id of an error whose command could not be read that far. */
export const UNKNOWN_REQUEST_ID = 'unknown-request'
const MAX_REQUEST_ID = 256
const MAX_DEPTH = 32

const requestId = z.string().min(1).max(MAX_REQUEST_ID)

// Unknown fields are let through everywhere (a peer may be newer), unknown enum values are not.
const head = z.object({
  schema: z.string().max(128),
  request_id: requestId,
  idempotency_key: z.string().min(1).max(256),
  auth: z.object({ acting_as_pubkey: z.string().max(128).nullish() }).default({}),
})

// What of a reply can't be read and need not be there is as if it were absent: it may carry an invoice or a refund all the same.
const statusEnvelope = z.object({
  schema: z.literal(STATUS_SCHEMA_V1),
  request_id: requestId,
  phase: z.enum(CONTROL_PHASES),
  runtime_id: z.string().max(128).optional().catch(undefined),
  provider: z.enum(CONTROL_PROVIDERS).optional().catch(undefined),
  message: z.string().optional().catch(undefined),
  progress: z.json().optional(),
})

const resultEnvelope = z.object({
  schema: z.literal(RESULT_SCHEMA_V1),
  request_id: requestId,
  runtime: runtimeDescriptor,
  payload: z.json().optional(),
})

const errorEnvelope = z.object({
  schema: z.literal(ERROR_SCHEMA_V1),
  request_id: requestId,
  /** One of CONTROL_ERROR_CODES from a node of ours; another node may have more. */
  code: z.string().min(1).max(128),
  hint: z.string().optional().catch(undefined),
  detail: z.string().optional().catch(undefined),
})

/** A command with what names it; `command` holds what is flattened on the wire. */
export interface CommandEnvelope {
  readonly requestId: string
  readonly idempotencyKey: string
  readonly actingAsPubkey?: string
  readonly command: ControlCommand
}

export type StatusEnvelope = Readonly<z.output<typeof statusEnvelope>>
export type ResultEnvelope = Readonly<z.output<typeof resultEnvelope>>
export type ErrorEnvelope = Readonly<z.output<typeof errorEnvelope>>
export type ControlReply =
  | { readonly type: 'status'; readonly envelope: StatusEnvelope }
  | { readonly type: 'result'; readonly envelope: ResultEnvelope }
  | { readonly type: 'error'; readonly envelope: ErrorEnvelope }

export type ControlStatus = Omit<StatusEnvelope, 'schema' | 'request_id'>
export interface ControlResult {
  readonly runtime: RuntimeDescriptor
  readonly payload?: Json
}

/** The envelope as JSON text. @throws ControlError invalid_command_json when the command is not one */
export function encodeCommand(envelope: {
  requestId: string
  idempotencyKey: string
  actingAsPubkey?: string
  command: ControlCommandInput
}): string {
  const parsed = controlCommand.safeParse(envelope.command)
  if (!parsed.success) throw badCommand(parsed.error)
  return stringify({
    schema: CMD_SCHEMA_V1,
    request_id: envelope.requestId,
    idempotency_key: envelope.idempotencyKey,
    ...(envelope.actingAsPubkey === undefined ? {} : { auth: { acting_as_pubkey: envelope.actingAsPubkey } }),
    ...tidy(parsed.data),
  })
}

/** Leaves out what the wire leaves out: undefined, an empty relay list. */
function tidy(command: ControlCommand): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(command).filter(
      ([key, value]) => value !== undefined && !(key === 'relay_urls' && Array.isArray(value) && value.length === 0),
    ),
  )
}

/**
 * A command from JSON text.
 * @throws ControlError invalid_schema, or invalid_command_json (no envelope, unknown command, unknown enum value, a wrong field);
 *   read the request id of such a text with `salvageRequestId`
 */
export function decodeCommand(text: string): CommandEnvelope {
  if (Buffer.byteLength(text) > MAX_ENVELOPE_BYTES) {
    throw new ControlError('invalid_command_json', 'send less', `the command is over ${MAX_ENVELOPE_BYTES} bytes`)
  }
  const value = parseJson(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value) || depthOf(value) > MAX_DEPTH) {
    throw new ControlError(
      'invalid_command_json',
      'send one JSON object of the schema agent.control.cmd.v1',
      'the content is no such object',
    )
  }
  const parsedHead = head.safeParse(value)
  if (!parsedHead.success) throw badCommand(parsedHead.error)
  const { schema, request_id, idempotency_key, auth } = parsedHead.data
  if (schema !== CMD_SCHEMA_V1) throw new ControlError('invalid_schema', `expected ${CMD_SCHEMA_V1}`, `got ${schema}`)
  const parsed = controlCommand.safeParse(value)
  if (!parsed.success) throw badCommand(parsed.error)
  return {
    requestId: request_id,
    idempotencyKey: idempotency_key,
    ...(typeof auth.acting_as_pubkey === 'string' ? { actingAsPubkey: auth.acting_as_pubkey } : {}),
    command: parsed.data,
  }
}

function badCommand(error: z.ZodError): ControlError {
  const issue = error.issues[0]
  const field = (issue?.path ?? []).map(String).join('.')
  return new ControlError(
    'invalid_command_json',
    'docs/control-plane.md lists every field',
    `${field === '' ? 'the command' : field}: ${issue?.message ?? 'is malformed'}`,
  )
}

/** Nesting without recursion, so that a hostile text costs no stack. */
function depthOf(value: unknown): number {
  let depth = 0
  let level: unknown[] = [value]
  while (level.length > 0 && depth <= MAX_DEPTH) {
    depth++
    level = level.flatMap((entry) => (typeof entry === 'object' && entry !== null ? Object.values(entry) : []))
  }
  return depth
}

/** The request id of a text that is no valid command, as far as it can be read. */
export function salvageRequestId(text: string): string {
  if (text.length > MAX_ENVELOPE_BYTES) return UNKNOWN_REQUEST_ID
  const value = parseJson(text)
  const found = typeof value === 'object' && value !== null ? (value as { request_id?: unknown }).request_id : undefined
  return typeof found === 'string' && found !== '' && found.length <= MAX_REQUEST_ID ? found : UNKNOWN_REQUEST_ID
}

export const encodeStatus = (id: string, status: ControlStatus): string =>
  stringify({ schema: STATUS_SCHEMA_V1, request_id: id, ...status, ...(status.progress === null ? { progress: undefined } : {}) })

export const encodeResult = (id: string, result: ControlResult): string =>
  stringify({
    schema: RESULT_SCHEMA_V1,
    request_id: id,
    runtime: result.runtime,
    ...(result.payload === undefined || result.payload === null ? {} : { payload: result.payload }),
  })

export const encodeError = (id: string, error: ControlError): string =>
  stringify({ schema: ERROR_SCHEMA_V1, request_id: id, code: error.code, hint: error.hint, detail: error.detail })

/**
 * A reply of a node by its kind.
 * @throws ControlError invalid_command_json, invalid_schema
 */
export function decodeReply(kind: number, text: string): ControlReply {
  const value = parseJson(text)
  if (depthOf(value) > MAX_DEPTH) throw new ControlError('invalid_command_json', undefined, 'the reply is nested too deep')
  if (kind === CONTROL_STATUS_KIND) return { type: 'status', envelope: decodeAs(statusEnvelope, value) }
  if (kind === CONTROL_RESULT_KIND) return { type: 'result', envelope: decodeAs(resultEnvelope, value) }
  if (kind === CONTROL_ERROR_KIND) return { type: 'error', envelope: decodeAs(errorEnvelope, value) }
  throw new ControlError('invalid_schema', undefined, `the kind ${kind} is no reply of the control plane`)
}

function decodeAs<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const code = issue?.path[0] === 'schema' ? 'invalid_schema' : 'invalid_command_json'
  throw new ControlError(code, undefined, `${(issue?.path ?? []).map(String).join('.')}: ${issue?.message ?? 'is malformed'}`)
}

/** An envelope as an event: NIP-44 to the peer, exactly one `p` tag. @throws event_invalid when the text is too long for NIP-44 */
export async function sealEnvelope(signer: Signer, peer: string, kind: number, text: string, createdAtS: number): Promise<EventTemplate> {
  return { kind, created_at: createdAtS, tags: [['p', peer]], content: await signer.nip44Encrypt(peer, text) }
}

/** What a repeat must share: sha256 over the command with sorted keys and without `lease_token`. Never what an absent field and its default tell apart. */
export function commandDigest(command: ControlCommand): string {
  const { lease_token: _payment, ...rest } = command as ControlCommand & { lease_token?: string }
  return createHash('sha256').update(canonical(rest)).digest('hex')
}

/** JSON with sorted keys and no blanks, as RFC 8785 writes it for the values that commands hold. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`).join(',')}}`
}
