/** `pylon agent new` on a real Incus, by the built program alone: from the command to an encrypted answer, over the death of its instance, to nothing left. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { managedRoutes } from '../../src/control/contract/managed.ts'
import { ensureIncus, type IncusDaemon, startIncusDaemon } from '../support/incus-daemon.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const missing = ensureIncus()
const WAIT = { timeout: 60_000, interval: 500 }

describe.skipIf(missing !== undefined)(`agents on a real Incus${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
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
    const built = await rig.run(['runtime', 'image', 'build', 'debian'], { timeoutMs: 240_000 })
    if (built.code !== 0) throw new Error(`no image: ${built.stderr}`)
  }, 290_000)

  afterAll(async () => {
    await rig?.[Symbol.asyncDispose]()
    await incus?.destroy()
    if (guestRoot !== undefined) rmSync(guestRoot, { recursive: true, force: true })
  }, 120_000)

  const instances = () => incus.cli('list', '--project', 'pylon', '--format', 'csv', '--columns', 'n').split('\n').filter(Boolean)
  const volumes = () =>
    incus.cli('storage', 'volume', 'list', 'pylon', '--project', 'pylon', '--format', 'csv', '--columns', 'n', 'type=custom').trim()

  async function succeeded(...args: string[]) {
    const done = await rig.run(args, { timeoutMs: 120_000 })
    if (done.code !== 0) throw new Error(`pylon ${args.join(' ')} gave ${done.code}: ${done.stderr}${done.stdout}\n${rig.logs()}`)
    return done
  }

  test.each(['pi', 'acp'] as const)('%s: is talked to, goes on after its instance was killed, and leaves nothing', async (protocol) => {
    const name = `bot-${protocol}`
    const made = ['agent', 'new', '--provider', 'incus', '--protocol', protocol, '--command', shellAgent(protocol), '--name', name]
    const begun = performance.now()
    const { agent } = (await succeeded(...made, '--keep', '--json')).json<{
      agent: { phase: string; runtime_id: string; group_id: string }
    }>()
    const readyMs = performance.now() - begun
    expect(agent.phase).toBe('ready')
    const instance = agent.runtime_id.replace('incus-', 'pylon-')
    expect(instances()).toEqual([instance])
    expect((await succeeded('agent', 'chat', name, 'say one')).stdout).toBe('one\n')
    console.log(`${protocol}: ready after ${Math.round(readyMs)} ms, first answer after ${Math.round(performance.now() - begun)} ms`)
    expect((await succeeded('agent', 'chat', name, 'say two')).stdout).toBe('two\n')

    incus.cli('stop', '--force', '--project', 'pylon', instance)
    const killed = performance.now()
    await succeeded('runtime', 'recover', agent.runtime_id, '--local')
    expect((await succeeded('agent', 'chat', name, 'say three')).stdout).toBe('three\n')
    console.log(`${protocol}: answers ${Math.round(performance.now() - killed)} ms after its instance was killed`)
    const after = await rig.call(managedRoutes.getManaged, { name })
    expect(after).toMatchObject({ phase: 'ready', runtime_id: agent.runtime_id, group_id: agent.group_id })

    await succeeded('agent', 'delete', name, '--yes')
    await expect.poll(instances, WAIT).toEqual([])
    await expect.poll(volumes, WAIT).toBe('')
  })

  test('a conversation from a pipe ends with its runtime torn down', async () => {
    const args = ['agent', 'new', '--provider', 'incus', '--protocol', 'pi', '--command', shellAgent('pi')]
    const talk = await rig.run(args, { input: 'say hello there\nsay bye\n', timeoutMs: 120_000 })
    expect(talk).toMatchObject({ code: 0, stdout: 'hello there\nbye\n' })
    await expect.poll(instances, WAIT).toEqual([])
    await expect.poll(volumes, WAIT).toBe('')
  })
})
