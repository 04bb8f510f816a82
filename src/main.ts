/** argv to role: cli, daemon, sandbox or guest. The only file that exits the process. */
import { VERSION } from './base/version.ts'

if (process.argv[2] === '--version') {
  process.stdout.write(`${VERSION}\n`)
} else {
  process.stderr.write('Usage: pylon --version\n')
  process.exitCode = 2
}
