/**
 * What goes through all of a database: whether its file is whole, whether its books agree, whether its audit log was changed. A
 * large one takes minutes, so a worker thread does it on a connection of its own.
 */
import { existsSync } from 'node:fs'
import { assetPath } from '../base/assets.ts'
import { TaskWorker } from '../base/task-worker.ts'
import { type AuditVerdict, verifyAudit } from './money/audit.ts'
import { auditLedger, type LedgerAudit } from './money/ledger.ts'
import { text } from './row.ts'
import { Store } from './store.ts'

/** What can be asked, each of the database at a path, and what is said. */
export interface Inspections {
  readonly file: { readonly in: string; readonly out: FileVerdict }
  readonly ledger: { readonly in: string; readonly out: LedgerAudit }
  readonly auditLog: { readonly in: string; readonly out: AuditVerdict }
}

/** What SQLite says is wrong with the file, five findings at most, and how many rows point to nothing. */
export interface FileVerdict {
  readonly damage: readonly string[]
  readonly orphans: number
}

const INSPECTIONS: { readonly [K in keyof Inspections]: (store: Store) => Inspections[K]['out'] | Promise<Inspections[K]['out']> } = {
  file: (store) => {
    const rows = store.sql('PRAGMA integrity_check(5)').all()
    const damage = rows.map((row) => text(row, 'integrity_check')).filter((words) => words !== 'ok')
    return { damage, orphans: store.sql('PRAGMA foreign_key_check').all().length }
  },
  ledger: auditLedger,
  auditLog: verifyAudit,
}

/** Inside the worker: on a connection of its own, which reads only. */
export async function inspectAt(what: keyof Inspections, path: string): Promise<Inspections[keyof Inspections]['out']> {
  const store = Store.open(path, { readonly: true })
  try {
    return await INSPECTIONS[what](store)
  } finally {
    store.close()
  }
}

/** @param workerPath the bundled worker; without it, and for a database in memory, it is done here. */
export async function inspect<K extends keyof Inspections>(
  store: Store,
  what: K,
  workerPath = assetPath('inspection-worker.cjs'),
): Promise<Inspections[K]['out']> {
  if (store.isInMemory || !existsSync(workerPath)) return await INSPECTIONS[what](store)
  const worker = new TaskWorker<Inspections>(workerPath, 'inspection')
  try {
    return await worker.run(what, store.path)
  } finally {
    await worker.close('it is done')
  }
}
