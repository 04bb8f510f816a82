/** How far each relay was read for each subscription, by our own clock. */
import { defineCommand } from '../commands.ts'
import { int } from '../row.ts'
import type { Store } from '../store.ts'

export interface Cursor {
  readonly relay: string
  readonly name: string
  /** Milliseconds since the epoch: all that the relay had until then was handled. */
  readonly reachedAt: number
}

/** Moves cursors forward, many at once. None ever goes back, but for those that lie ahead of `at` (ms): our clock was wrong then. */
export const putCursors = defineCommand('put_cursors', (sql, p: { cursors: readonly Cursor[]; at: number }) => {
  const statement = sql(
    `INSERT INTO cursors (relay, name, reached_at) VALUES (?, ?, ?) ON CONFLICT (relay, name)
     DO UPDATE SET reached_at = CASE WHEN reached_at > ? THEN excluded.reached_at ELSE MAX(reached_at, excluded.reached_at) END`,
  )
  for (const cursor of p.cursors) {
    statement.run(cursor.relay, cursor.name, BigInt(Math.floor(cursor.reachedAt)), BigInt(Math.floor(p.at)))
  }
})

/** Of subscriptions that are no more: all whose names begin so. */
export const forgetCursors = defineCommand('forget_cursors', (sql, p: { namePrefix: string }) => {
  sql('DELETE FROM cursors WHERE name >= ? AND name < ?').run(p.namePrefix, `${p.namePrefix}\u{10ffff}`)
})

export function cursorOf(store: Store, relay: string, name: string): number | undefined {
  const row = store.sql('SELECT reached_at FROM cursors WHERE relay = ? AND name = ?').get(relay, name)
  return row === undefined ? undefined : int(row, 'reached_at')
}
