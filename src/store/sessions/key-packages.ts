/** Key packages that a key has published, with what opens welcomes to them. */
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const keyPackages = table('session_key_packages', {
  owner: column.text(),
  /** KeyPackageRef, hex. */
  ref: column.text(),
  eventId: column.text(),
  legacyEventId: column.text(),
  slot: column.text(),
  publicBytes: column.bytes('public'),
  privateBytes: column.bytes('private'),
  relays: column.json<readonly string[]>('relays_json'),
  /** Unix seconds. */
  notAfter: column.int(),
  uses: column.int(),
  createdAt: column.int(),
  replacedAt: column.orNull(column.int()),
})

export type KeyPackageRow = RowOfTable<typeof keyPackages>

/** The new one stands in the place of all others of its key. */
export const insertKeyPackage = defineCommand('insert_session_key_package', (sql, p: KeyPackageRow) => {
  sql('UPDATE session_key_packages SET replaced_at = ? WHERE owner = ? AND replaced_at IS NULL').run(BigInt(p.createdAt), p.owner)
  keyPackages.insert(sql, p)
})

export const useKeyPackage = defineCommand('use_session_key_package', (sql, p: { owner: string; ref: string }) => {
  sql('UPDATE session_key_packages SET uses = uses + 1 WHERE owner = ? AND ref = ?').run(p.owner, p.ref)
})

export const currentKeyPackage = (store: Store, owner: string): KeyPackageRow | undefined =>
  keyPackages.all(store.sql, 'WHERE owner = ? AND replaced_at IS NULL', owner)[0]

export const keyPackageByRef = (store: Store, owner: string, ref: string): KeyPackageRow | undefined =>
  keyPackages.get(store.sql, { owner, ref })

/** What was replaced before a time (ms) opens nothing any more. @returns how many went */
export const sweepKeyPackages = defineCommand('sweep_session_key_packages', (sql, p: { owner: string; before: number }): number => {
  return sql('DELETE FROM session_key_packages WHERE owner = ? AND replaced_at < ?').run(p.owner, BigInt(p.before)).changes
})
