/** What the wallet has to tell the other parts: written with the money itself, deleted once heard. */
import { stringify } from '../../base/json.ts'
import { defineCommand } from '../commands.ts'
import { int, json, text } from '../row.ts'
import type { Store } from '../store.ts'

export interface WalletEventRow {
  readonly id: number
  readonly causeType: string
  readonly event: unknown
  readonly attempts: number
}

/** @param p.event amounts are written as JSON integers. */
export const insertWalletEvent = defineCommand('insert_wallet_event', (sql, p: { causeType: string; event: unknown; at: number }) => {
  sql('INSERT INTO wallet_events (cause_type, event_json, next_try_at, created_at) VALUES (?, ?, ?, ?)').run(
    p.causeType,
    stringify(p.event),
    BigInt(p.at),
    BigInt(p.at),
  )
})

export const deleteWalletEvent = defineCommand('delete_wallet_event', (sql, p: { id: number }) => {
  sql('DELETE FROM wallet_events WHERE id = ?').run(BigInt(p.id))
})

export const deferWalletEvent = defineCommand('defer_wallet_event', (sql, p: { id: number; attempts: number; nextTryAt: number }) => {
  sql('UPDATE wallet_events SET attempts = ?, next_try_at = ? WHERE id = ?').run(BigInt(p.attempts), BigInt(p.nextTryAt), BigInt(p.id))
})

/** The causes of events whose time has come. */
export function causesOfDueEvents(store: Store, now: number): string[] {
  return store
    .sql('SELECT DISTINCT cause_type FROM wallet_events WHERE next_try_at <= ?')
    .all(BigInt(now))
    .map((row) => text(row, 'cause_type'))
}

/** Of one cause, oldest first. */
export function dueWalletEvents(store: Store, causeType: string, now: number): WalletEventRow[] {
  return store
    .sql('SELECT * FROM wallet_events WHERE cause_type = ? AND next_try_at <= ? ORDER BY id LIMIT 500')
    .all(causeType, BigInt(now))
    .map((row) => ({
      id: int(row, 'id'),
      causeType: text(row, 'cause_type'),
      event: json(row, 'event_json'),
      attempts: int(row, 'attempts'),
    }))
}
