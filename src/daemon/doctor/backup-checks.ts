/** Whether scheduled backups are made, and the last one is still there. */
import { statSync } from 'node:fs'
import { rfc3339 } from '../../base/clock.ts'
import { backupLog } from '../backup/backup-log.ts'
import { backupsHealth } from '../backup/scheduled-backups.ts'
import type { ReadServices } from '../services.ts'
import { type Check, ok, skipped, warning } from './check.ts'

export function checkBackups(read: ReadServices): Check {
  const { store } = read
  const health = backupsHealth(store, read.config())
  if (health.state === 'off') return skipped('backups', 'None are made by the clock.', health.nextStep ?? 'pylon backup FILE')
  const last = backupLog(store).made.at(-1)
  const made = last === undefined ? 'None was made yet.' : `The last is of ${rfc3339(last.at)}: ${last.file}.`
  if (health.state !== 'ok') return warning('backups', `${health.reason} ${made}`, 'Mend what it names; it is tried again by itself.')
  if (last !== undefined && statSync(last.file, { throwIfNoEntry: false })?.size !== last.bytes) {
    return warning('backups', `${made} That file is gone or was changed.`, 'pylon backup FILE, and see to its folder')
  }
  return ok('backups', made)
}
