/** Ownership of a home: an exclusive SQLite transaction held for life. The kernel drops it however the holder dies. */
import Sqlite, { type Database } from 'better-sqlite3'
import { messageOf, PylonError } from '../base/errors.ts'

/**
 * Held until `release`. Nothing in this process may open the file again: closing any other descriptor of it would drop
 * the POSIX lock under us.
 */
export interface Lease {
  release(): void
}

/** @throws already_running when another process holds it, home_unusable when the file can't be made. */
export function acquireLease(path: string): Lease {
  let db: Database | undefined
  try {
    db = new Sqlite(path, { timeout: 0 })
    db.pragma('journal_mode = DELETE')
    db.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    db?.close()
    const code = String((error as { code?: unknown }).code)
    if (code.startsWith('SQLITE_BUSY')) throw new PylonError('already_running', `Another process holds ${path}: pylon status shows it.`)
    throw new PylonError('home_unusable', `The lease ${path} can't be taken (${messageOf(error)}): check rights and free space.`, {
      cause: error,
    })
  }
  const held = db
  return { release: () => held.close() }
}
