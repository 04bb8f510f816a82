/** The contract of runtimes on the remote substrates, and the requests that each one gets. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createDialer } from '../../src/base/dialer.ts'
import { isPylonError } from '../../src/base/errors.ts'
import type { ProvisionInput, RuntimeAdapter } from '../../src/runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../src/runtime/contract/spec.ts'
import { FlyAdapter, type FlySettings } from '../../src/runtime/fly/fly-adapter.ts'
import { privateSpawnerUrl } from '../../src/runtime/microvm/address.ts'
import { MicrovmAdapter, type MicrovmSettings } from '../../src/runtime/microvm/microvm-adapter.ts'
import { Journal } from '../../src/runtime/remote/journal.ts'
import type { RemoteDeps } from '../../src/runtime/remote/remote-adapter.ts'
import { WorkersAdapter, type WorkersSettings } from '../../src/runtime/workers/workers-adapter.ts'
import {
  BROKER_TOKEN,
  brokerServer,
  FLY_APP,
  FLY_TOKEN,
  flyServer,
  promptRuntime,
  RUNTIME_TOKEN,
  spawnerServer,
} from '../support/remote-substrates.ts'
import { testScope } from '../support/scope.ts'
import { tempDir } from '../support/temp.ts'
import { runtimeAdapterContract } from './runtime-adapter.ts'

const noAbort = new AbortController().signal
const ID = 'fly-0123456789abcdef'
const OWNER = '11'.repeat(32)
const abilities = { protocols: ['acp', 'pi'], oneShot: false, volumes: false } as const
/** Nobody listens there. */
const NOWHERE = 'http://127.0.0.1:9'

/** Another process each time, over the same notes. */
function depsOf(journalDir: string): RemoteDeps {
  const [dialer, scope] = [createDialer(), testScope()]
  onTestFinished(async () => {
    expect(await scope.close()).toEqual([])
    await dialer.close()
  })
  return { dialer, scope, journal: new Journal(journalDir) }
}

function secretFile(secret: string): string {
  const path = join(tempDir(), 'token')
  writeFileSync(path, `${secret}\n`)
  return path
}

function input(more: Partial<ProvisionInput> = {}): ProvisionInput {
  const runtimeId = more.runtimeId ?? ID
  const spec = decodeRuntimeSpec({ identity: { runtime_id: runtimeId, instance_name: 'ada' }, entry_command: 'agent --acp' })
  return { runtimeId, ownerPubkey: OWNER, spec, protocol: 'acp', ...more }
}

const refusedWith =
  (code: Parameters<typeof isPylonError>[1], ...words: string[]) =>
  (error: unknown) =>
    isPylonError(error, code) && words.every((word) => error.message.includes(word))

async function fly(more: Partial<FlySettings> = {}) {
  const server = await flyServer()
  const journalDir = join(tempDir(), 'fly')
  const settings = {
    apiBaseUrl: server.url,
    appName: FLY_APP,
    region: 'iad',
    image: 'registry.fly.io/pika-bot:latest',
    tokenFile: secretFile(FLY_TOKEN),
    nodeId: 'node-a',
    maxInstances: 10,
    ...more,
  }
  const make = (): RuntimeAdapter => new FlyAdapter(settings, depsOf(journalDir))
  return { server, make, adapter: make() }
}

async function microvm(version: 1 | 2, more: Partial<MicrovmSettings> = {}) {
  const server = await spawnerServer(version)
  const journalDir = join(tempDir(), 'microvm')
  const settings = { spawnerUrls: [`${server.url}///`], maxInstances: 4, ...more }
  const make = (): RuntimeAdapter => new MicrovmAdapter(settings, depsOf(journalDir))
  return { server, make, adapter: make() }
}

async function workers(
  options: { deletes?: boolean; path?: Parameters<typeof promptRuntime>[0]; settings?: Partial<WorkersSettings> } = {},
) {
  const server = await brokerServer(options.deletes)
  const runtime = await promptRuntime(options.path)
  const settings = {
    baseUrl: `${server.url}/`,
    tokenFile: secretFile(BROKER_TOKEN),
    runtimeUrl: runtime.url,
    runtimeTokenFile: secretFile(RUNTIME_TOKEN),
    maxInstances: 10,
    ...options.settings,
  }
  const journalDir = join(tempDir(), 'workers')
  const make = (): RuntimeAdapter => new WorkersAdapter(settings, depsOf(journalDir))
  return { server, runtime, make, adapter: make() }
}

