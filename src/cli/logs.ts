/** `pylon logs`: the daemon's log for people; also while the node is stopped. */
import { isPylonError, PylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'
import { nodeRoutes } from '../control/contract/node.ts'
import { defineCommand, stoppedHome, streamNode } from './command.ts'
import { plain, print, warn } from './output.ts'

export const logsCommand = defineCommand({
  command: 'logs',
  describe: 'Show the log',
  builder: (yargs) =>
    yargs
      .option('follow', { type: 'boolean', default: false, alias: 'f', describe: 'Go on with what is written from now on' })
      .option('lines', { type: 'number', default: 100, alias: 'n', requiresArg: true, describe: 'How many of the last lines' }),
  handler: async (args) => {
    if (!Number.isInteger(args.lines) || args.lines < 0 || args.lines > 100_000)
      throw new PylonError('usage', '-n takes a number from 0 to 100000.')
    let isEmpty = true
    for await (const line of linesOf(args)) {
      print(args.json ? stringify(line) : human(line))
      isEmpty = false
    }
    if (isEmpty && args.lines > 0) warn('there is no log yet; pylon start writes one')
  },
})

async function* linesOf(args: { sandbox: boolean; follow: boolean; lines: number }): AsyncGenerator<Record<string, unknown>> {
  const input = { lines: String(args.lines), ...(args.follow ? { follow: 'true' as const } : {}) }
  try {
    yield* streamNode(args, nodeRoutes.logs, input)
  } catch (error) {
    if (!isPylonError(error, 'not_running')) throw error
    const { readLog } = await import('../daemon/offline/read-log.ts')
    yield* readLog(stoppedHome(args).home.log, args.lines, args.follow, new AbortController().signal)
  }
}

function human(line: Record<string, unknown>): string {
  const { level, time, msg, ...rest } = line
  const fields = Object.entries(rest).map(([name, value]) => `${name}=${typeof value === 'string' ? value : stringify(value)}`)
  return plain(
    [time, level === undefined ? undefined : String(level).toUpperCase().padEnd(5), msg, ...fields]
      .filter((part) => part !== undefined)
      .join(' '),
  )
}
