/** What the adapter asks of an Incus daemon and how it is answered: one suite for the recording fake and for the real one. */
import { randomBytes } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'
import { type IncusClient, orAbsent } from '../../src/runtime/incus/client.ts'
import { execInGuest } from '../../src/runtime/incus/guest-exec.ts'
import { GuestFiles } from '../../src/runtime/incus/guest-files.ts'
import { findImage } from '../../src/runtime/incus/images.ts'
import {
  deleteVolume,
  deleteVolumeSnapshot,
  ensureVolume,
  labelVolume,
  listVolumeSnapshots,
  listVolumes,
  resizeVolume,
  restoreVolume,
  snapshotVolume,
} from '../../src/runtime/incus/incus-volumes.ts'
import {
  createInstance,
  deleteInstance,
  getInstance,
  instanceStatus,
  listInstances,
  setDevice,
  setInstanceState,
} from '../../src/runtime/incus/instances.ts'

export interface IncusBench {
  /** In a project that has the profile `default`. */
  readonly incus: IncusClient
  readonly pool: string
  /** Alias of an image whose guest is the shell script. */
  readonly image: string
}

const BOOT_ID = '/proc/sys/kernel/random/boot_id'
const unique = (what: string) => `${what}-${randomBytes(6).toString('hex')}`
const refused = (code: string, words = /./) => expect.objectContaining({ code, message: expect.stringMatching(words) })