const benchOf = ({ make, adapter }: { make: () => RuntimeAdapter; adapter: RuntimeAdapter }) => ({ adapter, restarted: make })
runtimeAdapterContract('fly', abilities, async () => benchOf(await fly()))
runtimeAdapterContract('microvm, spawner version 1', abilities, async () => benchOf(await microvm(1)))
runtimeAdapterContract('microvm, spawner version 2', abilities, async () => benchOf(await microvm(2)))
runtimeAdapterContract('workers', abilities, async () => benchOf(await workers()))

describe('fly requests', () => {
  test('create_volume, create_machine and get_machine have the published shape', async () => {
    const { server, adapter } = await fly()
    const { handle, metadata } = await adapter.provision(input({ env: { NOSTR_SECRET_KEY: 'aa'.repeat(32) } }), noAbort)
    const posts = server.requests.filter(({ method }) => method === 'POST')
    expect(posts.map(({ path, auth }) => [path, auth])).toEqual([
      [`/v1/apps/${FLY_APP}/volumes`, `Bearer ${FLY_TOKEN}`],
      [`/v1/apps/${FLY_APP}/machines`, `Bearer ${FLY_TOKEN}`],
    ])
    expect(posts[0]?.body).toEqual({ name: expect.stringMatching(/^agent_0123456789abcdef_[0-9a-f]{7}$/), region: 'iad', size_gb: 1 })
    expect(posts[1]?.body).toMatchObject({
      name: 'agent-0123456789abcdef',
      region: 'iad',
      config: {
        image: 'registry.fly.io/pika-bot:latest',
        env: { STATE_DIR: '/app/state', NOSTR_SECRET_KEY: 'aa'.repeat(32), PYLON_PROTOCOL: 'acp' },
        guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
        mounts: [{ volume: 'vol_1', path: '/app/state' }],
        metadata: { pylon_node: 'node-a', pylon_runtime_id: ID },
      },
    })
    expect(metadata).toEqual({ machine_id: 'm2', volume_id: 'vol_1', app_name: FLY_APP, region: 'iad' })
    expect(await adapter.readiness(handle, noAbort)).toMatchObject({ state: 'ready' })
    expect(server.calls().slice(-3)).toEqual([
      `GET /v1/apps/${FLY_APP}/machines/m2`,
      `GET /v1/apps/${FLY_APP}/machines/m2/wait?state=started&timeout=10`,
      `GET /v1/apps/${FLY_APP}/machines/m2`,
    ])
  })

  test('teardown stops and deletes the machine, then the volume', async () => {
    const { server, adapter } = await fly()
    const { handle } = await adapter.provision(input(), noAbort)
    const before = server.requests.length
    await adapter.teardown(handle, { keepVolume: false })
    expect(server.calls().slice(before)).toEqual([
      `POST /v1/apps/${FLY_APP}/machines/m2/stop`,
      `DELETE /v1/apps/${FLY_APP}/machines/m2?force=true`,
      `DELETE /v1/apps/${FLY_APP}/volumes/vol_1`,
    ])
    expect([server.machines.size, server.volumes.size]).toEqual([0, 0])
  })

  test('a kept volume is mounted again by the next provision', async () => {
    const { server, adapter } = await fly()
    const { handle } = await adapter.provision(input(), noAbort)
    expect(await adapter.teardown(handle, { keepVolume: true })).toMatchObject({ kept_volume: 'vol_1' })
    expect(await adapter.listOwned?.()).toEqual([])
    expect((await adapter.provision(input(), noAbort)).metadata).toMatchObject({ volume_id: 'vol_1' })
    expect(server.volumes.size).toBe(1)
  })

  test('a machine that cannot be created leaves no volume and surfaces the error body', async () => {
    const { server, adapter } = await fly()
    server.once('POST', `/v1/apps/${FLY_APP}/machines`, { status: 422, body: { error: 'region is full' } })
    await expect(adapter.provision(input(), noAbort)).rejects.toSatisfy(
      refusedWith('runtime_failed', 'create machine', `${server.url}/v1/apps/${FLY_APP}/machines`, '422', 'region is full'),
    )
    expect([server.machines.size, server.volumes.size]).toEqual([0, 0])
    expect(await adapter.listOwned?.()).toEqual([])
  })

  test('create_volume and get_machine surface the error body', async () => {
    const { server, adapter } = await fly()
    server.once('POST', `/v1/apps/${FLY_APP}/volumes`, { status: 403, body: { error: `no, ${FLY_TOKEN}` } })
    await expect(adapter.provision(input(), noAbort)).rejects.toSatisfy(refusedWith('runtime_failed', 'create volume', '403', '[hidden]'))
    const { handle } = await adapter.provision(input(), noAbort)
    server.once('GET', /machines\/m\d+$/, { status: 500, body: { error: 'oops' } })
    await expect(adapter.readiness(handle, noAbort)).rejects.toSatisfy(refusedWith('runtime_failed', 'get machine', '500', 'oops'))
  })

  test('what a crash between volume and machine left is found by the sweep', async () => {
    const { server, adapter, make } = await fly()
    server.once('POST', `/v1/apps/${FLY_APP}/machines`, { hang: true })
    void adapter.provision(input(), noAbort).catch(() => undefined)
    await expect.poll(() => server.calls()).toContain(`POST /v1/apps/${FLY_APP}/machines`)
    const after = make()
    const [orphan] = (await after.listOwned?.()) ?? []
    expect(orphan).toMatchObject({ runtimeId: ID, handle: { machine_id: '', volume_id: 'vol_1' } })
    if (orphan !== undefined) await after.teardown(orphan.handle, { keepVolume: false })
    expect(server.volumes.size).toBe(0)
    expect(await after.listOwned?.()).toEqual([])
  })

  test('settings without an image or a token are refused at once', async () => {
    for (const [key, settings] of [
      ['runtimes.fly.image', { image: '' }],
      ['runtimes.fly.token_file', { tokenFile: ' ' }],
    ] as const) {
      await expect(fly(settings)).rejects.toSatisfy(refusedWith('config_invalid', key))
    }
  })

  test('leaves machines of another node alone', async () => {
    const { server, adapter } = await fly()
    server.machines.set('m9', { id: 'm9', state: 'started', config: { metadata: { pylon_node: 'node-b', pylon_runtime_id: ID } } })
    expect(await adapter.listOwned?.()).toEqual([])
    expect((await adapter.provision(input(), noAbort)).metadata).not.toMatchObject({ machine_id: 'm9' })
  })

  test('an API that does not answer is named with the next step, and no token', async () => {
    const { adapter } = await fly({ apiBaseUrl: NOWHERE })
    await expect(adapter.provision(input(), noAbort)).rejects.toSatisfy(
      (error) =>
        refusedWith('runtime_unreachable', `${NOWHERE}/v1/apps/${FLY_APP}`, 'runtimes.fly.api_base_url')(error) &&
        !String(error).includes(FLY_TOKEN),
    )
    expect(await adapter.probe()).toMatchObject({ usable: false, nextStep: expect.stringContaining('token_file') })
  })
})

