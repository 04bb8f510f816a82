/** The local substrate under guests that lie, flood, fill and climb, and under a host that is killed in between. */
import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { isPylonError } from '../../src/base/errors.ts'
import type { ProvisionInput, RuntimeHandle } from '../../src/runtime/adapter.ts'
import { copyTree, diskUsage, gatherFiles, readContained, removeContained } from '../../src/runtime/contained-files.ts'
import { decodeRuntimeSpec, type RuntimeSpecInput } from '../../src/runtime/contract/spec.ts'
import type { LocalAdapter } from '../../src/runtime/local/local-adapter.ts'
import { endMarked, findMarked } from '../../src/runtime/local/marked-processes.ts'
import { localRuntimes, newRuntimeId, scriptedAgent } from '../support/local-runtimes.ts'
import { tempDir } from '../support/temp.ts'

const calm = new AbortController().signal
const patience = { timeout: 40_000, interval: 50 }

function inputOf(entry_command: string, more: Partial<ProvisionInput> = {}, spec: Partial<RuntimeSpecInput> = {}): ProvisionInput {
  const runtimeId = newRuntimeId()
  const identity = { runtime_id: runtimeId, instance_name: runtimeId }
  return {
    runtimeId,
    ownerPubkey: 'aa',
    spec: decodeRuntimeSpec({ identity, entry_command, ...spec }),
    protocol: null,
    timeoutSecs: 30,
    ...more,
  }
}

async function reaches(adapter: LocalAdapter, handle: RuntimeHandle, state: string): Promise<string> {
  return await vi.waitFor(async () => {
    const readiness = await adapter.readiness(handle, calm)
    if (readiness.state !== state) throw new Error(`${readiness.state}: ${readiness.message}`)
    return readiness.message
  }, patience)
}

const commandOf = (pid: number) => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}
const recordOf = (dir: string, runtimeId: string) => JSON.parse(readFileSync(join(dir, runtimeId, 'runtime.json'), 'utf8'))
const codeOf = async (promise: Promise<unknown>) =>
  await promise.then(
    () => 'none',
    (error) => (isPylonError(error) ? error.code : String(error)),
  )

async function started(adapter: LocalAdapter, command: string, spec: Partial<RuntimeSpecInput> = {}) {
  const input = inputOf(command, {}, spec)
  return { ...input, ...(await adapter.provision(input, calm)) }
}

/** Skips where this process may make no control groups: then doctor says so. */
async function holdsGroups(adapter: LocalAdapter, skip: (why: string) => void): Promise<void> {
  const { isolated, reason } = await adapter.probe()
  if (!isolated) skip('bubblewrap does not work here')
  else if (reason !== undefined) skip(reason)
}

