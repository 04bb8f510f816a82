/** The Incus adapter against a real incusd that this test starts: containers, volumes, prompts, one-shot runs, a cluster. */
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { ProvisionInput, RuntimeAdapter, RuntimeHandle } from '../../src/runtime/adapter.ts'
import type { Protocol } from '../../src/runtime/contract/prompt.ts'
import { decodeRuntimeSpec, type RuntimeSpecInput } from '../../src/runtime/contract/spec.ts'
import { guestScript } from '../../src/runtime/guest-script.ts'
import { buildImage } from '../../src/runtime/incus/image.ts'
import { importImage } from '../../src/runtime/incus/images.ts'
import { IncusAdapter } from '../../src/runtime/incus/incus-adapter.ts'
import type { IncusSettings } from '../../src/runtime/incus/settings.ts'
import { setUpIncus } from '../../src/runtime/incus/setup.ts'
import { runtimeAdapterContract } from '../contract/runtime-adapter.ts'
import { ensureIncus, type IncusDaemon, startIncusDaemon } from '../support/incus-daemon.ts'
import { testScope } from '../support/scope.ts'

const missing = ensureIncus()
const root = new URL('../..', import.meta.url).pathname
const POOL = 'pylon'
const BRIDGE = 'pylontest0'
const never = new AbortController().signal

/** Speaks pi's rpc mode: answers a prompt with what it was told, and keeps a count in the volume. */
const PI_AGENT = `
const { appendFileSync, readFileSync } = require('node:fs')
const send = (message) => process.stdout.write(JSON.stringify(message) + '\\n')
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  send({ type: 'response', id: command.id, success: true, data: { isStreaming: false, pendingMessageCount: 0 } })
  if (command.type !== 'prompt') return
  appendFileSync('/data/prompts', command.message + '\\n')
  const said = readFileSync('/data/prompts', 'utf8').trim().split('\\n').join(' ')
  send({ type: 'agent_start' })
  send({ type: 'agent_end', messages: [{ role: 'assistant', content: said, stopReason: 'stop' }] })
})
`

const DATA = { kind: 'persistent_volume', guest_path: '/data', source: 'v-bob', mode: 'read_write', required: true } as const
const DEBIAN = { params: { image_alias: 'pylon/debian' } }

let nextId = 1
const newId = () => `incus-${Date.now().toString(16).slice(-8)}${(nextId++).toString(16).padStart(8, '0')}`

function inputOf(runtimeId: string, spec: Partial<RuntimeSpecInput>, more: Partial<ProvisionInput> = {}): ProvisionInput {
  const identity = { runtime_id: runtimeId, instance_name: runtimeId }
  return { runtimeId, ownerPubkey: 'ab'.repeat(32), spec: decodeRuntimeSpec({ identity, ...spec }), protocol: null, ...more }
}

async function until(adapter: RuntimeAdapter, handle: RuntimeHandle, state: string): Promise<void> {
  await expect.poll(async () => (await adapter.readiness(handle, never)).state, { timeout: 60_000, interval: 50 }).toBe(state)
}

