/** A whole node on a real Incus, set up as docs/incus.md says, and kill -9 of the node at every stored step of a runtime: no orphan, no double instance. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { ensureIncus, type IncusDaemon, startIncusDaemon } from '../support/incus-daemon.ts'
import { Rig, type Run } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const missing = ensureIncus()
const WAIT = { timeout: 60_000, interval: 500 }

interface Runtime {
  readonly runtime_id: string
  readonly metadata: { readonly state: string }
}

interface Answer {
  readonly runtime: Runtime
  readonly payload: Readonly<Record<string, unknown>>
}

const run = ['runtime', 'run', '--local', '--provider', 'incus', '--json']
const provision = ['runtime', 'provision', '--local', '--provider', 'incus', '--protocol', 'pi', '--command', shellAgent('pi'), '--json']
const faultsOf = (states: readonly string[]) => states.flatMap((state) => [`before:move_runtime:${state}`, `after:move_runtime:${state}`])

describe.skipIf(missing !== undefined)(`a node on a real Incus${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let incus: IncusDaemon
  let guestRoot: string
  let rig: Rig

  beforeAll(async () => {
    guestRoot = mkdtempSync(join(tmpdir(), 'pylon-opt-'))
    chmodSync(guestRoot, 0o755)
    incus = await startIncusDaemon()
    incus.cli('storage', 'create', 'pylon', 'btrfs', 'size=4GiB')
    rig = new Rig()
    await rig.ok('start', '--sandbox')
    await rig.ok('config', 'set', 'runtimes.incus.enabled', 'true')
    await rig.ok('config', 'set', 'runtimes.incus.socket', incus.socketPath)
    await rig.ok('config', 'set', 'runtimes.incus.guest_dir', join(guestRoot, 'guest'))
    await rig.ok('restart')
    const built = await rig.run(['runtime', 'image', 'build'], { timeoutMs: 240_000 })
    if (built.code !== 0) throw new Error(`no images: ${built.stderr}`)
    await rig.ok('stop')
  }, 290_000)

  afterAll(async () => {
    await rig?.[Symbol.asyncDispose]()
    await incus?.destroy()
    if (guestRoot !== undefined) rmSync(guestRoot, { recursive: true, force: true })
  }, 120_000)

  const instances = () => incus.cli('list', '--project', 'pylon', '--format', 'csv', '--columns', 'n').split('\n').filter(Boolean)
  const volumes = () =>
    incus.cli('storage', 'volume', 'list', 'pylon', '--project', 'pylon', '--format', 'csv', '--columns', 'n', 'type=custom').trim()

  /** Runs the commands on a node that dies at the fault, until it has died; then starts a sound one. */
  async function dieAt(fault: string, work: () => Promise<Run>): Promise<void> {
    const child = rig.spawn(['daemon', '--sandbox'], { env: { PYLON_FAULT: fault } })
    const died = new Promise<NodeJS.Signals | null>((resolve) => child.once('close', (_code, signal) => resolve(signal)))
    await vi.waitUntil(async () => (await rig.run(['status', '--json'])).code === 0, WAIT)
    const { stderr } = await work()
    const lives = new Promise<string>((resolve) => setTimeout(resolve, 60_000, `it lives on: ${stderr}`).unref())
    expect(await Promise.race([died, lives])).toBe('SIGKILL')
    await rig.ok('start', '--sandbox')
  }

  async function succeeded(args: readonly string[]): Promise<Run> {
    const done = await rig.run(args)
    if (done.code !== 0) throw new Error(`pylon ${args.join(' ')} gave ${done.code}: ${done.stderr}\n${rig.logs()}`)
    return done
  }

  async function expectNothingLeft(): Promise<void> {
    await vi.waitUntil(() => instances().length === 0, WAIT)
    await expect.poll(volumes, WAIT).toBe('')
    // Else the next node would die of what is still to be written down.
    const list = ['runtime', 'list', '--local', '--json']
    const states = async () => (await rig.ok(...list)).json<{ payload: { runtimes: Runtime[] } }>().payload.runtimes
    await vi.waitUntil(async () => (await states()).every(({ metadata }) => metadata.state === 'gone'), WAIT)
    await rig.ok('stop')
  }

  test('is usable, as doctor says', async () => {
    await rig.ok('start', '--sandbox')
    const { checks } = (await rig.run(['doctor', '--json'])).json<{ checks: { name: string; state: string }[] }>()
    expect(checks.find(({ name }) => name === 'substrate incus')).toMatchObject({ state: 'ok' })
    await rig.ok('stop')
  })

  test.each(faultsOf(['provisioning', 'ended', 'teardown', 'gone']))('a run, killed %s', async (fault) => {
    const once = [...run, '--idempotency-key', `run:${fault}`, 'echo once; cat /proc/sys/kernel/random/boot_id']
    await dieAt(fault, () => rig.run(once))
    const first = (await succeeded(once)).json<Answer>()
    expect(first.payload).toMatchObject({ exit_code: 0, stdout: expect.stringMatching(/^once\n/) })
    expect((await succeeded(once)).json<Answer>().runtime.runtime_id).toBe(first.runtime.runtime_id)
    await expectNothingLeft()
  })

  test.each(faultsOf(['provisioning', 'ready', 'teardown', 'gone']))('an agent, killed %s', async (fault) => {
    const one = [...provision, '--idempotency-key', `agent:${fault}`]
    const isEnding = fault.endsWith('teardown') || fault.endsWith('gone')
    await dieAt(fault, async () => {
      const first = await rig.run(one)
      return isEnding ? rig.run(['runtime', 'teardown', first.json<Answer>().runtime.runtime_id, '--local']) : first
    })
    const id = (await succeeded(one)).json<Answer>().runtime.runtime_id
    if (!isEnding) {
      expect(instances()).toEqual([id.replace('incus-', 'pylon-')])
      expect((await succeeded(['runtime', 'prompt', id, 'say alive', '--local'])).stdout).toContain('alive')
    }
    await succeeded(['runtime', 'teardown', id, '--local'])
    await expectNothingLeft()
  })
})
