/** argv to role: cli, daemon, sandbox or guest. The only file that exits the process. */
import { VERSION } from './base/version.ts'

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
  return await runCli(argv)
}

void main(process.argv.slice(2)).then((code) => {
  process.exitCode = code
})