describe('microvm requests', () => {
  test('resolve_params: defaults, the spec and the request, in version 1', async () => {
    const { server, adapter } = await microvm(1)
    const params = { cpu: 2, ttl_seconds: 600, spawn_variant: 'prebuilt' }
    await adapter.provision(input({ params, env: { PI_MODEL: 'm' } }), noAbort)
    expect(server.requests.at(-1)).toMatchObject({ method: 'POST', path: '/vms', auth: undefined })
    expect(server.requests.at(-1)?.body).toEqual({
      flake_ref: 'github:sledtools/pika',
      dev_shell: 'default',
      cpu: 2,
      memory_mb: 1024,
      ttl_seconds: 600,
      spawn_variant: 'prebuilt',
      guest_autostart: {
        command: 'bash /workspace/pika-agent/start-agent.sh',
        env: {
          PI_MODEL: 'm',
          PIKA_OWNER_PUBKEY: OWNER,
          PYLON_RUNTIME_ID: ID,
          PYLON_PROTOCOL: 'acp',
          PYLON_ENTRY_COMMAND: 'agent --acp',
        },
        files: { 'workspace/pylon/spec.json': expect.stringContaining(ID) },
      },
    })
  })

  test('version 2 gets the autostart alone', async () => {
    const { server, adapter } = await microvm(2)
    await adapter.provision(input(), noAbort)
    const body = server.requests.at(-1)?.body as Record<string, unknown>
    expect(Object.keys(body)).toEqual(['guest_autostart'])
    expect(body['guest_autostart']).toHaveProperty('startup_plan.artifacts.status_path', '/run/pika-cloud/status.json')
  })

  test('never keeps the SSH key that version 1 returns', async () => {
    const { adapter } = await microvm(1)
    expect(JSON.stringify(await adapter.provision(input(), noAbort))).not.toContain('PRIVATE')
  })

  test('recover, restore, backup status and delete have the published shape', async () => {
    const { server, adapter } = await microvm(2)
    const { handle } = await adapter.provision(input(), noAbort)
    const before = server.requests.length
    await adapter.recover?.(handle, noAbort)
    expect(await adapter.backupStatus?.(handle)).toEqual({
      backupUnitKind: 'durable_home',
      backupTarget: 'homes/vm-00000001',
      recoveryPointKind: 'metadata_record',
      snapshots: [{ name: 'p1', createdAt: Date.parse('2026-01-01T00:00:00Z') }],
    })
    await adapter.restore?.(handle, undefined, noAbort)
    await adapter.teardown(handle, { keepVolume: false })
    expect(server.calls().slice(before)).toEqual([
      'POST /vms/vm-00000001/recover',
      'GET /vms/vm-00000001/backup-status',
      'GET /vms/vm-00000001/backup-status',
      'POST /vms/vm-00000001/restore',
      'DELETE /vms/vm-00000001',
    ])
  })

  test('keep leaves the VM alone', async () => {
    const { server, adapter } = await microvm(1)
    const { handle } = await adapter.provision(input(), noAbort)
    expect(await adapter.teardown(handle, { keepVolume: true })).toMatchObject({ teardown: 'skipped', reason: '--keep policy' })
    expect(server.vms.size).toBe(1)
  })

  test('surfaces the error body, the URL and the next step', async () => {
    const { server, adapter } = await microvm(1)
    server.once('POST', '/vms', { status: 500, body: { error: 'no kvm' } })
    await expect(adapter.provision(input(), noAbort)).rejects.toSatisfy(
      refusedWith('runtime_failed', 'create microvm', `${server.url}/vms`, '500', 'no kvm'),
    )
    const dead = await microvm(1)
    await dead.server.close()
    await expect(dead.adapter.provision(input(), noAbort)).rejects.toSatisfy(
      refusedWith('runtime_unreachable', dead.server.url, `curl ${dead.server.url}/healthz`),
    )
    expect(await dead.adapter.probe()).toMatchObject({ usable: false, nextStep: expect.stringContaining(dead.server.url) })
  })

  test('one dead spawner takes nothing from the others, and is named with what to do', async () => {
    const dead = await microvm(1)
    await dead.server.close()
    const { server, adapter } = await microvm(1, { spawnerUrls: [dead.server.url, (await microvm(1)).server.url] })
    expect(server.vms.size).toBe(0)
    expect(await adapter.probe()).toMatchObject({
      usable: true,
      reason: expect.stringContaining(dead.server.url),
      nextStep: expect.stringContaining(`curl ${dead.server.url}/healthz`),
    })
    expect((await adapter.capacity()).free.instances).toBeGreaterThan(0)
    const { handle } = await adapter.provision(input(), noAbort)
    expect((await adapter.readiness(handle, noAbort)).state).toBe('ready')
    const named = input({ params: { spawner_url: dead.server.url } })
    for (const how of [adapter.assertPossible(named), adapter.provision({ ...named, runtimeId: 'microvm-00000000000000aa' }, noAbort)])
      await expect(how).rejects.toSatisfy(refusedWith('runtime_unreachable', dead.server.url, `curl ${dead.server.url}/healthz`))
    await adapter.teardown(handle, { keepVolume: false })
  })

  test('a request picks only among the spawners that are configured', async () => {
    const other = await spawnerServer(1)
    const { server, adapter } = await microvm(1)
    for (const spawner_url of [other.url, 'http://8.8.8.8:8080', 'http://169.254.169.254/latest', 'not a url']) {
      await expect(adapter.provision(input({ params: { spawner_url } }), noAbort)).rejects.toSatisfy(
        refusedWith('address_refused', spawner_url, 'runtimes.microvm.spawner_urls'),
      )
    }
    expect([...other.requests, ...server.requests]).toEqual([])
    await adapter.provision(input({ params: { spawner_url: `${server.url}/` } }), noAbort)
    expect(server.vms.size).toBe(1)
  })

  test('a request changes neither flake nor shell, and names no unknown field', async () => {
    const { adapter } = await microvm(1)
    for (const params of [{ flake_ref: 'github:evil/flake' }, { dev_shell: 'other' }, { command: 'x' }, { cpu: 99 }]) {
      await expect(adapter.provision(input({ params }), noAbort)).rejects.toSatisfy(refusedWith('invalid_request'))
    }
  })

  test('a request gets no more than its class gives', async () => {
    const { server, adapter } = await microvm(1)
    const identity = { runtime_id: ID, instance_name: 'ada' }
    const spec = decodeRuntimeSpec({ identity, resources: { vcpu_count: 1, memory_mib: 1024 } })
    for (const params of [{ cpu: 2 }, { memory_mb: 2048 }]) {
      await expect(adapter.provision(input({ spec, params }), noAbort)).rejects.toSatisfy(refusedWith('invalid_request', 'at most'))
    }
    expect(server.vms.size).toBe(0)
    await adapter.provision(input({ spec, params: { cpu: 1, memory_mb: 512 } }), noAbort)
    expect(server.requests.at(-1)?.body).toMatchObject({ cpu: 1, memory_mb: 512, ttl_seconds: 86_400 })
  })

  test('private_spawner_url accepts private and rejects public hosts', () => {
    const inside = ['localhost', '127.0.0.1', '10.1.2.3', '172.16.0.1', '192.168.1.1', '169.254.1.1', '100.64.0.1', '[::1]', '[fd00::1]']
    for (const host of [...inside, '[fe80::1]', 'spawner.internal', 'box.tailnet', 'box.tailnet.ts.net']) {
      expect(privateSpawnerUrl(`http://${host}:8080/`)).toBe(`http://${host}:8080`)
    }
    const outside = ['8.8.8.8', '172.32.0.1', '100.128.0.1', '0.0.0.0', '224.0.0.1', '[2001:4860::1]', '[::ffff:8.8.8.8]', '[ff02::1]']
    for (const host of [...outside, 'example.com', 'internal.example.com', 'evilinternal', 'localhost.example.com']) {
      expect(() => privateSpawnerUrl(`http://${host}:8080`)).toThrow(/private addresses/)
    }
    for (const url of ['ftp://127.0.0.1', 'http://user:pw@127.0.0.1', 'x']) expect(() => privateSpawnerUrl(url)).toThrow()
  })
})