describe.skipIf(missing !== undefined)(`a real Incus${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let daemon: IncusDaemon
  const scope = testScope()
  let adapter: RuntimeAdapter
  let hostDir: string
  let settings: IncusSettings

  beforeAll(async () => {
    hostDir = mkdtempSync(join(tmpdir(), 'pylon-opt-'))
    chmodSync(hostDir, 0o755)
    copyFileSync(process.execPath, join(hostDir, 'node'))
    const bundling = `import(${JSON.stringify(join(root, 'scripts/bundle.mjs'))}).then((it) => it.bundle(${JSON.stringify(hostDir)}))`
    execFileSync(process.execPath, ['-e', bundling], { stdio: 'inherit' })
    writeFileSync(join(hostDir, 'agent.cjs'), PI_AGENT)
    for (const protocol of ['acp', 'pi'])
      copyFileSync(join(root, `test/support/scripted-${protocol}-child.mjs`), join(hostDir, `${protocol}.mjs`))
    execFileSync('chmod', ['-R', 'a+rX', hostDir])

    daemon = await startIncusDaemon()
    daemon.cli('storage', 'create', POOL, 'btrfs', 'size=4GiB')
    const client = daemon.client('pylon')
    await setUpIncus(client, { pool: POOL, profile: 'default', hostPaths: [hostDir] })
    await importImage(client, 'pylon/busybox', await buildImage('busybox'))
    await importImage(client, 'pylon/debian', await debianImage())
    settings = {
      endpoint: { socketPath: daemon.socketPath },
      project: 'pylon',
      profile: 'default',
      pool: POOL,
      nodeId: 'live-test',
      images: { managed: 'pylon/debian', oneShot: 'pylon/busybox' },
      guest: { hostDir, command: [join(hostDir, 'node'), join(hostDir, 'pylon.cjs'), 'guest'], shellScript: guestScript() },
      allowedHostPaths: [hostDir],
      defaults: { vcpus: 1, memoryMib: 256, rootDiskGib: 1, processes: 256 },
    }
    adapter = new IncusAdapter(settings, scope.child('adapter'))
  }, 280_000)

  afterAll(async () => {
    await scope.close()
    await daemon?.destroy()
    if (hostDir !== undefined) rmSync(hostDir, { recursive: true, force: true })
  }, 120_000)

  // What one test left is no concern of the next.
  afterEach(async () => {
    for (const { handle } of (await adapter.listOwned?.()) ?? []) await adapter.teardown(handle, { keepVolume: false })
  })

  async function expectNothingLeft(): Promise<void> {
    expect(daemon.cli('list', '--project', 'pylon', '--format', 'csv')).toBe('')
    const volumes = JSON.parse(daemon.cli('storage', 'volume', 'list', POOL, '--project', 'pylon', '--format', 'json')) as {
      type: string
    }[]
    expect(volumes.filter(({ type }) => type === 'custom')).toEqual([])
    expect(await adapter.listOwned?.()).toEqual([])
  }

  const bench = (images: IncusSettings['images']) => async () => {
    const open = () => new IncusAdapter({ ...settings, images }, scope.child('bench'))
    onTestFinished(async () => {
      for (const { handle } of (await adapter.listOwned?.()) ?? []) await adapter.teardown(handle, { keepVolume: false })
    })
    return { adapter: open(), restarted: open, agent: (protocol: Protocol) => `${hostDir}/node ${hostDir}/${protocol}.mjs` }
  }
  const patienceMs = 60_000
  runtimeAdapterContract('a real Incus, busybox image', { protocols: [], oneShot: true, volumes: false, patienceMs }, () =>
    bench({ managed: 'pylon/busybox', oneShot: 'pylon/busybox' })(),
  )
  runtimeAdapterContract('a real Incus, Debian image', { protocols: ['acp', 'pi'], oneShot: true, volumes: true, patienceMs }, () =>
    bench({ managed: 'pylon/debian', oneShot: 'pylon/debian' })(),
  )

  test('says that it is usable, and what it has', async () => {
    expect(await adapter.probe()).toEqual({ usable: true, isolated: true, network: 'none' })
    const capacity = await adapter.capacity()
    expect(capacity.free.vcpus).toBeGreaterThan(0)
    expect(capacity.free.memoryMib).toBeGreaterThan(256)
  })

  test('holds a runtime to one quota: its root, its volume, what is nested in them, its snapshots', async () => {
    expect(await adapter.proveSizes?.()).toBeUndefined()
    daemon.cli('storage', 'create', 'loose', 'dir')
    const loose: RuntimeAdapter = new IncusAdapter({ ...settings, pool: 'loose' }, scope.child('loose'))
    expect(await loose.probe()).toMatchObject({ isolated: false, reason: expect.stringContaining('no sizes') })
    expect(await loose.proveSizes?.()).toMatchObject({ reason: expect.stringContaining('more than 64 MiB') })
    const { handle } = await adapter.provision(inputOf(newId(), { entry_command: 'sleep 600', mounts: [DATA] }, DEBIAN), never)
    const shell = async (command: string) => (await adapter.exec?.(handle, { command, timeoutMs: 60_000 }))?.stdout.trim()
    const fill = (path: string, mib: number) => `dd if=/dev/urandom of=${path} bs=1048576 count=${mib} 2>/dev/null; wc -c <${path}`
    // A class of 1 GiB: half for each.
    for (const path of ['/data/x', '/root/x']) expect(Number(await shell(`${fill(path, 900)}; rm ${path}`))).toBeLessThanOrEqual(2 ** 29)
    // BTRFS_IOC_SUBVOL_CREATE, also with a half of the register that the kernel does not read.
    const nest = (call: string) =>
      `perl -e 'open(my $f, "<", "/data"); print syscall(16, fileno($f), ${call}, my $a = pack("q a4088", 0, "nested")) == 0 ? "made" : "refused"'`
    for (const call of ['0x5000940e', '0x15000940e']) expect(await shell(nest(call))).toBe('refused')
    expect(await shell(fill('/data/x', 100))).toBe(String(100 * 2 ** 20))
    await shell('sync')
    await adapter.snapshot?.(handle, 'one', { withinQuota: true })
    // What the snapshot holds is missing from the volume, also after a restore.
    expect(Number(await shell(`rm /data/x; ${fill('/data/y', 600)}; sync`))).toBeLessThanOrEqual(412 * 2 ** 20)
    await expect(adapter.snapshot?.(handle, 'two', { withinQuota: true })).rejects.toMatchObject({ code: 'overloaded' })
    await adapter.restore?.(handle, 'one', never)
    expect(Number(await shell(fill('/data/y', 600)))).toBeLessThanOrEqual(312 * 2 ** 20)
    await adapter.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  }, 120_000)

  test('gives a volume back to its name and owner; kept ones are listed and deleted', async () => {
    const first = await adapter.provision(inputOf(newId(), { entry_command: 'sleep 600', mounts: [DATA] }, DEBIAN), never)
    const shell = async (handle: RuntimeHandle, command: string) => (await adapter.exec?.(handle, { command, timeoutMs: 20_000 }))?.stdout
    await shell(first.handle, 'echo mine >/data/f; sync')
    const [volume] = (await adapter.listVolumes?.()) ?? []
    await expect(adapter.deleteVolume?.(volume?.id ?? '')).rejects.toMatchObject({ code: 'runtime_failed' })
    await adapter.teardown(first.handle, { keepVolume: true })
    expect(await adapter.listOwned?.()).toEqual([])
    const second = await adapter.provision(inputOf(newId(), { entry_command: 'sleep 600', mounts: [DATA] }, DEBIAN), never)
    expect(await shell(second.handle, 'cat /data/f')).toBe('mine\n')
    await adapter.teardown(second.handle, { keepVolume: true })
    expect(await adapter.listVolumes?.()).toMatchObject([{ id: volume?.id, inUse: false }])
    await adapter.deleteVolume?.(volume?.id ?? '')
    await expectNothingLeft()
  }, 60_000)

  test('tells a machine that its host stopped from one whose command ended', async () => {
    const long = await adapter.provision(inputOf(newId(), { entry_command: 'sleep 600' }), never)
    await until(adapter, long.handle, 'starting')
    const { instance } = long.metadata as { instance: string }
    daemon.cli('stop', '--force', instance, '--project', 'pylon')
    const stopped = await adapter.readiness(long.handle, never)
    expect([stopped.state, stopped.byGuest]).toEqual(['stopped', undefined])
    const short = await adapter.provision(inputOf(newId(), { entry_command: 'exit 3' }), never)
    await until(adapter, short.handle, 'failed')
    expect((await adapter.readiness(short.handle, never)).byGuest).toBe(true)
    for (const { handle } of [long, short]) await adapter.teardown(handle, { keepVolume: false })
  }, 60_000)

  test('a managed agent: prompted, snapshot, destroyed, made again with its data, restored, gone', async () => {
    const id = newId()
    const input = inputOf(
      id,
      {
        entry_command: `${hostDir}/node ${hostDir}/agent.cjs`,
        mounts: [{ kind: 'persistent_volume', guest_path: '/data', source: 'state', mode: 'read_write', required: true }],
      },
      { protocol: 'pi', env: { AGENT_SECRET: 'sesame-in-no-config' } },
    )
    const ask = (handle: RuntimeHandle, message: string) =>
      adapter.prompt?.(handle, { protocol: 'pi', message, sessionId: 's1', timeoutMs: 20_000 }, never)
    const first = await adapter.provision(input, never)
    await until(adapter, first.handle, 'ready')
    const ready = await adapter.readiness(first.handle, never)
    expect(ready.bootId).toMatch(/^[0-9a-f-]{36}$/)
    expect(ready.status?.boot_id).toBe(ready.bootId)
    expect((await ask(first.handle, 'one'))?.reply).toBe('one')
    // Nothing secret in what the daemon shows of the instance.
    expect(
      daemon.cli('config', 'show', '--project', 'pylon', '--expanded', String((first.metadata as { instance: string }).instance)),
    ).not.toMatch(/sesame|ticket_key/)
    const snapshot = await adapter.snapshot?.(first.handle, 'before')
    expect(snapshot?.name).toBe('before')
    expect((await ask(first.handle, 'two'))?.reply).toBe('one two')

    expect(await adapter.teardown(first.handle, { keepVolume: true })).toMatchObject({ teardown: 'deleted' })
    await expect(adapter.readiness(first.handle, never)).rejects.toMatchObject({ code: 'runtime_gone' })
    expect(await adapter.listOwned?.()).toEqual([])

    const second = await adapter.provision(input, never)
    await until(adapter, second.handle, 'ready')
    const again = await adapter.readiness(second.handle, never)
    expect(again.bootId).not.toBe(ready.bootId)
    expect((await ask(second.handle, 'three'))?.reply).toBe('one two three')

    expect((await adapter.backupStatus?.(second.handle))?.snapshots?.map(({ name }) => name)).toEqual(['before'])
    expect(await adapter.restore?.(second.handle, undefined, never)).toMatchObject({ name: 'before' })
    await until(adapter, second.handle, 'ready')
    expect((await ask(second.handle, 'four'))?.reply).toBe('one four')

    await adapter.recover?.(second.handle, never)
    await until(adapter, second.handle, 'ready')
    expect((await ask(second.handle, 'five'))?.reply).toBe('one four five')

    await adapter.teardown(second.handle, { keepVolume: false })
    await adapter.teardown(second.handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('a one-shot run in the shell guest: its outputs are collected and nothing is left', async () => {
    const command =
      'echo hello "$TOKEN"; echo oops >&2; mkdir -p $PYLON_ARTIFACTS_DIR/a; echo x >$PYLON_ARTIFACTS_DIR/a/x.txt; ln -s /etc/passwd $PYLON_ARTIFACTS_DIR/link; mkfifo $PYLON_ARTIFACTS_DIR/fifo; exit 3'
    const input = inputOf(newId(), { entry_command: command }, { timeoutSecs: 30, env: { TOKEN: "it's" } })
    const { handle } = await adapter.provision(input, never)
    await until(adapter, handle, 'failed')
    const outputs = await adapter.collect?.(handle, input.spec)
    expect(outputs).toMatchObject({
      stdout: "hello it's\n",
      stderr: 'oops\n',
      result: { status: 'failed', exit_code: 3 },
      truncated: false,
    })
    expect(outputs?.artifacts.map(({ path, data }) => [path, Buffer.from(data).toString()])).toEqual([['a/x.txt', 'x\n']])
    expect(outputs?.problems.map((problem) => problem.split(' ')[0]).sort()).toEqual(['fifo', 'link'])
    expect(outputs?.events.map(({ kind }) => kind)).toEqual(['booted', 'starting', 'failed'])
    await adapter.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('a one-shot run in the full guest completes, and is not begun again by a restart', async () => {
    const spec = {
      entry_command: 'echo ran >>/root/count; cat /root/count',
      incus: { project: 'pylon', profile: 'default', image_alias: 'pylon/debian' },
    }
    const input = inputOf(newId(), spec, { timeoutSecs: 30 })
    const { handle } = await adapter.provision(input, never)
    await until(adapter, handle, 'completed')
    await adapter.recover?.(handle, never)
    const outputs = await adapter.collect?.(handle, input.spec)
    expect(outputs).toMatchObject({ stdout: 'ran\n', result: { status: 'completed', exit_code: 0 } })
    expect(await adapter.exec?.(handle, { command: 'cat /root/count; id -u; exit 4', timeoutMs: 10_000 })).toEqual({
      exitCode: 4,
      stdout: 'ran\n0\n',
      stderr: '',
      truncated: false,
    })
    await adapter.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('commands that flood or never end are cut', async () => {
    const { handle } = await adapter.provision(inputOf(newId(), { entry_command: 'sleep 60' }), never)
    const flood = await adapter.exec?.(handle, { command: 'head -c 5000000 /dev/zero', timeoutMs: 20_000 })
    expect(flood).toMatchObject({ exitCode: 0, truncated: true })
    await expect(adapter.exec?.(handle, { command: 'sleep 50', timeoutMs: 500 })).rejects.toMatchObject({ code: 'timeout' })
    await adapter.teardown(handle, { keepVolume: false })
  })

  test('a guest has no more than its limits', async () => {
    const { handle } = await adapter.provision(
      inputOf(newId(), { entry_command: 'sleep 60', resources: { root_disk_gib: 1, memory_mib: 64 } }),
      never,
    )
    const disk = await adapter.exec?.(handle, { command: 'dd if=/dev/zero of=/root/fill bs=1M count=1500 2>&1', timeoutMs: 60_000 })
    expect(disk?.exitCode).not.toBe(0)
    expect(disk?.stdout).toMatch(/quota|space/i)
    const shown = await adapter.exec?.(handle, { command: 'cat /proc/self/uid_map; nproc; touch /sys/kernel/x 2>&1', timeoutMs: 10_000 })
    expect(Number(shown?.stdout.trim().split(/\s+/)[1])).toBeGreaterThanOrEqual(100_000)
    await adapter.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('twenty at once, each what it asked for', async () => {
    const inputs = Array.from({ length: 20 }, (_, n) => inputOf(newId(), { entry_command: `echo number ${n}` }))
    const made = await Promise.all(inputs.map((input) => adapter.provision(input, never)))
    expect(new Set(made.map(({ metadata }) => (metadata as { instance: string }).instance)).size).toBe(20)
    await Promise.all(made.map(({ handle }) => until(adapter, handle, 'completed')))
    const outputs = await Promise.all(made.map(({ handle }, n) => adapter.collect?.(handle, inputs[n]?.spec ?? never_())))
    expect(outputs.map((output) => output?.stdout)).toEqual(inputs.map((_, n) => `number ${n}\n`))
    expect((await adapter.listOwned?.())?.length).toBe(20)
    await Promise.all(made.map(({ handle }) => adapter.teardown(handle, { keepVolume: false })))
    await expectNothingLeft()
  })

  test('what an earlier try left is adopted or finished', async () => {
    const input = inputOf(newId(), { entry_command: 'echo once' })
    const first = await adapter.provision(input, never)
    expect(await adapter.provision(input, never)).toEqual(first)
    await until(adapter, first.handle, 'completed')
    expect((await adapter.listOwned?.())?.map(({ runtimeId }) => runtimeId)).toEqual([input.runtimeId])
    await adapter.teardown(first.handle, { keepVolume: false })
    // A volume whose instance never came: found, and removed by the handle that the sweep gets.
    daemon.cli(
      'storage',
      'volume',
      'create',
      POOL,
      'pylon-0123456789abcdef-persis-00000000',
      '--project',
      'pylon',
      'user.pylon.node=live-test',
      'user.pylon.runtime=incus-0123456789abcdef',
    )
    const owned = await adapter.listOwned?.()
    expect(owned?.map(({ runtimeId }) => runtimeId)).toEqual(['incus-0123456789abcdef'])
    for (const { handle } of owned ?? []) await adapter.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('what cannot be made leaves nothing and says why', async () => {
    const refused = (spec: Partial<RuntimeSpecInput>, more: Partial<ProvisionInput> = {}) =>
      adapter.provision(inputOf(newId(), { entry_command: 'true', ...spec }, more), never)
    await expect(
      refused({ mounts: [{ kind: 'read_only_snapshot', guest_path: '/host', source: '/etc', mode: 'read_only' }] }),
    ).rejects.toMatchObject({
      code: 'spec_mount_refused',
    })
    await expect(refused({}, { params: { image_alias: 'elsewhere' } })).rejects.toMatchObject({ code: 'invalid_request' })
    await expect(refused({}, { params: { insecure_tls: true } })).rejects.toMatchObject({ code: 'invalid_request' })
    // Found out only when the instance is made.
    const late = { kind: 'read_only_snapshot', guest_path: '/host', source: join(hostDir, 'none'), mode: 'read_only' } as const
    await expect(refused({ mounts: [late] })).rejects.toMatchObject({ code: 'runtime_failed' })
    await expectNothingLeft()
  })

  test('on a bridge each has the address chosen for it, reaches the gateway and no neighbour', async () => {
    daemon.cli('network', 'create', BRIDGE, '--type=bridge', 'ipv4.address=10.77.0.1/24', 'ipv4.nat=false', 'ipv6.address=none')
    daemon.cli('project', 'set', 'pylon', 'restricted.devices.nic=managed', `restricted.networks.access=${BRIDGE}`)
    const bridged: RuntimeAdapter = new IncusAdapter({ ...settings, network: BRIDGE }, scope.child('bridged'))
    onTestFinished(async () => {
      for (const { handle } of (await bridged.listOwned?.()) ?? []) await bridged.teardown(handle, { keepVolume: false })
      daemon.cli('project', 'set', 'pylon', 'restricted.devices.nic=block', 'restricted.networks.access=')
      daemon.cli('network', 'delete', BRIDGE)
    })
    const images = ['pylon/busybox', 'pylon/debian'].map((image_alias) => ({
      incus: { project: 'pylon', profile: 'default', image_alias },
    }))
    const made = await Promise.all(images.map((more) => bridged.provision(inputOf(newId(), { entry_command: 'sleep 60', ...more }), never)))
    const exec = async (index: number, command: string) => {
      const { handle } = made[index] ?? never_()
      await expect.poll(async () => (await bridged.readiness(handle, never)).status?.state, { timeout: 20_000 }).toBe('starting')
      return await bridged.exec?.(handle, { command, timeoutMs: 20_000 })
    }
    const busybox = 'b() { busybox "$@" 2>/dev/null || "$@"; }'
    const addresses = await Promise.all(
      [0, 1].map(
        async (index) => /inet (10\.77\.0\.\d+)\/24/.exec((await exec(index, `${busybox}; b ip addr show eth0`))?.stdout ?? '')?.[1],
      ),
    )
    expect(new Set(addresses).size).toBe(2)
    for (const [index, other] of [
      [0, addresses[1]],
      [1, addresses[0]],
    ] as const) {
      expect(other).toMatch(/^10\.77\.0\./)
      expect((await exec(index, `${busybox}; b ping -c 1 -W 5 10.77.0.1`))?.exitCode).toBe(0)
      expect((await exec(index, `${busybox}; b ping -c 1 -W 1 ${other}`))?.exitCode).not.toBe(0)
    }
    for (const { handle } of made) await bridged.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('over HTTPS with a certificate restricted to the project: everything works; another server or a strange key does not', async () => {
    const cert = (name: string) => {
      const [key, crt] = [join(hostDir, `${name}.key`), join(hostDir, `${name}.crt`)]
      const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
      execFileSync('openssl', ['req', '-x509', ...curve, '-nodes', '-days', '1', '-subj', '/CN=pylon', '-keyout', key, '-out', crt], {
        stdio: 'ignore',
      })
      return { path: crt, clientKey: readFileSync(key, 'utf8'), clientCert: readFileSync(crt, 'utf8') }
    }
    const [ours, strange] = [cert('ours'), cert('strange')]
    const port = await freePort()
    daemon.cli('config', 'set', 'core.https_address', `127.0.0.1:${port}`)
    daemon.cli('config', 'trust', 'add-certificate', ours.path, '--restricted', '--projects', 'pylon')
    const serverCert = readFileSync(join(daemon.dir, 'server.crt'), 'utf8')
    const over = ({ clientKey, clientCert, serverCert }: { clientKey: string; clientCert: string; serverCert: string }) => {
      const endpoint = { url: `https://127.0.0.1:${port}`, tls: { clientKey, clientCert, serverCert } }
      return new IncusAdapter({ ...settings, endpoint }, scope.child('remote'))
    }
    expect(await over({ ...strange, serverCert }).probe()).toMatchObject({ usable: false, nextStep: expect.stringContaining('trust') })
    expect(await over({ ...ours, serverCert: strange.clientCert }).probe()).toMatchObject({
      usable: false,
      reason: expect.stringContaining('certificate'),
    })

    const remote = over({ ...ours, serverCert })
    expect(await remote.probe()).toEqual({ usable: true, isolated: true, network: 'none' })
    const input = inputOf(
      newId(),
      {
        entry_command: `${hostDir}/node ${hostDir}/agent.cjs`,
        mounts: [{ kind: 'persistent_volume', guest_path: '/data', source: 'state', mode: 'read_write', required: true }],
      },
      { protocol: 'pi' },
    )
    const { handle } = await remote.provision(input, never)
    await until(remote, handle, 'ready')
    const call = { protocol: 'pi', message: 'one', sessionId: 's1', timeoutMs: 20_000 } as const
    expect((await remote.prompt?.(handle, call, never))?.reply).toBe('one')
    expect(await remote.exec?.(handle, { command: 'cat /data/prompts', timeoutMs: 10_000 })).toMatchObject({ stdout: 'one\n' })
    await remote.snapshot?.(handle, 'first')
    await remote.restore?.(handle, 'first', never)
    await until(remote, handle, 'ready')
    expect((await remote.listOwned?.())?.length).toBe(1)
    await remote.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })

  test('a daemon that is killed is unreachable, and its containers are still there when it is back', async () => {
    const { handle } = await adapter.provision(inputOf(newId(), { entry_command: 'sleep 300' }), never)
    await expect.poll(async () => (await adapter.readiness(handle, never)).status?.state, { timeout: 20_000 }).toBe('starting')
    const before = await adapter.readiness(handle, never)
    await daemon.kill()
    expect(await adapter.readiness(handle, never)).toMatchObject({ state: 'unreachable' })
    expect(await adapter.probe()).toMatchObject({ usable: false })
    await daemon.start()
    await expect.poll(async () => (await adapter.readiness(handle, never)).bootId, { timeout: 20_000 }).toBe(before.bootId)
    await adapter.teardown(handle, { keepVolume: false })
    await expectNothingLeft()
  })
})

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}

function never_(): never {
  throw new Error('there is one input for each')
}

/** Built once where PYLON_LIVE_DEBIAN_IMAGE names a file to keep it in. */
async function debianImage(): Promise<Buffer> {
  const kept = process.env['PYLON_LIVE_DEBIAN_IMAGE']
  if (kept !== undefined && existsSync(kept)) return readFileSync(kept)
  const image = await buildImage('debian', debianMirror())
  if (kept !== undefined) writeFileSync(kept, image)
  return image
}

/** The mirror that this machine already uses. */
function debianMirror(): { mirror?: string } {
  try {
    const found = execFileSync('sh', ['-c', "sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources | head -n 1"], {
      encoding: 'utf8',
    }).trim()
    return found === '' ? {} : { mirror: found }
  } catch {
    return {}
  }
}
