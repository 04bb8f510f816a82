/** Budgets: what spends hold or have cost, for whom and when; checked and held in the commit that makes the operation. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { amount, countOf, sumOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, table } from '../table.ts'

const holds = table('spend_holds', {
  operationId: column.text(),
  /** Whose limits bind: a pubkey, `nwc:<id>`, `owner`, `customer`, `payout`. */
  subject: column.text(),
  /** Of the wallet that pays. */
  ownerPubkey: column.text(),
  tickId: column.orNull(column.text()),
  /** Who is paid; empty where nobody can say. */
  counterparty: column.text(),
  rail: column.text(),
  /** Milliseconds since the epoch. */
  at: column.int(),
  amountSats: column.amount(),
  state: column.text<'held' | 'spent' | 'released'>(),
})

/** What of the spends of one subject a limit counts: those of a tick, or since a time, of all or to one counterparty; or this one alone. */
export type SpendWindow = { readonly name: string; readonly limitSats: bigint } & (
  | { readonly counts: 'this' }
  | { readonly counts: 'tick'; readonly tickId: string }
  | { readonly counts: 'since'; readonly since: number; readonly counterparty?: string }
)

/** Two keys that pay one another: how often each may within a time. */
export interface PairLimit {
  readonly counterparty: string
  readonly payments: number
  readonly since: number
}

export interface SpendHold {
  readonly operationId: string
  readonly subject: string
  readonly ownerPubkey: string
  readonly tickId: string | null
  readonly counterparty: string
  readonly rail: string
  readonly at: number
  readonly amountSats: bigint
  /** What the same payment cost before, in swaps of its own: part of it for the limit of one payment. */
  readonly besidesSats: bigint
  readonly windows: readonly SpendWindow[]
  readonly pair?: PairLimit
}

/** @throws budget_exceeded naming the limit, spend_refused */
export const holdSpend = defineCommand('hold_spend', (sql, p: SpendHold) => {
  assertInWindows(sql, p)
  holds.insert(sql, { ...p, state: 'held' })
})

type Asked = Pick<SpendHold, 'subject' | 'amountSats' | 'besidesSats' | 'windows' | 'pair'>

/** Whether a spend would fit now: for what must not even be prepared when it does not. @throws as holdSpend */
export function assertInWindows(sql: Sql, p: Asked): void {
  for (const window of p.windows) {
    const usedSats = window.counts === 'this' ? p.besidesSats : usedIn(sql, p.subject, window)
    if (usedSats + p.amountSats <= window.limitSats) continue
    throw overBudget(p.amountSats, usedSats, window)
  }
  if (p.pair !== undefined) assertNoPingPong(sql, p.subject, p.pair)
}

function overBudget(amountSats: bigint, usedSats: bigint, { counts, name, limitSats }: SpendWindow): PylonError {
  const words =
    counts === 'this'
      ? `${amountSats + usedSats} sats are over the budget of ${limitSats} sats a transaction.`
      : `${amountSats} sats would pass the budget ${name}: ${usedSats} of ${limitSats} sats are used.`
  return new PylonError('budget_exceeded', words, { details: { limit: name } })
}

const SUM = "SELECT coalesce(sum(amount_sats), 0) AS total FROM spend_holds WHERE state <> 'released' AND subject = ?"

/** Later than the window counts too: of a clock that was put back. */
function usedIn(sql: Sql, subject: string, window: Exclude<SpendWindow, { counts: 'this' }>): bigint {
  const total = (where: string, ...params: (string | bigint)[]): bigint => {
    const row = sql(`${SUM} AND ${where}`).get(subject, ...params)
    return row === undefined ? 0n : amount(row, 'total')
  }
  if (window.counts === 'tick') return total('tick_id = ?', window.tickId)
  const since = BigInt(window.since)
  return window.counterparty === undefined ? total('at > ?', since) : total('counterparty = ? AND at > ?', window.counterparty, since)
}

/** What comes back is what the other holds, in this home, or the zaps that the agent heard of, from wherever. */
function assertNoPingPong(sql: Sql, subject: string, { counterparty, payments, since }: PairLimit): void {
  const paid = (from: string, to: string): number =>
    countOf(
      sql,
      "SELECT count(*) AS n FROM spend_holds WHERE state <> 'released' AND subject = ? AND counterparty = ? AND at > ? AND rail <> 'own'",
      from,
      to,
      BigInt(since),
    )
  if (paid(subject, counterparty) < payments) return
  const zapped = countOf(
    sql,
    "SELECT count(*) AS n FROM heard WHERE agent_pubkey = ? AND sender = ? AND type = 'zap' AND heard_at > ?",
    subject,
    counterparty,
    BigInt(since),
  )
  if (Math.max(paid(counterparty, subject), zapped) < payments) return
  throw new PylonError('spend_refused', `these two have paid each other ${payments} times and more of late: they rest for a while`, {
    details: { rule: 'pair' },
  })
}

/** Ends what an operation holds, for all whom it binds: spent at its real cost, or released since surely nothing was spent. Does nothing where none was made. */
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

/** Sats that a subject holds or has spent since a time. */
export const spentSince = (store: Store, subject: string, since: number): bigint =>
  sumOf(store.sql, `${SUM} AND at > ?`, subject, BigInt(since))

/** Sats that one tick holds or has spent. */
export const spentInTick = (store: Store, subject: string, tickId: string): bigint =>
  sumOf(store.sql, `${SUM} AND tick_id = ?`, subject, tickId)
