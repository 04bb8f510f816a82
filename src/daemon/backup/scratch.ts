/** Private folders in a home for what is only needed for a moment. What a killed process left of them goes at the next use. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Home } from '../../base/paths.ts'

const PREFIX = 'scratch.'
/** Longer than any of them is in use. */
const LEFT_MS = 24 * 3600 * 1000

/** A folder that is gone when `work` has ended. On the disk of the home: a database may be larger than what /tmp holds. */
export async function withScratch<T>(home: Home, nowMs: number, work: (dir: string) => Promise<T>): Promise<T> {
  mkdirSync(home.dir, { recursive: true, mode: 0o700 })
  sweepScratch(home, nowMs)
  const dir = mkdtempSync(join(home.dir, `${PREFIX}${process.pid}.`))
  try {
    return await work(dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function sweepScratch(home: Home, nowMs: number): void {
  for (const name of readdirSync(home.dir)) {
    if (!name.startsWith(PREFIX)) continue
    const path = join(home.dir, name)
    if (!isOfRunning(name) || nowMs - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) > LEFT_MS) {
      rmSync(path, { recursive: true, force: true })
    }
  }
}

/** Its process, or another that has its number by now: then its age decides. */
function isOfRunning(name: string): boolean {
  return existsSync(`/proc/${name.slice(PREFIX.length).split('.')[0]}`) || !existsSync('/proc/self')
}
