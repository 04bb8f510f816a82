/** kill -9 of the node at every stored step of a runtime, on the real program and the local substrate: no orphan, no double instance. */
import { readdirSync } from 'node:fs'
import { describe, expect, test, vi } from 'vitest'
import { runtimesRoutes } from '../../src/control/contract/runtimes.ts'
import { guestsOf } from '../support/guests.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const WAIT = { timeout: 60_000, interval: 50 }

/** unit/machines/restart.test.ts dies in process before and after every step; here there are real guests to be left or made twice. */
const FAULTS = ['after:provisioning', 'before:ready', 'after:ready', 'after:teardown', 'before:gone']

describe.concurrent('a runtime survives kill -9 of its node', { timeout: 180_000 }, () => {
  test.each(FAULTS)('%s', async (fault) => {
    await using rig = new Rig()
    const isEnding = fault.endsWith('teardown') || fault.endsWith('gone')
    const provision = () =>
      rig.call(
        runtimesRoutes.commandRuntime,
        { local: true, command: { command: 'provision', provider: 'local', protocol: 'pi', entry_command: shellAgent('pi') } },
        { idempotencyKey: 'one' },
      )
    const teardown = (id: string, idempotencyKey: string) =>
      rig.call(runtimesRoutes.commandRuntime, { local: true, command: { command: 'teardown', runtime_id: id } }, { idempotencyKey })
    const { died } = await rig.launch(['--sandbox'], fault.replace(':', ':move_runtime:'))
    if (isEnding) await expect(teardown((await provision()).runtime.runtime_id, 'two')).rejects.toThrow(/broke|in the middle/)
    else await expect(provision()).rejects.toThrow(/broke|in the middle/)
    expect(await died).toBe('SIGKILL')

    await rig.launch(['--sandbox'])
    const again = await provision()
    const id = again.runtime.runtime_id
    const list = async () => {
      const { payload } = await rig.call(runtimesRoutes.askRuntime, { local: true, command: { command: 'list_runtimes' } })
      return (payload as { runtimes: (typeof again)['runtime'][] }).runtimes
    }
    expect((await list()).map((runtime) => runtime.runtime_id)).toEqual([id])
    if (!isEnding) {
      expect(again.runtime.lifecycle_phase).toBe('ready')
      expect(guestsOf(rig).length).toBeGreaterThan(0)
      expect((await rig.ok('runtime', 'prompt', id, 'say alive', '--local')).stdout).toContain('alive')
    }
    await teardown(id, 'three')
    await vi.waitUntil(() => guestsOf(rig).length === 0, WAIT)
    expect(readdirSync(rig.sandboxHome.runtimes).filter((name) => name === id)).toEqual([])
    expect((await list()).every((runtime) => runtime.lifecycle_phase === 'teardown')).toBe(true)
  })
})
