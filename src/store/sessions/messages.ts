/** What was said in sessions, in the order in which it was handed out. */
import { defineCommand } from '../commands.ts'
import { isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const messages = table('session_messages', {
  /** Rises with each message of a store, over all groups: what `after` pages on. */
  seq: column.int(),
  owner: column.text(),
  groupId: column.text(),
  /** Of the rumor. */
  id: column.text(),
  sender: column.text(),
  isOwn: column.flag(),
  kind: column.int(),
  content: column.text(),
  tags: column.json<readonly (readonly string[])[]>('tags_json'),
  /** Unix seconds, as the sender says. */
  createdAt: column.int(),
  /**
   * What others said is `new` until a handler has dealt with it, then `handled`. What we say is `sending` until the first relay took
   * it, then `sent`; `refused` when none will, and `reason` has their words.
   */
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
  messages.patch(sql, { owner: p.owner, groupId: p.groupId, id: p.id, state: 'new' }, { state: 'handled' })
})

/** Of what we said. */
export const markSaid = defineCommand(
  'mark_session_said',
  (sql, p: { owner: string; groupId: string; id: string; state: 'sent' | 'refused'; reason: string | null }) => {
    const { owner, groupId, id, state, reason } = p
    messages.patch(sql, { owner, groupId, id, isOwn: true, state: 'sending' }, { state, reason })
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

const PAGE = 'WHERE owner = ? AND group_id = ? AND seq > ? ORDER BY seq LIMIT ?'
export const pageOfMessages = (store: Store, owner: string, groupId: string, after: number, limit: number): MessageRow[] =>
  messages.all(store.sql, PAGE, owner, groupId, BigInt(after), BigInt(limit))

/** Oldest first. */
export const newestMessages = (store: Store, owner: string, groupId: string, limit: number): MessageRow[] =>
  messages.all(store.sql, 'WHERE owner = ? AND group_id = ? ORDER BY seq DESC LIMIT ?', owner, groupId, BigInt(limit)).reverse()

export const nextNew = (store: Store, owner: string, groupId: string): MessageRow | undefined =>
  messages.all(store.sql, "WHERE owner = ? AND group_id = ? AND state = 'new' ORDER BY seq LIMIT 1", owner, groupId)[0]

/** What we said in epochs after this one, where it is not refused. */
const SAID_AFTER = "WHERE owner = ? AND group_id = ? AND is_own = 1 AND epoch > ? AND state <> 'refused' ORDER BY seq"
export const saidAfter = (store: Store, owner: string, groupId: string, epoch: number): MessageRow[] =>
  messages.all(store.sql, SAID_AFTER, owner, groupId, BigInt(epoch))

/** Forgets messages from before a time (ms), at most `limit` a call; not what is still to be sent. */
export const sweepMessages = defineCommand('sweep_session_messages', (sql, p: { owner: string; before: number; limit: number }): number => {
  return sql(
    `DELETE FROM session_messages WHERE seq IN (SELECT seq FROM session_messages INDEXED BY session_messages_at
       WHERE at < ? AND owner = ? AND state <> 'sending' LIMIT ?)`,
  ).run(BigInt(p.before), p.owner, BigInt(p.limit)).changes
})

/** Forgets in one group all but the newest `keep`; not what is still to be sent. */
export const trimMessages = defineCommand('trim_session_messages', (sql, p: { owner: string; groupId: string; keep: number }): number => {
  return sql(
    `DELETE FROM session_messages WHERE owner = @owner AND group_id = @group_id AND state <> 'sending' AND seq <= (
       SELECT seq FROM session_messages WHERE owner = @owner AND group_id = @group_id ORDER BY seq DESC LIMIT 1 OFFSET @keep)`,
  ).run({ owner: p.owner, group_id: p.groupId, keep: BigInt(p.keep) }).changes
})

const senders = table('session_senders', {
  owner: column.text(),
  groupId: column.text(),
  sender: column.text(),
  nextSaid: column.orNull(column.int()),
  epoch: column.int(),
  nextGeneration: column.int(),
})

/** How far a sender was handed out. */
export type SenderRow = Pick<RowOfTable<typeof senders>, 'nextSaid' | 'epoch' | 'nextGeneration'>

export const senderOf = (store: Store, owner: string, groupId: string, sender: string): SenderRow | undefined =>
  senders.get(store.sql, { owner, groupId, sender })

export const putSender = defineCommand('put_session_sender', (sql, p: RowOfTable<typeof senders>) => {
  const replaced = 'next_said = excluded.next_said, epoch = excluded.epoch, next_generation = excluded.next_generation'
  senders.insert(sql, p, `ON CONFLICT DO UPDATE SET ${replaced}`)
})

const heldMessages = table('session_held', {
  owner: column.text(),
  groupId: column.text(),
  id: column.text(),
  sender: column.text(),
  said: column.orNull(column.int()),
  epoch: column.int(),
  generation: column.int(),
  rumor: column.json<unknown>('rumor_json'),
  at: column.int(),
})
type HeldRow = RowOfTable<typeof heldMessages>

/** A message that waits for an earlier one of its sender. */
export type HeldMessage<T = unknown> = Omit<HeldRow, 'owner' | 'groupId' | 'rumor'> & { readonly rumor: T }

export const holdMessage = defineCommand('hold_session_message', (sql, p: HeldRow) => {
  heldMessages.insert(sql, p, 'ON CONFLICT DO NOTHING')
})

export const releaseMessage = defineCommand('release_session_message', (sql, p: { owner: string; groupId: string; id: string }) => {
  sql('DELETE FROM session_held WHERE owner = ? AND group_id = ? AND id = ?').run(p.owner, p.groupId, p.id)
})

/** In the order of sending, sender by sender. */
export const heldIn = <T>(store: Store, owner: string, groupId: string): HeldMessage<T>[] =>
  heldMessages.all(
    store.sql,
    'WHERE owner = ? AND group_id = ? ORDER BY sender, said, epoch, generation',
    owner,
    groupId,
  ) as HeldMessage<T>[]

export const isHeld = (store: Store, owner: string, groupId: string, id: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM session_held WHERE owner = ? AND group_id = ? AND id = ?', owner, groupId, id)
