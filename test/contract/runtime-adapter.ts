/** What every substrate must do, asked through the one interface: run on each adapter, with only what it can do. */
import { randomBytes } from 'node:crypto'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { isPylonError } from '../../src/base/errors.ts'
import type { ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle } from '../../src/runtime/adapter.ts'
import type { Protocol } from '../../src/runtime/contract/prompt.ts'
import { decodeRuntimeSpec, type RuntimeSpecInput } from '../../src/runtime/contract/spec.ts'

/** One substrate under test. */
export interface Bench {
  readonly adapter: RuntimeAdapter
  /** A second adapter over the same substrate, as after a restart of the node. */
  restarted(): RuntimeAdapter
  /** Added to every spec, such as the `incus` part. */
  readonly spec?: Partial<RuntimeSpecInput>
  readonly params?: ProvisionInput['params']
  /** The command line of an agent that answers `say X` with X, `crash` by dying and `recall` with what it heard; undefined where none can run. */
  agent?(protocol: Protocol): string
  /** Where a mount's guest path is for a command inside. */
  readonly mountPrefix?: string
}

export interface Abilities {
  readonly protocols: readonly Protocol[]
  /** Entry commands without a protocol, with collected outputs. */
  readonly oneShot: boolean
  /** Volumes that outlive an instance, seen by commands inside. */
  readonly volumes: boolean
  /** Time for an instance to be ready. */
  readonly patienceMs?: number
}

const noAbort = new AbortController().signal

