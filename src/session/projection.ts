/**
 * What of a conversation with an agent is shown to a person: `chat` what was said, `coding` its tools as well, `debug` everything
 * in a line each, `raw` as it came. Pure: what is on the screen already is handed in and out.
 */
import { decodeEnvelope, type EnvelopeBody } from './envelope.ts'

export const PROJECTION_MODES = ['chat', 'coding', 'debug', 'raw'] as const
export type ProjectionMode = (typeof PROJECTION_MODES)[number]

/** `delta` goes on where the last one ended; all else begins a line of its own. */
export interface Shown {
  readonly kind: 'text' | 'delta' | 'tool' | 'note' | 'error'
  readonly text: string
}

/** Of one sender's turn: what its deltas have shown so far. */
export interface TurnView {
  readonly streamed: string
}

export const NEW_TURN: TurnView = { streamed: '' }

export interface Projected {
  readonly shown: readonly Shown[]
  readonly view: TurnView
  /** Of an agent that ended its turn, well or not. */
  readonly isEnd: boolean
  /** Of an end: the messages that were dealt with, where it says which. */
  readonly answers?: readonly string[]
}

const MAX_SUMMARY_CHARS = 200

/** @param content of a message as it was said, envelope or plain text */
export function project(mode: ProjectionMode, content: string, view: TurnView): Projected {
  const envelope = decodeEnvelope(content)
  if (envelope === undefined) return { shown: [{ kind: 'text', text: content }], view: NEW_TURN, isEnd: false }
  const { body } = envelope
  const isEnd = body.type === 'done' || body.type === 'error'
  const next = { view: viewAfter(body, view), isEnd, ...('answers' in body && body.answers !== undefined ? { answers: body.answers } : {}) }
  if (mode === 'raw') return { shown: [{ kind: 'text', text: content }], ...next }
  const shown = shownOf(mode, body, view)
  return { shown: shown === undefined ? [] : [shown], ...next }
}

function viewAfter(body: EnvelopeBody, view: TurnView): TurnView {
  if (body.type === 'text_delta') return { streamed: view.streamed + body.delta }
  return body.type === 'tool_call_update' || body.type === 'capability' ? view : NEW_TURN
}

function shownOf(mode: ProjectionMode, body: EnvelopeBody, view: TurnView): Shown | undefined {
  switch (body.type) {
    case 'prompt':
      return { kind: 'text', text: body.message }
    case 'steer':
    case 'follow_up':
      return { kind: 'text', text: mode === 'debug' ? `(${body.type}) ${body.message}` : body.message }
    case 'text_delta':
      return { kind: 'delta', text: body.delta }
    case 'assistant_text':
      return restOf(body.text, view.streamed)
    case 'error':
      return { kind: 'error', text: body.message }
    case 'tool_call':
      return mode === 'chat' ? undefined : { kind: 'tool', text: `${body.tool_name} ${summary(body.input)}`.trimEnd() }
    case 'tool_call_update':
      return mode === 'chat' ? undefined : { kind: 'tool', text: updateOf(mode, body) }
    case 'done':
      if (body.note !== undefined) return { kind: 'note', text: body.note }
      return mode === 'debug' ? { kind: 'note', text: body.type } : undefined
    default:
      return mode === 'debug' ? { kind: 'note', text: noteOf(body) } : undefined
  }
}

/** Of a whole text what its deltas have not shown; all of it where it is another. */
function restOf(text: string, streamed: string): Shown | undefined {
  if (streamed === '') return { kind: 'text', text }
  if (!text.startsWith(streamed)) return text.trim() === streamed.trim() ? undefined : { kind: 'text', text }
  const rest = text.slice(streamed.length)
  return rest.trim() === '' ? undefined : { kind: 'delta', text: rest }
}

function updateOf(mode: ProjectionMode, { call_id, status, output }: Extract<EnvelopeBody, { type: 'tool_call_update' }>): string {
  const id = mode === 'debug' ? `${call_id} ` : ''
  return `${id}${status}${output === undefined ? '' : `: ${summary(output)}`}`
}

function noteOf(body: EnvelopeBody): string {
  return body.type === 'capability' ? `capabilities: ${body.capabilities.join(', ')}` : body.type
}

function summary(value: unknown): string {
  if (value === null || value === undefined) return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > MAX_SUMMARY_CHARS ? `${text.slice(0, MAX_SUMMARY_CHARS)}...` : text
}
