/** argv to role: cli, daemon, sandbox, mcp or guest. The only file that exits the process. */
import { toPylonError } from './base/errors.ts'
import { stringify } from './base/json.ts'
import { VERSION } from './base/version.ts'
import type { Roles } from './cli/roles.ts'

const roles: Roles = {
  async daemon(options) {
    const { stepBehindShell } = await import('./daemon/launch/first-process.ts')
    stepBehindShell(process.argv.slice(2))
    const { runDaemon } = await import('./daemon/daemon.ts')
    return await runDaemon(options)
  },
  async sandbox(options) {
    const { runSandbox } = await import('./sandbox/sandbox.ts')
    const { createLogger } = await import('./base/logger.ts')
    const { logger } = createLogger({ stream: process.stderr })
    try {
      const { close, ...urls } = await runSandbox({ ...options, logger })
      const line = {
        relay_url: urls.relayUrl,
        mint_url: urls.mintUrl,
        lnurl_base_url: urls.lnurlBaseUrl,
        version: VERSION,
        pid: process.pid,
      }
      process.stdout.write(`${stringify(line)}\n`)
      await endOfSandbox()
      await close()
      return 0
    } catch (error) {
      process.stdout.write(`${stringify(toPylonError(error))}\n`)
      return 1
    }
  },
  async mcp(options) {
    const { serveMcp } = await import('./mcp/serve.ts')
    return await serveMcp(options)
  },
}

/** A signal, or the end of the node that started us (its IPC channel closes however it dies). */
function endOfSandbox(): Promise<void> {
  return new Promise((resolve) => {
    for (const event of ['SIGTERM', 'SIGINT', 'disconnect'] as const) process.once(event, () => resolve())
    process.channel?.ref()
  })
}

async function main(argv: readonly string[]): Promise<number> {
  // The one answer that needs no module loaded.
  if (argv.length === 1 && argv[0] === '--version') {
    process.stdout.write(`${VERSION}\n`)
    return 0
  }
  if (argv[0] === 'guest') {
    const { runGuest } = await import('./guest/guest.ts')
    return await runGuest(argv.slice(1))
  }
  const { runCli } = await import('./cli/cli.ts')
  return await runCli(argv, roles)
}

// Whatever any role creates is private. A reader of our output that has gone is no fault of ours; a disk that is full ends no
// node, but an answer that could not be written is not given.
process.umask(0o077)
// Nor is what somebody exported for other programs to run in any child of ours.
delete process.env['NODE_OPTIONS']
let unwritten: Error | undefined
process.stderr.on('error', () => undefined)
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') unwritten = error
})

void main(process.argv.slice(2)).then((code) => {
  // The callback comes once what was printed has left, also through a slow pipe; an error of it comes right after.
  process.stdout.write('', () =>
    setImmediate(() => {
      if (unwritten !== undefined) process.stderr.write(`pylon: the output could not be written: ${unwritten.message}\n`)
      process.exit(unwritten === undefined || code !== 0 ? code : 1)
    }),
  )
})
