/** The processes of one runtime, told by a secret mark in their environment: nothing else is ever signalled. */
import { readdirSync, readFileSync } from 'node:fs'
import type { Clock } from '../../base/clock.ts'
import { identifyProcess, isSameProcess, type ProcessIdentity } from '../../base/process-identity.ts'

export const MARK_VARIABLE = 'PYLON_RUNTIME_MARKER'

const POLL_MS = 25
/** Between SIGTERM and SIGKILL. */
const STOP_GRACE_MS = 5000
/** After SIGKILL: a process in uninterruptible sleep is waited for no longer. */
const KILL_GRACE_MS = 5000

/** Living processes whose environment holds the mark, by their own start time: a number used again is another process. */
export function findMarked(mark: string): ProcessIdentity[] {
  const entry = Buffer.from(`${MARK_VARIABLE}=${mark}\0`)
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      if (!environmentOf(name).includes(entry)) return []
      const identity = identifyProcess(Number(name))
      // Again, now that the start time is known: the number may have passed to another in between.
      return identity.start_time !== null && environmentOf(name).includes(entry) ? [identity] : []
    })
}

function environmentOf(pid: string): Buffer {
  try {
    return readFileSync(`/proc/${pid}/environ`)
  } catch {
    // Ended, or of another user: not ours.
    return Buffer.alloc(0)
  }
}

/**
 * Asks all of them to end, then ends them.
 * @param quell before they are killed: keeps those that fork from being ahead of it for ever
 * @returns whether none is left
 */
export async function endMarked(
  mark: string,
  clock: Clock,
  graceMs = STOP_GRACE_MS,
  quell: () => void = () => undefined,
): Promise<boolean> {
  // bubblewrap would go at once and take its sandbox with it: the outermost of what is inside is asked, and asks the rest.
  const inside = findMarked(mark).filter((identity) => statOf(identity.pid).name !== 'bwrap')
  const pids = new Set(inside.map((identity) => identity.pid))
  signal(
    inside.filter((identity) => !pids.has(statOf(identity.pid).parent)),
    'SIGTERM',
  )
  if (await noneLeft(mark, clock, inside.length > 0 ? graceMs : 0)) return true
  quell()
  return await killMarked(mark, clock)
}

async function killMarked(mark: string, clock: Clock): Promise<boolean> {
  const until = clock.now() + KILL_GRACE_MS
  do {
    // Again each time: what was forked between the look and the signal carries the mark as well.
    signal(findMarked(mark), 'SIGKILL')
    if (await noneLeft(mark, clock, POLL_MS * 4)) return true
  } while (clock.now() < until)
  return false
}

async function noneLeft(mark: string, clock: Clock, graceMs: number): Promise<boolean> {
  const until = clock.now() + graceMs
  let known = findMarked(mark)
  while (known.length > 0) {
    if (clock.now() >= until) return false
    await clock.sleep(POLL_MS)
    // The whole system is looked through only when all that was known has ended.
    if (!known.some(isSameProcess)) known = findMarked(mark)
  }
  return true
}

function signal(identities: readonly ProcessIdentity[], name: NodeJS.Signals): void {
  for (const identity of identities) {
    if (!isSameProcess(identity)) continue
    try {
      process.kill(identity.pid, name)
    } catch {
      // Ended in between.
    }
  }
}

function statOf(pid: number): { name: string; parent: number } {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const end = stat.lastIndexOf(')')
    return { name: stat.slice(stat.indexOf('(') + 1, end), parent: Number(stat.slice(end + 2).split(' ')[1]) }
  } catch {
    return { name: '', parent: 0 }
  }
}
