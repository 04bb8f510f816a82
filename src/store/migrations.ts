/** Numbered, forward-only migrations: each one transaction with its version bump, after a backup of what was there; all in one for a new database. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Database } from 'better-sqlite3'
import { assetPath } from '../base/assets.ts'
import { PylonError } from '../base/errors.ts'

export interface Migration {
  readonly number: number
  readonly name: string
  readonly sql: string
}

export const readMigrations = (dir: string = assetPath('migrations')): Migration[] =>
  readdirSync(dir)
    .filter((name) => /^\d{3}_[a-z_]+\.sql$/.test(name))
    .sort()
    .map((name, index) => {
      const number = Number(name.slice(0, 3))
      if (number !== index + 1) throw new PylonError('internal', `Migration ${name} is out of order.`)
      return { number, name, sql: readFileSync(join(dir, name), 'utf8') }
    })

export const schemaVersion = (db: Database): number => Number(db.pragma('user_version', { simple: true }))

/** @throws database_newer when a later Pylon wrote this database. */
export function assertNotNewer(db: Database, migrations: readonly Migration[]): void {
  const at = schemaVersion(db)
  if (at > migrations.length) {
    throw new PylonError(
      'database_newer',
      `The database is at schema ${at} and this Pylon knows ${migrations.length}: install the newer version again, or restore a backup made by this one.`,
    )
  }
}

export function migrate(db: Database, path: string, migrations: readonly Migration[]): void {
  assertNotNewer(db, migrations)
  const from = schemaVersion(db)
  if (from === migrations.length) return
  if (from > 0 && path !== ':memory:') backupBefore(db, `${path}.pre-${from}`)
  const steps = migrations.slice(from)
  // A new database is made whole or not at all, with one commit: nobody needs its older forms.
  for (const together of from === 0 ? [steps] : steps.map((step) => [step])) {
    db.transaction(() => {
      for (const { sql, number } of together) {
        db.exec(sql)
        db.pragma(`user_version = ${number}`)
      }
    }).immediate()
  }
}

function backupBefore(db: Database, target: string): void {
  if (existsSync(target)) rmSync(target)
  db.prepare('VACUUM INTO ?').run(target)
}