describe('a guest that', () => {
  test('floods its events is read no further than the cap', async () => {
    const { adapter } = localRuntimes()
    const line = JSON.stringify({ schema_version: 1, seq: 1, timestamp: '2026-01-01T00:00:00Z', kind: 'ready', message: 'x'.repeat(50) })
    const input = inputOf(`yes '${line}' | head -c 30000000 > /run/pika-cloud/events.jsonl`)
    const { handle } = await adapter.provision(input, calm)
    await reaches(adapter, handle, 'completed')
    const outputs = await adapter.collect(handle, input.spec)
    expect(outputs.truncated).toBe(true)
    expect(outputs.events).toHaveLength(10_000)
    expect(outputs.result?.status).toBe('completed')
  })

  test('makes its files into folders, links and giants is still torn down', async () => {
    const { adapter, dir } = localRuntimes()
    const command = [
      'cd /run/pika-cloud',
      'rm -f events.jsonl; ln -s /etc/passwd events.jsonl',
      'truncate -s 1G artifacts/giant',
      'rm -rf logs; ln -s /etc logs',
      'mkdir -p deep; cd deep; i=0; while [ $i -lt 300 ]; do mkdir -p dddddddddddddddddddd && cd dddddddddddddddddddd || break; i=$((i+1)); done',
      'mkdir /workspace/locked; touch /workspace/locked/x; chmod 000 /workspace/locked',
    ].join('\n')
    const input = inputOf(command)
    const { handle } = await adapter.provision(input, calm)
    await vi.waitFor(async () => expect((await adapter.readiness(handle, calm)).state).not.toBe('starting'), patience)
    const outputs = await adapter.collect(handle, input.spec)
    expect(JSON.stringify(outputs)).not.toContain('root:x')
    expect(outputs.artifacts).toEqual([])
    expect(outputs.problems.join()).toContain('giant')
    await adapter.teardown(handle, { keepVolume: false })
    expect(existsSync(join(dir, input.runtimeId))).toBe(false)
  })

  test('says ready of another boot is not believed', async () => {
    const { adapter } = localRuntimes()
    const lie = { schema_version: 1, state: 'ready', updated_at: '2026-01-01T00:00:00Z', message: 'trust me', boot_id: 'other' }
    const { handle } = await adapter.provision(inputOf(`echo '${JSON.stringify(lie)}' > /run/pika-cloud/status.json; sleep 30`), calm)
    await vi.waitFor(
      async () =>
        expect(await adapter.readiness(handle, calm)).toMatchObject({ state: 'starting', message: 'the status is of another boot' }),
      patience,
    )
  })

  test('fills its disk is stopped, and says why', async () => {
    const { adapter } = localRuntimes()
    const spec = { resources: { root_disk_gib: 1 } }
    const fill = (name: string) => `fallocate -l 600M ${name} || head -c 600M /dev/zero > ${name}`
    const command = `${fill('/workspace/a')}; ${fill('/workspace/b')}; sleep 60`
    const { handle } = await adapter.provision(inputOf(command, {}, spec), calm)
    expect(await reaches(adapter, handle, 'failed')).toContain('disk')
  })

  test('makes empty files without end, or snapshots, gets no more than its quota for them', async () => {
    const { adapter, dir } = localRuntimes()
    const mounts = [{ kind: 'persistent_volume', guest_path: '/data', source: 'v-much', mode: 'read_write' }] as const
    const spec = { mounts: [...mounts], resources: { root_disk_gib: 1 }, labels: { leased: 'true' } }
    const { handle } = await started(adapter, 'sleep 60', spec)
    const data = join(dir, 'volumes', 'v-much', 'data')
    execFileSync('sh', ['-c', 'fallocate -l 400M "$0" || head -c 400M /dev/zero >"$0"', join(data, 'f')])
    await adapter.snapshot?.(handle, 'one', { withinQuota: true })
    expect(await codeOf(adapter.snapshot(handle, 'two', { withinQuota: true }))).toBe('overloaded')
    expect(await adapter.listVolumes()).toMatchObject([{ id: 'v-much', inUse: true }])
    await adapter.teardown(handle, { keepVolume: false })
    expect(await adapter.listVolumes()).toEqual([])
    const many = tempDir()
    for (let i = 0; i < 100; i++) writeFileSync(join(many, `e${i}`), '')
    expect(await diskUsage(many, 2 ** 30)).toBe(100 * 4096)
  })

  test.each(['with', 'without'])('has less memory than a JavaScript runtime reserves runs all the same, %s bubblewrap', async (how) => {
    const { adapter } = localRuntimes(how === 'with' ? {} : { bubblewrap: null })
    const { handle } = await started(adapter, `${process.execPath} -e 0`, { resources: { memory_mib: 128 } })
    await reaches(adapter, handle, 'completed')
  })

  test('forks without end gets so many processes and no more', async ({ skip }) => {
    const { adapter } = localRuntimes()
    await holdsGroups(adapter, skip)
    const { handle, spec } = await started(adapter, 'i=0; while [ $i -lt 600 ]; do sleep 10 & i=$((i+1)); done; echo all of them')
    // Its shell cannot fork, or its guest cannot begin a thread: it ends either way, and says so.
    await reaches(adapter, handle, 'failed')
    const { stdout, result } = await adapter.collect(handle, spec)
    expect(stdout).toBe('')
    expect(result?.exit_code).not.toBe(0)
  })

  test('is shown neither where its node lies nor a way to namespaces of its own', async ({ skip }) => {
    const { adapter, dir } = localRuntimes()
    if (!(await adapter.probe()).isolated) skip('bubblewrap does not work here')
    const script = 'env; echo; cat /proc/self/environ | tr "\\0" "\\n"; echo; unshare -U echo nested'
    const input = { ...inputOf(script), env: { SESAME: 'open-sesame' } }
    const { handle } = await adapter.provision(input, calm)
    const { spec } = input
    await vi.waitFor(async () => expect(['completed', 'failed']).toContain((await adapter.readiness(handle, calm)).state), patience)
    const { stdout } = await adapter.collect(handle, spec)
    // The run had its secret, and nothing on the disk of the host has it any more.
    expect(stdout).toContain('open-sesame')
    expect(JSON.stringify(recordOf(dir, input.runtimeId))).not.toContain('open-sesame')
    expect(existsSync(join(dir, input.runtimeId, 'boot', 'launch.json'))).toBe(false)
    expect(stdout).not.toContain(dir)
    expect(stdout).not.toContain('nested')
    const beside = await adapter.exec(handle, { command: script, timeoutMs: 20_000 })
    expect(beside.stdout).not.toContain(dir)
    expect(beside.stdout).not.toContain('nested')
  })

  test('floods memory by many processes is held as one, and by what no process owns', async ({ skip }) => {
    const { adapter } = localRuntimes()
    await holdsGroups(adapter, skip)
    const eat = '(head -c 150M /dev/zero | tail -c 150M | wc -c) &'
    const { handle, spec } = await started(adapter, `${eat} ${eat} ${eat} ${eat} wait`, { resources: { memory_mib: 256 } })
    await vi.waitFor(async () => expect(['completed', 'failed']).toContain((await adapter.readiness(handle, calm)).state), patience)
    const { stdout, events } = await adapter.collect(handle, spec)
    expect(events.map(({ kind }) => kind)).toContain('starting')
    expect(stdout.split('\n').filter((line) => line === String(150 * 1024 ** 2)).length).toBeLessThan(4)
  })

  test('is the first that a machine without memory ends, and leaves no group behind', async ({ skip }) => {
    const { adapter } = localRuntimes()
    await holdsGroups(adapter, skip)
    const { handle, spec, runtimeId } = await started(adapter, 'cat /proc/self/oom_score_adj; sleep 0.1')
    await reaches(adapter, handle, 'completed')
    expect((await adapter.collect(handle, spec)).stdout).toBe('1000\n')
    const find = () => execFileSync('find', ['/sys/fs/cgroup', '-name', `*${runtimeId}`], { encoding: 'utf8' })
    expect(find()).not.toBe('')
    await adapter.teardown(handle, { keepVolume: false })
    expect(find()).toBe('')
  })

  test('says more of its end than an answer has room for is cut', async () => {
    const { adapter } = localRuntimes()
    const lie = { schema_version: 1, status: 'completed', finished_at: '2026-01-01T00:00:00Z', message: 'x'.repeat(60_000) }
    const end = 'kill -9 $(pgrep -f "^sh /run/pylon-boot") 2>/dev/null; kill -9 -1'
    const { handle, spec } = await started(adapter, `echo '${JSON.stringify(lie)}' > /run/pika-cloud/result.json; ${end}`)
    expect(await reaches(adapter, handle, 'completed')).toHaveLength(2000)
    expect((await adapter.collect(handle, spec)).result?.message).toHaveLength(2000)
  })

  test('executes beside its agent past its time is stopped, all of it', async () => {
    const { adapter, dir } = localRuntimes()
    const { handle, runtimeId } = await started(adapter, 'sleep 60')
    const call = { command: '(setsid sleep 77 &); sleep 77', timeoutMs: 500 }
    expect(await codeOf(adapter.exec(handle, call))).toBe('timeout')
    const sleeping = () => findMarked(recordOf(dir, runtimeId).mark).filter(({ pid }) => commandOf(pid).includes('77'))
    await vi.waitFor(() => expect(sleeping()).toEqual([]), patience)
  })

  test('puts a link in the place of its prompt socket is not followed', async () => {
    const outside = join(tempDir(), 'outside.sock')
    let asked = 0
    const server = createServer((socket) => {
      asked++
      socket.destroy()
    })
    await new Promise<void>((resolve) => server.listen(outside, resolve))
    onTestFinished(() => void server.close())
    const { adapter, dir } = localRuntimes()
    const input = inputOf(scriptedAgent('acp'), { protocol: 'acp' })
    const { handle } = await adapter.provision(input, calm)
    await reaches(adapter, handle, 'ready')
    const socket = join(dir, input.runtimeId, 'state/prompt.sock')
    rmSync(socket)
    symlinkSync(outside, socket)
    const call = { protocol: 'acp', message: 'say x', sessionId: 's', timeoutMs: 5000 } as const
    expect(await codeOf(adapter.prompt(handle, call, calm))).toBe('runtime_unreachable')
    expect(asked).toBe(0)
  })

  test('is shut in: no home, no secrets, no network, no processes of others', async ({ skip }) => {
    const { adapter, dir } = localRuntimes()
    if (!(await adapter.probe()).isolated) skip('bubblewrap does not work here')
    writeFileSync(join(dir, 'secret'), 'secret')
    const command = `cat ${dir}/secret /etc/shadow /root/.profile; ls /home /root /var; cat /proc/net/dev | grep -c : ; ls /proc | grep -c '^[0-9]'; touch /usr/x /etc/x /dev/x /x; id -u; head -c 900M /dev/zero > /dev/shm/a; cat /run/pylon-boot/../pylon.db`
    const input = inputOf(command)
    const { handle } = await adapter.provision(input, calm)
    await vi.waitFor(async () => expect((await adapter.readiness(handle, calm)).state).not.toBe('starting'), patience)
    const { stdout, stderr } = await adapter.collect(handle, input.spec)
    const [devices, processes, uid, ...rest] = stdout.trim().split('\n')
    expect({ devices, uid, rest }).toEqual({ devices: '1', uid: '1000', rest: [] })
    expect(Number(processes)).toBeLessThan(12)
    expect(stderr.match(/touch: cannot touch/g)).toHaveLength(4)
    expect(stderr).toContain('No space left')
    expect(stdout).not.toContain('secret')
  })

  test('takes more memory than it has is ended alone', async () => {
    const { adapter } = localRuntimes()
    const grab = `${process.execPath} -e 'const all = []; for (;;) all.push(Buffer.alloc(16777216, 1))'`
    const input = inputOf(grab, {}, { resources: { memory_mib: 256 } })
    const { handle } = await adapter.provision(input, calm)
    await reaches(adapter, handle, 'failed')
    expect((await adapter.collect(handle, input.spec)).result?.exit_code).toBeGreaterThan(0)
  })
})