describe('workers requests', () => {
  test('create, get and process-welcome have the published shape', async () => {
    const { server, adapter } = await workers()
    const env = { NOSTR_SECRET_KEY: 'aa'.repeat(32) }
    const params = { relay_urls: ['wss://relay.example'], bot_pubkey: 'ab'.repeat(32) }
    const { handle, metadata } = await adapter.provision(input({ protocol: 'pi', env, params }), noAbort)
    expect(server.requests.at(-1)).toEqual({
      method: 'POST',
      path: '/agents',
      auth: `Bearer ${BROKER_TOKEN}`,
      body: { id: ID, name: 'ada', brain: 'pi', relay_urls: ['wss://relay.example'], bot_secret_key_hex: 'aa'.repeat(32) },
    })
    expect(metadata).toMatchObject({ agent_id: ID, workers_base_url: server.url, key_package_published_at_ms: 1_700_000_000_000 })
    expect(await adapter.readiness(handle, noAbort)).toMatchObject({ state: 'ready', message: 'the key package is published' })
    expect(await adapter.processWelcome(handle, { groupId: 'g', wrapperEventIdHex: '00', welcomeEventJson: '{}' })).toEqual({
      processed: true,
      group_id: 'g',
      created_group: true,
      processed_welcomes: 1,
      mls_group_id_hex: '01',
      nostr_group_id_hex: '02',
    })
    expect(server.requests.at(-1)).toMatchObject({
      path: `/agents/${ID}/runtime/process-welcome`,
      body: { group_id: 'g', wrapper_event_id_hex: '00', welcome_event_json: '{}' },
    })
  })

  test('relays come from the environment where no parameter names them', async () => {
    const { server, adapter } = await workers()
    await adapter.provision(input({ env: { PIKA_RELAY_URLS: 'wss://a.example,wss://b.example' } }), noAbort)
    expect(server.requests.at(-1)?.body).toMatchObject({ relay_urls: ['wss://a.example', 'wss://b.example'] })
  })

  test('an agent of another key is refused and removed', async () => {
    const { server, adapter } = await workers()
    await expect(adapter.provision(input({ params: { bot_pubkey: 'cd'.repeat(32) } }), noAbort)).rejects.toSatisfy(
      refusedWith('runtime_failed', server.url),
    )
    expect(server.agents.size).toBe(0)
  })

  test('waits for the key package where there are relays', async () => {
    const { server, adapter } = await workers()
    const { handle } = await adapter.provision(input({ params: { relay_urls: ['wss://r.example'] } }), noAbort)
    server.agents.set(ID, { ...server.agents.get(ID), key_package_published_at_ms: null })
    expect(await adapter.readiness(handle, noAbort)).toMatchObject({ state: 'starting', message: expect.stringContaining('keypackage') })
  })

  test('a broker that cannot delete is not said to have deleted', async () => {
    const { server, adapter } = await workers({ deletes: false })
    const { handle } = await adapter.provision(input(), noAbort)
    expect(await adapter.teardown(handle, { keepVolume: false })).toEqual({
      teardown: 'manual',
      agent_id: ID,
      workers_base_url: server.url,
      hint: `inspect with: ${server.url}/agents/${ID}`,
    })
  })

  test('what this node made is found by the sweep, until it is torn down', async () => {
    for (const deletes of [true, false]) {
      const { server, adapter, make } = await workers({ deletes })
      server.once('POST', '/agents', { hang: true })
      void adapter.provision(input(), noAbort).catch(() => undefined)
      await expect.poll(() => server.calls()).toContain('POST /agents')
      server.agents.set(ID, { id: ID, status: 'ready' })
      const after = make()
      const owned = (await after.listOwned?.()) ?? []
      expect(owned).toMatchObject([{ runtimeId: ID, handle: { agent_id: ID, protocol: 'acp' } }])
      for (const { handle } of owned) await after.teardown(handle, { keepVolume: false })
      expect(server.agents.size).toBe(deletes ? 0 : 1)
      expect(await after.listOwned?.()).toEqual([])
    }
  })

  test('what the broker refused is not remembered', async () => {
    const { server, adapter } = await workers()
    server.once('POST', '/agents', { status: 400, body: { error: 'no' } })
    await expect(adapter.provision(input(), noAbort)).rejects.toSatisfy(refusedWith('runtime_failed', 'no'))
    expect(await adapter.listOwned?.()).toEqual([])
  })

  const call = { protocol: 'acp', message: 'say hi', sessionId: 's', timeoutMs: 5000 } as const

  test('prompts go to the versioned endpoint first, and to no other where it answers', async () => {
    const { runtime, adapter } = await workers()
    const { handle } = await adapter.provision(input(), noAbort)
    expect(await adapter.prompt?.(handle, call, noAbort)).toMatchObject({ reply: 'hi' })
    expect(runtime.requests).toEqual([
      {
        method: 'POST',
        path: '/v1/runtime/prompt',
        auth: `Bearer ${RUNTIME_TOKEN}`,
        body: { session_id: 's', protocol: 'acp', message: 'say hi', timeout_ms: 5000 },
      },
    ])
    runtime.once('POST', '/v1/runtime/prompt', { status: 502, body: { error: 'agent_failed', message: 'it broke' } })
    await expect(adapter.prompt?.(handle, call, noAbort)).rejects.toSatisfy(refusedWith('runtime_failed', 'it broke'))
    expect(runtime.requests).toHaveLength(2)
  })

  test.each([
    ['/rpc', ['/v1/runtime/prompt', '/rpc']],
    ['/reply', ['/v1/runtime/prompt', '/rpc', '/reply']],
  ] as const)('falls back to %s on 404 and 405 alone', async (path, paths) => {
    const { runtime, adapter } = await workers({ path })
    const { handle } = await adapter.provision(input(), noAbort)
    expect(await adapter.prompt?.(handle, call, noAbort)).toMatchObject({ reply: 'hi', session_id: 's', stop_reason: 'end_turn' })
    expect(runtime.requests.map((request) => request.path)).toEqual(paths)
    expect(runtime.requests.at(-1)?.body).toEqual({
      agent_id: ID,
      agent_name: 'ada',
      type: 'prompt',
      message: 'say hi',
      rpc: { type: 'prompt', message: 'say hi' },
      history: [],
    })
    runtime.once('POST', path, { status: 503, body: 'down for a moment' })
    await expect(adapter.prompt?.(handle, call, noAbort)).rejects.toSatisfy(
      refusedWith('runtime_failed', 'pi-adapter HTTP 503: down for a moment'),
    )
    runtime.once('POST', path, { body: { events: [] } })
    await expect(adapter.prompt?.(handle, call, noAbort)).rejects.toSatisfy(refusedWith('runtime_failed', 'empty reply'))
  })

  test('a runtime that hangs ends in time, one that is down is named', async () => {
    const { runtime, adapter } = await workers({ settings: { runtimeTimeoutMs: 1 } })
    const { handle } = await adapter.provision(input(), noAbort)
    runtime.once('POST', '/v1/runtime/prompt', { hang: true })
    await expect(adapter.prompt?.(handle, call, noAbort)).rejects.toSatisfy(refusedWith('timeout', 'timed out after 100ms', runtime.url))
    await runtime.close()
    await expect(adapter.prompt?.(handle, call, noAbort)).rejects.toSatisfy(
      refusedWith('runtime_unreachable', runtime.url, 'runtimes.workers.runtime_url'),
    )
  })

  test('a runtime that sends elsewhere, says too much or says nothing of the kind is not believed', async () => {
    const { runtime, adapter } = await workers()
    const elsewhere = await promptRuntime()
    const { handle } = await adapter.provision(input(), noAbort)
    const answers = [
      [{ status: 307, headers: { location: `${elsewhere.url}/v1/runtime/prompt` } }, 'runtime_unreachable', 'redirect'],
      [{ body: 'x'.repeat(5 * 1024 * 1024) }, 'runtime_unreachable', 'more than'],
      [{ body: '<html>hello</html>', headers: { 'content-type': 'text/html' } }, 'runtime_failed', 'runtime-prompt.schema.json'],
      [{ body: { schema_version: 2, session_id: 's', reply: 'hi', stop_reason: 'end_turn' } }, 'runtime_failed', 'schema'],
      [{ status: 500, body: { error: 'invented', message: 'x' } }, 'runtime_failed', '500'],
    ] as const
    for (const [answer, code, words] of answers) {
      runtime.once('POST', '/v1/runtime/prompt', answer)
      await expect(adapter.prompt?.(handle, call, noAbort)).rejects.toSatisfy(refusedWith(code, words))
    }
    expect(elsewhere.requests).toEqual([])
    expect(await adapter.prompt?.(handle, call, noAbort)).toMatchObject({ reply: 'hi' })
  })

  test('a broker that is down is unreachable, named with the next step', async () => {
    const { server, adapter } = await workers()
    const { handle } = await adapter.provision(input(), noAbort)
    await server.close()
    expect(await adapter.readiness(handle, noAbort)).toMatchObject({ state: 'unreachable', message: expect.stringContaining(server.url) })
    await expect(adapter.provision(input(), noAbort)).rejects.toSatisfy(refusedWith('runtime_unreachable', `curl ${server.url}/health`))
  })
})

