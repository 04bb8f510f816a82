/**
 * How an agent and its owner speak inside a session: `__PIKA_AGENT_RPC_V1__` and JSON as the content of a chat message, as pika
 * has it. What has another form is plain text, and plain text is a prompt.
 */
import { isRecord, parseJson } from '../base/json.ts'

const PREFIX = '__PIKA_AGENT_RPC_V1__'
const VERSION = 1
const MAX_CAPABILITIES = 100
const MAX_ANSWERED = 100
/** On a message in plain text: whoever says it reads envelopes, so its turn may be answered and ended by some. */
export const READS_ENVELOPES: readonly string[] = ['reads', PREFIX]

export type EnvelopeBody =
  | { readonly type: 'prompt' | 'steer' | 'follow_up'; readonly message: string }
  | { readonly type: 'abort' }
  | ({ readonly type: 'done'; readonly note?: string } & TurnEnd)
  | ({ readonly type: 'error'; readonly message: string } & TurnEnd)
  | { readonly type: 'assistant_text'; readonly text: string }
  | { readonly type: 'text_delta'; readonly delta: string }
  | { readonly type: 'tool_call'; readonly call_id: string; readonly tool_name: string; readonly input: unknown }
  | { readonly type: 'tool_call_update'; readonly call_id: string; readonly status: string; readonly output?: unknown }
  | { readonly type: 'capability'; readonly capabilities: readonly string[] }

/** Ours: which messages the turn dealt with, by the ids of the events inside; of any turn where there is none. `note`: why nothing was said. */
interface TurnEnd {
  readonly answers?: readonly string[]
}

export type EnvelopeType = EnvelopeBody['type']

export interface Envelope {
  /** `pi` or `acp`; what others write is kept as it is. */
  readonly protocol: string
  readonly session_id: string
  /** Names this one thing that was said: the same again is the same. */
  readonly idempotency_key?: string
  readonly body: EnvelopeBody
}

/** The key of the nth thing that is said in a session. */
export const envelopeKey = (sessionId: string, seq: number): string => `${sessionId}:${seq.toString(16).padStart(16, '0')}`

export function encodeEnvelope({ protocol, session_id, idempotency_key, body }: Envelope): string {
  return (
    PREFIX + JSON.stringify({ v: VERSION, protocol, session_id, ...(idempotency_key === undefined ? {} : { idempotency_key }), ...body })
  )
}

/** Whether who said this knows what an envelope is. */
export const readsEnvelopes = ({ content, tags }: { readonly content: string; readonly tags: readonly (readonly string[])[] }): boolean =>
  decodeEnvelope(content) !== undefined || tags.some(([name, value]) => name === READS_ENVELOPES[0] && value === READS_ENVELOPES[1])

/** Undefined for what is plain text. */
export function decodeEnvelope(content: string): Envelope | undefined {
  if (!content.startsWith(PREFIX)) return undefined
  const value = parseJson(content.slice(PREFIX.length))
  if (!isRecord(value) || value['v'] !== VERSION) return undefined
  const { protocol, session_id, idempotency_key } = value
  if (typeof protocol !== 'string' || typeof session_id !== 'string') return undefined
  const body = bodyOf(value)
  if (body === undefined) return undefined
  return { protocol, session_id, ...(typeof idempotency_key === 'string' ? { idempotency_key } : {}), body }
}

function answersIn({ answers }: Record<string, unknown>): TurnEnd {
  return Array.isArray(answers) ? { answers: answers.filter((one) => typeof one === 'string').slice(0, MAX_ANSWERED) } : {}
}

function bodyOf(value: Record<string, unknown>): EnvelopeBody | undefined {
  const { type } = value
  const text = (name: string): string | undefined => (typeof value[name] === 'string' ? value[name] : undefined)
  switch (type) {
    case 'prompt':
    case 'steer':
    case 'follow_up': {
      const message = text('message')
      return message === undefined ? undefined : { type, message }
    }
    case 'error': {
      const message = text('message')
      return message === undefined ? undefined : { type, message, ...answersIn(value) }
    }
    case 'done': {
      const note = text('note')
      return { type, ...(note === undefined ? {} : { note }), ...answersIn(value) }
    }
    case 'abort':
      return { type }
    case 'assistant_text': {
      const said = text('text')
      return said === undefined ? undefined : { type, text: said }
    }
    case 'text_delta': {
      const delta = text('delta')
      return delta === undefined ? undefined : { type, delta }
    }
    case 'tool_call': {
      const [call_id, tool_name] = [text('call_id'), text('tool_name')]
      return call_id === undefined || tool_name === undefined ? undefined : { type, call_id, tool_name, input: value['input'] ?? null }
    }
    case 'tool_call_update': {
      const [call_id, status] = [text('call_id'), text('status')]
      if (call_id === undefined || status === undefined) return undefined
      const { output } = value
      return { type, call_id, status, ...(output === undefined || output === null ? {} : { output }) }
    }
    case 'capability': {
      const given = value['capabilities']
      if (!Array.isArray(given)) return undefined
      return { type, capabilities: given.filter((one) => typeof one === 'string').slice(0, MAX_CAPABILITIES) }
    }
    default:
      return undefined
  }
}
