/** What was said in sessions, in the order in which it was handed out. */
import { defineCommand, type Row, type Sql } from '../commands.ts'
import { int, json, text } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const messages = table('session_messages', {
  seq: column.int(),
  owner: column.text(),
  groupId: column.text(),
  id: column.text(),
  sender: column.text(),
  isOwn: column.flag(),
  kind: column.int(),
  content: column.text(),
  tags: column.json<readonly (readonly string[])[]>('tags_json'),
  createdAt: column.int(),
  state: column.text<'new' | 'handled' | 'sending' | 'sent' | 'refused'>(),
  reason: column.orNull(column.text()),
  key: column.orNull(column.text()),
  epoch: column.int(),
  at: column.int(),
})

export type MessageRow = RowOfTable<typeof messages>
export type NewMessage = Omit<MessageRow, 'seq'>

export const insertMessage = defineCommand('insert_session_message', (sql, p: NewMessage) => {
  messages.insert(sql, p)
})

export const markHandled = defineCommand('mark_session_handled', (sql, p: { owner: string; groupId: string; id: string }) => {
  sql("UPDATE session_messages SET state = 'handled' WHERE owner = ? AND group_id = ? AND id = ? AND state = 'new'").run(
    p.owner,
    p.groupId,
    p.id,
  )
})

/** Of what we said. */
export const markSaid = defineCommand(
  'mark_session_said',
  (sql, p: { owner: string; groupId: string; id: string; state: 'sent' | 'refused'; reason: string | null }) => {
    sql(
      "UPDATE session_messages SET state = ?, reason = ? WHERE owner = ? AND group_id = ? AND id = ? AND is_own = 1 AND state = 'sending'",
    ).run(p.state, p.reason, p.owner, p.groupId, p.id)
  },
)

/** It is carried by another epoch now. */
export const moveMessage = defineCommand(
  'move_session_message',
  (sql, p: { owner: string; groupId: string; id: string; epoch: number }) => {
    messages.patch(sql, { owner: p.owner, groupId: p.groupId, id: p.id }, { epoch: p.epoch, state: 'sending' })
  },
)

export const messageByKey = (store: Store, owner: string, key: string): MessageRow | undefined => messages.get(store.sql, { owner, key })

export const messageById = (store: Store, owner: string, groupId: string, id: string): MessageRow | undefined =>
  messages.get(store.sql, { owner, groupId, id })

export function pageOfMessages(store: Store, owner: string, groupId: string, after: number, limit: number): MessageRow[] {
  return messages.all(
    store.sql,
    'WHERE owner = ? AND group_id = ? AND seq > ? ORDER BY seq LIMIT ?',
    owner,
    groupId,
    BigInt(after),
    BigInt(limit),
  )
}

/** Oldest first. */
export function newestMessages(store: Store, owner: string, groupId: string, limit: number): MessageRow[] {
  return messages.all(store.sql, 'WHERE owner = ? AND group_id = ? ORDER BY seq DESC LIMIT ?', owner, groupId, BigInt(limit)).reverse()
}

export function nextNew(store: Store, owner: string, groupId: string): MessageRow | undefined {
  return messages.all(store.sql, "WHERE owner = ? AND group_id = ? AND state = 'new' ORDER BY seq LIMIT 1", owner, groupId)[0]
}

/** What we said in epochs after this one, where it is not refused. */
export function saidAfter(store: Store, owner: string, groupId: string, epoch: number): MessageRow[] {
  return messages.all(
    store.sql,
    "WHERE owner = ? AND group_id = ? AND is_own = 1 AND epoch > ? AND state <> 'refused' ORDER BY seq",
    owner,
    groupId,
    BigInt(epoch),
  )
}

/** Forgets messages from before a time (ms) and, in each group, all but the newest; at most `limit` a call. */
export const sweepMessages = defineCommand('sweep_session_messages', (sql, p: { owner: string; before: number; limit: number }): number => {
  return sql(
    `DELETE FROM session_messages WHERE seq IN (SELECT seq FROM session_messages INDEXED BY session_messages_at
       WHERE at < ? AND owner = ? AND state <> 'sending' LIMIT ?)`,
  ).run(BigInt(p.before), p.owner, BigInt(p.limit)).changes
})

