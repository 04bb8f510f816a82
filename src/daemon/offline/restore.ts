/** Puts a backup into a home that no node holds: checked first, what was there is moved aside, never deleted. */
import { existsSync, mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { rfc3339, systemClock } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { all } from '../../store/commands.ts'
import { endUnusedBunkerGrants } from '../../store/nostr/bunker.ts'
import { breakGroups } from '../../store/sessions/groups.ts'
import { putSetting } from '../../store/settings.ts'
import { RESTORED_AT_KEY } from '../../wallet/operations/restores.ts'
import type { Key } from '../backup/age.ts'
import { withScratch } from '../backup/scratch.ts'
import { identityIn, keyNeededFor, openUnpacked, unpackBackup } from './read-backup.ts'
import { withHome } from './with-home.ts'

export interface Restored {
  readonly npub: string
  readonly createdAt: string
  /** Where the former files went. */
  readonly movedTo: string | undefined
}

/**
 * @param key of an encrypted one
 * @throws restore_refused, backup_damaged, passphrase_wrong, database_newer, database_corrupt, already_running; then nothing was touched
 */
export async function restoreHome(order: {
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly from: string
  readonly key?: Key | undefined
  readonly force: boolean
}): Promise<Restored> {
  const { home, network, from, key, force } = order
  // Before a home is made for it.
  keyNeededFor(from)
  return await withHome(home, async () => {
    const isUsed = existsSync(home.database) || existsSync(home.identity)
    if (isUsed && !force) {
      throw new PylonError('restore_refused', `There is a node in ${home.dir} already: --force moves it aside first, then restores.`)
    }
    return await withScratch(home, systemClock.now(), async (staging) => {
      const { created_at: createdAt } = await unpackBackup(from, staging, key, network)
      const { npub } = identityIn(staging, from)
      await ageDatabase(staging, from)
      const movedTo = isUsed ? moveAside(home) : undefined
      putInPlace(staging, home)
      return { npub, createdAt, movedTo }
    })
  })
}

/** The database knows from here on that it is old: the wallets ask their mints before they spend. */
async function ageDatabase(staging: string, from: string): Promise<void> {
  const store = openUnpacked(staging, from)
  try {
    const at = systemClock.now()
    // What encrypted a message after the backup would encrypt another: sessions begin anew.
    await store.write(all(putSetting({ key: RESTORED_AT_KEY, value: at, at }), breakGroups(), endUnusedBunkerGrants({ at })))
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
