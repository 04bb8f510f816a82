/** A home with an identity, settings and some sats, and what makes backups of it that are quick to open. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ManualClock } from '../../../../src/base/clock.ts'
import { type Home, homeAt } from '../../../../src/base/paths.ts'
import type { Lock } from '../../../../src/daemon/backup/age.ts'
import { writeBackup } from '../../../../src/daemon/backup/write-backup.ts'
import { createIdentity } from '../../../../src/nostr/keys/identity.ts'
import { putSetting } from '../../../../src/store/settings.ts'
import type { Store } from '../../../../src/store/store.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

/** scrypt as quick as it gets: the real factor is for the command line's own test. */
export const QUICK = 4
export const PASSPHRASE = { passphrase: 'correct horse' }

export interface BackedUp {
  readonly home: Home
  readonly npub: string
  readonly store: Store
  /** A folder outside of the home. */
  readonly dir: string
  backup(name?: string, lock?: Lock, from?: Store): Promise<string>
}

export async function makeHome(): Promise<BackedUp> {
  const dir = tempDir()
  const home = homeAt(join(dir, 'home'))
  const clock = new ManualClock()
  mkdirSync(home.dir, { mode: 0o700 })
  const { identity } = await createIdentity(home.identity, clock, {})
  writeFileSync(home.config, '[node]\nname = "Ada"\n')
  const store = openStore(home.database)
  // More than one piece of age's, so that order and end matter.
  await store.write(putSetting({ key: 'filling', value: 'x'.repeat(200_000), at: 1 }))
  const backup = async (name = 'a.age', lock: Lock = PASSPHRASE, from = store) => {
    const target = join(dir, name)
    await writeBackup({ home, network: 'live', store: from, target, lock, nowMs: clock.now(), workFactor: QUICK })
    return target
  }
  return { home, npub: identity.npub, store, dir, backup }
}

/** The files of a folder that a restore could touch. */
export const contentsOf = (dir: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== 'lease.db')
      .map(({ name }) => [name, readFileSync(join(dir, name)).toString('base64')]),
  )
