/** Which process a PID means: a number is used again, a start time within one boot is not. */
import { readFileSync } from 'node:fs'

export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks since boot (/proc/<pid>/stat field 22); null where the system has no /proc. */
  readonly start_time: string | null
  readonly boot_id: string | null
}

export function identifyProcess(pid: number): ProcessIdentity {
  return { pid, start_time: startTimeOf(pid), boot_id: bootId() }
}

/** Whether that very process is alive. What can't be proven is not: nothing is signalled on a guess. */
export function isSameProcess(recorded: ProcessIdentity): boolean {
  return (
    recorded.start_time !== null &&
    recorded.boot_id !== null &&
    recorded.boot_id === bootId() &&
    recorded.start_time === startTimeOf(recorded.pid)
  )
}

function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The name in parentheses may hold spaces and parentheses itself: count from the last one. State is field 3.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    // A zombie has ended; only its parent has not looked yet.
    return fields[0] === 'Z' ? null : (fields[19] ?? null)
  } catch {
    return null
  }
}

/** The id of this boot of the system, or null where it has none. */
export function bootId(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return null
  }
}
