import { describe, expect, test } from 'vitest'
import { decodeRuntimeSpec } from '../../../src/runtime/contract/spec.ts'
import { issueTicket, newTicketKey, verifyTicket } from '../../../src/runtime/contract/ticket.ts'
import { matchesGlob } from '../../../src/runtime/globs.ts'
import { collectFrom } from '../../../src/runtime/outputs.ts'
import { type GuestEvidence, judgeReadiness } from '../../../src/runtime/readiness.ts'
import { collects, destroysItself, keepsVolume } from '../../../src/runtime/retention.ts'

const at = '2026-01-01T00:00:00Z'
const details = { agent_kind: 'acp', service_kind: 'prompt_endpoint', probe: 'prompt_endpoint', service_probe_satisfied: true }
const status = { schema_version: 1, state: 'ready', updated_at: at, message: 'serving', boot_id: 'b1', details }
const result = { schema_version: 1, status: 'failed', finished_at: at, message: 'broke', exit_code: 3 }
const evidence: GuestEvidence = { alive: true, bootId: 'b1', statusText: JSON.stringify(status), resultText: undefined, protocol: 'acp' }
const withStatus = (more: object) => JSON.stringify({ ...status, ...more })

describe('readiness', () => {
  test('is believed with the boot id of the instance and a probe', () => {
    expect(judgeReadiness(evidence)).toMatchObject({ state: 'ready', bootId: 'b1', message: 'serving' })
  })

  test.each<[string, Partial<GuestEvidence>, string]>([
    ['of another boot', { statusText: withStatus({ boot_id: 'b0' }) }, 'another boot'],
    ['of no boot', { statusText: withStatus({ boot_id: undefined }) }, 'another boot'],
    ['of an unknown boot', { bootId: undefined }, 'could not be read'],
    ['of another schema', { statusText: withStatus({ schema_version: 9 }) }, 'expected 1'],
    ['that is no JSON', { statusText: 'ready' }, 'no JSON'],
    ['without a probe', { statusText: withStatus({ details: { ...details, probe: '' } }) }, 'without a probe'],
    ['of another protocol', { statusText: withStatus({ details: { ...details, agent_kind: 'pi' } }) }, 'without a probe'],
    ['that is missing', { statusText: undefined }, 'not reported'],
  ])('is not claimed from a status %s', (_what, more, words) => {
    const readiness = judgeReadiness({ ...evidence, ...more })
    expect(readiness.state).toBe('starting')
    expect(readiness.message).toContain(words)
  })

  test('ends with the result, not with the status before it', () => {
    const statusText = withStatus({ state: 'failed' })
    expect(judgeReadiness({ ...evidence, statusText }).state).toBe('starting')
    expect(judgeReadiness({ ...evidence, statusText, resultText: JSON.stringify(result) })).toMatchObject({
      state: 'failed',
      message: 'broke',
    })
  })

  test('does not take the result of an earlier life', () => {
    expect(judgeReadiness({ ...evidence, resultText: JSON.stringify(result) }).state).toBe('ready')
  })

  test('says that the guest did it where it left a last word, or while its instance runs on', () => {
    const died = (reason: string) => JSON.stringify({ ...result, details: { failure_reason: reason } })
    const ended = { ...evidence, alive: false }
    expect(judgeReadiness({ ...ended, resultText: JSON.stringify(result) }).byGuest).toBe(true)
    expect(judgeReadiness({ ...ended, resultText: died('agent_crash_loop') }).byGuest).toBe(true)
    for (const reason of ['guest_died', 'guest_bootstrap_failed', 'terminated', 'instance_restarted']) {
      expect(judgeReadiness({ ...ended, resultText: died(reason) }).byGuest).toBeUndefined()
      // Anybody inside can write that down and go on.
      expect(judgeReadiness({ ...evidence, statusText: withStatus({ state: 'failed' }), resultText: died(reason) }).byGuest).toBe(true)
    }
    expect(judgeReadiness(ended).byGuest).toBeUndefined()
  })

  test('of what has ended is its result, or failed', () => {
    const ended = { ...evidence, alive: false }
    expect(judgeReadiness({ ...ended, resultText: JSON.stringify({ ...result, status: 'completed' }) }).state).toBe('completed')
    expect(judgeReadiness(ended)).toMatchObject({ state: 'failed', message: expect.stringContaining('no result') })
  })
})

