/** What is to be published: a message once, a delivery for each of its relays. */
import { defineCommand, type Row, type Sql } from './commands.ts'
import { int, json, text } from './row.ts'
import type { Store } from './store.ts'

/** An event as the outbox keeps it: with `sig` when it was signed by a key that is not ours to sign with again. */
export interface StoredEvent {
  readonly id: string
  readonly pubkey: string
  readonly created_at: number
  readonly kind: number
  readonly tags: readonly (readonly string[])[]
  readonly content: string
  readonly sig?: string
}

export interface NewOutboxMessage {
  readonly key: string
  readonly event: StoredEvent
  readonly relays: readonly string[]
  /** Milliseconds since the epoch. */
  readonly notAfter: number
  readonly at: number
}

export type DeliveryState = 'pending' | 'accepted' | 'rejected' | 'expired' | 'superseded'

const isReplaced = (kind: number): boolean =>
  kind === 0 || kind === 3 || (kind >= 10_000 && kind < 20_000) || (kind >= 30_000 && kind < 40_000)

/** Puts a message out. False, and nothing done, when this key and event id were put out before. A newer revision of a replaceable event takes the place of the older ones of its key. */
export const enqueueEvent = defineCommand('enqueue_event', enqueueWith, (p: NewOutboxMessage) => `enqueue_event:${p.key}`)

/** `enqueueEvent` for use inside another command's handler. */
export function enqueueWith(sql: Sql, p: NewOutboxMessage): boolean {
  const { key, event, relays, notAfter, at } = p
  const inserted = sql(
    'INSERT INTO outbox_messages (key, event_id, kind, event, not_after, created_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key, event_id) DO NOTHING',
  ).run(key, event.id, BigInt(event.kind), JSON.stringify(event), BigInt(Math.floor(notAfter)), BigInt(at))
  if (inserted.changes === 0) return false
  const id = BigInt(inserted.lastInsertRowid)
  if (isReplaced(event.kind)) supersedeOlder(sql, key, id)
  const deliver = sql('INSERT INTO outbox_deliveries (message_id, relay) VALUES (?, ?) ON CONFLICT DO NOTHING')
  for (const relay of relays) deliver.run(id, relay)
  return true
}

function supersedeOlder(sql: Sql, key: string, id: bigint): void {
  sql(
    `UPDATE outbox_deliveries SET state = 'superseded' WHERE state = 'pending' AND message_id IN (SELECT id FROM outbox_messages WHERE key = ? AND id < ?)`,
  ).run(key, id)
}

/** A message with those of its relays that are still to be reached. */
export interface PendingMessage {
  readonly id: number
  readonly key: string
  readonly event: StoredEvent
  readonly notAfter: number
  readonly deliveries: readonly { readonly relay: string; readonly attempts: number; readonly nextAt: number }[]
}

const PENDING_COLUMNS = 'm.id, m.key, m.event, m.not_after, d.relay, d.attempts, d.next_at'

/** Messages after `afterId` with pending deliveries, oldest first, of at most `limit` deliveries. */
export function pendingAfter(store: Store, afterId: number, limit: number): PendingMessage[] {
  const rows = store
    .sql(
      `SELECT ${PENDING_COLUMNS} FROM outbox_messages m JOIN outbox_deliveries d ON d.message_id = m.id
         WHERE m.id > ? AND d.state = 'pending' ORDER BY m.id LIMIT ?`,
    )
    .all(BigInt(afterId), BigInt(limit))
  const messages = groupPending(rows)
  // The limit may have cut the last message's relays: leave it to the next call.
  if (rows.length === limit && messages.length > 1) messages.pop()
  return messages
}

/** Messages after `afterId` that wait for one relay. */
export function pendingFor(store: Store, relay: string, afterId: number, limit: number): PendingMessage[] {
  return groupPending(
    store
      .sql(
        `SELECT ${PENDING_COLUMNS} FROM outbox_deliveries d JOIN outbox_messages m ON m.id = d.message_id
         WHERE d.relay = ? AND d.state = 'pending' AND d.message_id > ? ORDER BY d.message_id LIMIT ?`,
      )
      .all(relay, BigInt(afterId), BigInt(limit)),
  )
}

