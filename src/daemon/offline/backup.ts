/** Backs up a home that no node holds. */
import { existsSync } from 'node:fs'
import { rfc3339, systemClock } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { Store } from '../../store/store.ts'
import { writeBackup } from '../home/backup.ts'

/** @returns bytes. @throws backup_failed */
export async function backupStoppedHome(home: Home, network: 'sandbox' | 'live', target: string): Promise<number> {
  if (!existsSync(home.database)) throw new PylonError('backup_failed', `There is nothing to back up in ${home.dir} yet.`)
  const store = Store.open(home.database, { readonly: true })
  try {
    return await writeBackup(home, network, store, target, rfc3339(systemClock.now()))
  } finally {
    store.close()
  }
}
