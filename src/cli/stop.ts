/** `pylon stop`: drains and ends the node. */
import { PylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'
import type { Stopped } from '../daemon/launch/stop.ts'
import { defineCommand, homesOf, type NodeHome } from './command.ts'
import { print } from './output.ts'

export const stopCommand = defineCommand({
  command: 'stop',
  describe: 'Stop the node: running jobs finish or are parked',
  builder: (yargs) =>
    yargs
      .option('timeout', { type: 'number', default: 10, requiresArg: true, describe: 'Seconds to drain before it is killed' })
      .option('force', { type: 'boolean', default: false, describe: 'Kill at once; nothing is lost, the next start recovers' }),
  handler: async (args) => {
    if (!(args.timeout >= 0 && args.timeout <= 3600)) throw new PylonError('usage', '--timeout takes seconds from 0 to 3600.')
    const { stopNode } = await import('../daemon/launch/stop.ts')
    const { home, network } = await heldHome(args)
    const stopped = await stopNode(home, { timeoutMs: args.timeout * 1000, force: args.force })
    print(args.json ? stringify({ network, stopped: stopped.how !== 'not_running', ...stopped }, 2) : human(stopped))
  },
})

/** The first home that a process holds; so that `pylon stop` also ends a sandbox node when the live one is not up. */
async function heldHome(args: { sandbox: boolean }): Promise<NodeHome> {
  const { isHomeFree } = await import('../daemon/launch/stop.ts')
  const homes = homesOf(args)
  return homes.find(({ home }) => !isHomeFree(home)) ?? (homes[0] as NodeHome)
}

function human(stopped: Stopped): string {
  if (stopped.how === 'not_running') return 'Pylon is not running.'
  if (stopped.how === 'stopped') return `Pylon has stopped (pid ${stopped.pid}).`
  return `Pylon was killed (pid ${stopped.pid}); the next start recovers what was under way.`
}
