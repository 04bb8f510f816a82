/** Alerts as they stand: kept, so that a restart tells nothing twice. */
import type { AlertKind } from '../../base/alert-kinds.ts'
import type { AlertState } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const alerts = table('alerts', {
  /** Kind and what it is about. */
  key: column.text(),
  kind: column.text<AlertKind>(),
  words: column.text(),
  state: column.text<AlertState>(),
  /** Milliseconds since the epoch, as the next. */
  since: column.int(),
  changedAt: column.int(),
  told: column.flag(),
})
export type AlertRow = RowOfTable<typeof alerts>

/** Puts these rows in the place of what stood under their keys. */
export const saveAlerts = defineCommand('save_alerts', (sql, p: { rows: readonly AlertRow[]; gone: readonly string[] }) => {
  for (const key of [...p.gone, ...p.rows.map((row) => row.key)]) sql('DELETE FROM alerts WHERE key = ?').run(key)
  for (const row of p.rows) alerts.insert(sql, row)
})

export const listAlerts = (store: Store): AlertRow[] => alerts.all(store.sql, 'ORDER BY since, key')
