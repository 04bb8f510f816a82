/** What is to be published: a message once, a delivery for each of its relays. */
import { defineCommand, defineSweep, type Sql } from '../commands.ts'
import { countOf, int, isThere, text, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection, table } from '../table.ts'

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
  /** What a gift wrap holds, as it was sealed for the recipient: a wrap that is refused for its date is made again of it. */
  readonly seal?: StoredEvent
}

const messages = table('outbox_messages', {
  key: column.text(),
  eventId: column.text(),
  kind: column.int(),
  event: column.json<StoredEvent>(),
  seal: column.orNull(column.json<StoredEvent>()),
  notAfter: column.int(),
  createdAt: column.int(),
})

export type DeliveryState = 'pending' | 'accepted' | 'rejected' | 'expired' | 'superseded'

const isReplaced = (kind: number): boolean =>
  kind === 0 || kind === 3 || (kind >= 10_000 && kind < 20_000) || (kind >= 30_000 && kind < 40_000)

/**
 * Puts a message out. False, and nothing done, when this key and event id were put out before. A newer revision of a replaceable
 * event takes the place of the older ones of its key. Without a relay it is given up at once, and whoever listens is told so.
 */
export const enqueueEvent = defineCommand('enqueue_event', enqueueWith, (p: NewOutboxMessage) => `enqueue_event:${p.key}`)

/** `enqueueEvent` for use inside another command's handler. */
export function enqueueWith(sql: Sql, p: NewOutboxMessage): boolean {
  const { relays, at, ...message } = p
  const { key, event } = message
  const row = { ...message, eventId: event.id, kind: event.kind, createdAt: at }
  if (!messages.insert(sql, row, 'ON CONFLICT (key, event_id) DO NOTHING')) return false
  const id = BigInt(countOf(sql, 'SELECT last_insert_rowid()'))
  if (isReplaced(event.kind)) supersedeOlder(sql, key, id)
  const deliver = sql('INSERT INTO outbox_deliveries (message_id, relay) VALUES (?, ?) ON CONFLICT DO NOTHING')
  for (const relay of relays) deliver.run(id, relay)
  if (relays.length === 0) giveUp(sql, [Number(id)], at)
  return true
}

function supersedeOlder(sql: Sql, key: string, id: bigint): void {
  sql(
    `UPDATE outbox_deliveries SET state = 'superseded' WHERE state = 'pending' AND message_id IN (SELECT id FROM outbox_messages WHERE key = ? AND id < ?)`,
  ).run(key, id)
}

const pendings = new Selection({
  id: column.int(),
  key: column.text(),
  event: column.json<StoredEvent>(),
  seal: column.orNull(column.json<StoredEvent>()),
  notAfter: column.int(),
  delivery: column.group({ relay: column.text(), attempts: column.int(), nextAt: column.int() }),
})
type Pending = RowOfTable<typeof pendings>

/** A message with those of its relays that are still to be reached. */
export type PendingMessage = Omit<Pending, 'delivery'> & { readonly deliveries: readonly Pending['delivery'][] }

const PENDING_COLUMNS = 'm.id, m.key, m.event, m.seal, m.not_after, d.relay, d.attempts, d.next_at'

/** Messages after `afterId` with pending deliveries, oldest first, of at most `limit` deliveries. */
export function pendingAfter(store: Store, afterId: number, limit: number): PendingMessage[] {
  const rows = pendings.all(
    store.sql,
    `SELECT ${PENDING_COLUMNS} FROM outbox_messages m JOIN outbox_deliveries d ON d.message_id = m.id
     WHERE m.id > ? AND d.state = 'pending' ORDER BY m.id LIMIT ?`,
    BigInt(afterId),
    BigInt(limit),
  )
  const found = groupPending(rows)
  // The limit may have cut the last message's relays: leave it to the next call.
  return rows.length === limit && found.length > 1 ? found.slice(0, -1) : found
}

/** Messages after `afterId` that wait for one relay. */
export const pendingFor = (store: Store, relay: string, afterId: number, limit: number): PendingMessage[] =>
  groupPending(
    pendings.all(
      store.sql,
      `SELECT ${PENDING_COLUMNS} FROM outbox_deliveries d JOIN outbox_messages m ON m.id = d.message_id
       WHERE d.relay = ? AND d.state = 'pending' AND d.message_id > ? ORDER BY d.message_id LIMIT ?`,
      relay,
      BigInt(afterId),
      BigInt(limit),
    ),
  )

