/** What the database holds of messages on their way. */
import type { Store } from '../../src/store/store.ts'

/** What became of a message on each relay. */
export function deliveriesOf(
  store: Store,
  key: string,
): { relay: string; eventId: string; state: string; attempts: number; error: unknown }[] {
  return store
    .sql(
      `SELECT d.relay, m.event_id, d.state, d.attempts, d.last_error FROM outbox_deliveries d JOIN outbox_messages m ON m.id = d.message_id
       WHERE m.key = ? ORDER BY m.id, d.relay`,
    )
    .all(key)
    .map((row) => ({
      relay: String(row['relay']),
      eventId: String(row['event_id']),
      state: String(row['state']),
      attempts: Number(row['attempts']),
      error: row['last_error'],
    }))
}