function groupPending(rows: readonly Row[]): PendingMessage[] {
  const messages: { id: number; key: string; event: StoredEvent; notAfter: number; deliveries: PendingMessage['deliveries'][number][] }[] =
    []
  for (const row of rows) {
    const id = int(row, 'id')
    let message = messages.at(-1)
    if (message === undefined || message.id !== id) {
      message = { id, key: text(row, 'key'), event: json<StoredEvent>(row, 'event'), notAfter: int(row, 'not_after'), deliveries: [] }
      messages.push(message)
    }
    message.deliveries.push({ relay: text(row, 'relay'), attempts: int(row, 'attempts'), nextAt: int(row, 'next_at') })
  }
  return messages
}

export interface DeliveryOutcome {
  readonly messageId: number
  readonly relay: string
  readonly state: DeliveryState
  readonly attempts: number
  readonly error: string | null
  /** When to try again (ms); only for `pending`. */
  readonly nextAt: number
}

/** Records what became of deliveries, many at once. Returns the ids of messages that were accepted for the first time. */
export const recordDeliveries = defineCommand(
  'record_deliveries',
  (sql, p: { outcomes: readonly DeliveryOutcome[]; at: number }): number[] => {
    const update = sql(
      `UPDATE outbox_deliveries SET state = ?, attempts = ?, last_error = ?, next_at = ? WHERE message_id = ? AND relay = ? AND state = 'pending'`,
    )
    const accept = sql('UPDATE outbox_messages SET accepted_at = ? WHERE id = ? AND accepted_at IS NULL')
    const first: number[] = []
    for (const outcome of p.outcomes) {
      const id = BigInt(outcome.messageId)
      update.run(outcome.state, BigInt(outcome.attempts), outcome.error, BigInt(Math.floor(outcome.nextAt)), id, outcome.relay)
      if (outcome.state === 'accepted' && accept.run(BigInt(p.at), id).changes > 0) first.push(outcome.messageId)
    }
    return first
  },
)

export const markNotified = defineCommand('mark_notified', (sql, p: { messageIds: readonly number[] }) => {
  const statement = sql('UPDATE outbox_messages SET notified = 1 WHERE id = ?')
  for (const id of p.messageIds) statement.run(BigInt(id))
})

/** Accepted messages whose key begins so and whose acceptance nobody was told of. */
export function unnotified(store: Store, keyPrefix: string, limit: number): { id: number; key: string; eventId: string }[] {
  return store
    .sql(
      `SELECT id, key, event_id FROM outbox_messages
       WHERE notified = 0 AND accepted_at IS NOT NULL AND key >= ? AND key < ? ORDER BY key LIMIT ?`,
    )
    .all(keyPrefix, `${keyPrefix}\u{10ffff}`, BigInt(limit))
    .map((row) => ({ id: int(row, 'id'), key: text(row, 'key'), eventId: text(row, 'event_id') }))
}

/** Deliveries that nobody wants any more: their message's not_after has passed. Returns how many. */
export const expireDeliveries = defineCommand('expire_deliveries', (sql, p: { now: number }): number => {
  return sql(
    `UPDATE outbox_deliveries INDEXED BY outbox_pending SET state = 'expired'
     WHERE state = 'pending' AND (SELECT not_after FROM outbox_messages m WHERE m.id = message_id) < ?`,
  ).run(BigInt(p.now)).changes
})

/** Forgets finished messages from before a time (ms), at most `limit` a call. Returns how many went. */
export const sweepOutbox = defineCommand('sweep_outbox', (sql, p: { before: number; limit: number }): number => {
  return sql(
    `DELETE FROM outbox_messages WHERE id IN (
       SELECT m.id FROM outbox_messages m WHERE m.created_at < ?
       AND NOT EXISTS (SELECT 1 FROM outbox_deliveries d WHERE d.message_id = m.id AND d.state = 'pending') LIMIT ?)`,
  ).run(BigInt(p.before), BigInt(p.limit)).changes
})

/** How many deliveries wait for each relay. */
export function outboxDepths(store: Store): Map<string, number> {
  const rows = store.sql(`SELECT relay, COUNT(*) AS depth FROM outbox_deliveries WHERE state = 'pending' GROUP BY relay`).all()
  return new Map(rows.map((row) => [text(row, 'relay'), int(row, 'depth')]))
}

/** The id of the newest message; 0 when there is none. */
export function lastMessageId(store: Store): number {
  const row = store.sql('SELECT COALESCE(MAX(id), 0) AS id FROM outbox_messages').get()
  return row === undefined ? 0 : int(row, 'id')
}

/** What became of a message on each relay: only tests ask. */
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
      relay: text(row, 'relay'),
      eventId: text(row, 'event_id'),
      state: text(row, 'state'),
      attempts: int(row, 'attempts'),
      error: row['last_error'],
    }))
}
