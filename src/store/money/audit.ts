/**
 * The audit log: what was spent, approved and changed about money, each row with a hash of itself and of the row before. It is
 * written in the commit of what it tells, by the command that does it. Who changes or takes out a row must change all after it.
 */
import { hash } from 'node:crypto'
import { stringify } from '../../base/json.ts'
import { defineCommand, type Sql } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

type AuditKind =
  | 'spend'
  | 'approval_asked'
  | 'approval_decided'
  | 'policy_changed'
  | 'key_exported'
  | 'connection_changed'
  | 'payout_changed'

const log = table('audit_log', {
  id: column.int(),
  /** Milliseconds since the epoch. */
  at: column.int(),
  kind: column.text<AuditKind>(),
  /** As it was hashed. */
  data: column.text('data_json'),
  previous: column.text(),
  hash: column.text(),
})
type AuditRow = RowOfTable<typeof log>

interface AuditEntry {
  readonly at: number
  readonly kind: AuditKind
  /** No secret: it is shown and backed up. */
  readonly data: Readonly<Record<string, unknown>>
}

/** What the first row follows. */
const BEGINNING = '0'.repeat(64)

const hashOf = ({ id, at, kind, data, previous }: Omit<AuditRow, 'hash'>): string =>
  hash('sha256', JSON.stringify([previous, id, at, kind, data]))

/** Part of the commit of what it tells. */
export function appendAudit(sql: Sql, { at, kind, data }: AuditEntry): void {
  const last = log.all(sql, 'ORDER BY id DESC LIMIT 1')[0]
  const row = { id: (last?.id ?? 0) + 1, at: Math.floor(at), kind, data: stringify(data), previous: last?.hash ?? BEGINNING }
  log.insert(sql, { ...row, hash: hashOf(row) })
}

export const writeAudit = defineCommand('write_audit', (sql, entry: AuditEntry) => appendAudit(sql, entry))

export type AuditVerdict =
  | { readonly ok: true; readonly rows: number }
  | { readonly ok: false; readonly row: number; readonly problem: string }

/** Newest first. */
export const recentAudit = (store: Store, limit: number): AuditRow[] => log.all(store.sql, 'ORDER BY id DESC LIMIT ?', BigInt(limit))

const PAGE = 1000

/** Holds every row against its hash and the one before, some at a time. What was cut off the end is not seen. */
export async function verifyAudit(store: Store): Promise<AuditVerdict> {
  let before: Pick<AuditRow, 'id' | 'hash'> = { id: 0, hash: BEGINNING }
  for (;;) {
    const rows = log.all(store.sql, 'WHERE id > ? ORDER BY id LIMIT ?', BigInt(before.id), BigInt(PAGE))
    for (const row of rows) {
      const problem = problemOf(row, before)
      if (problem !== undefined) return { ok: false, row: row.id, problem }
      before = row
    }
    if (rows.length < PAGE) return { ok: true, rows: before.id }
    // Others have their turn between two pages.
    await Promise.resolve()
  }
}

function problemOf(row: AuditRow, before: Pick<AuditRow, 'id' | 'hash'>): string | undefined {
  if (row.id !== before.id + 1) return `row ${before.id + 1} is missing`
  if (row.previous !== before.hash) return 'it does not follow the row before it'
  if (hashOf(row) !== row.hash) return 'its content is not what was written'
  return undefined
}
