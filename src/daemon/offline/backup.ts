/** Backs up a home that no node holds. */
import { existsSync } from 'node:fs'
import { systemClock } from '../../base/clock.ts'
import { loadConfig } from '../../base/config.ts'
import { PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { Store } from '../../store/store.ts'
import { type AskedLock, lockFor } from '../backup/backup-lock.ts'
import { writeBackup } from '../backup/write-backup.ts'

/** @returns bytes. @throws backup_failed, usage */
export async function backupStoppedHome(home: Home, network: 'sandbox' | 'live', target: string, asked: AskedLock): Promise<number> {
  if (!existsSync(home.database)) throw new PylonError('backup_failed', `There is nothing to back up in ${home.dir} yet.`)
  const lock = lockFor(asked, loadConfig(home.config))
  const store = Store.open(home.database, { readonly: true })
  try {
    return await writeBackup({ home, network, store, target, lock, nowMs: systemClock.now() })
  } finally {
    store.close()
  }
}
