/** kill -9 of the node at every stored step of a runtime, on the real program and the local substrate: no orphan, no double instance. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test, vi } from 'vitest'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const WAIT = { timeout: 60_000, interval: 500 }

interface Answer {
  readonly runtime: { readonly runtime_id: string; readonly lifecycle_phase: string }
}

/** Guests of this rig that live. */
function guestsOf(rig: Rig): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        return command.split('\0').includes('guest') && command.includes(rig.dir)
      } catch {
        return false
      }
    })
}

const STEPS = ['provisioning', 'ready', 'teardown', 'gone']
const FAULTS = STEPS.flatMap((state) => [`before:move_runtime:${state}`, `after:move_runtime:${state}`])

describe.concurrent('a runtime survives kill -9 of its node', { timeout: 180_000 }, () => {
  test.each(FAULTS)('%s', async (fault) => {
    await using rig = new Rig()
    await rig.ok('start', '--sandbox')
    await rig.ok('stop')
    const provision = [
      'runtime',
      'provision',
      '--local',
      '--protocol',
      'pi',
      '--command',
      shellAgent('pi'),
      '--json',
      '--idempotency-key',
      'one',
    ]
    const child = rig.spawn(['daemon', '--sandbox'], { env: { PYLON_FAULT: fault } })
    const died = new Promise<NodeJS.Signals | null>((resolve) => child.once('close', (_code, signal) => resolve(signal)))
    await vi.waitUntil(async () => (await rig.run(['status', '--json'])).code === 0, WAIT)
    const first = await rig.run(provision)
    if (fault.endsWith('teardown') || fault.endsWith('gone')) {
      await rig.run(['runtime', 'teardown', first.json<Answer>().runtime.runtime_id, '--local', '--idempotency-key', 'two'])
    }
    expect(await died).toBe('SIGKILL')

    await rig.ok('start', '--sandbox')
    const again = (await rig.ok(...provision)).json<Answer>()
    const id = again.runtime.runtime_id
    const list = async () =>
      (await rig.ok('runtime', 'list', '--local', '--json')).json<{ payload: { runtimes: Answer['runtime'][] } }>().payload.runtimes
    expect((await list()).map((runtime) => runtime.runtime_id)).toEqual([id])
    const isEnding = fault.endsWith('teardown') || fault.endsWith('gone')
    if (!isEnding) {
      expect(again.runtime.lifecycle_phase).toBe('ready')
      expect(guestsOf(rig).length).toBeGreaterThan(0)
      expect((await rig.ok('runtime', 'prompt', id, 'say alive', '--local')).stdout).toContain('alive')
    }
    await rig.ok('runtime', 'teardown', id, '--local')
    await vi.waitUntil(() => guestsOf(rig).length === 0, WAIT)
    expect(readdirSync(rig.sandboxHome.runtimes).filter((name) => name === id)).toEqual([])
    expect((await list()).every((runtime) => runtime.lifecycle_phase === 'teardown')).toBe(true)
  })
})