export function incusServerContract(makeBench: () => Promise<IncusBench>): void {
  /** An instance with a volume at /data, gone after the test. */
  async function rig() {
    const bench = await makeBench()
    const { incus, pool } = bench
    const [name, volume] = [unique('probe'), { pool, name: unique('vol') }]
    const root = { type: 'disk', path: '/', pool }
    const data = { type: 'disk', pool, source: volume.name, path: '/data' }
    onTestFinished(async () => {
      await setInstanceState(incus, name, 'stop', { force: true }).catch(() => undefined)
      await deleteInstance(incus, name)
      await deleteVolume(incus, volume)
    })
    const isolated = { 'security.idmap.isolated': 'true' }
    await ensureVolume(incus, volume, { 'user.pylon.node': 'a', size: '64MiB' })
    const create = (imageAlias = bench.image) =>
      createInstance(incus, {
        ...{ name, type: 'container', imageAlias, profiles: ['default'] },
        config: { 'user.pylon.node': 'a', 'limits.cpu': '1', 'limits.memory': '64MiB', 'limits.processes': '64', ...isolated },
        devices: { root, data },
      })
    return { ...bench, name, volume, root, create, files: new GuestFiles(incus, name) }
  }

  async function running() {
    const made = await rig()
    await made.create()
    await setInstanceState(made.incus, made.name, 'start')
    const exec = (command: string, more: { stdin?: string; timeoutMs?: number; maxBytes?: number } = {}) =>
      execInGuest(made.incus, made.name, { command: ['sh', '-c', command], timeoutMs: 10_000, maxBytes: 1000, ...more })
    return { ...made, exec }
  }

  test('tells of itself, its pool and its images', async () => {
    const { incus, pool, image } = await makeBench()
    expect((await incus.call('GET', '/1.0')).metadata).toMatchObject({ auth: 'trusted', environment: { server_clustered: false } })
    const resources = { cpu: { total: expect.any(Number) }, memory: { total: expect.any(Number) } }
    expect((await incus.call('GET', '/1.0/resources')).metadata).toMatchObject(resources)
    expect((await incus.call('GET', `/1.0/storage-pools/${pool}`)).metadata).toMatchObject({ name: pool, driver: 'btrfs' })
    expect(await findImage(incus, image)).toMatchObject({ properties: { 'pylon.guest': 'shell' } })
    for (const path of [`/1.0/projects/${incus.project}`, '/1.0/profiles/default'])
      expect(await orAbsent(incus.call('GET', path))).toBeDefined()
  })

  test('says of what is not there that it is not', async () => {
    const { incus, pool } = await makeBench()
    for (const path of [
      '/1.0/projects/none',
      '/1.0/profiles/none',
      '/1.0/storage-pools/none',
      '/1.0/images/aliases/none',
      '/1.0/instances/none',
    ]) {
      expect(await orAbsent(incus.call('GET', path)), path).toBeUndefined()
    }
    expect(await instanceStatus(incus, 'none')).toBeUndefined()
    expect(await listVolumes(incus, 'none')).toEqual([])
    expect(await new GuestFiles(incus, 'none').stat('/etc')).toBeUndefined()
    await deleteInstance(incus, 'none')
    await deleteVolume(incus, { pool, name: 'none' })
    await labelVolume(incus, { pool, name: 'none' }, { 'user.pylon.kept': 'true' })
    await expect(setInstanceState(incus, 'none', 'start')).rejects.toEqual(refused('incus_not_found'))
    await expect(listVolumeSnapshots(incus, { pool, name: 'none' })).rejects.toEqual(refused('incus_not_found'))
  })

  test('keeps a volume with its labels, and has one of a name', async () => {
    const { incus, pool, volume } = await rig()
    expect(await ensureVolume(incus, volume, {})).toBe('found')
    await labelVolume(incus, volume, { 'user.pylon.kept': 'true' })
    await resizeVolume(incus, volume, 48)
    const config = { 'user.pylon.node': 'a', 'user.pylon.kept': 'true', size: '48MiB' }
    expect((await listVolumes(incus, pool)).find(({ name }) => name === volume.name)).toMatchObject({
      config,
      used_by: [],
      location: 'none',
    })
    const { metadata } = await incus.call('GET', `/1.0/storage-pools/${pool}/volumes/custom/${volume.name}/state`)
    expect(metadata).toMatchObject({ usage: { used: expect.any(Number) } })
  })

  test('has an instance of a name, stopped until it is started, with what it was given', async () => {
    const { incus, name, volume, pool, root, create } = await rig()
    await expect(create('none')).rejects.toEqual(refused('incus_image_missing'))
    await create()
    await expect(create()).rejects.toEqual(refused('incus_conflict'))
    expect(await instanceStatus(incus, name)).toBe('Stopped')
    await setDevice(incus, name, { port: { type: 'proxy', listen: 'tcp:127.0.0.1:47113', connect: 'tcp:127.0.0.1:1', bind: 'host' } })
    const shown = { name, status: 'Stopped', type: 'container', location: 'none', config: { 'user.pylon.node': 'a', 'limits.cpu': '1' } }
    const found = await getInstance(incus, name)
    expect(found).toMatchObject({ ...shown, devices: { root, port: { type: 'proxy' } } })
    expect((await listInstances(incus)).find((one) => one.name === name)).toMatchObject(shown)
    const used = (await listVolumes(incus, pool)).find((one) => one.name === volume.name)?.used_by
    expect(used).toEqual([expect.stringContaining(`/1.0/instances/${name}`)])
  })

  test('refuses what its state does not allow, in words that are known', async () => {
    const { incus, name, volume } = await running()
    expect(await instanceStatus(incus, name)).toBe('Running')
    await snapshotVolume(incus, volume, 's')
    await expect(setInstanceState(incus, name, 'start')).rejects.toEqual(refused('incus_conflict', /already running/i))
    await expect(deleteInstance(incus, name)).rejects.toEqual(refused('incus_conflict', /running/))
    await expect(deleteVolume(incus, volume)).rejects.toEqual(refused('incus_conflict'))
    await expect(restoreVolume(incus, volume, 's')).rejects.toEqual(refused(expect.stringMatching(/^incus_/)))
    await setInstanceState(incus, name, 'stop', { force: true })
    await expect(setInstanceState(incus, name, 'stop', { force: true })).rejects.toEqual(refused('incus_conflict', /already stopped/i))
    const late = execInGuest(incus, name, { command: ['true'], timeoutMs: 5000, maxBytes: 10 })
    await expect(late).rejects.toEqual(refused(expect.stringMatching(/^incus_/), /not running/))
    await setInstanceState(incus, name, 'start')
    await setInstanceState(incus, name, 'restart', { force: true })
    expect(await instanceStatus(incus, name)).toBe('Running')
  })

  test('takes, lists and brings back snapshots of a volume, with its configuration of then', async () => {
    const { incus, name, volume, exec } = await running()
    await exec('echo before >data/x')
    await snapshotVolume(incus, volume, 'first')
    await exec('echo after >data/x')
    await snapshotVolume(incus, volume, 'second')
    await expect(snapshotVolume(incus, volume, 'second')).rejects.toEqual(refused('incus_conflict'))
    const names = (await listVolumeSnapshots(incus, volume)).map((snapshot) => snapshot.name)
    expect(names.toSorted()).toEqual(['first', 'second'])
    expect((await listVolumes(incus, volume.pool)).filter((one) => one.name.includes(volume.name))).toHaveLength(1)
    await labelVolume(incus, volume, { 'user.pylon.kept': 'later' })
    await setInstanceState(incus, name, 'stop', { force: true })
    await restoreVolume(incus, volume, 'first')
    await setInstanceState(incus, name, 'start')
    expect((await exec('cat data/x')).stdout).toBe('before\n')
    // What the adapter puts back is what is shown after it.
    const shown = (await listVolumes(incus, volume.pool)).find((one) => one.name === volume.name)
    expect(shown?.config).toMatchObject({ 'user.pylon.kept': 'later', size: '64MiB' })
    for (const one of ['first', 'second', 'second']) await deleteVolumeSnapshot(incus, volume, one)
    expect(await listVolumeSnapshots(incus, volume)).toEqual([])
  })

  test('writes and reads files from outside, and says of each what it is', async () => {
    const { files, exec } = await running()
    await expect(files.write({ path: '/etc/none/x', mode: 0o600, data: 'x' })).rejects.toEqual(refused('incus_not_found'))
    for (let n = 0; n < 2; n++) await files.write({ path: '/etc/probe', type: 'directory', mode: 0o700 })
    await files.write({ path: '/etc/probe/secret', mode: 0o600, data: 'open' })
    // What is there keeps its mode.
    await files.write({ path: '/etc/probe/secret', mode: 0o640, data: 'sesame' })
    await files.write({ path: '/etc/probe/empty', mode: 0o600, data: '' })
    await files.write({ path: '/etc/probe/link', type: 'symlink', mode: 0o777, data: 'secret' })
    await exec('mkfifo etc/probe/pipe')
    expect((await exec('stat -c %a etc/probe/secret')).stdout).toBe('600\n')
    expect(await files.read('/etc/probe/secret', 100)).toEqual({ data: Buffer.from('sesame'), truncated: false })
    expect(await files.read('/etc/probe/secret', 3)).toEqual({ data: Buffer.from('ses'), truncated: true })
    const none = [await files.read('/etc/probe/none', 9), await files.read('/etc/probe', 9), await files.read('/etc/probe/link', 9)]
    expect(none).toEqual([undefined, undefined, undefined])
    expect(await files.stat('/etc/probe/secret')).toEqual({ type: 'file', size: 6 })
    expect([await files.stat('/etc/probe'), await files.stat('/etc/probe/link')]).toEqual([{ type: 'directory' }, { type: 'symlink' }])
    // A pipe is shown as an empty file, and would be waited at for ever.
    for (const path of ['/etc/probe/pipe', '/etc/probe/empty']) expect((await files.read(path, 9))?.data.length).toBe(0)
    expect((await files.list('/etc/probe'))?.toSorted()).toEqual(['empty', 'link', 'pipe', 'secret'])
    expect([await files.list('/etc/none'), await files.list('/etc/probe/secret')]).toEqual([undefined, undefined])
    expect((await files.readUnsized(BOOT_ID, 128))?.data.toString()).toMatch(/^[0-9a-f-]{36}\n$/)
  })

  test('runs commands: input, both outputs, exit codes, what is not there', async () => {
    const { incus, name, exec } = await running()
    expect(await exec('cat; echo err >&2; exit 3', { stdin: 'in' })).toEqual({
      exitCode: 3,
      stdout: 'in',
      stderr: 'err\n',
      truncated: false,
    })
    expect(await exec('echo 1234567890', { maxBytes: 5 })).toMatchObject({ stdout: '12345', truncated: true })
    const env = { command: ['sh', '-c', 'echo $WORD'], env: { WORD: 'sesame' }, timeoutMs: 5000, maxBytes: 100 }
    expect((await execInGuest(incus, name, env)).stdout).toBe('sesame\n')
    const none = { command: ['/none/of/it'], timeoutMs: 5000, maxBytes: 100 }
    expect(await execInGuest(incus, name, none)).toMatchObject({ exitCode: 127 })
  })

  test('ends a command when its time is over, or nobody waits for it any more', async () => {
    const { incus, name, exec } = await running()
    await expect(exec('exec sleep 300', { timeoutMs: 300 })).rejects.toEqual(refused('timeout', /killed/))
    const giveUp = new AbortController()
    const call = { command: ['sleep', '300'], timeoutMs: 60_000, maxBytes: 10, signal: giveUp.signal }
    const running_ = execInGuest(incus, name, call)
    setImmediate(() => giveUp.abort())
    await expect(running_).rejects.toEqual(refused('cancelled'))
  })
}
