import { describe, expect, it } from 'vitest'
import {
  decodeEnvelope,
  type Envelope,
  type EnvelopeBody,
  type EnvelopeType,
  encodeEnvelope,
  envelopeKey,
} from '../../../src/session/envelope.ts'
import { NEW_TURN, PROJECTION_MODES, type Projected, type ProjectionMode, project, type Shown } from '../../../src/session/projection.ts'

const P = '__PIKA_AGENT_RPC_V1__'
const said = (body: EnvelopeBody): string => encodeEnvelope({ protocol: 'pi', session_id: 's', body })

describe('the envelope of an agent', () => {
  it('is a prefix and JSON', () => {
    const envelope: Envelope = {
      protocol: 'acp',
      session_id: 'acp-1',
      idempotency_key: envelopeKey('acp-1', 255),
      body: { type: 'prompt', message: 'hi' },
    }
    const text = encodeEnvelope(envelope)
    expect(text).toBe(
      `${P}{"v":1,"protocol":"acp","session_id":"acp-1","idempotency_key":"acp-1:00000000000000ff","type":"prompt","message":"hi"}`,
    )
    expect(decodeEnvelope(text)).toEqual(envelope)
  })

  it('reads each type, and what it does not know of is left out', () => {
    const bodies: Record<EnvelopeType, EnvelopeBody> = {
      prompt: { type: 'prompt', message: 'a' },
      steer: { type: 'steer', message: 'a' },
      follow_up: { type: 'follow_up', message: 'a' },
      abort: { type: 'abort' },
      assistant_text: { type: 'assistant_text', text: 'b' },
      text_delta: { type: 'text_delta', delta: 'c' },
      tool_call: { type: 'tool_call', call_id: '1', tool_name: 'ls', input: { path: '/' } },
      tool_call_update: { type: 'tool_call_update', call_id: '1', status: 'completed', output: ['x'] },
      done: { type: 'done' },
      error: { type: 'error', message: 'no' },
      capability: { type: 'capability', capabilities: ['steer'] },
    }
    for (const body of Object.values(bodies)) expect(decodeEnvelope(said(body))?.body).toEqual(body)
    expect(decodeEnvelope(`${P}{"v":1,"protocol":"pi","session_id":"s","type":"done","more":1}`)?.body).toEqual({ type: 'done' })
  })

  it.each([
    'hello',
    ` ${P}{}`,
    P,
    `${P}{`,
    `${P}[]`,
    `${P}null`,
    `${P}{"v":2,"protocol":"pi","session_id":"s","type":"done"}`,
    `${P}{"v":1,"session_id":"s","type":"done"}`,
    `${P}{"v":1,"protocol":"pi","session_id":"s","type":"other"}`,
    `${P}{"v":1,"protocol":"pi","session_id":"s","type":"prompt"}`,
    `${P}{"v":1,"protocol":"pi","session_id":"s","type":"capability","capabilities":"x"}`,
  ])('takes %j for plain text', (text) => {
    expect(decodeEnvelope(text)).toBeUndefined()
    const { shown }: Projected = project('chat', text, NEW_TURN)
    expect(shown).toEqual([{ kind: 'text', text }])
  })
})

describe('what is shown', () => {
  const turn: EnvelopeBody[] = [
    { type: 'capability', capabilities: ['steer'] },
    { type: 'text_delta', delta: 'Hel' },
    { type: 'text_delta', delta: 'lo' },
    { type: 'tool_call', call_id: '1', tool_name: 'ls', input: { path: '/' } },
    { type: 'tool_call_update', call_id: '1', status: 'completed', output: 'bin' },
    { type: 'text_delta', delta: 'It is' },
    { type: 'assistant_text', text: 'It is bin.' },
    { type: 'done' },
  ]
  const play = (mode: ProjectionMode): Shown[] => {
    let view = NEW_TURN
    return turn.flatMap((body) => {
      const { shown, view: next } = project(mode, said(body), view)
      view = next
      return shown
    })
  }

  it('in a chat: what was said, once', () => {
    expect(play('chat').map(({ kind, text }) => `${kind} ${text}`)).toEqual(['delta Hel', 'delta lo', 'delta It is', 'delta  bin.'])
  })

  it('while coding: the tools as well', () => {
    expect(play('coding').filter(({ kind }) => kind === 'tool')).toEqual([
      { kind: 'tool', text: 'ls {"path":"/"}' },
      { kind: 'tool', text: 'completed: bin' },
    ])
  })

  it('for who looks for a fault: everything', () => {
    expect(play('debug').map(({ text }) => text)).toContain('capabilities: steer')
    expect(play('debug')).toHaveLength(turn.length)
    expect(play('raw').map(({ text }) => text)).toEqual(turn.map(said))
  })

  it.each(PROJECTION_MODES)('%s: says that a turn ended', (mode) => {
    expect(project(mode, said({ type: 'done' }), NEW_TURN).isEnd).toBe(true)
    expect(project(mode, said({ type: 'error', message: 'x' }), NEW_TURN).isEnd).toBe(true)
    expect(project(mode, said({ type: 'text_delta', delta: 'x' }), NEW_TURN).isEnd).toBe(false)
  })

  it('a whole text that is not what was streamed is shown whole', () => {
    const view = { streamed: 'Hello' }
    expect(project('chat', said({ type: 'assistant_text', text: 'Bye' }), view).shown).toEqual([{ kind: 'text', text: 'Bye' }])
    expect(project('chat', said({ type: 'assistant_text', text: 'Hello\n' }), view).shown).toEqual([])
  })
})
