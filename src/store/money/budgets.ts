/** Budgets: what an agent's spends hold or have cost, checked and held in the commit that makes the operation. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { amount, sumOf } from '../row.ts'
import type { Store } from '../store.ts'

export interface SpendHold {
  readonly operationId: string
  readonly ownerPubkey: string
  readonly tickId: string
  /** UTC, `2026-01-31`. */
  readonly day: string
  readonly amountSats: bigint
  /** What the same payment cost before, in swaps of its own: part of it for the limit of one payment. */
  readonly besidesSats?: bigint
  readonly limits: { readonly perTxSats: bigint; readonly perTickSats: bigint; readonly perDaySats: bigint }
}

/** @throws budget_exceeded naming the limit. */
export const holdSpend = defineCommand('hold_spend', (sql, p: SpendHold) => {
  assertInBudget(sql, p)
  sql(`INSERT INTO spend_holds (operation_id, owner_pubkey, tick_id, day, amount_sats, state) VALUES (?, ?, ?, ?, ?, 'held')`).run(
    p.operationId,
    p.ownerPubkey,
    p.tickId,
    p.day,
    p.amountSats,
  )
})

/** Whether a spend would fit now: for what must not even be prepared when it does not. @throws budget_exceeded naming the limit. */
export function assertInBudget(sql: Sql, p: Omit<SpendHold, 'operationId'>): void {
  const sum = (where: string, ...params: string[]): bigint => {
    const row = sql(`SELECT coalesce(sum(amount_sats), 0) AS total FROM spend_holds WHERE state <> 'released' AND ${where}`).get(...params)
    return row === undefined ? 0n : amount(row, 'total')
  }
  const check = (name: string, used: bigint, limit: bigint) => {
    if (used + p.amountSats <= limit) return
    throw new PylonError('budget_exceeded', `${p.amountSats} sats would pass the budget ${name}: ${used} of ${limit} sats are used.`, {
      details: { limit: name },
    })
  }
  check('per transaction', p.besidesSats ?? 0n, p.limits.perTxSats)
  check('per tick', sum('owner_pubkey = ? AND tick_id = ?', p.ownerPubkey, p.tickId), p.limits.perTickSats)
  check('per day', sum('owner_pubkey = ? AND day = ?', p.ownerPubkey, p.day), p.limits.perDaySats)
}

/** Ends a hold: spent at its real cost, or released since surely nothing was spent. Does nothing where none was made. */
export const settleSpend = defineCommand(
  'settle_spend',
  (sql, p: { operationId: string; state: 'spent' | 'released'; amountSats: bigint }) => {
    sql(`UPDATE spend_holds SET state = ?, amount_sats = ? WHERE operation_id = ? AND state = 'held'`).run(
      p.state,
      p.amountSats,
      p.operationId,
    )
  },
)

/** Sats that an agent holds or has spent on a UTC day. */
export const spentOnDay = (store: Store, ownerPubkey: string, day: string): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(amount_sats), 0) AS total FROM spend_holds WHERE owner_pubkey = ? AND day = ? AND state <> 'released'`,
    ownerPubkey,
    day,
  )

/** Sats that one tick holds or has spent. */
export const spentInTick = (store: Store, ownerPubkey: string, tickId: string): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(amount_sats), 0) AS total FROM spend_holds WHERE owner_pubkey = ? AND tick_id = ? AND state <> 'released'`,
    ownerPubkey,
    tickId,
  )
