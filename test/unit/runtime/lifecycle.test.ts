import { describe, expect, test } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { decodeGuestRequest } from '../../../src/runtime/contract/guest-request.ts'
import { decodeEvents, decodeResult, decodeStatus, mayFollow } from '../../../src/runtime/contract/lifecycle.ts'
import { readGuestDetails } from '../../../src/runtime/contract/managed.ts'

const status = {
  schema_version: 1,
  state: 'ready',
  updated_at: '2026-01-01T00:00:00Z',
  message: 'm',
  boot_id: 'b',
  details: { probe: 'p' },
}
const event = { schema_version: 1, seq: 1, timestamp: '2026-01-01T00:00:00+02:00', kind: 'starting', message: 'm' }
const result = { schema_version: 1, status: 'completed', finished_at: '2026-01-01T00:00:00.123Z', message: 'm', exit_code: 0 }

function refusal(decode: () => unknown): string {
  try {
    decode()
  } catch (error) {
    if (error instanceof PylonError) return `${error.code}: ${error.message}`
  }
  return 'accepted'
}

describe('lifecycle files', () => {
  test('decode as written', () => {
    expect(decodeStatus(JSON.stringify(status), 's')).toEqual(status)
    expect(decodeResult(JSON.stringify(result), 's')).toEqual(result)
    expect(decodeEvents(`${JSON.stringify(event)}\n\n${JSON.stringify({ ...event, seq: 2 })}\n`, 's').map(({ seq }) => seq)).toEqual([1, 2])
  })

  test('ignore what a newer guest adds', () => {
    expect(decodeStatus(JSON.stringify({ ...status, extra: 1 }), 's')).toEqual(status)
  })

  test.each([
    ['another schema version', { ...status, schema_version: 2 }, 'schema_version: is 2, expected 1'],
    ['none', { ...status, schema_version: undefined }, 'schema_version'],
    ['an unknown state', { ...status, state: 'passed' }, 'state'],
    ['a time without a zone', { ...status, updated_at: '2026-01-01T00:00:00' }, 'updated_at'],
  ])('name source and field of %s', (_what, value, words) => {
    const error = refusal(() => decodeStatus(JSON.stringify(value), '/x/status.json'))
    expect(error).toContain('lifecycle_invalid: /x/status.json: ')
    expect(error).toContain(words)
  })

  test('refuse the legacy status of a result', () => {
    expect(refusal(() => decodeResult(JSON.stringify({ ...result, status: 'passed' }), 'r'))).toContain('status')
  })

  test('name the 1-based line of a bad event, blank lines counted', () => {
    expect(refusal(() => decodeEvents(`${JSON.stringify(event)}\n\n{`, 'events.jsonl'))).toContain('events.jsonl, line 3: is no JSON')
    const bad = `${JSON.stringify(event)}\n${JSON.stringify({ ...event, seq: -1 })}`
    expect(refusal(() => decodeEvents(bad, 'events.jsonl'))).toContain('line 2: seq')
  })

  test('leave out a line that a capped read has torn', () => {
    expect(decodeEvents(`${JSON.stringify(event)}\n{"schema_v`, 's', { partial: true })).toHaveLength(1)
  })

  test('know the moves of a guest', () => {
    expect(mayFollow('starting', 'ready')).toBe(true)
    expect(mayFollow('ready', 'starting')).toBe(true)
    expect(mayFollow('completed', 'starting')).toBe(false)
    expect(mayFollow('failed', 'completed')).toBe(false)
  })
})

describe('guest-request.json', () => {
  const request = { schema_version: 2, command: 'true', timeout_secs: 5, run_as_root: false }

  test('decodes as written', () => {
    expect(decodeGuestRequest(JSON.stringify(request), 's')).toEqual(request)
  })

  test.each([
    ['schema_version', { ...request, schema_version: 1 }],
    ['timeout_secs', { ...request, timeout_secs: 0 }],
    ['command', { ...request, command: '  ' }],
    ['run_as_root', { ...request, run_as_root: 'no' }],
    ['user', { ...request, user: 'x' }],
  ])('is refused for its %s', (field, value) => {
    expect(refusal(() => decodeGuestRequest(JSON.stringify(value), '/r.json'))).toMatch(
      new RegExp(`^guest_request_invalid: /r.json.*${field}`),
    )
  })
})

describe('managed agents', () => {
  test('read the details of a guest, or nothing', () => {
    expect(
      readGuestDetails({ agent_kind: 'pi', service_kind: 'prompt_endpoint', probe: 'p', service_probe_satisfied: true }),
    ).toMatchObject({ probe: 'p' })
    expect(readGuestDetails({ agent_kind: 'openclaw' })).toBeUndefined()
    expect(readGuestDetails(undefined)).toBeUndefined()
  })
})
