/**
 * A daemon that is the first process of a container (PID 1) inherits every orphan in it, and Node ends only children of its own: what
 * others left would stay as zombies. So it puts a small shell in its place, which starts it again, passes signals on and reaps the rest.
 */
import { accessSync, constants } from 'node:fs'
import { selfCommand } from './self-command.ts'

const SHELL = '/bin/sh'

/** Waits until the daemon itself has ended; a wait that a signal cut short begins anew. Its exit code is the container's. */
const SCRIPT = `
exec 3<&0
"$@" <&3 3<&- &
child=$!
for name in TERM INT HUP QUIT USR1 USR2; do trap "kill -s $name $child 2>/dev/null" $name; done
code=0
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
wait $child 2>/dev/null; last=$?
[ $last = 127 ] || code=$last
exit $code
`

/** Does not return where it took its place; elsewhere there is nothing to do, or nothing to do it with. */
export function stepBehindShell(args: readonly string[]): void {
  if (process.pid !== 1 || process.platform === 'win32' || process.execve === undefined) return
  try {
    accessSync(SHELL, constants.X_OK)
  } catch {
    // An image without a shell: the node runs as well, and orphans of others stay.
    return
  }
  const self = selfCommand(args)
  const env = Object.fromEntries(Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined))
  process.execve(SHELL, [SHELL, '-c', SCRIPT, 'pylon', self.command, ...self.args], env)
}
