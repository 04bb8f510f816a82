/** kill -9 of the node at every stored step of a runtime, on the real program and the local substrate: no orphan, no double instance. */
import { readdirSync } from 'node:fs'
import { expect, test, vi } from 'vitest'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { runtimesRoutes } from '../../src/control/contract/runtimes.ts'
import { guestsOf } from '../support/guests.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const WAIT = { timeout: 60_000, interval: 50 }

/**
 * unit/machines/restart.test.ts dies in process before and after every step; here there are real guests to be left or made twice.
 * While runtimes are brought up, the node that follows a kill is the one that is killed next, at a step that what it finds does not
 * come to by itself.
 */
const BRINGING = ['after:ready', 'before:ready', 'after:provisioning']
const ENDING = ['before:gone', 'after:teardown']

test('a runtime survives kill -9 of its node', { timeout: 180_000 }, async () => {
  await using rig = new Rig()
  const provision = (idempotencyKey: string) =>
    rig.call(
      runtimesRoutes.commandRuntime,
      { local: true, command: { command: 'provision', provider: 'local', protocol: 'pi', entry_command: shellAgent('pi') } },
      { idempotencyKey },
    )
  const teardown = (id: string, idempotencyKey: string) =>
    rig.call(runtimesRoutes.commandRuntime, { local: true, command: { command: 'teardown', runtime_id: id } }, { idempotencyKey })
  const list = async () => {
    const { payload } = await rig.call(runtimesRoutes.askRuntime, { local: true, command: { command: 'list_runtimes' } })
    return (payload as { runtimes: Awaited<ReturnType<typeof provision>>['runtime'][] }).runtimes
  }
  const expectEnd = async (id: string, fault: string) => {
    await teardown(id, `${fault}:end`)
    await vi.waitUntil(() => guestsOf(rig).length === 0, WAIT)
    expect(readdirSync(rig.sandboxHome.runtimes), fault).not.toContain(id)
    expect(
      (await list()).every((runtime) => runtime.lifecycle_phase === 'teardown'),
      fault,
    ).toBe(true)
  }
  const faults = [...BRINGING, ...ENDING.flatMap((fault) => [fault, undefined])]
  const launch = () => rig.launch(['--sandbox'], faults.shift()?.replace(':', ':move_runtime:'))
  const expectDeath = async (call: Promise<unknown>, fault: string) => {
    await expect(call, fault).rejects.toThrow(/broke|in the middle/)
    expect(await node.died, fault).toBe('SIGKILL')
    node = await launch()
  }
  let node = await launch()
  let id: string | undefined
  for (const [made, fault] of BRINGING.entries()) {
    if (id !== undefined) await expectEnd(id, fault)
    await expectDeath(provision(fault), fault)
    const again = await provision(fault)
    id = again.runtime.runtime_id
    expect(again.runtime.lifecycle_phase, fault).toBe('ready')
    const all = await list()
    expect(all, fault).toHaveLength(made + 1)
    expect(all.filter((runtime) => runtime.lifecycle_phase !== 'teardown').map((runtime) => runtime.runtime_id)).toEqual([id])
    expect(guestsOf(rig).length, fault).toBeGreaterThan(0)
    expect((await rig.ok('runtime', 'prompt', id, 'say alive', '--local')).stdout, fault).toContain('alive')
  }
  for (const fault of ENDING) {
    if (id === undefined) {
      await rig.call(nodeRoutes.shutdown, {})
      await node.died
      node = await launch()
      id = (await provision(`${fault}:new`)).runtime.runtime_id
    }
    await expectDeath(teardown(id, fault), fault)
    await expectEnd(id, fault)
    id = undefined
  }
})
