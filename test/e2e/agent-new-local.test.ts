/** `pylon agent new` on this machine with the real guest: the conversation outlives kill -9 of the guest and of the node. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { managedRoutes } from '../../src/control/contract/managed.ts'
import { killAll } from '../support/kill.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

/** Arguments of a process, and who started it; undefined: it is gone. */
function processOf(pid: number): { argv: string[]; parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { argv: readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0'), parent: Number(parent) }
  } catch {
    // It ended while we looked.
    return undefined
  }
}

/** The guest program itself, inside the enclosure: that which started it names the home of the rig, it does not. */
function guestPids(rig: Rig): number[] {
  const isOfRig = (pid: number): boolean => {
    const found = processOf(pid)
    return found !== undefined && (found.argv.some((arg) => arg.includes(rig.dir)) || (found.parent > 1 && isOfRig(found.parent)))
  }
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const argv = processOf(pid)?.argv ?? []
      return argv.includes('guest') && argv.includes('--spec') && !argv.includes('--supervise') && isOfRig(pid)
    })
}

async function killGuest(rig: Rig): Promise<void> {
  const pids = guestPids(rig)
  expect(pids).toHaveLength(1)
  killAll(pids)
  await expect.poll(() => guestPids(rig), { timeout: 20_000 }).toEqual([])
}

async function killNode(rig: Rig, died: Promise<NodeJS.Signals | null>) {
  process.kill(Number(/"pid":(\d+)/.exec(readFileSync(rig.sandboxHome.pidFile, 'utf8'))?.[1]), 'SIGKILL')
  expect(await died).toBe('SIGKILL')
  await rig.launch(['--sandbox'])
}

/** What was said in words, by whom, in order. */
async function transcript(rig: Rig, peer: string) {
  const { messages } = await rig.call(managedRoutes.listen, { peer })
  const words = (shown: (typeof messages)[number]['shown']) => shown.map(({ text }) => text).join('')
  return messages.map(({ own, shown }) => [own ? 'owner' : 'agent', words(shown)]).filter(([, text]) => text !== '')
}

test.concurrent.each(['pi', 'acp'] as const)(
  '%s: chat, attach, show and delete, with the guest and the node killed between',
  async (protocol) => {
    await using rig = new Rig()
    const { died } = await rig.launch(['--sandbox'])
    const made = await rig.ok(
      ...['agent', 'new', '--provider', 'local', '--protocol', protocol, '--command', shellAgent(protocol)],
      ...['--name', 'helper', '--keep', '--json'],
    )
    expect(made.json()).toMatchObject({
      ...{ provider: 'local', protocol, runtime: { lifecycle_phase: 'ready' } },
      agent: { name: 'helper', phase: 'ready', own_node: true },
    })
    expect((await rig.ok('agent', 'chat', 'helper', 'say one')).stdout).toBe('one\n')
    await killGuest(rig)
    // Said while nobody is there to hear it: the guest is started again by itself.
    expect((await rig.ok('agent', 'chat', 'helper', 'say two')).stdout).toBe('two\n')
    await killNode(rig, died)
    expect((await rig.ok('agent', 'chat', 'helper', 'say three')).stdout).toBe('three\n')
    expect((await rig.run(['agent', 'attach', 'helper'], { input: 'say four\n' })).stdout).toContain('four\n')

    expect(await transcript(rig, 'helper')).toEqual(
      ['one', 'two', 'three', 'four'].flatMap((word) => [
        ['owner', `say ${word}`],
        ['agent', word],
      ]),
    )
    expect((await rig.ok('agent', 'show', 'helper')).stdout).toMatch(/Phase +ready\n[\s\S]*Now +ready/)
    expect((await rig.ok('agent', 'delete', 'helper', '--yes')).stdout).toMatch(/helper is gone, and local-\w+ with it/)
    expect(guestPids(rig)).toEqual([])
    expect((await rig.run(['agent', 'show', 'helper'])).stderr).toContain('agent_not_found')
  },
)
