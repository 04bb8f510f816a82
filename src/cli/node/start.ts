/** `pylon start`: a node in the background, ready when this returns. */
import { rfc3339 } from '../../base/clock.ts'
import type { Started } from '../../daemon/launch/start.ts'
import { defineCommand, homeOf, homesOf } from '../command.ts'
import { flagOption } from '../options.ts'
import type { Roles } from '../roles.ts'
import { printFacts, warn } from '../terminal/output.ts'
import { addRunFlags, runOptionsOf } from './run-flags.ts'

export const startCommand = (roles: Roles) =>
  defineCommand({
    command: 'start',
    describe: 'Start the node in the background; ready when it returns',
    builder: (yargs) =>
      addRunFlags(yargs)
        .option('daemon', { alias: 'd', type: 'boolean', default: true, describe: 'In the background (the default)' })
        .option('foreground', flagOption('Stay in this terminal, log to it'))
        .example('$0 start --sandbox', 'Try everything with play money'),
    handler: async (args) => {
      const { home, network } = homeOf(args)
      const run = runOptionsOf(args)
      if (args.foreground || !args.daemon) {
        process.exitCode = await roles.daemon({ home, network, run, isDetached: false })
        return
      }
      const { startNode } = await import('../../daemon/launch/start.ts')
      const started = await startNode(home, network, run)
      if (started.wasRunning) sayRunning(started, run.mode)
      const { value } = started.status
      const facts = {
        network,
        pid: value.pid,
        socket: home.socket,
        log: home.log,
        mode: value.mode,
        was_running: started.wasRunning,
        locked: value.locked,
        started_at: value.started_at,
      }
      printFacts(args, facts, human(started, home.socket, home.log))
      if (value.locked) warn('the keys are locked; to open them: pylon unlock')
      await sayWhichIsMeant(network)
    },
  })

function sayRunning({ status }: Started, asked: string | undefined): void {
  if (asked !== undefined && asked !== status.value.mode) {
    warn(`it runs in mode ${status.value.mode}; to change that: pylon restart --mode ${asked}`)
  }
}

/** With two nodes, whom a command means that names none. */
async function sayWhichIsMeant(started: 'sandbox' | 'live'): Promise<void> {
  const [live, sandbox] = homesOf({ sandbox: false })
  const other = started === 'live' ? sandbox : live
  const { statusIfRunning } = await import('../../daemon/launch/start.ts')
  // Whatever keeps the other from answering is not what was asked about.
  const isUp = other !== undefined && (await statusIfRunning(other.home).catch(() => undefined)) !== undefined
  if (!isUp) return
  warn(
    started === 'live'
      ? 'a sandbox node runs too: commands mean this live node now, and real sats; with --sandbox they mean the sandbox'
      : 'the live node runs too, and commands mean it, with real sats: add --sandbox to mean this one',
  )
}

function human({ wasRunning, status: { value, network } }: Started, socket: string, log: string): string {
  const since = wasRunning ? ` since ${rfc3339(Date.parse(value.started_at))}` : ''
  return [
    `Pylon ${wasRunning ? 'is already running' : 'is running'}${since} (pid ${value.pid}, mode ${value.mode}${network === 'sandbox' ? ', sandbox: play money' : ''}).`,
    `  socket  ${socket}`,
    `  log     ${log}`,
    ...(value.identity === null ? [] : [`  key     ${value.identity.npub}`]),
    ...(wasRunning ? [] : ['Look at it with: pylon status']),
  ].join('\n')
}
