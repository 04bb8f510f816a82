/** Outputs of operations that are over whose signatures could not be used: what a mint owes us, until it gives them or never signed them. */
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'
import { walletOwner } from './fields.ts'

const owed = table('owed_signatures', {
  operationId: column.text(),
  owner: walletOwner,
  mintUrl: column.text(),
  /** What the mint claims that they are worth. */
  owedSats: column.amount(),
  outputs: column.json<unknown>('outputs_json'),
  reason: column.text(),
  tries: column.int(),
  nextTryAt: column.orNull(column.int()),
  createdAt: column.int(),
})
export type OwedRow = RowOfTable<typeof owed>

export const putOwed = defineCommand('put_owed', (sql, row: OwedRow) => {
  const { owedSats, outputs, reason, tries, nextTryAt } = row
  if (!owed.patch(sql, { operationId: row.operationId }, { owedSats, outputs, reason, tries, nextTryAt })) owed.insert(sql, row)
})

export const deleteOwed = defineCommand('delete_owed', (sql, p: { operationId: string }) => {
  sql('DELETE FROM owed_signatures WHERE operation_id = ?').run(p.operationId)
})

export const listOwed = (store: Store): OwedRow[] => owed.all(store.sql, 'ORDER BY created_at LIMIT 500')

export const getOwed = (store: Store, operationId: string): OwedRow | undefined => owed.get(store.sql, { operationId })

export const dueOwed = (store: Store, now: number): OwedRow[] =>
  owed.all(store.sql, 'WHERE next_try_at <= ? ORDER BY next_try_at LIMIT 50', BigInt(now))
