/** `pylon logs`: the daemon's log for people; also while the node is stopped. */
import { isPylonError } from '../../base/errors.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { defineCommand, stoppedHome, streamNode } from '../command.ts'
import { limitOption } from '../options.ts'
import { json, plain, print, readerGone, warn } from '../terminal/output.ts'
import { wholeNumberIf } from '../terminal/values.ts'

export const logsCommand = defineCommand({
  command: 'logs',
  describe: 'Show the log',
  builder: (yargs) =>
    yargs
      .option('follow', { type: 'boolean', default: false, alias: 'f', describe: 'Go on with what is written from now on' })
      .option('lines', limitOption('How many of the last lines (100)')),
  handler: async (args) => {
    const lines = wholeNumberIf(args.lines, '--lines', 0, 100_000) ?? 100
    const gone = readerGone()
    let isEmpty = true
    for await (const line of linesOf({ ...args, lines }, gone)) {
      if (gone.aborted) return
      print(args.json ? json(line) : human(line))
      isEmpty = false
    }
    if (isEmpty && lines > 0) warn('there is no log yet; pylon start writes one')
  },
})

async function* linesOf(
  args: { sandbox: boolean; follow: boolean; lines: number },
  gone: AbortSignal,
): AsyncGenerator<Record<string, unknown>> {
  const input = { lines: String(args.lines), ...(args.follow ? { follow: 'true' as const } : {}) }
  try {
    yield* streamNode(args, nodeRoutes.logs, input, { signal: gone })
  } catch (error) {
    if (gone.aborted) return
    if (!isPylonError(error, 'not_running')) throw error
    const { readLog } = await import('../../daemon/offline/read-log.ts')
    yield* readLog(stoppedHome(args).home.log, args.lines, args.follow, gone)
  }
}

function human(line: Record<string, unknown>): string {
  const { level, time, msg, ...rest } = line
  const fields = Object.entries(rest).map(([name, value]) => `${name}=${typeof value === 'string' ? value : json(value)}`)
  return plain(
    [time, level === undefined ? undefined : String(level).toUpperCase().padEnd(5), msg, ...fields]
      .filter((part) => part !== undefined)
      .join(' '),
  )
}
