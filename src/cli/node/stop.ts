/** `pylon stop`: drains and ends the node. */
import type { Stopped } from '../../daemon/launch/stop.ts'
import { defineCommand, homesOf, type NodeHome } from '../command.ts'
import { flagOption, textOption } from '../options.ts'
import { printFacts, warn } from '../terminal/output.ts'
import { wholeNumberIf } from '../terminal/values.ts'

export const stopCommand = defineCommand({
  command: 'stop',
  describe: 'Stop the node: running jobs finish or are parked',
  builder: (yargs) =>
    yargs
      .option('timeout', textOption('Seconds to drain before it is killed (10)'))
      .option('force', flagOption('Kill at once; nothing is lost, the next start recovers')),
  handler: async (args) => {
    const timeoutS = wholeNumberIf(args.timeout, '--timeout', 0, 3600) ?? 10
    const { stopNode } = await import('../../daemon/launch/stop.ts')
    const { home, network } = await heldHome(args)
    const stopped = await stopNode(home, {
      timeoutMs: timeoutS * 1000,
      force: args.force,
      onSilent: () => warn('the node does not answer: it is told to end by signals, and killed when that does not help'),
    })
    printFacts(args, { network, stopped: stopped.how !== 'not_running', ...stopped }, human(stopped))
  },
})

/** The first home that a process holds; so that `pylon stop` also ends a sandbox node when the live one is not up. */
async function heldHome(args: { sandbox: boolean }): Promise<NodeHome> {
  const { isHomeFree } = await import('../../daemon/launch/stop.ts')
  const homes = homesOf(args)
  return homes.find(({ home }) => !isHomeFree(home)) ?? (homes[0] as NodeHome)
}

function human(stopped: Stopped): string {
  if (stopped.how === 'not_running') return 'Pylon is not running.'
  if (stopped.how === 'stopped') return `Pylon has stopped (pid ${stopped.pid}).`
  return `Pylon was killed (pid ${stopped.pid}); the next start recovers what was under way.`
}