const groupPending = (rows: readonly Pending[]): PendingMessage[] =>
  [...Map.groupBy(rows, ({ id }) => id).values()].flatMap(([first, ...more]) => {
    if (first === undefined) return []
    const { delivery, ...message } = first
    return { ...message, deliveries: [delivery, ...more.map((row) => row.delivery)] }
  })

export interface DeliveryOutcome {
  readonly messageId: number
  readonly relay: string
  readonly state: DeliveryState
  readonly attempts: number
  readonly error: string | null
  /** Of a refusal: one of a few words, to count by. */
  readonly reason?: string
  /** When to try again (ms); only for `pending`. */
  readonly nextAt: number
}

export interface GivenUp {
  readonly id: number
  /** What each relay said. */
  readonly why: string
}

/** Records what became of deliveries, many at once. Returns the messages that were accepted for the first time, and those that no relay will take. */
export const recordDeliveries = defineCommand(
  'record_deliveries',
  (sql, p: { outcomes: readonly DeliveryOutcome[]; at: number }): { accepted: number[]; givenUp: GivenUp[] } => {
    // What was said last stays, when all there is to add is that the time is over.
    const update = sql(
      `UPDATE outbox_deliveries SET state = ?, attempts = ?, last_error = coalesce(?, last_error), next_at = ?
       WHERE message_id = ? AND relay = ? AND state = 'pending'`,
    )
    const accept = sql('UPDATE outbox_messages SET accepted_at = ? WHERE id = ? AND accepted_at IS NULL')
    const accepted: number[] = []
    const over = new Set<number>()
    for (const { messageId, relay, state, attempts, error, reason, nextAt } of p.outcomes) {
      const id = BigInt(messageId)
      const { changes } = update.run(state, BigInt(attempts), error, BigInt(Math.floor(nextAt)), id, relay)
      if (state === 'accepted' && accept.run(BigInt(p.at), id).changes > 0) accepted.push(messageId)
      if (state === 'rejected' && changes > 0) countRefusal(sql, { relay, reason: reason ?? 'other', words: error ?? '', at: p.at })
      if (state === 'rejected' || state === 'expired') over.add(messageId)
    }
    return { accepted, givenUp: giveUp(sql, [...over], p.at) }
  },
)

/** Those of the messages that no relay has taken or will take; a message whose place a newer revision took is none of them. */
function giveUp(sql: Sql, ids: readonly number[], at: number): GivenUp[] {
  const statement = sql(
    `UPDATE outbox_messages SET given_up_at = ?, given_up_why = coalesce(
         (SELECT substr(group_concat(relay || ': ' || coalesce(last_error, 'not taken in time'), '; '), 1, 500)
            FROM outbox_deliveries d WHERE d.message_id = outbox_messages.id),
         'there is no relay to send it to')
       WHERE id = ? AND accepted_at IS NULL AND given_up_at IS NULL AND NOT EXISTS (
         SELECT 1 FROM outbox_deliveries d WHERE d.message_id = outbox_messages.id AND d.state IN ('pending', 'accepted', 'superseded'))
       RETURNING given_up_why, kind`,
  )
  const late = sql("SELECT relay, last_error FROM outbox_deliveries WHERE message_id = ? AND state = 'expired'")
  const given: GivenUp[] = []
  for (const id of ids) {
    const row = statement.get(BigInt(at), BigInt(id))
    if (row === undefined) continue
    given.push({ id, why: text(row, 'given_up_why') })
    const kind = int(row, 'kind')
    if (kind >= 20_000 && kind < 30_000) continue
    for (const one of late.all(BigInt(id))) {
      countRefusal(sql, { relay: text(one, 'relay'), reason: 'not-taken-in-time', words: String(one['last_error'] ?? ''), at })
    }
  }
  return given
}

function countRefusal(sql: Sql, p: { relay: string; reason: string; words: string; at: number }): void {
  const { relay, reason, at } = p
  refusals.insert(
    sql,
    { relay, reason, events: 1, firstAt: at, lastAt: at, words: p.words.slice(0, 300) },
    'ON CONFLICT (relay, reason) DO UPDATE SET events = events + 1, last_at = excluded.last_at, words = excluded.words',
  )
}

