/** The control plane's contract, by the names under which it is published: authorisation, scope, idempotency, checks, teardown. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { controlCommand } from '../../../src/nostr/control/commands.ts'
import { encodeCommand } from '../../../src/nostr/control/envelopes.ts'
import { CONTROL_ERROR_CODES } from '../../../src/nostr/control/vocabulary.ts'
import { getRequest } from '../../../src/store/selling/control-requests.ts'
import { getRuntime, runtimeTransitions } from '../../../src/store/selling/runtimes.ts'
import { friend, owner, stranger, World } from './world.ts'

const PROVISION = { command: 'provision', provider: 'incus', protocol: 'acp' } as const

let world: World

beforeEach(() => {
  world = new World()
})
afterEach(() => world.close())

const failsWith = async (result: Promise<unknown>, code: string) =>
  await expect(result).rejects.toMatchObject({ name: 'ControlError', code })

test('idempotency_replay_does_not_reprovision', async () => {
  const node = await world.start()
  const first = await node.call(owner.pubkey, PROVISION, 'one')
  const again = node.send(owner.pubkey, PROVISION, 'one')
  const second = await again.result
  expect(second.runtime.runtime_id).toBe(first.runtime.runtime_id)
  expect(second.payload).toEqual({ operation: 'provision' })
  expect(again.statuses.map((status) => [status.phase, status.message])).toEqual([
    ['queued', 'request queued'],
    ['ready', 'idempotent replay'],
  ])
  expect(world.incus.calls.filter((call) => call.startsWith('provision'))).toHaveLength(1)
})

test('a replay shows the runtime as it is now', async () => {
  const node = await world.start()
  const { runtime } = await node.call(owner.pubkey, PROVISION, 'one')
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect((await node.call(owner.pubkey, PROVISION, 'one')).runtime.lifecycle_phase).toBe('teardown')
})

test('different_idempotency_key_triggers_new_provision, for each requester apart', async () => {
  const node = await world.start()
  const ids = await Promise.all([
    node.call(owner.pubkey, PROVISION, 'one'),
    node.call(owner.pubkey, PROVISION, 'two'),
    node.call(friend.pubkey, PROVISION, 'one'),
  ])
  expect(new Set(ids.map(({ runtime }) => runtime.runtime_id)).size).toBe(3)
})

test('the same key with another command is a conflict, while it runs and after', async () => {
  const node = await world.start()
  let open = () => {}
  world.incus.gate = new Promise((resolve) => {
    open = resolve
  })
  const first = node.send(owner.pubkey, PROVISION, 'one')
  await vi.waitFor(() => expect(world.incus.calls).toHaveLength(1))
  await failsWith(node.call(owner.pubkey, { ...PROVISION, protocol: 'pi' }, 'one'), 'idempotency_conflict')
  const joined = node.send(owner.pubkey, PROVISION, 'one')
  open()
  const { runtime } = await first.result
  expect((await joined.result).runtime.runtime_id).toBe(runtime.runtime_id)
  expect(joined.statuses.map((status) => status.phase)).toEqual(first.statuses.map((status) => status.phase))
  await failsWith(node.call(owner.pubkey, { ...PROVISION, protocol: 'pi' }, 'one'), 'idempotency_conflict')
  expect(world.incus.instances.size).toBe(1)
})

test('a payment is no part of the digest, an explicit default is none either', async () => {
  const node = await world.start()
  const first = await node.call(owner.pubkey, PROVISION, 'one')
  const again = await node.call(owner.pubkey, { ...PROVISION, keep: false, lease_token: 'cashuBx' }, 'one')
  expect(again.runtime.runtime_id).toBe(first.runtime.runtime_id)
})

test('idempotent_error_outcomes_are_not_cached', async () => {
  const node = await world.start()
  world.incus.failProvision = new PylonError('runtime_failed', 'no luck')
  await failsWith(node.call(owner.pubkey, PROVISION, 'one'), 'provision_failed')
  expect(getRequest(node.store, owner.pubkey, 'one')?.state).toBe('failed')
  world.incus.failProvision = undefined
  expect((await node.call(owner.pubkey, PROVISION, 'one')).runtime.lifecycle_phase).toBe('ready')
  expect(world.incus.instances.size).toBe(1)
})

test('provision_failure_normalizes_error_code and leaves nothing', async () => {
  const node = await world.start()
  world.incus.failProvision = new PylonError('incus_failed', 'the pool burns')
  const sent = node.send(owner.pubkey, PROVISION)
  await expect(sent.result).rejects.toMatchObject({ code: 'provision_failed', hint: 'check provider credentials/config and retry' })
  expect(sent.statuses.map((status) => status.phase)).toEqual(['queued', 'provisioning', 'failed'])
  expect(node.machines.status().counts).toEqual({})
})

test('get_runtime_returns_not_found_before_provision; get_runtime_is_scoped_to_owner without telling the two apart', async () => {
  const node = await world.start()
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  const absent = await node
    .call(stranger.pubkey, { command: 'get_runtime', runtime_id: 'incus-0000000000000000' })
    .catch((error: unknown) => error)
  const foreign = await node
    .call(stranger.pubkey, { command: 'get_runtime', runtime_id: runtime.runtime_id })
    .catch((error: unknown) => error)
  const shape = (error: unknown) => String(error).replaceAll(/incus-[0-9a-f]{16}/g, 'ID')
  expect(shape(foreign)).toBe(shape(absent))
  expect(shape(foreign)).toContain('runtime_not_found')
  for (const command of ['teardown', 'recover', 'snapshot', 'list_snapshots', 'restore', 'logs', 'collect'] as const) {
    await failsWith(node.call(stranger.pubkey, { command, runtime_id: runtime.runtime_id }), 'runtime_not_found')
  }
  await failsWith(node.call(stranger.pubkey, { command: 'exec', runtime_id: runtime.runtime_id, shell: 'id' }), 'runtime_not_found')
  await failsWith(node.call(stranger.pubkey, { command: 'prompt', runtime_id: runtime.runtime_id, message: 'hi' }), 'runtime_not_found')
  await failsWith(
    node.call(stranger.pubkey, { command: 'process_welcome', runtime_id: runtime.runtime_id, group_id: 'g' }),
    'runtime_not_found',
  )
  await failsWith(
    node.call(stranger.pubkey, { command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: 60 }),
    'runtime_not_found',
  )
  expect(world.incus.instances.size).toBe(1)
})

test('list_runtimes_is_scoped_to_owner; list_runtimes_supports_filters', async () => {
  const node = await world.start()
  const one = await node.call(owner.pubkey, PROVISION)
  const two = await node.call(owner.pubkey, { command: 'provision', provider: 'local', protocol: 'pi' })
  const ids = async (filter: object) => {
    const { payload } = await node.call(owner.pubkey, { command: 'list_runtimes', ...filter })
    return (payload as { runtimes: { runtime_id: string }[] }).runtimes.map((entry) => entry.runtime_id)
  }
  expect(await ids({})).toEqual([one, two].map(({ runtime }) => runtime.runtime_id).sort())
  expect(await ids({ provider: 'local' })).toEqual([two.runtime.runtime_id])
  expect(await ids({ runtime_class: 'small' })).toEqual([one.runtime.runtime_id])
  expect(await ids({ lifecycle_phase: 'failed' })).toEqual([])
  expect(await ids({ limit: 1 })).toHaveLength(1)
  const others = await node.call(stranger.pubkey, { command: 'list_runtimes' })
  expect(others).toMatchObject({
    runtime: { runtime_id: 'runtime-list-summary', provider: 'fly', lifecycle_phase: 'ready', metadata: { summary: true } },
    payload: { operation: 'list_runtimes', count: 0, runtimes: [] },
  })
})

test('runtime_class_mismatch_fails_before_provision', async () => {
  const node = await world.start()
  const sent = node.send(owner.pubkey, { ...PROVISION, runtime_class: 'huge' })
  await failsWith(sent.result, 'runtime_class_unavailable')
  expect(sent.statuses.at(-1)).toMatchObject({ phase: 'failed', progress: { requested_runtime_class: 'huge' } })
  expect(world.incus.calls).toEqual([])
})

test('what_a_substrate_never_could_do_is_refused_before_money_is_asked_for', async () => {
  const node = await world.start()
  world.incus.impossible = new PylonError('invalid_request', 'cpu is 16: this class gives at most 1.')
  const sent = node.send(stranger.pubkey, PROVISION)
  await failsWith(sent.result, 'invalid_command')
  expect(sent.statuses.map(({ phase }) => phase)).toEqual(['queued', 'failed'])
  expect([world.invoices.size, world.incus.calls]).toEqual([0, []])
})

test('post_provision_protocol_validation_triggers_cleanup', async () => {
  const node = await world.start()
  world.incus.protocols = ['pi']
  await failsWith(node.call(owner.pubkey, PROVISION), 'unsupported_protocol')
  expect(world.incus.instances.size).toBe(0)
})

test('post_provision_runtime_class_validation_triggers_cleanup', async () => {
  const node = await world.start()
  world.incus.runtimeClass = 'another'
  await failsWith(node.call(owner.pubkey, { ...PROVISION, runtime_class: 'small' }), 'runtime_class_unavailable')
  expect(world.incus.instances.size).toBe(0)
})

test('provision_is_denied_when_policy_disallows_requester', async () => {
  const node = await world.start({ runtimes: { classes: [] } })
  const sent = node.send(stranger.pubkey, PROVISION)
  await failsWith(sent.result, 'provision_unauthorized')
  expect(sent.statuses.map((status) => status.phase)).toEqual(['queued', 'failed'])
  expect((await node.call(friend.pubkey, { ...PROVISION, entry_command: 'agent' })).runtime.lifecycle_phase).toBe('ready')
})

test('a provider that is not there or not usable is provider_temporarily_disabled', async () => {
  const node = await world.start()
  await failsWith(node.call(owner.pubkey, { ...PROVISION, provider: 'workers' }), 'provider_temporarily_disabled')
  world.incus.probed = { usable: false, isolated: true, reason: 'down' }
  await node.machines.reload()
  await failsWith(node.call(owner.pubkey, PROVISION), 'provider_temporarily_disabled')
})

test('who asks while the configuration is being read again is served once the substrates were looked at', async () => {
  const node = await world.start()
  const { probed } = world.incus
  world.incus.probe = async () => await sleep(100, probed)
  const reloaded = node.machines.reload()
  expect((await node.call(owner.pubkey, PROVISION)).runtime.lifecycle_phase).toBe('ready')
  await reloaded
})

test('without isolation strangers are served by nobody, own keys and the allowlist are', async () => {
  world.incus.probed = { usable: true, isolated: false }
  const node = await world.start()
  await failsWith(node.call(stranger.pubkey, PROVISION), 'provision_unauthorized')
  expect((await node.call(friend.pubkey, PROVISION)).runtime.lifecycle_phase).toBe('ready')
  expect(node.machines.status().offers.find((offer) => offer.runtimeClass === 'small')?.published).toBe(false)
  expect(node.machines.jobClass()).toEqual({ runtimeClass: 'local' })
})

test('allow_unisolated counts in the sandbox alone', async () => {
  world.incus.probed = { usable: true, isolated: false }
  const live = await world.start({ runtimes: { allow_unisolated: true, classes: [] }, network: 'live' })
  expect(live.machines.status().state).toBe('ok')
  await failsWith(live.call(stranger.pubkey, PROVISION), 'provision_unauthorized')
})

test('teardown_transitions_lifecycle_phase, and again is no error', async () => {
  const node = await world.start()
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  const down = node.send(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(await down.result).toMatchObject({
    runtime: { lifecycle_phase: 'teardown' },
    payload: { operation: 'teardown', teardown: 'deleted' },
  })
  expect(down.statuses[0]).toMatchObject({ phase: 'teardown', message: 'teardown in progress' })
  expect(world.incus.instances.size).toBe(0)
  expect(await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })).toMatchObject({
    payload: { teardown: 'deleted' },
  })
  expect(runtimeTransitions(node.store, runtime.runtime_id).map((entry) => entry.to)).toEqual([
    'requested',
    'provisioning',
    'ready',
    'teardown',
    'gone',
  ])
})

test('a teardown that fails keeps the runtime in teardown', async () => {
  const node = await world.start()
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  world.incus.failTeardown = new PylonError('incus_failed', 'stuck')
  await expect(node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })).rejects.toMatchObject({
    code: 'teardown_failed',
    hint: 'manual cleanup may be required',
  })
  expect((await node.call(owner.pubkey, { command: 'get_runtime', runtime_id: runtime.runtime_id })).runtime.lifecycle_phase).toBe(
    'teardown',
  )
  world.incus.failTeardown = undefined
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('gone')
})

test('teardown_persist_failure_keeps_runtime_in_teardown_phase', async () => {
  const node = await world.start({ failing: { label: 'move_runtime:teardown', times: 2 } })
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  const down = node.send(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(await down.result).toMatchObject({
    runtime: { lifecycle_phase: 'teardown' },
    payload: { teardown: 'deleted', state_persist: 'failed', state_persist_error: expect.any(String) },
  })
  expect(down.statuses.map((status) => status.phase)).toEqual(['teardown', 'teardown'])
  expect(world.incus.instances.size).toBe(0)
})

test('a teardown whose first write fails writes all of it at its end', async () => {
  const node = await world.start({ failing: { label: 'move_runtime:teardown', times: 1 } })
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  const { payload } = await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(payload).not.toHaveProperty('state_persist')
  expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('gone')
})

test('a teardown while it is provisioned ends both', async () => {
  const node = await world.start()
  world.incus.gate = new Promise(() => {})
  const sent = node.send(owner.pubkey, PROVISION)
  await vi.waitFor(() => expect(world.incus.calls).toHaveLength(1))
  const [id] = Object.values((await node.call(owner.pubkey, { command: 'list_runtimes' })).runtime)
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: String(id) })
  await failsWith(sent.result, 'operation_failed')
  expect(node.machines.status().counts).toEqual({})
})

test('descriptor_fields_flow_through_provision_result', async () => {
  const node = await world.start()
  const secret = '05'.repeat(32)
  const { runtime } = await node.call(owner.pubkey, { ...PROVISION, bot_secret_key_hex: secret, relay_urls: ['wss://r.test'] })
  expect(runtime).toMatchObject({
    runtime_id: expect.stringMatching(/^incus-[0-9a-f]{16}$/),
    provider: 'incus',
    lifecycle_phase: 'ready',
    runtime_class: 'small',
    region: 'lab',
    protocol_compatibility: ['acp'],
    bot_pubkey: expect.stringMatching(/^[0-9a-f]{64}$/),
    metadata: { made: true, state: 'ready', status: { status: 'running', guest_ready: true } },
  })
  const input = [...world.incus.instances.values()][0]?.input
  expect(input?.env).toMatchObject({ NOSTR_SECRET_KEY: secret, PIKA_RELAY_URLS: 'wss://r.test', PIKA_OWNER_PUBKEY: owner.pubkey })
  expect(JSON.stringify(getRuntime(node.store, runtime.runtime_id))).not.toContain(secret)
})

test('what runs on a runtime: welcome, exec, prompt, logs, snapshots, restore, recover', async () => {
  const node = await world.start()
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  const on = { runtime_id: runtime.runtime_id }
  const payload = async (command: Parameters<typeof node.call>[1]) => (await node.call(owner.pubkey, command)).payload
  expect(await payload({ command: 'process_welcome', ...on, group_id: 'g' })).toMatchObject({
    operation: 'process_welcome',
    processed: false,
  })
  expect(await payload({ command: 'exec', ...on, shell: 'id' })).toMatchObject({ exit_code: 0, stdout: 'ran id' })
  expect(await payload({ command: 'prompt', ...on, message: 'hello' })).toMatchObject({ reply: 'you said hello', session_id: 'default' })
  await failsWith(node.call(owner.pubkey, { command: 'prompt', ...on, protocol: 'pi', message: 'x' }), 'unsupported_protocol')
  expect(await payload({ command: 'logs', ...on })).toMatchObject({ log: 'a log' })
  const backup = async () =>
    ((await node.call(owner.pubkey, { command: 'get_runtime', ...on })).runtime.metadata as { backup: object }).backup
  expect(await backup()).toMatchObject({ freshness: 'missing', backup_unit_kind: 'persistent_state_volume' })
  expect(await payload({ command: 'snapshot', ...on, snapshot: 'mine' })).toMatchObject({
    snapshot: 'mine',
    backup: { schema_version: 'vm.backup_status.v1' },
  })
  expect(await backup()).toMatchObject({ freshness: 'healthy', latest_recovery_point_name: 'mine' })
  expect(await payload({ command: 'list_snapshots', ...on })).toMatchObject({ snapshots: [{ name: 'mine' }] })
  expect(await payload({ command: 'restore', ...on })).toMatchObject({ snapshot: 'mine' })
  expect(await payload({ command: 'recover', ...on })).toEqual({ operation: 'recover' })
  world.incus.instances.clear()
  expect((await node.call(owner.pubkey, { command: 'recover', ...on })).runtime.lifecycle_phase).toBe('ready')
  expect(world.incus.instances.size).toBe(1)
})

test('a one-shot run gives exit code and outputs, and leaves nothing', async () => {
  const node = await world.start()
  world.incus.exitCode = 3
  world.incus.outputs = { stdout: 'hello', stderr: 'oops', artifacts: [{ path: 'a/b.txt', data: Buffer.from('art') }] }
  const sent = node.send(owner.pubkey, { command: 'run', entry_command: 'false', provider: 'incus' }, 'run')
  const { payload, runtime } = await sent.result
  expect(payload).toMatchObject({ exit_code: 3, stdout: 'hello', stderr: 'oops', artifacts_base64: { 'a/b.txt': 'YXJ0' } })
  expect(world.incus.instances.size).toBe(0)
  expect((await node.call(owner.pubkey, { command: 'run', entry_command: 'false', provider: 'incus' }, 'run')).payload).toEqual(payload)
  const page = await node.call(owner.pubkey, { command: 'collect', runtime_id: runtime.runtime_id, output: 'artifact:a/b.txt' })
  expect(page.payload).toMatchObject({ data_base64: 'YXJ0', total_bytes: 3 })
})

test('outputs that are too large are told of and collected by pages', async () => {
  const node = await world.start()
  world.incus.outputs = { stdout: 'x'.repeat(70_000) }
  const { payload, runtime } = await node.call(owner.pubkey, { command: 'run', entry_command: 'true', provider: 'incus' })
  expect(payload).toMatchObject({ exit_code: 0, error: 'output_too_large' })
  let text = ''
  for (let offset: number | undefined = 0; offset !== undefined; ) {
    const page = await node.call(owner.pubkey, { command: 'collect', runtime_id: runtime.runtime_id, output: 'stdout', offset })
    const part = page.payload as { data_base64: string; next_offset?: number }
    text += Buffer.from(part.data_base64, 'base64').toString()
    offset = part.next_offset
  }
  expect(text).toBe('x'.repeat(70_000))
})

test('the host ends a run that outlives its time, and keeps what it left', async () => {
  world.incus.runState = 'ready'
  world.incus.outputs = { stdout: 'so far' }
  const node = await world.start({ runtimes: { watchdog_grace_s: 1 } })
  const { payload } = await node.call(owner.pubkey, { command: 'run', entry_command: 'sleep 1000', provider: 'incus', timeout_s: 1 })
  expect(payload).toMatchObject({ exit_code: null, status: 'failed', stdout: 'so far' })
  expect(world.incus.instances.size).toBe(0)
})

test('get_request tells what became of a command, to its requester alone', async () => {
  const node = await world.start()
  await node.call(owner.pubkey, PROVISION, 'one')
  const { payload, runtime } = await node.call(owner.pubkey, { command: 'get_request', key: 'one' })
  expect(payload).toMatchObject({ state: 'succeeded', command: 'provision', result: { operation: 'provision' } })
  expect((payload as { statuses: { phase: string }[] }).statuses.map((status) => status.phase)).toEqual(['queued', 'provisioning', 'ready'])
  expect(runtime.lifecycle_phase).toBe('ready')
  await failsWith(node.call(stranger.pubkey, { command: 'get_request', key: 'one' }), 'request_not_found')
})

test('statuses say how far a provision is', async () => {
  const node = await world.start()
  world.incus.firstState = 'starting'
  const sent = node.send(owner.pubkey, PROVISION)
  const phases = () => sent.statuses.flatMap(({ progress }) => (progress as { startup_phase?: string } | undefined)?.startup_phase ?? [])
  await vi.waitFor(() => expect(phases()).toEqual(['provisioning_vm', 'booting_guest']), { timeout: 20_000 })
  world.incus.guest = {
    schema_version: 1,
    state: 'starting',
    message: 'the agent starts',
    updated_at: '2026-01-01T00:00:00Z',
    boot_id: 'b',
  }
  await vi.waitFor(() => expect(phases()).toEqual(['provisioning_vm', 'booting_guest', 'waiting_for_service_ready']), { timeout: 20_000 })
  for (const instance of world.incus.instances.values()) instance.state = 'ready'
  expect((await sent.result).runtime.lifecycle_phase).toBe('ready')
})

test('what one requester sends is taken in order, what another sends does not wait', async () => {
  const node = await world.start()
  world.incus.gate = new Promise(() => {})
  const slow = node.send(owner.pubkey, PROVISION)
  const listed = await node.call(owner.pubkey, { command: 'list_runtimes' })
  expect(listed.payload).toMatchObject({ count: 1 })
  expect((await node.call(friend.pubkey, { command: 'provision', provider: 'local', protocol: 'pi' })).runtime.lifecycle_phase).toBe(
    'ready',
  )
  expect(slow.statuses.map((status) => status.phase)).toEqual(['queued', 'provisioning'])
})

test('a volume of a name outlives its runtime where it is kept, and is never shared', async () => {
  const node = await world.start()
  const named = { ...PROVISION, name: 'brain', keep: true }
  const { runtime } = await node.call(owner.pubkey, named)
  await failsWith(node.call(owner.pubkey, named), 'invalid_command')
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(world.incus.volumes.size).toBe(1)
  await node.call(owner.pubkey, named)
  await node.call(friend.pubkey, named)
  expect(world.incus.volumes.size).toBe(2)
})

test('the same name finds the same volume however it is padded; volumes are listed and deleted by their owner alone', async () => {
  const node = await world.start()
  const keep = { ...PROVISION, keep: true }
  const { runtime } = await node.call(owner.pubkey, { ...keep, name: 'caf\u00e9' })
  const list = async (who: string, more: object = {}) =>
    (await node.call(who, { command: 'list_volumes', ...more })).payload as { volumes: Record<string, unknown>[]; problems: unknown[] }
  expect((await list(owner.pubkey)).volumes).toMatchObject([
    { provider: 'incus', name: 'caf\u00e9', runtime_id: runtime.runtime_id, in_use: true },
  ])
  expect((await list(friend.pubkey)).volumes).toEqual([])
  const volume = String((await list(owner.pubkey)).volumes[0]?.['volume'])
  const remove = { command: 'delete_volume', provider: 'incus', volume } as const
  await failsWith(node.call(owner.pubkey, remove), 'operation_failed')
  await failsWith(node.call(friend.pubkey, remove), 'invalid_command')
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  const again = await node.call(owner.pubkey, { ...keep, name: ' cafe\u0301 ' })
  expect(world.incus.volumes.size).toBe(1)
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: again.runtime.runtime_id })
  world.local.failVolumes = new PylonError('runtime_unreachable', 'it sleeps')
  expect(await list(owner.pubkey)).toMatchObject({
    volumes: [{ volume }],
    problems: [{ provider: 'local', reason: expect.stringContaining('it sleeps') }],
  })
  await node.call(owner.pubkey, remove)
  expect((await list(owner.pubkey, { provider: 'incus' })).volumes).toEqual([])
})

test('a substrate that does not say what it has free is unreachable, in its own words, and not full', async () => {
  const node = await world.start()
  world.incus.failCapacity = new PylonError('runtime_unreachable', 'http://10.0.0.5:8080 is down: start it.')
  const asked = node.send(owner.pubkey, PROVISION)
  await failsWith(asked.result, 'runtime_unreachable')
  await expect(asked.result).rejects.toMatchObject({ detail: expect.stringContaining('http://10.0.0.5:8080') })
  world.incus.failCapacity = undefined
  await node.call(owner.pubkey, PROVISION)
})

test('limits: places of a class, runtimes of a requester', async () => {
  const node = await world.start({ runtimes: { max_per_owner: 1 } })
  await node.call(friend.pubkey, PROVISION)
  await failsWith(node.call(friend.pubkey, PROVISION), 'rate_limited')
  await node.call(owner.pubkey, PROVISION)
  await node.call(owner.pubkey, PROVISION)
  await failsWith(node.call(owner.pubkey, PROVISION), 'capacity_exhausted')
})

test('all_error_codes_are_consistent_strings', () => {
  expect(new Set(CONTROL_ERROR_CODES).size).toBe(CONTROL_ERROR_CODES.length)
  for (const code of CONTROL_ERROR_CODES) expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/)
})

test('idempotency_cache_is_bounded', async () => {
  const { pruneRequests } = await import('../../../src/store/selling/control-requests.ts')
  const node = await world.start()
  for (const name of ['a', 'b', 'c'])
    await failsWith(node.call(owner.pubkey, { command: 'teardown', runtime_id: 'incus-x' }, name), 'runtime_not_found')
  expect(await node.store.write(pruneRequests({ before: 0, keep: 2 }))).toBe(1)
  expect(['a', 'b', 'c'].filter((name) => getRequest(node.store, owner.pubkey, name) !== undefined)).toHaveLength(2)
})

test('an encoded command leaves out what the wire leaves out', () => {
  const text = encodeCommand({ requestId: 'r', idempotencyKey: 'k', command: PROVISION })
  expect(JSON.parse(text)).toEqual({ schema: 'agent.control.cmd.v1', request_id: 'r', idempotency_key: 'k', ...PROVISION, keep: false })
})

test.each(['move_runtime:requested', 'move_runtime:provisioning', 'patch_runtime', 'move_runtime:ready'])(
  'state_persist_failed where %s cannot be written; nothing is left and the key may be used again',
  async (label) => {
    const node = await world.start({ failing: { label, times: 1 } })
    await failsWith(node.call(owner.pubkey, PROVISION, 'one'), 'state_persist_failed')
    expect(world.incus.instances.size).toBe(0)
    expect((await node.call(owner.pubkey, PROVISION, 'one')).runtime.lifecycle_phase).toBe('ready')
  },
)

test('docs/control-plane.md names every command, every field of a command, and every error code', () => {
  const page = readFileSync(join(import.meta.dirname, '..', '..', '..', 'docs', 'control-plane.md'), 'utf8')
  const fields = controlCommand.options.flatMap((option) => Object.keys(option.shape))
  const names = controlCommand.options.map((option) => option.shape.command.value)
  for (const name of [...fields, ...names, ...CONTROL_ERROR_CODES]) expect(page, name).toContain(`\`${name}\``)
})