export function runtimeAdapterContract(name: string, abilities: Abilities, makeBench: () => Promise<Bench>): void {
  const patience = { timeout: abilities.patienceMs ?? 20_000, interval: 50 }

  async function provision(bench: Bench, more: Partial<ProvisionInput> & { spec?: never } = {}, spec: Partial<RuntimeSpecInput> = {}) {
    const input = inputOf(bench, more, spec)
    return { input, ...(await bench.adapter.provision(input, noAbort)) }
  }

  async function until(adapter: RuntimeAdapter, handle: RuntimeHandle, state: Readiness['state']): Promise<Readiness> {
    return await vi.waitFor(async () => {
      const readiness = await adapter.readiness(handle, noAbort)
      if (readiness.state !== state) throw new Error(`is ${readiness.state}: ${readiness.message}`)
      return readiness
    }, patience)
  }

  describe(`runtime adapter: ${name}`, () => {
    test('says whether it is usable, and what it has', async () => {
      const { adapter } = await makeBench()
      const probe = await adapter.probe()
      expect(probe.usable, probe.reason).toBe(true)
      const capacity = await adapter.capacity()
      expect(capacity.free.instances).toBeGreaterThan(0)
      expect(capacity.free.instances).toBeLessThanOrEqual(capacity.instances)
      expect(capacity.free.memoryMib).toBeLessThanOrEqual(capacity.memoryMib)
    })

    test('gives a handle that survives JSON, and metadata', async () => {
      const bench = await makeBench()
      const { input, handle, protocols, metadata } = await provision(bench, firstUse(bench, abilities), firstSpec(bench, abilities))
      expect(JSON.parse(JSON.stringify(handle))).toEqual(handle)
      expect(JSON.stringify(metadata)).not.toContain('secret-of-the-test')
      for (const protocol of abilities.protocols) expect(protocols).toContain(protocol)
      const owned = await bench.adapter.listOwned?.()
      if (owned !== undefined) expect(owned.map(({ runtimeId }) => runtimeId)).toEqual([input.runtimeId])
      await bench.adapter.teardown(handle, { keepVolume: false })
    })

    test('provisions one instance for one id, however often and from whichever process', async () => {
      const bench = await makeBench()
      const input = inputOf(bench, firstUse(bench, abilities), firstSpec(bench, abilities))
      const [a, b] = await Promise.all([bench.adapter.provision(input, noAbort), bench.adapter.provision(input, noAbort)])
      const c = await bench.restarted().provision(input, noAbort)
      expect(b.handle).toEqual(a.handle)
      expect(c.handle).toEqual(a.handle)
      const owned = await bench.adapter.listOwned?.()
      if (owned !== undefined) expect(owned).toHaveLength(1)
      await bench.adapter.teardown(a.handle, { keepVolume: false })
    })

    test('is torn down for good, and again without complaint', async () => {
      const bench = await makeBench()
      const { handle } = await provision(bench, firstUse(bench, abilities), firstSpec(bench, abilities))
      expect(await bench.adapter.teardown(handle, { keepVolume: false })).toMatchObject({ teardown: 'deleted' })
      expect(await bench.adapter.teardown(handle, { keepVolume: false })).toMatchObject({ teardown: 'deleted' })
      expect((await bench.adapter.listOwned?.()) ?? []).toEqual([])
      await expect(bench.adapter.readiness(handle, noAbort)).rejects.toSatisfy((error) => isPylonError(error, 'runtime_gone'))
    })

    test('answers a welcome with whether it was processed', async () => {
      const bench = await makeBench()
      const { handle } = await provision(bench, firstUse(bench, abilities), firstSpec(bench, abilities))
      expect(await bench.adapter.processWelcome(handle, { groupId: '00'.repeat(16) })).toHaveProperty('processed')
      await bench.adapter.teardown(handle, { keepVolume: false })
    })

    for (const protocol of abilities.protocols) {
      test(`serves prompts over ${protocol} once it is ready`, async () => {
        const bench = await makeBench()
        const { handle } = await provision(bench, { protocol }, agentSpec(bench, protocol))
        const readiness = await until(bench.adapter, handle, 'ready')
        expect(readiness.message).not.toBe('')
        const { adapter } = bench
        if (adapter.prompt !== undefined) {
          const call = { protocol, message: 'say hello there', sessionId: 's1', timeoutMs: 10_000 }
          expect(await adapter.prompt(handle, call, noAbort)).toMatchObject({
            reply: 'hello there',
            stop_reason: 'end_turn',
            session_id: 's1',
          })
          const other: Protocol = protocol === 'pi' ? 'acp' : 'pi'
          await expect(adapter.prompt(handle, { ...call, protocol: other }, noAbort)).rejects.toSatisfy((error) =>
            isPylonError(error, 'runtime_unsupported'),
          )
        }
        await adapter.teardown(handle, { keepVolume: false })
      })
    }

    if (abilities.oneShot) {
      test('runs a command once and collects what it leaves', async () => {
        const bench = await makeBench()
        const command = 'echo out; echo err >&2; mkdir -p $PYLON_ARTIFACTS_DIR/deep; echo kept > $PYLON_ARTIFACTS_DIR/deep/a.txt; exit 3'
        const { handle, input } = await provision(bench, { timeoutSecs: 20 }, { entry_command: command })
        const readiness = await until(bench.adapter, handle, 'failed')
        expect(readiness.message).toContain('3')
        const outputs = await bench.adapter.collect?.(handle, input.spec)
        expect(outputs).toMatchObject({ stdout: 'out\n', stderr: 'err\n', truncated: false, problems: [] })
        expect(outputs?.result).toMatchObject({ schema_version: 1, status: 'failed', exit_code: 3 })
        expect(outputs?.artifacts.map(({ path, data }) => [path, Buffer.from(data).toString()])).toEqual([['deep/a.txt', 'kept\n']])
        expect(outputs?.events.map(({ kind }) => kind).slice(-2)).toEqual(['starting', 'failed'])
        expect(outputs?.events.map(({ seq }) => seq)).toEqual(outputs?.events.map((_event, i) => i + 1))
        await bench.adapter.teardown(handle, { keepVolume: false })
      })

      test('completes with exit code 0', async () => {
        const bench = await makeBench()
        const { handle, input } = await provision(bench, { timeoutSecs: 20 }, { entry_command: 'true' })
        await until(bench.adapter, handle, 'completed')
        expect((await bench.adapter.collect?.(handle, input.spec))?.result).toMatchObject({ status: 'completed', exit_code: 0 })
        await bench.adapter.teardown(handle, { keepVolume: false })
      })

      test('ends a run that takes too long, with all that it started', async () => {
        const bench = await makeBench()
        const command = '(sleep 300 &) ; sleep 300'
        const { handle, input } = await provision(bench, { timeoutSecs: 1 }, { entry_command: command })
        await until(bench.adapter, handle, 'failed')
        const outputs = await bench.adapter.collect?.(handle, input.spec)
        expect(outputs?.result).toMatchObject({ status: 'failed', exit_code: 124, details: { failure_reason: 'timeout' } })
        await bench.adapter.teardown(handle, { keepVolume: false })
      })

      test('honours the output policy', async () => {
        const bench = await makeBench()
        const policies: NonNullable<RuntimeSpecInput['policies']> = {
          restart_policy: 'never',
          output_collection: { mode: 'failure_only', artifact_globs: ['*.txt'] },
        }
        const command = 'echo out; touch $PYLON_ARTIFACTS_DIR/a.txt $PYLON_ARTIFACTS_DIR/b.bin'
        const good = await provision(bench, { timeoutSecs: 20 }, { entry_command: command, policies })
        await until(bench.adapter, good.handle, 'completed')
        expect(await bench.adapter.collect?.(good.handle, good.input.spec)).toMatchObject({ stdout: '', artifacts: [] })
        const bad = await provision(bench, { timeoutSecs: 20 }, { entry_command: `${command}; false`, policies })
        await until(bench.adapter, bad.handle, 'failed')
        const outputs = await bench.adapter.collect?.(bad.handle, bad.input.spec)
        expect(outputs?.stdout).toBe('out\n')
        expect(outputs?.artifacts.map(({ path }) => path)).toEqual(['a.txt'])
        for (const { handle } of [good, bad]) await bench.adapter.teardown(handle, { keepVolume: false })
      })

      test('starts a failed run again where the policy says so', async () => {
        const bench = await makeBench()
        const command = 'if [ -e tried ]; then echo second; else touch tried; exit 1; fi'
        const where = 'cd /tmp 2>/dev/null; mkdir -p $PYLON_RUNTIME_ID && cd $PYLON_RUNTIME_ID'
        const spec = { entry_command: `${where}; ${command}`, policies: { restart_policy: 'on_failure' } } as const
        const { handle, input } = await provision(bench, { timeoutSecs: 20 }, spec)
        await until(bench.adapter, handle, 'completed')
        expect((await bench.adapter.collect?.(handle, input.spec))?.stdout).toBe('second\n')
        await bench.adapter.teardown(handle, { keepVolume: false })
      })

      test('hands over the environment, and none of its own', async () => {
        const bench = await makeBench()
        process.env['PYLON_TEST_LEAK'] = 'leaked'
        onTestFinished(() => void delete process.env['PYLON_TEST_LEAK'])
        const env = { WORD: 'secret-of-the-test' }
        const { handle, input, metadata } = await provision(
          bench,
          { timeoutSecs: 20, env },
          { entry_command: 'echo "$WORD$PYLON_TEST_LEAK"' },
        )
        await until(bench.adapter, handle, 'completed')
        expect((await bench.adapter.collect?.(handle, input.spec))?.stdout).toBe('secret-of-the-test\n')
        expect(JSON.stringify([handle, metadata])).not.toContain('secret-of-the-test')
        await bench.adapter.teardown(handle, { keepVolume: false })
      })

      test('refuses an output that points out of its place', async () => {
        const bench = await makeBench()
        const command = 'cd $PYLON_ARTIFACTS_DIR; ln -s /etc/passwd link; ln -s /etc dir; mkfifo pipe; echo ok > good'
        const { handle, input } = await provision(bench, { timeoutSecs: 20 }, { entry_command: command })
        await until(bench.adapter, handle, 'completed')
        const outputs = await bench.adapter.collect?.(handle, input.spec)
        expect(outputs?.artifacts.map(({ path }) => path)).toEqual(['good'])
        await bench.adapter.teardown(handle, { keepVolume: false })
      })
    }

    test('refuses what it does not know before it makes anything, whether it is asked or told', async () => {
      const bench = await makeBench()
      const { adapter } = bench
      const use = firstUse(bench, abilities)
      for (const more of [{ target: 'nowhere' }, { params: { ...bench.params, surprise: true } }]) {
        const input = inputOf(bench, { ...use, ...more }, firstSpec(bench, abilities))
        await expect(adapter.assertPossible(input)).rejects.toEqual(expect.objectContaining({ code: 'invalid_request' }))
        await expect(adapter.provision(input, noAbort)).rejects.toSatisfy((error) => isPylonError(error, 'invalid_request'))
      }
      expect((await adapter.listOwned?.()) ?? []).toEqual([])
      await adapter.assertPossible(inputOf(bench, use, firstSpec(bench, abilities)))
    })

    if (!abilities.oneShot) {
      test('refuses a one-shot run before it makes anything, and is known by having nothing to collect', async () => {
        const { adapter, ...bench } = await makeBench()
        const input = inputOf({ adapter, ...bench }, { timeoutSecs: 5 }, { entry_command: 'true' })
        await expect(adapter.assertPossible(input)).rejects.toEqual(expect.objectContaining({ code: 'runtime_unsupported' }))
        await expect(adapter.provision(input, noAbort)).rejects.toSatisfy((error) => isPylonError(error, 'runtime_unsupported'))
        expect(adapter.collect).toBeUndefined()
        expect((await adapter.listOwned?.()) ?? []).toEqual([])
      })
    }

    if (!abilities.volumes && abilities.protocols.length > 0) {
      test('refuses mounts that it has no place for, before it makes anything', async () => {
        const { adapter, ...bench } = await makeBench()
        const mounts = [{ kind: 'persistent_volume', guest_path: '/data', source: 'v', mode: 'read_write' }] as const
        const input = inputOf({ adapter, ...bench }, firstUse({ adapter, ...bench }, abilities), { mounts: [...mounts] })
        await expect(adapter.assertPossible(input)).rejects.toEqual(expect.objectContaining({ code: 'spec_mount_refused' }))
        await expect(adapter.provision(input, noAbort)).rejects.toSatisfy((error) => isPylonError(error, 'spec_mount_refused'))
        expect((await adapter.listOwned?.()) ?? []).toEqual([])
      })
    }

    const [protocol] = abilities.protocols
    if (abilities.volumes && protocol !== undefined) {
      const mount = { kind: 'persistent_volume', guest_path: '/data', mode: 'read_write', required: true } as const

      test('keeps a volume when its instance is destroyed, and restores a snapshot of it', async () => {
        const bench = await makeBench()
        const { adapter } = bench
        const { exec, snapshot, restore, listSnapshots, backupStatus } = adapter
        if (!exec || !snapshot || !restore || !listSnapshots || !backupStatus) throw new Error('an adapter with volumes has these')
        const data = `${bench.mountPrefix ?? ''}/data`
        const mounts = [{ ...mount, source: `vol-${randomBytes(4).toString('hex')}` }]
        const shell = async (handle: RuntimeHandle, command: string) => await exec.call(adapter, handle, { command, timeoutMs: 10_000 })
        const first = await provision(bench, { protocol }, { ...agentSpec(bench, protocol), mounts })
        await until(adapter, first.handle, 'ready')
        expect(await shell(first.handle, `echo one > ${data}/f`)).toMatchObject({ exitCode: 0 })
        const taken = await snapshot.call(adapter, first.handle, 'first')
        expect(taken.name).toBe('first')
        await adapter.teardown(first.handle, { keepVolume: true })

        const second = await adapter.provision({ ...first.input }, noAbort)
        await until(adapter, second.handle, 'ready')
        expect(await shell(second.handle, `cat ${data}/f; echo two > ${data}/f`)).toMatchObject({ stdout: 'one\n' })
        expect(await listSnapshots.call(adapter, second.handle)).toMatchObject([{ name: 'first' }])
        expect(await backupStatus.call(adapter, second.handle)).toMatchObject({ snapshots: [{ name: 'first' }] })
        expect(await restore.call(adapter, second.handle, undefined, noAbort)).toMatchObject({ name: 'first' })
        await until(adapter, second.handle, 'ready')
        expect(await shell(second.handle, `cat ${data}/f`)).toMatchObject({ stdout: 'one\n' })
        await adapter.teardown(second.handle, { keepVolume: false })

        const third = await adapter.provision({ ...first.input }, noAbort)
        await until(adapter, third.handle, 'ready')
        expect(await shell(third.handle, `ls ${data}`)).toMatchObject({ stdout: '' })
        await adapter.teardown(third.handle, { keepVolume: false })
      })

      test('comes back after recover, with its volume', async () => {
        const bench = await makeBench()
        const { adapter } = bench
        const mounts = [{ ...mount, source: `vol-${randomBytes(4).toString('hex')}` }]
        const { handle } = await provision(bench, { protocol }, { ...agentSpec(bench, protocol), mounts })
        await until(adapter, handle, 'ready')
        await adapter.exec?.(handle, { command: `echo kept > ${bench.mountPrefix ?? ''}/data/f`, timeoutMs: 10_000 })
        await bench.restarted().recover?.(handle, noAbort)
        await until(adapter, handle, 'ready')
        const seen = await adapter.exec?.(handle, { command: `cat ${bench.mountPrefix ?? ''}/data/f`, timeoutMs: 10_000 })
        expect(seen?.stdout).toBe('kept\n')
        await adapter.teardown(handle, { keepVolume: false })
      })
    }

    if (protocol !== undefined && abilities.oneShot) {
      test('says failed when the agent cannot start, instead of starting for ever', async () => {
        const bench = await makeBench()
        const { handle, input } = await provision(bench, { protocol }, { entry_command: '/nonexistent/agent' })
        expect((await until(bench.adapter, handle, 'failed')).message).toContain('127')
        expect((await bench.adapter.collect?.(handle, input.spec))?.result).toMatchObject({ status: 'failed' })
        await bench.adapter.teardown(handle, { keepVolume: false })
      })
    }
  })

  function inputOf(bench: Bench, more: Partial<ProvisionInput>, spec: Partial<RuntimeSpecInput>): ProvisionInput {
    const runtimeId = `${bench.adapter.provider}-${randomBytes(8).toString('hex')}`
    return {
      runtimeId,
      ownerPubkey: '11'.repeat(32),
      spec: decodeRuntimeSpec({ identity: { runtime_id: runtimeId, instance_name: runtimeId }, ...bench.spec, ...spec }),
      protocol: null,
      ...(bench.params === undefined ? {} : { params: bench.params }),
      ...more,
    }
  }
}

function agentSpec(bench: Bench, protocol: Protocol): Partial<RuntimeSpecInput> {
  const command = bench.agent?.(protocol)
  return command === undefined ? {} : { entry_command: command }
}

/** What the substrate can do at the least. */
function firstUse(_bench: Bench, abilities: Abilities): Partial<ProvisionInput> & { spec?: never } {
  const env = { WORD: 'secret-of-the-test' }
  return { protocol: abilities.protocols[0] ?? null, env }
}

function firstSpec(bench: Bench, abilities: Abilities): Partial<RuntimeSpecInput> {
  const [protocol] = abilities.protocols
  return protocol === undefined ? { entry_command: 'sleep 30' } : agentSpec(bench, protocol)
}
