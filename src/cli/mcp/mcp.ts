/** `pylon mcp`: the node's tools for an MCP client, over standard input and output. */
import { howToStart } from '../../base/advice.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand, homesOf, stoppedHome } from '../command.ts'
import { flagOption, textOption } from '../options.ts'
import type { Roles } from '../roles.ts'
import { one, wholeNumberIf } from '../terminal/values.ts'
import { installCommand } from './install.ts'

const PER_CALL_SATS = 100
const PER_SESSION_SATS = 1000

export const mcpCommand = (roles: Roles) =>
  defineCommand({
    command: 'mcp',
    describe: 'Give an assistant (any MCP client) the tools of the node, over stdio',
    builder: (yargs) =>
      yargs
        .command(installCommand)
        .usage('Usage: $0 mcp [--owner | --agent NAME]\n\nServes tools over standard input and output. docs/mcp.md says more.')
        .option('owner', flagOption('Act as you (the default), within the limits below'))
        .option('agent', textOption('Act as this agent alone, by its policy and within its budget'))
        .option('socket', { type: 'string', nargs: 1, hidden: true })
        .option('max-sats-per-call', textOption(`As owner: the most that one call may spend (${PER_CALL_SATS})`))
        .option('max-sats-per-session', textOption(`As owner: the most until the client ends the server (${PER_SESSION_SATS})`)),
    handler: async (args) => {
      if (args.owner && args.agent !== undefined) throw new PylonError('usage', '--owner and --agent exclude each other.')
      const limits = {
        perCallSats: wholeNumberIf(args.maxSatsPerCall, '--max-sats-per-call', 0) ?? PER_CALL_SATS,
        perSessionSats: wholeNumberIf(args.maxSatsPerSession, '--max-sats-per-session', 0) ?? PER_SESSION_SATS,
      }
      const agent = args.agent === undefined ? {} : { agent: one(args.agent, '--agent') }
      // Of the hands of a brain: it knows no other.
      const sockets = args.socket === undefined ? homesOf(args).map(({ home }) => home.socket) : [one(args.socket, '--socket')]
      process.exitCode = await roles.mcp({ sockets, howToStart: howToStart(stoppedHome(args).network), limits, ...agent })
    },
  })