describe('a host that is killed', () => {
  test('adopts what runs, though its record has forgotten the process', async () => {
    const { adapter, dir } = localRuntimes()
    const input = inputOf('sleep 60')
    const first = await adapter.provision(input, calm)
    const record = recordOf(dir, input.runtimeId)
    writeFileSync(join(dir, input.runtimeId, 'runtime.json'), JSON.stringify({ ...record, process: null }))
    const before = findMarked(record.mark).length
    const again = localRuntimes({ dir }).adapter
    const second = await again.provision(input, calm)
    expect(second.handle).toEqual(first.handle)
    expect(recordOf(dir, input.runtimeId).process).toEqual(record.process)
    expect(findMarked(record.mark).length).toBeGreaterThanOrEqual(before)
    await again.teardown(second.handle, { keepVolume: false })
    expect(findMarked(record.mark)).toEqual([])
  })

  test('starts what was half made over', async () => {
    const { adapter, dir } = localRuntimes()
    const input = inputOf('true')
    mkdirSync(join(dir, input.runtimeId, 'state'), { recursive: true })
    expect(await adapter.listOwned()).toMatchObject([{ runtimeId: input.runtimeId }])
    const { handle } = await adapter.provision(input, calm)
    await reaches(adapter, handle, 'completed')
  })

  test('does not signal a process that only has the number', async () => {
    const { adapter, dir } = localRuntimes()
    const input = inputOf('sleep 60')
    const { handle } = await adapter.provision(input, calm)
    const record = recordOf(dir, input.runtimeId)
    await endMarked(record.mark, systemClock, 0)
    const innocent = { ...record.process, pid: process.pid }
    writeFileSync(join(dir, input.runtimeId, 'runtime.json'), JSON.stringify({ ...record, process: innocent }))
    expect((await adapter.readiness(handle, calm)).state).toBe('failed')
    await adapter.teardown(handle, { keepVolume: false })
    // We are still here to say so.
    expect(existsSync(join(dir, input.runtimeId))).toBe(false)
  })

  test('sees a guest that died with all its supervisors as failed, and recovers it', async () => {
    const { adapter, dir } = localRuntimes()
    const input = inputOf(scriptedAgent('acp'), { protocol: 'acp' })
    const { handle } = await adapter.provision(input, calm)
    await reaches(adapter, handle, 'ready')
    for (const { pid } of findMarked(recordOf(dir, input.runtimeId).mark)) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // Went with another.
      }
    }
    await reaches(adapter, handle, 'failed')
    expect(await codeOf(adapter.prompt(handle, { protocol: 'acp', message: 'say x', sessionId: 's', timeoutMs: 1000 }, calm))).toBe(
      'runtime_unreachable',
    )
    await adapter.recover(handle, calm)
    await reaches(adapter, handle, 'ready')
  })

  test('leaves a runtime of an earlier boot of the machine stopped', async () => {
    const { adapter, dir } = localRuntimes()
    const input = inputOf('sleep 60')
    const { handle } = await adapter.provision(input, calm)
    const record = recordOf(dir, input.runtimeId)
    await endMarked(record.mark, systemClock, 0)
    for (const name of ['result.json', 'status.json']) execFileSync('rm', ['-f', join(dir, input.runtimeId, 'state', name)])
    writeFileSync(
      join(dir, input.runtimeId, 'runtime.json'),
      JSON.stringify({ ...record, process: { ...record.process, boot_id: 'earlier' } }),
    )
    expect((await adapter.readiness(handle, calm)).state).toBe('stopped')
  })
})

