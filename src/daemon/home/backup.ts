/** A backup is one private folder: a consistent copy of the database, the identity and the configuration. It contains the keys. */
import { existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import type { Home } from '../../base/paths.ts'
import { VERSION } from '../../base/version.ts'
import type { Store } from '../../store/store.ts'

const MANIFEST = 'pylon-backup.json'

/** What a backup folder holds, relative to it. */
export const BACKUP_FILES = { manifest: MANIFEST, database: 'pylon.db', identity: 'identity.json', config: 'config.toml' } as const

/**
 * Writes the folder whole or not at all.
 * @returns its size in bytes. @throws backup_failed when something is there already or can't be written
 */
export async function writeBackup(home: Home, network: 'sandbox' | 'live', store: Store, target: string, at: string): Promise<number> {
  if (existsSync(target)) throw new PylonError('backup_failed', `There is something at ${target} already: name a path that does not exist.`)
  const fresh = join(dirname(target), `.${basename(target)}.${process.pid}.tmp`)
  try {
    mkdirSync(fresh, { mode: 0o700 })
    await store.backup(join(fresh, BACKUP_FILES.database))
    copyPrivate(home.identity, join(fresh, BACKUP_FILES.identity))
    copyPrivate(home.config, join(fresh, BACKUP_FILES.config))
    const manifest = { format: 1, version: VERSION, network, created_at: at }
    writeFileAtomic(join(fresh, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`)
    renameSync(fresh, target)
  } catch (error) {
    if (existsSync(fresh)) rmSync(fresh, { recursive: true, force: true })
    if (isPylonError(error)) throw error
    throw new PylonError('backup_failed', `The backup could not be written to ${target}: ${messageOf(error)}`, { cause: error })
  }
  return Object.values(BACKUP_FILES).reduce((sum, name) => sum + (statSync(join(target, name), { throwIfNoEntry: false })?.size ?? 0), 0)
}

function copyPrivate(from: string, to: string): void {
  const text = readFileIfAny(from)
  if (text !== undefined) writeFileAtomic(to, text)
}
