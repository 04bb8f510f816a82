/** Ownership of a home: an exclusive SQLite transaction held for life. The kernel drops it however the holder dies. */
import Sqlite, { type Database } from 'better-sqlite3'
import { addonError } from '../../base/assets.ts'
import { messageOf, PylonError } from '../../base/errors.ts'

/**
 * Held until `release`. Nothing in this process may open the file again: closing any other descriptor of it would drop
 * the POSIX lock under us.
 */
export interface Lease {
  release(): void
}

/** How long who wants to keep the lease waits for it. */
export const LEASE_WAIT_MS = 400

/**
 * @param waitMs for those who mean to keep it: others look for a moment whether it is free (`isHomeFree`), which must not pass for a node.
 * @throws already_running when another process holds it, home_unusable when the file can't be made.
 */
export function acquireLease(path: string, waitMs = 0): Lease {
  let db: Database | undefined
  try {
    db = new Sqlite(path, { timeout: waitMs })
    // With the rollback journal, the default of a new file: under WAL this lock would let readers in.
    db.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    db?.close()
    const code = String((error as { code?: unknown }).code)
    if (code.startsWith('SQLITE_BUSY'))
      throw new PylonError(
        'already_running',
        `Another process holds ${path}: a node that runs or just starts (pylon status), or a program that has the file open.`,
      )
    throw (
      addonError(error) ??
      new PylonError('home_unusable', `The lease ${path} can't be taken (${messageOf(error)}): check rights and free space.`, {
        cause: error,
      })
    )
  }
  const held = db
  return { release: () => held.close() }
}
