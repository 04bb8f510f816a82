import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { isPylonError } from '../../../src/base/errors.ts'
import { decodeLaunch } from '../../../src/runtime/contract/launch.ts'
import { decodePromptRequest, PROMPT_ERRORS, promptJsonSchema } from '../../../src/runtime/contract/prompt.ts'
import { promptBody, readPromptAnswer } from '../../../src/runtime/prompt-client.ts'

describe('the prompt endpoint', () => {
  test('publishes its schema', () => {
    const published = JSON.parse(readFileSync(new URL('../../../docs/runtime-prompt.schema.json', import.meta.url), 'utf8'))
    expect(published).toEqual(JSON.parse(JSON.stringify(promptJsonSchema())))
    expect(published.$defs.request.required).toEqual(['session_id', 'protocol', 'message'])
    expect(published.$defs.request.additionalProperties).toBe(false)
    expect(published.$defs.error.properties.error.enum).toEqual(Object.keys(PROMPT_ERRORS))
  })

  test('fills in what a request leaves out', () => {
    const call = { protocol: 'acp', message: 'm', sessionId: 's', timeoutMs: 5000 } as const
    expect(decodePromptRequest(promptBody(call))).toEqual({
      schema_version: 1,
      session_id: 's',
      protocol: 'acp',
      message: 'm',
      timeout_ms: 5000,
    })
    expect(decodePromptRequest({ session_id: 's', protocol: 'pi', message: 'm' }).timeout_ms).toBe(120_000)
  })

  test.each([
    [200, { schema_version: 1, session_id: 's', reply: 'r', stop_reason: 'end_turn' }, undefined],
    [200, { reply: 'r' }, 'runtime_failed'],
    [500, 'oops', 'runtime_failed'],
    [503, { error: 'agent_unavailable', message: 'm' }, 'runtime_unreachable'],
    [502, { error: 'agent_failed', message: 'm' }, 'runtime_failed'],
    [409, { error: 'unsupported_protocol', message: 'm' }, 'runtime_unsupported'],
    [409, { error: 'idempotency_conflict', message: 'm' }, 'idempotency_conflict'],
    [504, { error: 'timeout', message: 'm' }, 'timeout'],
  ] as const)('answers %d %j', (status, body, code) => {
    const read = () => readPromptAnswer(status, JSON.stringify(body), 'The runtime')
    if (code === undefined) expect(read()).toMatchObject({ reply: 'r' })
    else expect(read).toThrow(expect.toSatisfy((error) => isPylonError(error, code)))
  })
})

describe('launch.json', () => {
  const spec = { identity: { runtime_id: 'a', instance_name: 'b' }, entry_command: 'true' }
  const launch = { schema_version: 1, spec, protocol: null }
  const code = (value: unknown) => {
    try {
      decodeLaunch(JSON.stringify(value), 'launch.json')
      return 'accepted'
    } catch (error) {
      return isPylonError(error) ? error.code : 'other'
    }
  }

  test('is decoded strictly, with the spec inside', () => {
    expect(decodeLaunch(JSON.stringify(launch), 's')).toMatchObject({ protocol: null, env: {}, spec: { mounts: [] } })
    expect(code({ ...launch, extra: 1 })).toBe('guest_request_invalid')
    expect(code({ ...launch, env: { 'A=B': 'x' } })).toBe('guest_request_invalid')
    expect(code({ ...launch, protocol: 'acp' })).toBe('guest_request_invalid')
    expect(code({ ...launch, spec: { ...spec, entry_command: undefined } })).toBe('spec_empty_field')
    expect(code({ ...launch, spec: { ...spec, extra: 1 } })).toBe('spec_invalid')
  })
})
