/** What the node remembers of its scheduled backups; status, doctor and alerts read it. */
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'

export interface MadeBackup {
  /** The absolute path. */
  readonly file: string
  readonly bytes: number
  readonly at: number
}

export interface BackupLog {
  /** Claimed before it is written: what became of it is seen from the file. */
  readonly pending: { readonly file: string; readonly at: number } | null
  /** Those that are kept, the oldest first. */
  readonly made: readonly MadeBackup[]
  /** Since the last one that was made. */
  readonly failure: { readonly at: number; readonly message: string } | null
}

const KEY = 'scheduled_backups'
/** Files that can't be deleted any more are forgotten one day, never the newest. */
const MAX_MADE = 2000

export function backupLog(store: Store): BackupLog {
  return getSetting<BackupLog>(store, KEY) ?? { pending: null, made: [], failure: null }
}

export async function noteBackups(store: Store, log: BackupLog, at: number): Promise<void> {
  await store.write(putSetting({ key: KEY, value: { ...log, made: log.made.slice(-MAX_MADE) }, at }))
}
