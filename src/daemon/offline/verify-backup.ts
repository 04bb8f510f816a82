/** Proves that a backup would come back: restores it into a scratch folder, looks at all of it, and removes that. */
import { statSync } from 'node:fs'
import type { Sats } from '../../base/amounts.ts'
import { systemClock } from '../../base/clock.ts'
import type { Home } from '../../base/paths.ts'
import { readIdentity } from '../../nostr/keys/identity.ts'
import { verifyAudit } from '../../store/money/audit.ts'
import { heldValue } from '../../store/money/held-value.ts'
import { auditLedger } from '../../store/money/ledger.ts'
import { countOf, text } from '../../store/row.ts'
import type { Store } from '../../store/store.ts'
import { damaged, type Key } from '../backup/age.ts'
import { withScratch } from '../backup/scratch.ts'
import { identityIn, openUnpacked, unpackBackup } from './read-backup.ts'

export interface Verified {
  readonly npub: string
  /** Whether it is of the node of this home; undefined where the home has none. */
  readonly isOwn: boolean | undefined
  readonly createdAt: string
  /** Of the Pylon that wrote it. */
  readonly version: string
  readonly bytes: number
  /** How many rows each table holds that holds any. */
  readonly rows: Readonly<Record<string, number>>
  readonly balanceSats: Sats
}

/** @throws backup_damaged, passphrase_wrong, restore_refused, database_corrupt, database_newer, usage */
export async function verifyBackup(home: Home, network: 'sandbox' | 'live', from: string, key: Key | undefined): Promise<Verified> {
  return await withScratch(home, systemClock.now(), async (dir) => {
    const { created_at: createdAt, version } = await unpackBackup(from, dir, key, network)
    const { npub } = identityIn(dir, from)
    const own = readIdentity(home.identity)?.npub
    const store = openUnpacked(dir, from)
    try {
      const audit = auditLedger(store)
      if (!audit.ok) throw damaged(`its books do not agree (${audit.problems[0]})`)
      const log = await verifyAudit(store)
      if (!log.ok) throw damaged(`row ${log.row} of its audit log was changed (${log.problem})`)
      const isOwn = own === undefined ? undefined : own === npub
      return { npub, isOwn, createdAt, version, bytes: statSync(from).size, rows: rowsOf(store), balanceSats: heldValue(store).balanceSats }
    } finally {
      store.close()
    }
  })
}

function rowsOf(store: Store): Record<string, number> {
  const tables = store.sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name").all()
  const counted = tables
    .map((row) => text(row, 'name'))
    .map((name) => [name, countOf(store.sql, `SELECT COUNT(*) FROM "${name}"`)] as const)
  return Object.fromEntries(counted.filter(([, rows]) => rows > 0))
}
