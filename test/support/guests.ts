/** The guests of a rig's local runtimes, as processes of this machine. */
import { readdirSync, readFileSync } from 'node:fs'
import type { Rig } from './rig.ts'

/** Guest and enclosure alike: whatever was started as a guest and names the folder of the rig. */
export function guestsOf(rig: Rig): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        return command.split('\0').includes('guest') && command.includes(rig.dir)
      } catch {
        // Gone meanwhile.
        return false
      }
    })
    .map(Number)
}
