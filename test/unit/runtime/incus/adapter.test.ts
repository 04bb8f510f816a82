/** What the Incus adapter asks of Incus, and what it believes: over the recording server, with hostile guests. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { PylonError } from '../../../../src/base/errors.ts'
import type { ProvisionInput, RuntimeAdapter } from '../../../../src/runtime/adapter.ts'
import { decodeRuntimeSpec, type RuntimeSpecInput } from '../../../../src/runtime/contract/spec.ts'
import { IncusAdapter } from '../../../../src/runtime/incus/incus-adapter.ts'
import type { IncusSettings } from '../../../../src/runtime/incus/settings.ts'
import { RecordingIncus } from '../../../support/recording-incus.ts'
import { testScope } from '../../../support/scope.ts'
import { tempDir } from '../../../support/temp.ts'

const never = new AbortController().signal
const ID = 'incus-0123456789abcdef'
const NAME = 'pylon-0123456789abcdef'

async function rig(
  more: Partial<IncusSettings> = {},
): Promise<{ server: RecordingIncus; adapter: RuntimeAdapter; settings: IncusSettings }> {
  const server = new RecordingIncus(tempDir())
  server.images.set('debian', { 'pylon.guest': 'full' })
  server.images.set('busybox', { 'pylon.guest': 'shell' })
  await server.listen()
  const settings: IncusSettings = {
    endpoint: { socketPath: server.socketPath },
    project: 'pylon',
    profile: 'default',
    pool: 'default',
    nodeId: 'node-1',
    images: { managed: 'debian', oneShot: 'busybox' },
    guest: { hostDir: '/usr', command: ['/bin/true'], shellScript: 'sleep 60\n' },
    defaults: { vcpus: 1, memoryMib: 256, rootDiskGib: 2, processes: 128 },
    ...more,
  }
  onTestFinished(() => server.close())
  return { server, adapter: adapterOf(settings), settings }
}

function adapterOf(settings: IncusSettings): RuntimeAdapter {
  const scope = testScope()
  onTestFinished(() => void scope.close())
  return new IncusAdapter(settings, scope)
}

function inputOf(spec: Partial<RuntimeSpecInput> = {}, more: Partial<ProvisionInput> = {}): ProvisionInput {
  const identity = { runtime_id: ID, instance_name: ID }
  return {
    runtimeId: ID,
    ownerPubkey: 'ab'.repeat(32),
    spec: decodeRuntimeSpec({ identity, entry_command: 'true', ...spec }),
    protocol: null,
    ...more,
  }
}

const DATA = { kind: 'persistent_volume', guest_path: '/data', source: 'v-bob', mode: 'read_write' } as const

const volumeCreation = (server: RecordingIncus) =>
  JSON.parse(server.requests.find(({ method, path }) => method === 'POST' && /volumes\/custom\?/.test(path))?.body ?? 'null')

const creation = (server: RecordingIncus) =>
  JSON.parse(server.requests.find(({ method, path }) => method === 'POST' && path.startsWith('/1.0/instances?'))?.body ?? 'null')

describe('an instance', () => {
  test('is unprivileged, limited and labelled, and its configuration holds no secret', async () => {
    const { server, adapter } = await rig()
    const mounts = [
      { kind: 'persistent_volume', guest_path: '/var/lib/pika', source: 'customer-state', mode: 'read_write' },
      { kind: 'cache', guest_path: '/cache', source: 'c', mode: 'read_write' },
    ] as const
    const input = inputOf(
      { mounts: [...mounts], resources: { vcpu_count: 2, memory_mib: 512, root_disk_gib: 5 } },
      { protocol: 'pi', env: { API_KEY: 'sesame' } },
    )
    await adapter.provision(input, never)
    const body = creation(server)
    expect(body).toMatchObject({
      name: NAME,
      type: 'container',
      source: { type: 'image', alias: 'debian' },
      profiles: ['default'],
      config: {
        'limits.cpu': '2',
        'limits.memory': '512MiB',
        'limits.processes': '128',
        'security.privileged': 'false',
        'security.nesting': 'false',
        'security.guestapi': 'false',
        'security.idmap.isolated': 'true',
        'user.pylon.node': 'node-1',
        'user.pylon.runtime': ID,
      },
      devices: {
        root: { type: 'disk', path: '/', pool: 'default', size: '2560MiB' },
        pylon: { type: 'disk', source: '/usr', path: '/usr', readonly: 'true' },
        'pk-persis-b09b5ac0': { type: 'disk', pool: 'default', path: '/var/lib/pika', source: expect.stringMatching(/^pylon-v-/) },
      },
    })
    expect(body.devices.eth0).toBeUndefined()
    const written = server.requests.filter(({ path }) => path.includes('/files'))
    const others = server.requests.filter((request) => !written.includes(request))
    expect(JSON.stringify(others)).not.toMatch(/sesame|ticket_key/)
    const launch = written.find(({ path }) => path.includes('launch.json'))
    expect(launch?.body).toContain('sesame')
    expect(launch?.headers['x-incus-mode']).toBe('0600')
  })

  test('a virtual machine is started first, and given its files when its agent takes them', async () => {
    const { server, adapter } = await rig()
    server.answerOnce('HEAD', /\/files/, 500, {})
    const { handle } = await adapter.provision(inputOf({}, { params: { type: 'virtual-machine' } }), never)
    expect(creation(server)).toMatchObject({ type: 'virtual-machine', config: { 'security.secureboot': 'false' } })
    expect(creation(server).config['security.idmap.isolated']).toBeUndefined()
    const order = server.requests.flatMap(({ method, path }) =>
      method === 'PUT' ? ['start'] : method === 'POST' && path.includes('%2Fstart') ? ['files'] : [],
    )
    expect(order).toEqual(['start', 'files'])
    await adapter.teardown(handle, { keepVolume: false })
  })

  test('that cannot be had is refused before it is asked for money: members, images, machines', async () => {
    const { server, adapter } = await rig()
    const cluster = { type: 'sync', metadata: { auth: 'trusted', environment: { server_clustered: true, driver: 'lxc' } } }
    const members = (status: string) => ({
      type: 'sync',
      metadata: [
        { server_name: 'n1', status: 'Online', message: 'Fully operational' },
        { server_name: 'n2', status, message: 'No heartbeat for 21s' },
      ],
    })
    const asked = async (more: Partial<ProvisionInput>, status = 'Offline') => {
      server.answerOnce('GET', /members/, 200, members(status))
      return await adapter.assertPossible(inputOf({}, more)).then(
        () => 'possible',
        (error: PylonError) => `${error.code}: ${error.message}`,
      )
    }
    server.answerOnce('GET', /^\/1\.0\?/, 200, cluster)
    expect(await asked({ target: 'n2' })).toMatch(/^runtime_unreachable: .*n2 is Offline.*choose another target \(n1\)/)
    expect(await asked({ target: 'n3' })).toMatch(/^invalid_request: n3 is no member.*\(n1\)/)
    expect(await asked({ target: 'n2' }, 'Online')).toBe('possible')
    server.answerOnce('GET', /^\/1\.0\?/, 200, cluster)
    expect(await asked({ params: { type: 'virtual-machine' } })).toMatch(/^runtime_unsupported/)
    expect(await asked({ protocol: 'acp', params: { image_alias: 'busybox' } })).toMatch(/^runtime_unsupported/)
    server.images.delete('busybox')
    expect(await asked({})).toMatch(/^runtime_failed: .*no image busybox/)
    expect(server.requests.filter(({ method }) => method !== 'GET')).toEqual([])
  })

  test('has one quota with its volumes, and cannot make a place in them that has none', async () => {
    const { server, adapter } = await rig()
    await adapter.provision(inputOf({ mounts: [DATA], resources: { root_disk_gib: 3 } }), never)
    const body = creation(server)
    expect(body.devices.root.size).toBe('1536MiB')
    expect(volumeCreation(server)?.config).toMatchObject({ size: '1536MiB' })
    const denied = body.config['security.syscalls.deny'].split('\n')
    // BTRFS_IOC_SUBVOL_CREATE and SNAP_CREATE, each in both versions, whatever the upper half of the register holds.
    for (const call of ['0x5000940e', '0x50009418', '0x50009401', '0x50009417'])
      expect(denied).toContain(`ioctl errno 1 [1,${call},SCMP_CMP_MASKED_EQ,0xffffffff]`)
  })

  test('finds the volume of its name and owner again, on the member that has it; others find their own', async () => {
    const { server, adapter } = await rig()
    const again = (digit: string, more: Partial<ProvisionInput> = {}) =>
      adapter.provision({ ...inputOf({ mounts: [DATA] }), ...more, runtimeId: `incus-${digit.repeat(16)}` }, never)
    const sourceOf = (digit: string) =>
      Object.values(server.instance(`pylon-${digit.repeat(16)}`)?.body.devices ?? {}).find(({ path }) => path === '/data')?.['source']
    const first = await again('1')
    const source = sourceOf('1')
    await adapter.teardown(first.handle, { keepVolume: true })
    expect(await adapter.listVolumes?.()).toMatchObject([{ id: source, ownerPubkey: 'ab'.repeat(32), inUse: false }])
    await again('2')
    expect(sourceOf('2')).toBe(source)
    await again('3', { ownerPubkey: 'cd'.repeat(32) })
    expect(sourceOf('3')).not.toBe(source)
    expect((await adapter.listVolumes?.())?.map(({ inUse }) => inUse)).toEqual([true, true])
    server.location = 'n2'
    const elsewhere = { ...inputOf({ mounts: [DATA] }), runtimeId: `incus-${'4'.repeat(16)}`, target: 'n1' }
    await expect(adapter.assertPossible(elsewhere)).rejects.toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining('n2'),
    })
  })

  test('a kept volume is listed, deleted when nobody has it, and survives the sweep', async () => {
    const { adapter } = await rig()
    const { handle } = await adapter.provision(inputOf({ mounts: [DATA] }), never)
    const [volume] = (await adapter.listVolumes?.()) ?? []
    await expect(adapter.deleteVolume?.(volume?.id ?? '')).rejects.toMatchObject({ code: 'runtime_failed' })
    await adapter.teardown(handle, { keepVolume: true })
    expect(await adapter.listOwned?.()).toEqual([])
    await adapter.deleteVolume?.(volume?.id ?? '')
    await adapter.deleteVolume?.(volume?.id ?? '')
    expect(await adapter.listVolumes?.()).toEqual([])
  })

  test('snapshots that count leave the volume less, are refused beyond its half, and a restore gives nothing back', async () => {
    const { server, adapter } = await rig()
    const { handle } = await adapter.provision(inputOf({ mounts: [DATA], resources: { root_disk_gib: 2 } }, { protocol: 'pi' }), never)
    const sizes = () =>
      server.requests.flatMap(({ method, body }) => (method === 'PATCH' && body.includes('"size"') ? [JSON.parse(body).config.size] : []))
    server.usedBytes = 300 * 2 ** 20
    await adapter.snapshot?.(handle, 'one', { withinQuota: true })
    expect(sizes()).toEqual(['724MiB'])
    server.usedBytes = 213 * 2 ** 20
    await expect(adapter.snapshot?.(handle, 'two', { withinQuota: true })).rejects.toMatchObject({ code: 'overloaded' })
    server.usedBytes = 212 * 2 ** 20
    await adapter.snapshot?.(handle, 'two', { withinQuota: true })
    expect(sizes()).toEqual(['724MiB', '512MiB'])
    await adapter.restore?.(handle, 'one', never)
    expect(sizes().at(-1)).toBe('512MiB')
    server.usedBytes = 2 ** 20
    await expect(adapter.snapshot?.(handle, 'three', { withinQuota: true })).rejects.toMatchObject({ code: 'overloaded' })
    await adapter.snapshot?.(handle, 'of-the-owner')
  })

  test("of a member that is down hides no other, is nobody's orphan, and is not taken for gone", async () => {
    const { server, adapter } = await rig()
    const { handle } = await adapter.provision(inputOf(), never)
    const down = {
      architecture: '',
      config: null,
      devices: null,
      profiles: null,
      name: 'pylon-00000000000000aa',
      status: 'Error',
      location: 'n2',
    }
    server.answerOnce('GET', /^\/1\.0\/instances\?/, 200, { type: 'sync', metadata: [server.instance(NAME)?.body, down, { odd: true }] })
    expect(await adapter.listOwned?.()).toEqual([ID, 'incus-00000000000000aa'].map((runtimeId) => ({ runtimeId, handle: null })))
    server.answerOnce('GET', /^\/1\.0\/instances\?/, 200, { type: 'sync', metadata: [down] })
    expect((await adapter.capacity()).free.instances).toBeGreaterThan(0)
    await adapter.teardown(handle, { keepVolume: false })
  })

  test('gets an address and ports that nobody else has, also at once', async () => {
    const { server, adapter } = await rig({ network: 'pylonbr0', proxyPorts: [20_000, 20_010] })
    const network = { type: 'sync', metadata: { config: { 'ipv4.address': '10.77.0.1/29' } } }
    server.answerOnce('GET', /networks/, 200, network)
    const ids = ['1', '2', '3'].map((digit) => `incus-${digit.repeat(16)}`)
    const made = await Promise.all(
      ids.map((runtimeId) => adapter.provision({ ...inputOf({}, { params: { expose: [80, 81] } }), runtimeId }, never)),
    )
    const ports = made.flatMap(({ metadata }) => (metadata as { ports: { host: number }[] }).ports.map(({ host }) => host))
    expect(new Set(ports).size).toBe(6)
    const addresses = made.map(({ metadata }) => (metadata as { address: string }).address)
    expect(addresses.sort()).toEqual(['10.77.0.2', '10.77.0.3', '10.77.0.4'])
    await expect(
      adapter.provision({ ...inputOf({}, { params: { expose: [1, 2, 3, 4, 5, 6] } }), runtimeId: 'incus-4444444444444444' }, never),
    ).rejects.toMatchObject({
      code: 'runtime_failed',
      details: { incus_code: 'incus_limit_reached' },
    })
  })

  test('is counted, also what is under way', async () => {
    const { adapter } = await rig({ limits: { instances: 2 } })
    const ids = ['1', '2', '3'].map((digit) => `incus-${digit.repeat(16)}`)
    const outcomes = await Promise.allSettled(ids.map((runtimeId) => adapter.provision({ ...inputOf(), runtimeId }, never)))
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(2)
    expect((await adapter.capacity()).free.instances).toBe(0)
  })
})

describe('a provision that fails', () => {
  test.each([
    ['POST', /instances\?/, 500, 'Privileged containers are forbidden', 'incus_forbidden'],
    ['POST', /instances\?/, 500, 'no space left on device', 'incus_no_space'],
    ['POST', /files/, 500, 'sftp: broken', 'incus_failed'],
    ['PUT', /state/, 500, 'Failed to run: forkstart', 'incus_failed'],
  ] as const)('%s %s leaves nothing behind', async (method, pattern, status, error, code) => {
    const { server, adapter } = await rig()
    server.answerOnce(method, pattern, status, { type: 'error', error, error_code: status })
    const mounts = [{ kind: 'persistent_volume', guest_path: '/data', source: 's', mode: 'read_write' }] as const
    await expect(adapter.provision(inputOf({ mounts: [...mounts] }), never)).rejects.toMatchObject({
      code: 'runtime_failed',
      details: { incus_code: code },
    })
    expect(server.instance(NAME)).toBeUndefined()
    expect(await adapter.listOwned?.()).toEqual([])
  })

  test('leaves a volume that was there before', async () => {
    const { server, adapter } = await rig()
    const mounts = [{ kind: 'persistent_volume', guest_path: '/data', source: 's', mode: 'read_write' }] as const
    const { handle } = await adapter.provision(inputOf({ mounts: [...mounts] }), never)
    await adapter.teardown(handle, { keepVolume: true })
    server.answerOnce('PUT', /state/, 500, { type: 'error', error: 'Failed to run: forkstart', error_code: 500 })
    await expect(adapter.provision(inputOf({ mounts: [...mounts] }), never)).rejects.toMatchObject({ code: 'runtime_failed' })
    expect(server.requests.some(({ method, path }) => method === 'DELETE' && path.includes('/volumes/'))).toBe(false)
  })

  test('an instance of that name which is not ours is not touched', async () => {
    const { server, adapter, settings } = await rig()
    await adapter.provision(inputOf(), never)
    const other = adapterOf({ ...settings, nodeId: 'node-2' })
    await expect(other.provision(inputOf(), never)).rejects.toMatchObject({ details: { incus_code: 'incus_conflict' } })
    expect(server.instance(NAME)).toBeDefined()
    expect(await other.listOwned?.()).toEqual([])
  })

  test.each([
    [{ image_alias: 'elsewhere' }],
    [{ endpoint: 'https://203.0.113.1:8443' }],
    [{ project: 'default' }],
    [{ insecure_tls: true }],
    [{ microvm: {} }],
    [{ incus: {} }],
    [{ keep: true }],
    [{ expose: [80] }],
  ])('the parameters %j are refused', async (params) => {
    const { server, adapter } = await rig()
    await expect(adapter.provision(inputOf({}, { params }), never)).rejects.toMatchObject({ code: 'invalid_request' })
    expect(server.requests).toEqual([])
  })

  test('parameters that say what is so anyway are taken', async () => {
    const { adapter } = await rig()
    for (const params of [{}, { guest_role: 'managed-openclaw', project: 'pylon', profile: 'default', insecure_tls: false }]) {
      await adapter.assertPossible(inputOf({}, { params }))
    }
  })

  test.each([
    ['/etc', 'read_only_snapshot'],
    ['/opt/allowed-not', 'read_only_snapshot'],
    ['/opt/allowed', 'persistent_volume'],
  ] as const)('the host path %s as %s is refused', async (source, kind) => {
    const { adapter } = await rig({ allowedHostPaths: ['/opt/allowed'] })
    const mode = kind === 'read_only_snapshot' ? 'read_only' : 'read_write'
    await expect(adapter.provision(inputOf({ mounts: [{ kind, guest_path: '/m', source, mode }] }), never)).rejects.toMatchObject({
      code: 'spec_mount_refused',
    })
  })
})

describe('a guest', () => {
  async function running() {
    const { server, adapter } = await rig()
    const { handle } = await adapter.provision(inputOf(), never)
    const root = server.instance(NAME)?.root ?? ''
    const put = (path: string, data: string) => {
      mkdirSync(dirname(join(root, path)), { recursive: true })
      writeFileSync(join(root, path), data)
    }
    return { server, adapter, handle, root, put }
  }
  const status = (bootId: string, state = 'ready') =>
    JSON.stringify({ schema_version: 1, state, updated_at: '2026-01-01T00:00:00Z', message: 'm', boot_id: bootId })

  test('is believed only with the boot id that the host reads', async () => {
    const { adapter, handle, put } = await running()
    put('run/pika-cloud/status.json', status('another-boot'))
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'starting', message: expect.stringContaining('another boot') })
    const { bootId = '' } = await adapter.readiness(handle, never)
    put('run/pika-cloud/status.json', status(bootId))
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'ready', bootId })
    put('run/pika-cloud/status.json', '{"schema_version":9}')
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'starting' })
    put('run/pika-cloud/status.json', 'x'.repeat(1_000_000))
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'starting' })
  })

  test('that puts a pipe where its status should be is never waited for', async () => {
    const { server, adapter, handle, root } = await running()
    mkdirSync(join(root, 'run/pika-cloud'), { recursive: true })
    execFileSync('mkfifo', [join(root, 'run/pika-cloud/status.json')])
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'starting' })
    expect(server.requests.filter(({ method, path }) => method === 'GET' && path.includes('status.json'))).toEqual([])
  })

  test('whose empty artifacts cannot be told from pipes is given them by name, not as files', async () => {
    const { server, adapter, handle, put } = await running()
    put('run/pika-cloud/artifacts/empty', '')
    put('run/pika-cloud/artifacts/full', 'x')
    server.answerOnce('POST', /exec/, 500, { type: 'error', error: 'Failed getting exec socket', error_code: 500 })
    const outputs = await adapter.collect?.(handle, inputOf().spec)
    expect(outputs?.artifacts.map(({ path }) => path)).toEqual(['full'])
    expect(outputs?.problems).toEqual([expect.stringMatching(/Whether empty can be read.*Failed getting exec socket/)])
    expect((await adapter.collect?.(handle, inputOf().spec))?.artifacts.map(({ path }) => path).sort()).toEqual(['empty', 'full'])
  })

  test('fills no more than its share of what is collected', async () => {
    const { adapter, handle, put } = await running()
    for (let n = 0; n < 6; n++) put(`run/pika-cloud/artifacts/${n}`, 'x'.repeat(7 * 1024 * 1024))
    put('run/pika-cloud/logs/stdout.log', 'y'.repeat(3 * 1024 * 1024))
    const outputs = await adapter.collect?.(handle, inputOf().spec)
    expect(outputs?.truncated).toBe(true)
    expect(outputs?.artifacts).toHaveLength(4)
    expect(outputs?.stdout).toHaveLength(1024 * 1024)
  })

  test('whose instance is gone, stopped or out of reach', async () => {
    const { server, adapter, handle } = await running()
    server.answerOnce('GET', /state/, 500, { type: 'error', error: "Server isn't ready yet", error_code: 500 })
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'unreachable' })
    server.answerOnce('GET', /state/, 200, { type: 'sync', metadata: { status: 'Error' } })
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'unreachable' })
    server.answerOnce('GET', /state/, 200, { type: 'sync', metadata: { status: 'Stopped' } })
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'stopped' })
    await adapter.teardown(handle, { keepVolume: false })
    await expect(adapter.readiness(handle, never)).rejects.toMatchObject({ code: 'runtime_gone' })
  })

  test('gets the executable of the new version when it is recovered after an update', async () => {
    const { server, settings, adapter } = await rig()
    const { handle } = await adapter.provision(inputOf({}, { protocol: 'pi' }), never)
    const updated = adapterOf({ ...settings, guest: { ...settings.guest, hostDir: '/bin' } })
    await updated.recover?.(handle, never)
    const device = { type: 'disk', source: '/bin', path: '/bin', readonly: 'true' }
    expect(server.instance(NAME)?.body.devices).toMatchObject({ pylon: device, root: { type: 'disk', path: '/' } })
  })
})

test('a probe says what is missing and what to do', async () => {
  const { server, adapter, settings } = await rig()
  const updated = adapterOf({ ...settings, guest: { ...settings.guest, hostDir: '/none/of/this/version' } })
  expect(await updated.probe()).toMatchObject({ usable: true, lacks: 'agents', reason: expect.stringContaining('/none/of/this/version') })
  expect(await adapter.probe()).toEqual({ usable: true, isolated: true, network: 'none' })
  server.answerOnce('GET', /storage-pools/, 200, { type: 'sync', metadata: { driver: 'dir' } })
  expect(await adapter.probe()).toMatchObject({ usable: true, reason: expect.stringContaining('enforces no sizes') })
  server.answerOnce('GET', /storage-pools/, 404, { type: 'error', error: 'Storage pool not found', error_code: 404 })
  expect(await adapter.probe()).toMatchObject({ usable: false, nextStep: expect.stringContaining('incus storage create') })
  server.images.delete('debian')
  expect(await adapter.probe()).toMatchObject({ usable: true, lacks: 'agents', nextStep: 'pylon runtime image build' })
  server.images.clear()
  expect(await adapter.probe()).toMatchObject({ usable: false, nextStep: expect.stringContaining('pylon runtime image build') })
  server.answerOnce('GET', /projects/, 404, { type: 'error', error: 'Project not found', error_code: 404 })
  expect(await adapter.probe()).toMatchObject({ usable: false, reason: expect.stringContaining('no project pylon') })
  server.answerOnce('GET', /1\.0\?/, 200, { type: 'sync', metadata: { auth: 'untrusted' } })
  expect(await adapter.probe()).toMatchObject({ usable: false, nextStep: expect.stringContaining('trust') })
})
