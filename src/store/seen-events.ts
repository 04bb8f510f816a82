/** Claims on incoming events: an id is acted on once, whatever relays and restarts deliver. */
import { defineCommand } from './commands.ts'

/** Claims an event (or rumor) id. False when it was claimed before: then do nothing. Compose it into the write that acts. */
export const claimEvent = defineCommand('claim_event', (sql, p: { id: string; subscription: string; at: number }): boolean => {
  const result = sql('INSERT INTO seen_events (event_id, subscription, seen_at) VALUES (?, ?, ?) ON CONFLICT (event_id) DO NOTHING').run(
    p.id,
    p.subscription,
    BigInt(p.at),
  )
  return result.changes > 0
})

/** Forgets claims from before a time (ms); at most `limit` rows a call, so that the loop is not held. Returns how many went. */
export const sweepSeenEvents = defineCommand('sweep_seen_events', (sql, p: { before: number; limit: number }): number => {
  return sql('DELETE FROM seen_events WHERE event_id IN (SELECT event_id FROM seen_events WHERE seen_at < ? LIMIT ?)').run(
    BigInt(p.before),
    BigInt(p.limit),
  ).changes
})
