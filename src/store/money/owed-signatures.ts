/** Outputs of operations that are over whose signatures could not be used: what a mint owes us, until it gives them or never signed them. */
import type { WalletOwner } from '../../base/accounts.ts'
import { defineCommand, type Row } from '../commands.ts'
import { amount, int, intOrNull, json, text } from '../row.ts'
import type { Store } from '../store.ts'

export interface OwedRow {
  readonly operationId: string
  readonly owner: WalletOwner
  readonly mintUrl: string
  /** What the mint claims that they are worth. */
  readonly owedSats: bigint
  readonly outputs: unknown
  readonly reason: string
  readonly tries: number
  readonly nextTryAt: number | null
  readonly createdAt: number
}

export const putOwed = defineCommand('put_owed', (sql, p: OwedRow) => {
  sql(
    `INSERT INTO owed_signatures (operation_id, owner_kind, owner_pubkey, mint_url, owed_sats, outputs_json, reason, tries, next_try_at, created_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (operation_id) DO UPDATE SET owed_sats = excluded.owed_sats,
       outputs_json = excluded.outputs_json, reason = excluded.reason, tries = excluded.tries, next_try_at = excluded.next_try_at`,
  ).run(
    p.operationId,
    p.owner.kind,
    p.owner.pubkey,
    p.mintUrl,
    p.owedSats,
    JSON.stringify(p.outputs),
    p.reason,
    BigInt(p.tries),
    p.nextTryAt === null ? null : BigInt(p.nextTryAt),
    BigInt(p.createdAt),
  )
})

export const deleteOwed = defineCommand('delete_owed', (sql, p: { operationId: string }) => {
  sql('DELETE FROM owed_signatures WHERE operation_id = ?').run(p.operationId)
})

export function listOwed(store: Store): OwedRow[] {
  return store.sql('SELECT * FROM owed_signatures ORDER BY created_at LIMIT 500').all().map(decode)
}

export function getOwed(store: Store, operationId: string): OwedRow | undefined {
  const row = store.sql('SELECT * FROM owed_signatures WHERE operation_id = ?').get(operationId)
  return row === undefined ? undefined : decode(row)
}

export function dueOwed(store: Store, now: number): OwedRow[] {
  return store.sql('SELECT * FROM owed_signatures WHERE next_try_at <= ? ORDER BY next_try_at LIMIT 50').all(BigInt(now)).map(decode)
}

function decode(row: Row): OwedRow {
  return {
    operationId: text(row, 'operation_id'),
    owner: { kind: text(row, 'owner_kind') as WalletOwner['kind'], pubkey: text(row, 'owner_pubkey') },
    mintUrl: text(row, 'mint_url'),
    owedSats: amount(row, 'owed_sats'),
    outputs: json(row, 'outputs_json'),
    reason: text(row, 'reason'),
    tries: int(row, 'tries'),
    nextTryAt: intOrNull(row, 'next_try_at'),
    createdAt: int(row, 'created_at'),
  }
}
