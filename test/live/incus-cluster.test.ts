/** Two incusd on loopback, one cluster: placement by target, a member that stops and comes back. */
import { createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RuntimeAdapter } from '../../src/runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../src/runtime/contract/spec.ts'
import { guestScript } from '../../src/runtime/guest-script.ts'
import { buildImage } from '../../src/runtime/incus/image.ts'
import { importImage } from '../../src/runtime/incus/images.ts'
import { IncusAdapter } from '../../src/runtime/incus/incus-adapter.ts'
import { setUpIncus } from '../../src/runtime/incus/setup.ts'
import { ensureIncus, type IncusDaemon, startIncusDaemon } from '../support/incus-daemon.ts'
import { testScope } from '../support/scope.ts'

const missing = ensureIncus()
const never = new AbortController().signal

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

let nextId = 1
const input = (target: string | undefined, command: string, volume = command) => {
  const runtimeId = `incus-${Date.now().toString(16).slice(-8)}${(nextId++).toString(16).padStart(8, 'c')}`
  const spec = decodeRuntimeSpec({
    identity: { runtime_id: runtimeId, instance_name: runtimeId },
    entry_command: command,
    mounts: [{ kind: 'persistent_volume', guest_path: '/data', source: volume, mode: 'read_write' }],
  })
  return { runtimeId, ownerPubkey: 'cd'.repeat(32), spec, protocol: null, ...(target === undefined ? {} : { target }) }
}

describe.skipIf(missing !== undefined)(`an Incus cluster${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let first: IncusDaemon
  let second: IncusDaemon
  const scope = testScope()
  let adapter: RuntimeAdapter

  beforeAll(async () => {
    const [port1, port2] = await Promise.all([freePort(), freePort()])
    first = await startIncusDaemon()
    second = await startIncusDaemon()
    first.cli('config', 'set', `core.https_address=127.0.0.1:${port1}`)
    first.cli('storage', 'create', 'pylon', 'dir')
    first.cli('cluster', 'enable', 'n1')
    const token = first.cli('cluster', 'add', 'n2', '--quiet').trim().split('\n').at(-1) ?? ''
    second.preseed(
      JSON.stringify({
        cluster: {
          enabled: true,
          server_name: 'n2',
          server_address: `127.0.0.1:${port2}`,
          cluster_token: token,
          member_config: [{ entity: 'storage-pool', name: 'pylon', key: 'source', value: '' }],
        },
      }),
    )
    const client = first.client('pylon')
    await setUpIncus(client, { pool: 'pylon', profile: 'default', hostPaths: [] })
    await importImage(client, 'pylon/busybox', await buildImage('busybox'))
    adapter = new IncusAdapter(
      {
        endpoint: { socketPath: first.socketPath },
        project: 'pylon',
        profile: 'default',
        pool: 'pylon',
        nodeId: 'cluster-test',
        images: { managed: 'pylon/busybox', oneShot: 'pylon/busybox' },
        guest: { hostDir: '/nowhere', command: ['/nowhere'], shellScript: guestScript() },
        defaults: { vcpus: 1, memoryMib: 64, rootDiskGib: 1, processes: 64 },
      },
      scope,
    )
  }, 120_000)

  afterAll(async () => {
    await scope.close()
    await second?.destroy()
    await first?.destroy()
  }, 120_000)

  test('places by target, spreads what has none, refuses a member that is not there', async () => {
    const there = await adapter.provision(input('n2', 'echo there; echo kept >/data/x'), never)
    expect(there.region).toBe('n2')
    expect(first.cli('list', '--project', 'pylon', '--format', 'csv', '-c', 'nL')).toContain(',n2')
    await expect.poll(async () => (await adapter.readiness(there.handle, never)).state, { timeout: 30_000 }).toBe('completed')
    // n2 holds one already.
    const other = await adapter.provision(input(undefined, 'true'), never)
    expect(other.region).toBe('n1')
    for (const how of ['assertPossible', 'provision'] as const)
      await expect(adapter[how](input('n3', 'true', 'of-n3'), never)).rejects.toMatchObject({ code: 'invalid_request' })
    const again = await Promise.all(Array.from({ length: 4 }, (_, i) => adapter.provision(input(undefined, 'true', `again-${i}`), never)))
    expect(again.map(({ region }) => region).sort()).toEqual(['n1', 'n1', 'n2', 'n2'])
    expect((await adapter.snapshot?.(there.handle, 's'))?.name).toBe('s')
    for (const { handle } of [there, other, ...again]) await adapter.teardown(handle, { keepVolume: false })
    expect(await adapter.listOwned?.()).toEqual([])
  })

  test('a member that stops is unreachable, and is itself again when it is back', async () => {
    const here = await adapter.provision(input('n1', 'sleep 300', 'here'), never)
    const there = await adapter.provision(input('n2', 'sleep 300', 'there'), never)
    const bootOf = async (handle: typeof there.handle) => (await adapter.readiness(handle, never)).bootId
    await expect.poll(() => bootOf(there.handle), { timeout: 20_000 }).toMatch(/-/)
    const before = await bootOf(there.handle)
    await second.kill()
    await expect.poll(async () => (await adapter.readiness(there.handle, never)).state, { timeout: 30_000 }).toBe('unreachable')
    expect((await adapter.readiness(here.handle, never)).state).toBe('starting')
    await expect(adapter.teardown(there.handle, { keepVolume: false })).rejects.toMatchObject({ code: 'runtime_unreachable' })
    // The others go on; it is named at once by whoever asks for it, and by the volume that is there.
    const asked = [input('n2', 'true', 'new'), input(undefined, 'sleep 300', 'there')]
    for (const one of asked) {
      await expect(adapter.assertPossible(one)).rejects.toMatchObject({
        code: 'runtime_unreachable',
        message: expect.stringContaining('n2'),
      })
      await expect(adapter.provision(one, never)).rejects.toMatchObject({ code: 'runtime_unreachable' })
    }
    expect((await adapter.probe()).usable).toBe(true)
    expect((await adapter.listVolumes?.())?.length).toBe(2)
    const meanwhile = await adapter.provision(input(undefined, 'sleep 300', 'meanwhile'), never)
    expect(meanwhile.region).toBe('n1')
    await second.start()
    await expect.poll(() => bootOf(there.handle), { timeout: 60_000 }).toBe(before)
    for (const { handle } of [here, there, meanwhile]) await adapter.teardown(handle, { keepVolume: false })
    expect(first.cli('list', '--project', 'pylon', '--format', 'csv')).toBe('')
  })
})
