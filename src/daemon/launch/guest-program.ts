/** This program in its guest role, and what a runtime must be able to read to run it. */
import { realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isSea } from 'node:sea'
import type { GuestProgram } from '../../runtime/local/enclosure.ts'
import { selfCommand } from './self-command.ts'

export function guestProgram(): GuestProgram {
  const { command, args } = selfCommand(['guest'])
  const executable = realpathSync(command)
  if (isSea()) return { command: executable, args, readOnlyPaths: [executable] }
  const script = realpathSync(process.argv[1] ?? '')
  // A bundle stands alone in its folder; the source needs its whole tree and the packages.
  const root = dirname(dirname(script))
  const fromSource = basename(script) === 'main.ts'
  const readOnlyPaths = fromSource ? [executable, root, realpathSync(join(root, 'node_modules'))] : [executable, dirname(script)]
  return { command: executable, args: args.map((arg) => (arg === process.argv[1] ? script : arg)), readOnlyPaths }
}