describe('a request that', () => {
  const volume = (more: object): Partial<RuntimeSpecInput> => ({
    mounts: [{ kind: 'persistent_volume', guest_path: '/data', source: 'v', mode: 'read_write', ...more }],
  })

  test.each([
    ['climbs by a volume name', volume({ source: '../../etc' }), 'spec_mount_refused'],
    ['names a host folder as a volume', volume({ source: '/etc' }), 'spec_mount_refused'],
    ['wants a snapshot that nobody lends', volume({ kind: 'read_only_snapshot', mode: 'read_only', source: '/etc' }), 'spec_mount_refused'],
    [
      'wants a snapshot that is not there',
      volume({ kind: 'read_only_snapshot', mode: 'read_only', source: '/no/such', required: true }),
      'spec_mount_refused',
    ],
    ['climbs by an output name', volume({ kind: 'artifact_output', source: '..' }), 'spec_mount_refused'],
  ])('%s is refused and leaves nothing', async (_what, spec, code) => {
    const { adapter, dir } = localRuntimes()
    expect(await codeOf(adapter.provision(inputOf('true', {}, spec), calm))).toBe(code)
    expect(readdirSync(dir).filter((name) => name !== 'volumes')).toEqual([])
  })

  test('wants the volume of another owner is refused, and takes nothing away', async () => {
    const { adapter, dir } = localRuntimes()
    await adapter.provision(inputOf('true', {}, volume({})), calm)
    expect(await codeOf(adapter.provision(inputOf('true', { ownerPubkey: 'bb' }, volume({})), calm))).toBe('spec_mount_refused')
    expect(readdirSync(join(dir, 'volumes'))).toEqual(['v'])
  })

  test('reuses an id for something else is a conflict', async () => {
    const { adapter } = localRuntimes()
    const input = inputOf('sleep 60')
    await adapter.provision(input, calm)
    expect(await codeOf(adapter.provision({ ...input, ownerPubkey: 'bb' }, calm))).toBe('conflict')
  })

  test('comes with more others than there are places is told so, however close together', async () => {
    const { adapter } = localRuntimes({ maxInstances: 2 })
    const asked = await Promise.allSettled(Array.from({ length: 4 }, () => adapter.provision(inputOf('sleep 60'), calm)))
    expect(asked.map(({ status }) => status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected'])
  })

  test('has no place left is told so', async () => {
    const { adapter } = localRuntimes({ maxInstances: 1 })
    await adapter.provision(inputOf('sleep 60'), calm)
    expect(await codeOf(adapter.provision(inputOf('sleep 60'), calm))).toBe('overloaded')
  })

  test('asks for the network or for isolation gets it or an error', async ({ skip }) => {
    const bare = localRuntimes({ bubblewrap: null }).adapter
    expect(await codeOf(bare.provision(inputOf('true', { params: { isolation: 'required' } }), calm))).toBe('runtime_unsupported')
    expect(await codeOf(bare.provision(inputOf('true', { params: { other: 1 } }), calm))).toBe('invalid_request')
    const { adapter } = localRuntimes()
    if (!(await adapter.probe()).isolated) skip('bubblewrap does not work here')
    for (const how of ['assertPossible', 'provision'] as const)
      expect(await codeOf(adapter[how](inputOf('true', { params: { network: 'host' } }), calm))).toBe('runtime_unsupported')
    // What has no network namespace has the host's network, whatever it asked for.
    const { metadata } = await bare.provision(inputOf('true', { params: { network: 'none' } }), calm)
    expect(metadata).toMatchObject({ isolated: false, network: 'host' })
  })

  test('is for nobody we know is gone', async () => {
    const { adapter } = localRuntimes()
    for (const handle of [null, {}, { runtime_id: '../x', volumes: [] }, { runtime_id: newRuntimeId(), volumes: [] }]) {
      expect(await codeOf(adapter.readiness(handle, calm))).toBe('runtime_gone')
    }
  })

  test('mounts what the owner lends, read-only, and gives artifacts of an output mount back', async ({ skip }) => {
    const lent = tempDir()
    writeFileSync(join(lent, 'f'), 'lent')
    const { adapter } = localRuntimes({ snapshotRoots: [lent] })
    if (!(await adapter.probe()).isolated) skip('bubblewrap does not work here')
    const mounts = [
      { kind: 'read_only_snapshot', guest_path: '/in', source: lent, mode: 'read_only' },
      { kind: 'artifact_output', guest_path: '/out', source: 'built', mode: 'read_write' },
    ] as const
    const input = inputOf('cat /in/f > /out/copy; touch /in/new', {}, { mounts: [...mounts] })
    const { handle } = await adapter.provision(input, calm)
    await reaches(adapter, handle, 'failed')
    expect(existsSync(join(lent, 'new'))).toBe(false)
    const { artifacts } = await adapter.collect(handle, input.spec)
    expect(artifacts.map(({ path, data }) => [path, Buffer.from(data).toString()])).toEqual([['built/copy', 'lent']])
  })
})

describe('contained files', () => {
  function hostile(): { root: string; outside: string } {
    const [root, outside] = [tempDir(), tempDir()]
    writeFileSync(join(outside, 'secret'), 'secret')
    symlinkSync(outside, join(root, 'dir'))
    symlinkSync(join(outside, 'secret'), join(root, 'link'))
    mkdirSync(join(root, 'sub'))
    writeFileSync(join(root, 'sub/ok'), '0123456789')
    execFileSync('mkfifo', [join(root, 'pipe')])
    return { root, outside }
  }

  test('are read without following anything', () => {
    const { root } = hostile()
    for (const path of ['dir/secret', 'link', 'pipe', 'sub', '../x', 'sub/../sub/ok', '', 'none'])
      expect(readContained(root, path, 100)).toBeUndefined()
    expect(readContained(root, 'sub/ok', 4)).toMatchObject({ data: Buffer.from('0123'), truncated: true })
    expect(readContained(root, 'sub/ok', 4, 'end')?.data.toString()).toBe('6789')
    expect(readContained(root, '/sub//ok', 100)).toMatchObject({ truncated: false })
  })

  test('are removed without following anything', () => {
    const { root, outside } = hostile()
    for (const path of ['dir/secret', 'link', 'sub/ok', 'sub', 'none', '..', '']) removeContained(root, path)
    expect(readdirSync(root).sort()).toEqual(['dir', 'pipe'])
    expect(readdirSync(outside)).toEqual(['secret'])
  })

  test('are gathered within limits', async () => {
    const { root } = hostile()
    const limits = { maxFiles: 10, maxFileBytes: 100, maxTotalBytes: 1000 }
    const all = await gatherFiles(root, '', () => true, limits)
    expect(all.files.map(({ path }) => path)).toEqual(['sub/ok'])
    expect(all.problems.sort()).toEqual(['pipe: is no regular file'])
    expect((await gatherFiles(root, 'dir', () => true, limits)).files).toEqual([])
    expect(await gatherFiles(root, '', () => true, { ...limits, maxFileBytes: 5 })).toMatchObject({ files: [], truncated: true })
    expect(await gatherFiles(root, '', () => true, { ...limits, maxFiles: 0 })).toMatchObject({ files: [], truncated: true })
  })

  test('are copied as they are, links as links', async () => {
    const { root } = hostile()
    const to = join(tempDir(), 'copy')
    expect(await copyTree(root, to, 1000)).toBe(true)
    expect(readdirSync(to).sort()).toEqual(['dir', 'link', 'sub'])
    expect(lstatSync(join(to, 'dir')).isSymbolicLink()).toBe(true)
    expect(readFileSync(join(to, 'sub/ok'), 'utf8')).toBe('0123456789')
    expect(await copyTree(root, join(tempDir(), 'copy'), 5)).toBe(false)
    expect(await diskUsage(root, 10_000_000)).toBeLessThan(100_000)
    expect(await diskUsage(root, 10_000_000, 2)).toBe(Number.POSITIVE_INFINITY)
  })
})
