/** What the wallet has to tell the other parts: written with the money itself, deleted once heard. */
import { defineCommand } from '../commands.ts'
import { textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const events = table('wallet_events', {
  id: column.int(),
  causeType: column.text(),
  /** Amounts are JSON integers. */
  event: column.json<unknown>('event_json'),
  attempts: column.int(),
  nextTryAt: column.int(),
  createdAt: column.int(),
})
export type WalletEventRow = RowOfTable<typeof events>

export const insertWalletEvent = defineCommand('insert_wallet_event', (sql, p: { causeType: string; event: unknown; at: number }) => {
  events.insert(sql, { causeType: p.causeType, event: p.event, nextTryAt: p.at, createdAt: p.at })
})

export const deleteWalletEvent = defineCommand('delete_wallet_event', (sql, p: { id: number }) => {
  sql('DELETE FROM wallet_events WHERE id = ?').run(BigInt(p.id))
})

export const deferWalletEvent = defineCommand(
  'defer_wallet_event',
  (sql, { id, ...p }: { id: number; attempts: number; nextTryAt: number }) => {
    events.patch(sql, { id }, p)
  },
)

/** The causes of events whose time has come. */
export const causesOfDueEvents = (store: Store, now: number): string[] =>
  textsOf(store.sql, 'SELECT DISTINCT cause_type FROM wallet_events WHERE next_try_at <= ?', BigInt(now))

/** Of one cause, oldest first. */
export const dueWalletEvents = (store: Store, causeType: string, now: number): WalletEventRow[] =>
  events.all(store.sql, 'WHERE cause_type = ? AND next_try_at <= ? ORDER BY id LIMIT 500', causeType, BigInt(now))
