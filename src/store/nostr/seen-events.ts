/** Claims on incoming events: an id is acted on once, whatever relays and restarts deliver. */
import { defineCommand, type Sql } from '../commands.ts'
import type { Store } from '../store.ts'

/** Claims an event (or rumor) id. False when it was claimed before: then do nothing. */
export const claimEvent = defineCommand('claim_event', claimWith)

/** `claimEvent` for use inside another command's handler, so that claim and act are one. */
export function claimWith(sql: Sql, p: { id: string; subscription: string; at: number }): boolean {
  return (
    sql('INSERT INTO seen_events (event_id, subscription, seen_at) VALUES (?, ?, ?) ON CONFLICT (event_id) DO NOTHING').run(
      p.id,
      p.subscription,
      BigInt(p.at),
    ).changes > 0
  )
}

/** Forgets claims from before a time (ms); at most `limit` rows a call, so that the loop is not held. Returns how many went. */
export const sweepSeenEvents = defineCommand('sweep_seen_events', (sql, p: { before: number; limit: number }): number => {
  return sql('DELETE FROM seen_events WHERE event_id IN (SELECT event_id FROM seen_events WHERE seen_at < ? LIMIT ?)').run(
    BigInt(p.before),
    BigInt(p.limit),
  ).changes
})

/** Whether an id is claimed: for who can save itself work, since only a claim is sure. */
export function wasSeen(store: Store, id: string): boolean {
  return store.sql('SELECT 1 FROM seen_events WHERE event_id = ?').get(id) !== undefined
}