describe('what the guest program of a session is told', () => {
  const session = { token: 'cd'.repeat(32), relays: ['wss://relay.example'] }
  const env = { PIKA_RELAY_URLS: 'wss://relay.example', PYLON_OWNER_PUBKEY: OWNER, PYLON_SESSION_TOKEN: session.token, MODEL: 'm' }
  const told = { ...env, PYLON_RUNTIME_ID: ID, PYLON_PROTOCOL: 'acp', PYLON_ENTRY_COMMAND: 'agent --acp' }

  test('microvm: with a folder for key and conversation that a boot leaves alone', async () => {
    const { server, adapter } = await microvm(1)
    await adapter.provision(input({ env, session }), noAbort)
    const body = server.requests.at(-1)?.body as { guest_autostart: { env: Record<string, string> } }
    expect(body.guest_autostart.env).toEqual({ ...told, PIKA_OWNER_PUBKEY: OWNER, PYLON_SESSION_DIR: '/root/pylon-session' })
  })

  test('workers: all of it, for whoever starts the agent behind the broker', async () => {
    const { server, adapter } = await workers()
    await adapter.provision(input({ env, session }), noAbort)
    expect(server.requests.at(-1)?.body).toMatchObject({ guest_env: told, owner_pubkey: OWNER, session_token: session.token })
  })
})