/** In one group: all but the newest `keep`. */
export const trimMessages = defineCommand('trim_session_messages', (sql, p: { owner: string; groupId: string; keep: number }): number => {
  return sql(
    `DELETE FROM session_messages WHERE owner = @owner AND group_id = @group_id AND seq <= (
       SELECT seq FROM session_messages WHERE owner = @owner AND group_id = @group_id ORDER BY seq DESC LIMIT 1 OFFSET @keep)`,
  ).run({ owner: p.owner, group_id: p.groupId, keep: BigInt(p.keep) }).changes
})

/** How far a sender was handed out. */
export interface SenderRow {
  readonly nextSaid: number | null
  readonly epoch: number
  readonly nextGeneration: number
}

export function senderOf(store: Store, owner: string, groupId: string, sender: string): SenderRow | undefined {
  const row = store.sql('SELECT * FROM session_senders WHERE owner = ? AND group_id = ? AND sender = ?').get(owner, groupId, sender)
  if (row === undefined) return undefined
  return {
    nextSaid: row['next_said'] === null ? null : int(row, 'next_said'),
    epoch: int(row, 'epoch'),
    nextGeneration: int(row, 'next_generation'),
  }
}

export const putSender = defineCommand('put_session_sender', (sql, p: SenderRow & { owner: string; groupId: string; sender: string }) => {
  sql(
    `INSERT INTO session_senders (owner, group_id, sender, next_said, epoch, next_generation) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET next_said = excluded.next_said, epoch = excluded.epoch, next_generation = excluded.next_generation`,
  ).run(p.owner, p.groupId, p.sender, p.nextSaid === null ? null : BigInt(p.nextSaid), BigInt(p.epoch), BigInt(p.nextGeneration))
})

/** A message that waits for an earlier one of its sender. */
export interface HeldMessage<T = unknown> {
  readonly id: string
  readonly sender: string
  readonly said: number | null
  readonly epoch: number
  readonly generation: number
  readonly rumor: T
  readonly at: number
}

export const holdMessage = defineCommand('hold_session_message', (sql, p: HeldMessage & { owner: string; groupId: string }) => {
  sql(
    `INSERT INTO session_held (owner, group_id, id, sender, said, epoch, generation, rumor_json, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT DO NOTHING`,
  ).run(
    p.owner,
    p.groupId,
    p.id,
    p.sender,
    p.said === null ? null : BigInt(p.said),
    BigInt(p.epoch),
    BigInt(p.generation),
    JSON.stringify(p.rumor),
    BigInt(p.at),
  )
})

export const releaseMessage = defineCommand('release_session_message', (sql: Sql, p: { owner: string; groupId: string; id: string }) => {
  sql('DELETE FROM session_held WHERE owner = ? AND group_id = ? AND id = ?').run(p.owner, p.groupId, p.id)
})

/** In the order of sending, sender by sender. */
export function heldIn<T>(store: Store, owner: string, groupId: string): HeldMessage<T>[] {
  return store
    .sql('SELECT * FROM session_held WHERE owner = ? AND group_id = ? ORDER BY sender, said, epoch, generation')
    .all(owner, groupId)
    .map((row) => heldOf<T>(row))
}

function heldOf<T>(row: Row): HeldMessage<T> {
  return {
    id: text(row, 'id'),
    sender: text(row, 'sender'),
    said: row['said'] === null ? null : int(row, 'said'),
    epoch: int(row, 'epoch'),
    generation: int(row, 'generation'),
    rumor: json<T>(row, 'rumor_json'),
    at: int(row, 'at'),
  }
}

export function isHeld(store: Store, owner: string, groupId: string, id: string): boolean {
  return store.sql('SELECT 1 FROM session_held WHERE owner = ? AND group_id = ? AND id = ?').get(owner, groupId, id) !== undefined
}
