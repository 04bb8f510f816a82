/** How far each relay was read for each subscription, by our own clock. */
import { defineCommand } from './commands.ts'
import { int } from './row.ts'
import type { Store } from './store.ts'

export interface Cursor {
  readonly relay: string
  readonly name: string
  /** Milliseconds since the epoch: all that the relay had until then was handled. */
  readonly reachedAt: number
}

/** Moves cursors forward, many at once; none ever goes back. */
export const putCursors = defineCommand('put_cursors', (sql, p: { cursors: readonly Cursor[] }) => {
  const statement = sql(
    'INSERT INTO cursors (relay, name, reached_at) VALUES (?, ?, ?) ON CONFLICT (relay, name) DO UPDATE SET reached_at = MAX(reached_at, excluded.reached_at)',
  )
  for (const cursor of p.cursors) statement.run(cursor.relay, cursor.name, BigInt(Math.floor(cursor.reachedAt)))
})

export function cursorOf(store: Store, relay: string, name: string): number | undefined {
  const row = store.sql('SELECT reached_at FROM cursors WHERE relay = ? AND name = ?').get(relay, name)
  return row === undefined ? undefined : int(row, 'reached_at')
}
