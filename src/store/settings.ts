/** Small values that must outlive the process: JSON by key. */

import { defineCommand } from './commands.ts'
import { json } from './row.ts'
import type { Store } from './store.ts'

export const putSetting = defineCommand('put_setting', (sql, p: { key: string; value: unknown; at: number }) => {
  sql(
    'INSERT INTO settings (key, value, updated_at) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at',
  ).run(p.key, JSON.stringify(p.value), BigInt(p.at))
})

export function getSetting<T>(store: Store, key: string): T | undefined {
  const row = store.sql('SELECT value FROM settings WHERE key = ?').get(key)
  return row === undefined ? undefined : json<T>(row, 'value')
}