describe('launch tickets', () => {
  const key = newTicketKey()
  const now = Date.UTC(2026, 0, 1)

  test('open their own runtime for a short time', () => {
    const ticket = issueTicket(key, 'local-1', now)
    expect(verifyTicket(key, 'local-1', ticket, now)).toBe(true)
    expect(verifyTicket(key, 'local-1', ticket, now + 59_000)).toBe(true)
    expect(verifyTicket(key, 'local-1', ticket, now + 61_000)).toBe(false)
    expect(verifyTicket(key, 'local-2', ticket, now)).toBe(false)
    expect(verifyTicket(newTicketKey(), 'local-1', ticket, now)).toBe(false)
  })

  test('can be neither changed nor made to last', () => {
    const [body = '', signature = ''] = issueTicket(key, 'local-1', now).split('.')
    const longer = JSON.parse(Buffer.from(body, 'base64url').toString())
    const changed = Buffer.from(JSON.stringify({ ...longer, exp: longer.exp + 1000 })).toString('base64url')
    expect(verifyTicket(key, 'local-1', `${changed}.${signature}`, now)).toBe(false)
    for (const wrong of ['', '.', body, `${body}.`, `${body}.${signature}.x`, `${body}.AAAA`, 'x'.repeat(5000)]) {
      expect(verifyTicket(key, 'local-1', wrong, now)).toBe(false)
    }
    expect(verifyTicket(key, 'local-1', issueTicket(key, 'local-1', now, 3_600_000), now)).toBe(false)
  })
})

describe('policies', () => {
  const policies = (more: object) =>
    decodeRuntimeSpec({ identity: { runtime_id: 'a', instance_name: 'b' }, policies: { restart_policy: 'never', ...more } }).policies

  test('say what is collected', () => {
    const mode = (mode: string) => policies({ output_collection: { mode } })
    expect((['completed', 'failed', 'gone'] as const).map((outcome) => collects(mode('failure_only'), outcome))).toEqual([
      false,
      true,
      true,
    ])
    expect(collects(mode('none'), 'failed')).toBe(false)
    expect(collects(mode('always'), 'completed')).toBe(true)
  })

  test('say what stays', () => {
    expect(destroysItself(policies({}))).toBe(true)
    expect(destroysItself(policies({ retention_policy: 'keep_until_stopped' }))).toBe(false)
    expect(keepsVolume(policies({ retention_policy: 'debug_keep' }), false)).toBe(true)
    expect(keepsVolume(policies({}), false)).toBe(false)
  })
})

describe('outputs', () => {
  const written = {
    'status.json': JSON.stringify({ ...status, state: 'failed' }),
    'result.json': JSON.stringify(result),
    'events.jsonl': '',
    'stdout.log': 'o',
    'stderr.log': 'e',
    'guest.log': 'l',
  }
  const asked: string[] = []
  const collect = (policy: object, files: Readonly<Record<string, string>> = written) =>
    collectFrom(
      {
        async read(path) {
          const name = path.split('/').at(-1) ?? ''
          asked.push(name)
          const text = files[name]
          return text === undefined ? undefined : { text, truncated: false }
        },
        async artifacts(wants) {
          asked.push('artifacts')
          return { files: wants('a/b.txt') ? [{ path: 'a/b.txt', data: Buffer.from('x') }] : [], truncated: false, problems: [] }
        },
      },
      spec(policy),
    )
  const spec = (output_collection: object) =>
    decodeRuntimeSpec({ identity: { runtime_id: 'a', instance_name: 'b' }, policies: { restart_policy: 'never', output_collection } })

  test('leave out what the policy does, and do not ask for it', async () => {
    expect(await collect({})).toMatchObject({ stdout: 'o', stderr: 'e', log: 'l', artifacts: [{ path: 'a/b.txt' }], truncated: false })
    expect(await collect({ include_logs: false })).toMatchObject({ stdout: '', stderr: '', log: '' })
    expect((await collect({ include_result: false })).result).toBeUndefined()
    expect((await collect({ artifact_globs: ['*.txt'] })).artifacts).toEqual([])
    asked.length = 0
    expect(await collect({ mode: 'none' })).toMatchObject({ stdout: '', artifacts: [] })
    expect(asked).toEqual(['status.json', 'result.json', 'events.jsonl'])
  })

  test('turn lies into problems', async () => {
    const outputs = await collect({}, { ...written, 'status.json': '[]', 'result.json': '{', 'events.jsonl': 'x\n' })
    expect(outputs).toMatchObject({ events: [], artifacts: [{ path: 'a/b.txt' }] })
    expect(outputs.problems.map((problem) => problem.split(/[:,]/)[0])).toEqual(['status.json', 'result.json', 'events.jsonl'])
  })
})

describe('globs', () => {
  test.each([
    ['a.txt', '*.txt', true],
    ['a/b.txt', '*.txt', false],
    ['a/b.txt', '**/*.txt', true],
    ['b.txt', '**/*.txt', true],
    ['a/b/c/d', 'a/**/d', true],
    ['a/d', 'a/**/d', true],
    ['a/b', 'a/**', true],
    ['ab', 'a?', true],
    ['a', 'a?', false],
    ['a+b', 'a+b', true],
    ['xay', '*a*', true],
    ['', '*', true],
  ])('%s against %s is %s', (path, glob, expected) => {
    expect(matchesGlob(path, glob)).toBe(expected)
  })
})
