/** `pylon daemon`: the node in the foreground, for supervisors and containers. */
import { defineCommand, homeOf } from '../command.ts'
import type { Roles } from '../roles.ts'
import { addRunFlags, runOptionsOf } from './run-flags.ts'

export const daemonCommand = (roles: Roles) =>
  defineCommand({
    command: 'daemon',
    describe: 'Run the node in the foreground (systemd, containers)',
    builder: (yargs) =>
      addRunFlags(yargs)
        .option('detached', { type: 'boolean', default: false, hidden: true })
        .option('key-fd', { type: 'number', hidden: true }),
    handler: async (args) => {
      const { home, network } = homeOf(args)
      const keyFd = args.keyFd === undefined ? {} : { keyFd: args.keyFd }
      process.exitCode = await roles.daemon({ home, network, run: runOptionsOf(args), isDetached: args.detached, ...keyFd })
    },
  })
