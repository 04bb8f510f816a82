/** Groups of a key's sessions, with the states that read and write them. */
import { defineCommand } from '../commands.ts'
import { isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

/** A commit of ours that waits for a relay. */
export interface PendingCommit {
  readonly eventId: string
  /** Unix seconds. */
  readonly createdAt: number
  readonly event: unknown
  /** Welcomes that go out once it stands. */
  readonly welcomes: readonly unknown[]
  readonly isUpdate: boolean
}

/** Commits of ours that not everybody was heard to follow, the oldest first. */
export interface UnheardCommits {
  /** With the epoch that each leads to. */
  readonly commits: readonly { readonly event: unknown; readonly epoch: number }[]
  /** The newest epoch in which a member was heard. */
  readonly heard: Readonly<Record<string, number>>
  /** How often they were sent again. */
  readonly tries: number
}

const groups = table('session_groups', {
  owner: column.text(),
  /** 64 hex digits, as in the `h` tag: the public name. */
  id: column.text(),
  /** Of the MLS group, hex; never on the wire in the clear. */
  mlsId: column.text(),
  orderKey: column.orNull(column.text()),
  name: column.text(),
  members: column.json<readonly string[]>('members_json'),
  admins: column.json<readonly string[]>('admins_json'),
  relays: column.json<readonly string[]>('relays_json'),
  epoch: column.int(),
  joinedEpoch: column.int(),
  /** `removed`: somebody took us out; `broken`: its state here cannot go on, and why was logged. */
  state: column.text<'active' | 'left' | 'removed' | 'broken'>(),
  mlsState: column.bytes(),
  welcomes: column.json<readonly unknown[]>('welcomes_json'),
  nextSaid: column.int(),
  updateDue: column.flag(),
  pending: column.orNull(column.json<PendingCommit>('pending_json')),
  pendingState: column.orNull(column.bytes()),
  unheard: column.orNull(column.json<UnheardCommits>('unheard_json')),
  createdAt: column.int(),
})

const epochs = table('session_epochs', {
  owner: column.text(),
  groupId: column.text(),
  epoch: column.int(),
  eventKey: column.bytes(),
  legacySecret: column.bytes(),
  leftState: column.orNull(column.bytes()),
  leftBy: column.orNull(column.text()),
  leftAt: column.orNull(column.int()),
})

export type GroupRow = RowOfTable<typeof groups>
export type EpochRow = RowOfTable<typeof epochs>

/** A new group, or one that we were brought into once more: what is kept of its former life goes. */
export const insertGroup = defineCommand('insert_session_group', (sql, p: { group: GroupRow; epoch: EpochRow }) => {
  const { owner, id } = p.group
  if (!groups.insert(sql, p.group, 'ON CONFLICT DO NOTHING')) {
    groups.patch(sql, { owner, id }, p.group)
    for (const name of ['session_epochs', 'session_senders', 'session_held', 'session_unread']) {
      sql(`DELETE FROM ${name} WHERE owner = ? AND group_id = ?`).run(owner, id)
    }
  }
  epochs.insert(sql, p.epoch)
})

export const patchGroup = defineCommand('patch_session_group', (sql, p: { owner: string; id: string; change: Partial<GroupRow> }) =>
  groups.patch(sql, { owner: p.owner, id: p.id }, p.change),
)

/** Of a database that is older than what was said since: no group of it goes on, and key packages are replaced. */
const breakAll = defineCommand('break_session_groups', (sql, _p: null) => {
  sql(
    "UPDATE session_groups SET state = 'broken', pending_json = NULL, pending_state = NULL, unheard_json = NULL WHERE state = 'active'",
  ).run()
  sql('UPDATE session_key_packages SET uses = uses + 1 WHERE replaced_at IS NULL').run()
})
export const breakGroups = () => breakAll(null)

export interface EpochStep {
  readonly owner: string
  readonly groupId: string
  /** The one that is left: what comes after it is forgotten. */
  readonly left: { readonly epoch: number; readonly state: Uint8Array; readonly by: string; readonly at: number }
  readonly next: EpochRow
  /** Epochs before it that are kept. */
  readonly keep: number
}

/** Leaves one epoch for the next. */
export const stepEpoch = defineCommand('step_session_epoch', (sql, { owner, groupId, left, next, keep }: EpochStep) => {
  sql('DELETE FROM session_epochs WHERE owner = ? AND group_id = ? AND (epoch > ? OR epoch < ?)').run(
    owner,
    groupId,
    BigInt(left.epoch),
    BigInt(next.epoch - keep),
  )
  epochs.patch(sql, { owner, groupId, epoch: left.epoch }, { leftState: left.state, leftBy: left.by, leftAt: left.at })
  epochs.insert(sql, next)
})

export const getGroup = (store: Store, owner: string, id: string): GroupRow | undefined => groups.get(store.sql, { owner, id })

export const groupByOrder = (store: Store, owner: string, orderKey: string): GroupRow | undefined =>
  groups.get(store.sql, { owner, orderKey })

export const listGroups = (store: Store, owner: string): GroupRow[] =>
  groups.all(store.sql, 'WHERE owner = ? ORDER BY created_at, id', owner)

/** The newest first. */
export const epochsOf = (store: Store, owner: string, groupId: string): EpochRow[] =>
  epochs.all(store.sql, 'WHERE owner = ? AND group_id = ? ORDER BY epoch DESC', owner, groupId)

/** Events that nothing opens yet. */
const unread = table('session_unread', {
  owner: column.text(),
  groupId: column.text(),
  eventId: column.text(),
  event: column.json<unknown>('event_json'),
  at: column.int(),
})
export type UnreadEvent = RowOfTable<typeof unread>

/** Keeps one more; beyond these bounds the oldest go. @returns how many went */
export const keepUnread = defineCommand('keep_session_unread', (sql, p: UnreadEvent & { maxEvents: number; maxChars: number }): number => {
  unread.insert(sql, p, 'ON CONFLICT DO NOTHING')
  return sql(
    `DELETE FROM session_unread WHERE owner = @owner AND group_id = @group_id AND event_id IN (
         SELECT event_id FROM (SELECT event_id, row_number() OVER newest AS n, sum(length(event_json)) OVER newest AS chars
           FROM session_unread WHERE owner = @owner AND group_id = @group_id WINDOW newest AS (ORDER BY at DESC, event_id))
         WHERE n > @max_events OR (chars > @max_chars AND n > 1))`,
  ).run({ owner: p.owner, group_id: p.groupId, max_events: BigInt(p.maxEvents), max_chars: BigInt(p.maxChars) }).changes
})

export const dropUnread = defineCommand('drop_session_unread', (sql, p: { owner: string; groupId: string; eventId: string }) => {
  sql('DELETE FROM session_unread WHERE owner = ? AND group_id = ? AND event_id = ?').run(p.owner, p.groupId, p.eventId)
})

export const isUnread = (store: Store, owner: string, groupId: string, eventId: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM session_unread WHERE owner = ? AND group_id = ? AND event_id = ?', owner, groupId, eventId)

/** The events, in the order of their coming. */
export const unreadOf = (store: Store, owner: string, groupId: string): unknown[] =>
  unread.all(store.sql, 'WHERE owner = ? AND group_id = ? ORDER BY at, event_id', owner, groupId).map(({ event }) => event)

/** Forgets what could not be opened since before a time (ms). */
export const sweepUnread = defineCommand('sweep_session_unread', (sql, p: { owner: string; before: number }): number => {
  return sql('DELETE FROM session_unread WHERE owner = ? AND at < ?').run(p.owner, BigInt(p.before)).changes
})
