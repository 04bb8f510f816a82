/** `pylon restart`: ends the node and starts it again with the same options; unlocked keys stay unlocked. */
import { defineCommand, homesOf, type NodeHome, stoppedHome } from '../command.ts'
import { printFacts, warn } from '../terminal/output.ts'
import { modeOption } from './run-flags.ts'

export const restartCommand = defineCommand({
  command: 'restart',
  describe: 'Restart the node with the options it had',
  builder: (yargs) => yargs.option('mode', modeOption('Go on in this mode')),
  handler: async (args) => {
    const { restartNode } = await import('../../daemon/launch/restart.ts')
    const { home, network, wasRunning } = await runningHome(args)
    const { value } = await restartNode(home, network, [args.mode].flat().at(-1))
    const facts = { network, pid: value.pid, socket: home.socket, log: home.log, mode: value.mode, locked: value.locked }
    const words = `Pylon ${wasRunning ? 'runs again' : 'was not running and is started'} (pid ${value.pid}, mode ${value.mode}).`
    printFacts(args, facts, words)
    if (value.locked) warn('the keys are locked; to open them: pylon unlock')
  },
})

/** Of the homes that may be meant, the one whose node answers; else the one that ran before. */
async function runningHome(args: { sandbox: boolean }): Promise<NodeHome & { wasRunning: boolean }> {
  const { statusIfRunning } = await import('../../daemon/launch/start.ts')
  for (const one of homesOf(args)) if ((await statusIfRunning(one.home)) !== undefined) return { ...one, wasRunning: true }
  return { ...stoppedHome(args), wasRunning: false }
}
