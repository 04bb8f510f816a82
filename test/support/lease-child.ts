/** Takes the lease at argv[2], says so, and holds it until its stdin ends. */
import { acquireLease } from '../../src/daemon/home/lease.ts'

try {
  const lease = acquireLease(process.argv[2] ?? '')
  process.stdout.write('held\n')
  process.stdin.on('end', () => lease.release()).resume()
} catch (error) {
  process.stdout.write(`${(error as { code?: string }).code}\n`)
}
