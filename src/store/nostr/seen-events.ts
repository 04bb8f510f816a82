/** Claims on incoming events: an id is acted on once, whatever relays and restarts deliver. */
import { defineCommand, defineSweep, type Sql } from '../commands.ts'
import { isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, table } from '../table.ts'

const seenEvents = table('seen_events', { eventId: column.text(), subscription: column.text(), seenAt: column.int() })

/** Claims an event (or rumor) id. False when it was claimed before: then do nothing. */
export const claimEvent = defineCommand('claim_event', claimWith)

/** `claimEvent` for use inside another command's handler, so that claim and act are one. */
export function claimWith(sql: Sql, p: { id: string; subscription: string; at: number }): boolean {
  return seenEvents.insert(sql, { eventId: p.id, subscription: p.subscription, seenAt: p.at }, 'ON CONFLICT (event_id) DO NOTHING')
}

export const sweepSeenEvents = defineSweep('sweep_seen_events', 'seen_events', 'event_id', 'seen_at')

/** Whether an id is claimed: for who can save itself work, since only a claim is sure. */
export const wasSeen = (store: Store, id: string): boolean => isThere(store.sql, 'SELECT 1 FROM seen_events WHERE event_id = ?', id)
