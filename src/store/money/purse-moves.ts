/** Moves of sats between two mints of one wallet, each an invoice of the one (`quotes.ts`) that the other pays (`operations.ts`), under its id as their key. */
import { PURSE_MOVE_STEPS, type PurseMoveState } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import { sumOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Steps, table } from '../table.ts'
import { causeOfRow, walletOwner } from './fields.ts'

const moves = table('purse_moves', {
  id: column.text(),
  /** Of the spend that needs it, or of who asked for it. */
  forKey: column.text(),
  purpose: column.text<'spend' | 'owner' | 'foreign'>(),
  owner: walletOwner,
  fromUrl: column.text(),
  toUrl: column.text(),
  /** What arrives. */
  amountSats: column.amount(),
  maxFeeSats: column.amount(),
  /** Whether it may take what customers are owed. */
  owedToo: column.flag(),
  cause: causeOfRow,
  state: column.text<PurseMoveState>(),
  /** Why it ended, or what it waits for. */
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextTryAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type PurseMove = RowOfTable<typeof moves>
export type NewPurseMove = Omit<PurseMove, 'reason' | 'tries' | 'nextTryAt' | 'updatedAt'> & {
  /** Not before this. */
  readonly nextTryAt?: number
}

const steps = new Steps('purse_move_transitions', 'move_id', PURSE_MOVE_STEPS)

const OPEN = `state IN ('receiving', 'planned', 'paid')`

export const insertPurseMove = defineCommand('insert_purse_move', (sql, p: NewPurseMove) => {
  moves.insert(sql, { ...p, tries: 0, nextTryAt: p.nextTryAt ?? p.createdAt, updatedAt: p.createdAt })
  steps.begin(sql, p.id, { to: p.state, reason: 'claimed', at: p.createdAt })
})

/** @throws conflict where it is not in `from` any more */
export const stepPurseMove = defineCommand(
  'step_purse_move',
  (sql, p: { id: string; from: PurseMoveState; to: PurseMoveState; reason: string; nextTryAt: number | null; at: number }) => {
    const { id, from, to, reason, nextTryAt, at } = p
    const change = { state: to, reason, tries: 0, nextTryAt, updatedAt: at }
    steps.take(sql, id, { from, to, reason, at }, () => moves.patch(sql, { id, state: from }, change))
  },
  (p) => `step_purse_move:${p.to}`,
)

/** What it waits for, and when it is looked at again. */
export const deferPurseMove = defineCommand(
  'defer_purse_move',
  (sql, p: { id: string; state: PurseMoveState; reason: string; tries: number; nextTryAt: number; at: number }) => {
    const { id, state, reason, tries, nextTryAt, at: updatedAt } = p
    moves.patch(sql, { id, state }, { reason, tries, nextTryAt, updatedAt })
  },
)

export const getPurseMove = (store: Store, id: string): PurseMove | undefined => moves.get(store.sql, { id })

/** In the order of their making. */
export const purseMovesFor = (store: Store, forKey: string): PurseMove[] =>
  moves.all(store.sql, 'WHERE for_key = ? ORDER BY created_at, rowid', forKey)

export const openPurseMoves = (store: Store): PurseMove[] => moves.all(store.sql, `WHERE ${OPEN} ORDER BY created_at, rowid`)

/** Sats that one mint says it paid, and the other does not know of yet: of one wallet, or of all. */
export const betweenMintsSats = (store: Store, ownerPubkey?: string): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(m.amount_sats), 0) AS total FROM purse_moves m JOIN mint_quotes q ON q.idempotency_key = m.id
     WHERE m.state IN ('receiving', 'planned', 'paid') AND m.state = 'paid' AND q.state IN ('unpaid', 'expired', 'closed') AND (@owner IS NULL OR m.owner_pubkey = @owner)`,
    { owner: ownerPubkey ?? null },
  )
