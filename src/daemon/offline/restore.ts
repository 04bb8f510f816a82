/** Puts a backup into a home that no node holds: checked first, what was there is moved aside, never deleted. */
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { rfc3339, systemClock } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import type { Home } from '../../base/paths.ts'
import { readIdentity } from '../../nostr/keys/identity.ts'
import { all } from '../../store/commands.ts'
import { text } from '../../store/row.ts'
import { breakGroups } from '../../store/sessions/groups.ts'
import { putSetting } from '../../store/settings.ts'
import { Store } from '../../store/store.ts'
import { RESTORED_AT_KEY } from '../../wallet/operations/restores.ts'
import { BACKUP_FILES } from '../home/backup.ts'
import { withHome } from './with-home.ts'

const manifestSchema = z.object({ format: z.literal(1), version: z.string(), network: z.enum(['sandbox', 'live']), created_at: z.string() })

export interface Restored {
  readonly npub: string
  readonly createdAt: string
  /** Where the former files went. */
  readonly movedTo: string | undefined
}

/** @throws restore_refused, database_newer, database_corrupt, already_running */
export async function restoreHome(home: Home, network: 'sandbox' | 'live', from: string, force: boolean): Promise<Restored> {
  const manifest = readManifest(from, network)
  return await withHome(home, async () => {
    const isUsed = existsSync(home.database) || existsSync(home.identity)
    if (isUsed && !force) {
      throw new PylonError('restore_refused', `There is a node in ${home.dir} already: --force moves it aside first, then restores.`)
    }
    const staging = join(home.dir, `restore.${process.pid}.tmp`)
    try {
      await stage(from, staging)
      const identity = readIdentity(join(staging, BACKUP_FILES.identity))
      if (identity === undefined) throw new PylonError('restore_refused', `The backup at ${from} has no identity: it is not complete.`)
      const movedTo = isUsed ? moveAside(home) : undefined
      putInPlace(staging, home)
      return { npub: identity.npub, createdAt: manifest.created_at, movedTo }
    } finally {
      rmSync(staging, { recursive: true, force: true })
    }
  })
}

function readManifest(from: string, network: 'sandbox' | 'live'): z.infer<typeof manifestSchema> {
  const parsed = manifestSchema.safeParse(parseJson(manifestText(from)))
  if (!parsed.success) throw new PylonError('restore_refused', `${from} is not a folder that pylon backup wrote.`)
  if (parsed.data.network !== network) {
    const hint = parsed.data.network === 'sandbox' ? 'add --sandbox' : 'leave --sandbox away'
    throw new PylonError('restore_refused', `The backup is of a ${parsed.data.network} node: ${hint}.`)
  }
  return parsed.data
}

function manifestText(from: string): string {
  try {
    return readFileIfAny(join(from, BACKUP_FILES.manifest)) ?? ''
  } catch (error) {
    throw new PylonError('restore_refused', `The backup at ${from} can't be read: ${messageOf(error)}`, { cause: error })
  }
}

/** A copy that opens, is whole, is brought to our schema, and knows that it is old: the wallets ask their mints before they spend. */
async function stage(from: string, staging: string): Promise<void> {
  const database = join(staging, BACKUP_FILES.database)
  try {
    mkdirSync(staging, { mode: 0o700 })
    copyFileSync(join(from, BACKUP_FILES.database), database)
    for (const name of [BACKUP_FILES.identity, BACKUP_FILES.config]) {
      const content = readFileIfAny(join(from, name))
      if (content !== undefined) writeFileAtomic(join(staging, name), content)
    }
  } catch (error) {
    throw new PylonError('restore_refused', `The backup at ${from} can't be copied: ${messageOf(error)}`, { cause: error })
  }
  const store = Store.open(database)
  try {
    const [row] = store.sql('PRAGMA integrity_check(1)').all()
    const verdict = row === undefined ? 'no answer' : text(row, 'integrity_check')
    if (verdict !== 'ok') throw new PylonError('database_corrupt', `The database in ${from} is damaged (${verdict}): use another backup.`)
    const at = systemClock.now()
    // What encrypted a message after the backup would encrypt another: sessions begin anew.
    await store.write(all(putSetting({ key: RESTORED_AT_KEY, value: at, at }), breakGroups()))
  } finally {
    store.close()
  }
}

function filesOf(home: Home): string[] {
  return [home.identity, home.config, home.database, `${home.database}-wal`, `${home.database}-shm`]
}

function moveAside(home: Home): string {
  const target = join(home.dir, `before-restore-${rfc3339(systemClock.now()).replace(/[:.]/g, '-')}`)
  mkdirSync(target, { mode: 0o700 })
  for (const path of filesOf(home)) {
    if (existsSync(path)) renameSync(path, join(target, path.slice(home.dir.length + 1)))
  }
  return target
}

/** The database last: without it the home is not taken for a node, and the restore can be repeated. */
function putInPlace(staging: string, home: Home): void {
  for (const path of [home.config, home.identity, home.database]) {
    const staged = join(staging, path.slice(home.dir.length + 1))
    if (existsSync(staged)) renameSync(staged, path)
  }
}
