/** What the customer key and peers without a key package say to each other by NIP-17. */
import { defineCommand } from '../commands.ts'
import { isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const messages = table('direct_messages', {
  seq: column.int(),
  /** 64 hex digits. */
  peer: column.text(),
  id: column.text(),
  isOwn: column.flag(),
  content: column.text(),
  createdAt: column.int(),
  state: column.text<'handled' | 'sending' | 'sent' | 'refused'>(),
  reason: column.orNull(column.text()),
  key: column.orNull(column.text()),
  at: column.int(),
})
export type DirectRow = RowOfTable<typeof messages>

/** Of one peer: the newest are kept. */
const MAX_OF_PEER = 2000

/** The same again, by its id or key, does nothing. */
export const insertDirect = defineCommand('insert_direct_message', (sql, p: Omit<DirectRow, 'seq'>) => {
  if (!messages.insert(sql, p, 'ON CONFLICT DO NOTHING')) return
  sql(
    `DELETE FROM direct_messages WHERE peer = @peer AND seq <= (
       SELECT seq FROM direct_messages WHERE peer = @peer ORDER BY seq DESC LIMIT 1 OFFSET @keep)`,
  ).run({ peer: p.peer, keep: BigInt(MAX_OF_PEER) })
})

/** Of what we said. */
export const markDirect = defineCommand(
  'mark_direct_message',
  (sql, p: { key: string; state: 'sent' | 'refused'; reason: string | null }) => {
    messages.patch(sql, { key: p.key, state: 'sending' }, { state: p.state, reason: p.reason })
  },
)

export const sweepDirect = defineCommand('sweep_direct_messages', (sql, p: { before: number }) => {
  sql("DELETE FROM direct_messages WHERE at < ? AND state <> 'sending'").run(BigInt(p.before))
})

export const directByKey = (store: Store, key: string): DirectRow | undefined => messages.get(store.sql, { key })

/** Whether anything was ever said to this peer: only then it is listened to. */
export const hasSpokenTo = (store: Store, peer: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM direct_messages WHERE peer = ? LIMIT 1', peer)

export const hasAnyDirect = (store: Store): boolean => isThere(store.sql, 'SELECT 1 FROM direct_messages LIMIT 1')

export const pageOfDirect = (store: Store, peer: string, after: number, limit: number): DirectRow[] =>
  messages.all(store.sql, 'WHERE peer = ? AND seq > ? ORDER BY seq LIMIT ?', peer, BigInt(after), BigInt(limit))

/** Oldest first. */
export const newestDirect = (store: Store, peer: string, limit: number): DirectRow[] =>
  messages.all(store.sql, 'WHERE peer = ? ORDER BY seq DESC LIMIT ?', peer, BigInt(limit)).reverse()
