/** What older runtimes answer is read in the published order, and nothing else passes as a reply. */
import { expect, test } from 'vitest'
import { parseReply } from '../../../src/runtime/reply-parser.ts'

const lines = (...events: unknown[]) => events.map((event) => JSON.stringify(event)).join('\n')
const update = (delta: string) => ({ type: 'message_update', assistantMessageEvent: { type: 'text_delta', delta } })

test.each([
  ['reply', JSON.stringify({ reply: 'a', result: { reply: 'b' } }), 'a'],
  ['result.reply', JSON.stringify({ result: { reply: 'b' }, events: [{ type: 'assistant_text', text: 'c' }] }), 'b'],
  ['events', JSON.stringify({ events: [update('a'), update('b')] }), 'ab'],
  ['an array', JSON.stringify([{ type: 'assistant_message', message: 'whole' }]), 'whole'],
  ['one event', JSON.stringify({ type: 'assistant_text', text: 'one' }), 'one'],
  ['NDJSON', lines({ type: 'agent_start' }, update('x'), { type: 'message_update', delta: 'y' }, { type: 'agent_end' }, update('z')), 'xy'],
  ['a whole message after deltas', lines(update('x'), { type: 'assistant_message', text: 'x, finally' }), 'x, finally'],
  ['an untyped event', lines({ note: 1 }, { result: { reply: 'deep' } }), 'deep'],
  ['wrapped three times', lines({ event: { data: { event: update('w') } } }), 'w'],
  ['a stream', `: ping\nevent: message\ndata: ${JSON.stringify(update('s'))}\n\ndata: [DONE]\ndata: ${JSON.stringify(update('t'))}\n`, 's'],
  ['plain text', '  just words\nand more ', 'just words\nand more'],
  ['a failed response ends it', lines(update('kept'), { type: 'response', success: false }, update('lost')), 'kept'],
])('%s', (_name, body, reply) => expect(parseReply(body)).toBe(reply))

test.each([
  '',
  '   ',
  '{broken',
  '[1,',
  '{}',
  '[]',
  '{"reply":""}',
  '{"reply":7}',
  '"text"',
  'null',
  lines({ event: { event: { event: { event: update('w') } } } }),
])('no reply in %j', (body) => expect(parseReply(body)).toBeUndefined())
