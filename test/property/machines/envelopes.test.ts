/** The envelopes and offers of the control plane: round trips of everything published, and whatever a stranger may send. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { ControlCommandInput } from '../../../src/nostr/control/commands.ts'
import {
  commandDigest,
  decodeCommand,
  decodeReply,
  encodeCommand,
  encodeError,
  encodeResult,
  encodeStatus,
  salvageRequestId,
  UNKNOWN_REQUEST_ID,
} from '../../../src/nostr/control/envelopes.ts'
import { buildOffer, leasePriceMsats, parseOffer, type RuntimeOffer } from '../../../src/nostr/control/offers.ts'
import { CONTROL_PHASES, CONTROL_PROTOCOLS, CONTROL_PROVIDERS, ControlError } from '../../../src/nostr/control/vocabulary.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { decodeManagedStatus } from '../../../src/provider/machines/managed-status.ts'
import { PROVIDER_KINDS } from '../../../src/runtime/adapter.ts'
import { PROTOCOLS } from '../../../src/runtime/contract/prompt.ts'

const head = { schema: 'agent.control.cmd.v1', request_id: 'r', idempotency_key: 'k' }
const commands: ControlCommandInput[] = [
  { command: 'provision', provider: 'fly', protocol: 'acp' },
  {
    ...{ command: 'provision', provider: 'microvm', protocol: 'pi', name: 'n', runtime_class: 'c', relay_urls: ['wss://r'], keep: true },
    ...{ bot_secret_key_hex: '01'.repeat(32), microvm: { spawner_url: 'http://10.0.0.1', cpu: 2, memory_mb: 512, ttl_seconds: 60 } },
  },
  { command: 'provision', provider: 'incus', protocol: 'acp', incus: { project: 'p', insecure_tls: false } },
  { command: 'process_welcome', runtime_id: 'x', group_id: 'g', wrapper_event_id_hex: 'ab', welcome_event_json: '{}' },
  { command: 'teardown', runtime_id: 'x' },
  { command: 'get_runtime', runtime_id: 'x' },
  { command: 'list_runtimes' },
  { command: 'list_runtimes', provider: 'workers', protocol: 'pi', lifecycle_phase: 'failed', runtime_class: 'c', limit: 3 },
  { command: 'run', entry_command: 'true', timeout_s: 5, artifact_globs: ['*'], lease_seconds: 60, lease_token: 't' },
  { command: 'recover', runtime_id: 'x' },
  { command: 'exec', runtime_id: 'x', shell: 'id' },
  { command: 'prompt', runtime_id: 'x', message: 'hi' },
  { command: 'logs', runtime_id: 'x' },
  { command: 'collect', runtime_id: 'x', output: 'stdout', offset: 5 },
  { command: 'snapshot', runtime_id: 'x' },
  { command: 'list_snapshots', runtime_id: 'x' },
  { command: 'restore', runtime_id: 'x', snapshot: 's' },
  { command: 'extend_lease', runtime_id: 'x', lease_seconds: 1 },
  { command: 'get_request', key: 'k' },
]

test('the wire and the substrates have the same providers and protocols', () => {
  expect([...CONTROL_PROVIDERS].sort()).toEqual([...PROVIDER_KINDS].sort())
  expect([...CONTROL_PROTOCOLS].sort()).toEqual([...PROTOCOLS].sort())
})

test.each(commands)('the command $command comes back as it went', (command) => {
  const text = encodeCommand({ requestId: 'r', idempotencyKey: 'k', command })
  const decoded = decodeCommand(text)
  expect(decoded.command).toMatchObject(command)
  expect(encodeCommand({ requestId: 'r', idempotencyKey: 'k', command: decoded.command })).toBe(text)
})

test('unknown fields are tolerated, unknown enum values and commands are not', () => {
  const body = { ...head, command: 'provision', provider: 'fly', protocol: 'acp' }
  expect(decodeCommand(JSON.stringify({ ...body, colour: 'red', auth: { acting_as_pubkey: 'x', more: 1 } })).actingAsPubkey).toBe('x')
  for (const wrong of [
    { provider: 'mainframe' },
    { protocol: 'telnet' },
    { command: 'explode' },
    { provider: undefined },
    { request_id: '' },
  ]) {
    expect(() => decodeCommand(JSON.stringify({ ...body, ...wrong }))).toThrow(expect.objectContaining({ code: 'invalid_command_json' }))
  }
  expect(() => decodeCommand(JSON.stringify({ ...head, schema: 'v2', command: 'nonsense' }))).toThrow(
    expect.objectContaining({ code: 'invalid_schema' }),
  )
})

test('the digest knows neither order, defaults nor payment, and everything else', () => {
  const digest = (fields: object) => commandDigest(decodeCommand(JSON.stringify({ ...head, ...fields })).command)
  const base = { command: 'provision', provider: 'fly', protocol: 'acp' }
  expect(digest({ protocol: 'acp', provider: 'fly', command: 'provision', keep: false, lease_token: 'x', unknown: 1 })).toBe(digest(base))
  expect(digest({ ...base, keep: true })).not.toBe(digest(base))
  expect(digest({ ...base, env: { A: '1', B: '2' } })).toBe(digest({ ...base, env: { B: '2', A: '1' } }))
  expect(digest({ ...base, env: { A: '2' } })).not.toBe(digest({ ...base, env: { A: '1' } }))
})

test('replies come back as they went', () => {
  for (const phase of CONTROL_PHASES) {
    const status = { phase, runtime_id: 'x', provider: 'fly' as const, message: 'm', progress: { a: [1] } }
    expect(decodeReply(24911, encodeStatus('r', status)).envelope).toMatchObject({ request_id: 'r', ...status })
  }
  const runtime = { runtime_id: 'x', provider: 'incus' as const, lifecycle_phase: 'ready' as const, protocol_compatibility: [] }
  expect(decodeReply(24912, encodeResult('r', { runtime, payload: null })).envelope).toEqual({
    schema: 'agent.control.result.v1',
    request_id: 'r',
    runtime,
  })
  const minimal = {
    schema: 'agent.control.result.v1',
    request_id: 'r',
    runtime: { runtime_id: 'x', provider: 'fly', lifecycle_phase: 'ready' },
  }
  expect(decodeReply(24912, JSON.stringify(minimal)).envelope).toMatchObject({ runtime: { protocol_compatibility: [] } })
  const failure = decodeReply(24913, encodeError('r', new ControlError('timeout', 'h', 'd'))).envelope
  expect(failure).toEqual({ schema: 'agent.control.error.v1', request_id: 'r', code: 'timeout', hint: 'h', detail: 'd' })
  expect(() => decodeReply(24912, encodeStatus('r', { phase: 'ready' }))).toThrow(expect.objectContaining({ code: 'invalid_schema' }))
})

test('whatever is sent is a command or a ControlError, and its request id is a string', () => {
  const hostile = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record({
        ...Object.fromEntries(
          ['schema', 'request_id', 'idempotency_key', 'command', 'provider', 'runtime_id'].map((name) => [name, fc.jsonValue()]),
        ),
      })
      .map((value) => JSON.stringify(value)),
    fc
      .jsonValue()
      .map((value) => JSON.stringify({ ...head, command: 'provision', provider: 'incus', protocol: 'acp', incus: value, env: value })),
  )
  fc.assert(
    fc.property(hostile, (text) => {
      try {
        commandDigest(decodeCommand(text).command)
      } catch (error) {
        expect(error).toBeInstanceOf(ControlError)
      }
      expect(typeof salvageRequestId(text)).toBe('string')
    }),
    { numRuns: 500 },
  )
})

test('what is nested deep or long is refused without harm', () => {
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`
  const within = JSON.stringify({ ...head, command: 'provision', provider: 'incus', protocol: 'acp', incus: {} }).replace(
    '{}',
    `{"a":${deep}}`,
  )
  for (const text of [deep, within, 'x'.repeat(70_000)]) {
    expect(() => decodeCommand(text)).toThrow(expect.objectContaining({ code: 'invalid_command_json' }))
  }
  expect(salvageRequestId('x'.repeat(70_000))).toBe(UNKNOWN_REQUEST_ID)
  expect(salvageRequestId(JSON.stringify({ request_id: 7 }))).toBe(UNKNOWN_REQUEST_ID)
  const polluting = decodeCommand(
    `{"schema":"agent.control.cmd.v1","request_id":"r","idempotency_key":"k","command":"list_runtimes","__proto__":{"x":1}}`,
  )
  expect(Object.hasOwn(Object.prototype, 'x')).toBe(false)
  expect(polluting.command).toEqual({ command: 'list_runtimes' })
})

const offer: RuntimeOffer = {
  runtimeClass: 'small',
  provider: 'incus',
  region: 'eu',
  protocols: ['pi', 'acp'],
  priceMsatsPerHour: 1_000n,
  minLeaseS: 60,
  maxLeaseS: 3600,
  capacity: { free: 2, total: 3 },
  resources: { vcpuCount: 1, memoryMib: 512 },
  isolated: true,
  mints: ['https://mint.test'],
  lockPubkey: `02${'ab'.repeat(32)}`,
  policyConstraints: { network: 'none' },
}

test('an offer comes back as it went; what is none is undefined, whatever it holds', () => {
  const event = identify('ab'.repeat(32), buildOffer(offer, 1_700_000_000))
  expect(parseOffer(event)).toEqual(offer)
  fc.assert(
    fc.property(fc.array(fc.array(fc.string(), { minLength: 1 })), fc.string(), (tags, content) => {
      const parsed = parseOffer({ ...event, tags, content })
      if (parsed !== undefined) expect(parsed.capacity.free).toBeGreaterThanOrEqual(0)
    }),
  )
  const without = (name: string) => parseOffer({ ...event, tags: event.tags.filter((tag) => tag[0] !== name) })
  for (const name of ['d', 'provider', 'price_msats_per_hour', 'capacity']) expect(without(name)).toBeUndefined()
})

test('a lease costs its seconds, rounded up once', () => {
  expect(leasePriceMsats(3_600_000n, 1)).toBe(1000n)
  expect(leasePriceMsats(1n, 1)).toBe(1n)
  expect(leasePriceMsats(1000n, 7200)).toBe(2000n)
})

test('managed_runtime_status_accepts_legacy_guest_service_ready_field', () => {
  expect(decodeManagedStatus({ id: 'x', guest_service_ready: true })).toEqual({
    id: 'x',
    status: 'running',
    startup_probe_satisfied: true,
    guest_ready: false,
  })
  expect(() => decodeManagedStatus({ id: 'x', status: 'odd' })).toThrow()
})