const refusals = table('outbox_refusals', {
  relay: column.text(),
  reason: column.text(),
  events: column.int(),
  firstAt: column.int(),
  lastAt: column.int(),
  /** What the relay said last. */
  words: column.text(),
})
export type Refusals = RowOfTable<typeof refusals>

/** What relays refused, by relay and reason, the newest first. */
export const listRefusals = (store: Store, limit: number): Refusals[] =>
  refusals.all(store.sql, 'ORDER BY last_at DESC, relay, reason LIMIT ?', BigInt(limit))

/** Messages given up since a time (ms), but for those that only count while somebody listens. */
export const countGivenUp = (store: Store, since: number): number =>
  countOf(store.sql, 'SELECT count(*) AS n FROM outbox_messages WHERE given_up_at > ? AND (kind < 20000 OR kind >= 30000)', BigInt(since))

export const sweepRefusals = defineSweep('sweep_refusals', 'outbox_refusals', 'relay, reason', 'last_at')

/** Puts another event in the place of a message's own: those relays that have not taken it yet get the new one. */
export const remakeMessage = defineCommand('remake_message', (sql, p: { messageId: number; event: StoredEvent }) => {
  sql('UPDATE outbox_messages SET event_id = ?, event = ? WHERE id = ?').run(p.event.id, JSON.stringify(p.event), BigInt(p.messageId))
})

export const markNotified = defineCommand('mark_notified', (sql, p: { messageIds: readonly number[] }) => {
  const statement = sql('UPDATE outbox_messages SET notified = 1 WHERE id = ?')
  for (const id of p.messageIds) statement.run(BigInt(id))
})

const ended = new Selection({
  id: column.int(),
  key: column.text(),
  eventId: column.text(),
  /** Of what was given up: what the relays said. */
  why: column.orNull(column.text('given_up_why')),
})
/** What a message ended as, for whoever put it out. */
export type Ended = RowOfTable<typeof ended>

/** Messages whose key begins so, that were accepted (or given up) and of which nobody was told. */
export const unnotified = (store: Store, outcome: 'accepted' | 'given_up', keyPrefix: string, limit: number): Ended[] =>
  ended.all(
    store.sql,
    `SELECT id, key, event_id, given_up_why FROM outbox_messages
     WHERE notified = 0 AND ${outcome}_at IS NOT NULL AND key >= ? AND key < ? ORDER BY key LIMIT ?`,
    keyPrefix,
    `${keyPrefix}\u{10ffff}`,
    BigInt(limit),
  )

/** Whether there is a message that ended so and of which nobody was told. */
export const isAnyUntold = (store: Store, outcome: 'accepted' | 'given_up'): boolean =>
  isThere(store.sql, `SELECT 1 FROM outbox_messages WHERE notified = 0 AND ${outcome}_at IS NOT NULL LIMIT 1`)

/** What the relays said of the newest message of a key, when it was refused and none of them will take it. */
export const whyRefused = (store: Store, key: string): string | undefined =>
  textsOf(
    store.sql,
    `SELECT given_up_why FROM outbox_messages m WHERE key = ? AND given_up_at IS NOT NULL
       AND EXISTS (SELECT 1 FROM outbox_deliveries d WHERE d.message_id = m.id AND d.state = 'rejected') ORDER BY id DESC LIMIT 1`,
    key,
  )[0]

/** Whether some relay took a message of this key. */
export const wasTaken = (store: Store, key: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM outbox_messages WHERE key = ? AND accepted_at IS NOT NULL LIMIT 1', key)

/** The newest event of a key. */
export const outboxEvent = (store: Store, key: string): StoredEvent | undefined =>
  messages.all(store.sql, 'WHERE key = ? ORDER BY id DESC LIMIT 1', key)[0]?.event

/** Deliveries that nobody wants any more: their message's not_after has passed. Returns the messages that are given up by that. */
export const expireDeliveries = defineCommand('expire_deliveries', (sql, p: { now: number }): GivenUp[] => {
  const rows = sql(
    `UPDATE outbox_deliveries INDEXED BY outbox_pending SET state = 'expired'
     WHERE state = 'pending' AND (SELECT not_after FROM outbox_messages m WHERE m.id = message_id) < ? RETURNING message_id`,
  ).all(BigInt(p.now))
  return giveUp(sql, [...new Set(rows.map((row) => int(row, 'message_id')))], p.now)
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
export const lastMessageId = (store: Store): number => countOf(store.sql, 'SELECT COALESCE(MAX(id), 0) AS id FROM outbox_messages')
