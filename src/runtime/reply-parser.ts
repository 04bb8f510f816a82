/** What runtimes of before the versioned prompt endpoint answer: a reply as JSON, events, lines, a stream or plain text. Pure. */
import { asRecord, type Json, parseJson } from '../base/json.ts'

/** How deep an event may be wrapped in `event` or `data`. */
const MAX_WRAPS = 3

type Fields = Readonly<Record<string, Json>>

/**
 * The agent's words, or undefined where there are none. Tried in this order: JSON `reply`, `result.reply`, `events`, an
 * array of events, one event; events line by line (NDJSON, or `data:` lines of a stream); plain text that does not
 * begin like JSON.
 */
export function parseReply(body: string): string | undefined {
  const text = body.trim()
  if (text === '') return undefined
  const value = parseJson(text) as Json | undefined
  if (value !== undefined) return fromJson(value)
  const events = eventLines(text)
  if (events !== undefined) return fromEvents(events)
  return text.startsWith('{') || text.startsWith('[') ? undefined : text
}

function fromJson(value: Json): string | undefined {
  if (Array.isArray(value)) return fromEvents(value)
  if (!isFields(value)) return undefined
  return plainReply(value) ?? fromEvents(Array.isArray(value['events']) ? value['events'] : [value])
}

/** `reply` or `result.reply`. */
function plainReply(value: Fields): string | undefined {
  return words(value['reply']) ?? words(asRecord(value['result'])['reply'])
}

/** The JSON of each line; undefined where the text is none of events. */
function eventLines(text: string): Fields[] | undefined {
  const events: Fields[] = []
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.trim()
    if (line === '' || line.startsWith(':') || line.startsWith('event:')) continue
    const data = line.startsWith('data:') ? line.slice('data:'.length).trim() : line
    if (data === '[DONE]') break
    const value = parseJson(data) as Json | undefined
    if (!isFields(value)) return undefined
    events.push(value)
  }
  return events.length === 0 ? undefined : events
}

/** Deltas add up; a whole message or reply takes their place; `agent_end` and a failed response end it. */
function fromEvents(events: readonly (Json | Fields)[]): string | undefined {
  let deltas = ''
  let whole: string | undefined
  for (const wrapped of events) {
    const event = unwrap(wrapped)
    if (event === undefined) continue
    const type = event['type']
    if (type === 'agent_end' || (type === 'response' && event['success'] === false)) break
    if (type === 'message_update') deltas += deltaOf(event) ?? ''
    else if (type === 'assistant_message' || type === 'assistant_text') whole = words(event['text']) ?? words(event['message']) ?? whole
    else if (type === undefined) whole = plainReply(event) ?? whole
  }
  return whole ?? words(deltas)
}

const KNOWN_TYPES = new Set<unknown>(['message_update', 'assistant_message', 'assistant_text', 'agent_end', 'response'])

function unwrap(value: Json | Fields): Fields | undefined {
  let event = value
  for (let depth = 0; depth < MAX_WRAPS && isFields(event) && !KNOWN_TYPES.has(event['type']); depth++) {
    const inner: Json | undefined = event['event'] ?? event['data']
    if (!isFields(inner)) break
    event = inner
  }
  return isFields(event) ? event : undefined
}

function deltaOf(event: Fields): string | undefined {
  const inner = event['assistantMessageEvent']
  if (isFields(inner) && inner['type'] !== 'text_delta') return undefined
  const { delta } = isFields(inner) ? inner : event
  return typeof delta === 'string' ? delta : undefined
}

function words(value: unknown): string | undefined {
  return typeof value === 'string' && value.trim() !== '' ? value : undefined
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
