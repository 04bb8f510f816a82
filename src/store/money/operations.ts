/** Money operations: one request to a mint each, with every step of their lives, and the budgets that they hold. */
import { PylonError } from '../../base/errors.ts'
import { canStep, OPERATION_STEPS, type OperationState } from '../../base/states.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { intOrNull, isThere, sumOf, text, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Steps, Table } from '../table.ts'
import { appendAudit } from './audit.ts'
import { causeOfRow, walletOwner } from './fields.ts'
import { assertNotPaidByNwc } from './nwc-wallets.ts'

export type OperationKind = 'mint' | 'receive' | 'send' | 'melt' | 'transfer' | 'restore'
export type TokenState = 'pending' | 'claimed' | 'reclaimed'

const COLUMNS = {
  id: column.text(),
  kind: column.text<OperationKind>(),
  state: column.text<OperationState>(),
  owner: walletOwner,
  mintUrl: column.text(),
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  cause: causeOfRow,
  amountSats: column.amount(),
  /** What it holds in `<owner>/held/<id>` until it has ended. */
  heldSats: column.amount(),
  plan: column.json<unknown>('plan_json'),
  result: column.orNull(column.json<unknown>('result_json')),
  error: column.orNull(column.group({ code: column.text('error_code'), message: column.text('error_message') })),
  tokenState: column.orNull(column.text<TokenState>()),
  /** Of a payment: one hash is one payment of this home, unless it failed. */
  paymentHash: column.orNull(column.text()),
  attempts: column.int(),
  tries: column.int(),
  nextTryAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

/** Under way; where its outcome is unknown the error says what it waits for. */
type OpenOperation = Columns & { readonly state: 'prepared' | 'submitted' | 'unknown'; readonly tokenState: null }
type CompletedOperation = Columns & { readonly state: 'completed'; readonly error: null }
type FailedOperation = Columns & { readonly state: 'failed'; readonly error: NonNullable<Columns['error']>; readonly tokenState: null }
export type OperationRow = OpenOperation | CompletedOperation | FailedOperation

const isOperation = (row: Columns): row is OperationRow =>
  row.state === 'completed'
    ? row.error === null && row.result !== null
    : row.tokenState === null && (row.state !== 'failed' || row.error !== null)

const operations = new Table('operations', COLUMNS, isOperation)
const steps = new Steps('operation_transitions', 'operation_id', OPERATION_STEPS)

export type NewOperation = Pick<
  Columns,
  'id' | 'kind' | 'owner' | 'mintUrl' | 'idempotencyKey' | 'requestDigest' | 'cause' | 'amountSats' | 'heldSats' | 'plan'
> & { readonly at: number; readonly paymentHash?: string }

/** @throws idempotency_conflict when the key is taken; payment_in_progress, invoice_paid when the payment hash is. */
export const insertOperation = defineCommand('insert_operation', (sql, { at, ...p }: NewOperation) => {
  const other = p.paymentHash === undefined ? undefined : ofHash(sql, p.paymentHash)
  if (other !== undefined) throw paidElsewhere(other)
  if (p.paymentHash !== undefined) assertNotPaidByNwc(sql, p.paymentHash)
  const isNew = operations.insert(
    sql,
    { ...p, state: 'prepared', nextTryAt: at, createdAt: at, updatedAt: at },
    'ON CONFLICT (idempotency_key) DO NOTHING',
  )
  if (!isNew) throw new PylonError('idempotency_conflict', 'Another operation has this idempotency key.')
  steps.begin(sql, p.id, { to: 'prepared', reason: 'created', at })
  if (p.kind !== 'melt' && p.kind !== 'send') return
  const data = { operation: p.id, kind: p.kind, owner: p.owner, cause: p.cause, amount_sats: p.amountSats, mint_url: p.mintUrl }
  appendAudit(sql, { at, kind: 'spend', data })
})

export interface OperationMove {
  readonly id: string
  readonly to: OperationState
  readonly reason: string
  readonly at: number
  readonly attempts?: number
  readonly tries?: number
  /** Milliseconds since the epoch; null: nothing left to do. */
  readonly nextTryAt: number | null
  readonly plan?: unknown
  readonly result?: unknown
  readonly error?: { readonly code: string; readonly message: string }
  readonly tokenState?: TokenState
}

/** Moves an operation on and records why. @throws conflict when its state can't become `to`. */
export const moveOperation = defineCommand(
  'move_operation',
  (sql, p: OperationMove) => {
    const row = sql('SELECT state FROM operations WHERE id = ?').get(p.id)
    const from = row === undefined ? undefined : (text(row, 'state') as OperationState)
    if (from === undefined || !canStep(OPERATION_STEPS, from, p.to)) {
      throw new PylonError('conflict', `The operation ${p.id} is ${from ?? 'missing'}, which cannot become ${p.to}.`)
    }
    const { attempts, tries, nextTryAt, plan, result, error = null, tokenState } = p
    const change = { attempts, tries, nextTryAt, plan, result, error, tokenState, state: p.to, updatedAt: p.at }
    const write = () => operations.patch(sql, { id: p.id }, change)
    // Waiting for the same answer again is no transition worth a row.
    if (from === 'unknown' && p.to === 'unknown') write()
    else steps.take(sql, p.id, { ...p, from }, write)
  },
  (p) => `move_operation:${p.to}`,
)

/** Gives the key of a failed operation free for another try; the row stays under a name of its own. Does nothing to any other operation. */
/** Whether a receive that ended as refused since then had this input. */
export const refusedWithInput = (store: Store, p: { y: string; since: number }): boolean =>
  isThere(
    store.sql,
    `SELECT 1 FROM operations WHERE updated_at > ? AND plan_json <> '{}' AND kind = 'receive' AND state = 'failed' AND instr(plan_json, ?) > 0`,
    BigInt(p.since),
    p.y,
  )

export const freeFailedKey = defineCommand('free_failed_key', (sql, p: { id: string }) => {
  sql(`UPDATE operations SET idempotency_key = idempotency_key || '#failed:' || id WHERE id = ? AND state = 'failed'`).run(p.id)
})

/** What became of a sent token, or when to ask next. @throws conflict when it is not pending any more. */
export const setTokenState = defineCommand(
  'set_token_state',
  (sql, p: { id: string; to: TokenState; tries?: number; nextTryAt: number | null; at: number }) => {
    const { to: tokenState, tries, nextTryAt, at: updatedAt } = p
    if (!operations.patch(sql, { id: p.id, tokenState: 'pending' }, { tokenState, tries, nextTryAt, updatedAt }))
      throw new PylonError('conflict', 'The token was claimed or taken back meanwhile.')
  },
  (p) => `set_token_state:${p.to}`,
)

/**
 * Forgets what operations that ended before `before` asked of their mints, and their spent proofs; the row, its key and its outcome stay.
 * Invoices that nobody paid, holds of spends and zaps that ended go too.
 * Returns how many operations it took, at most `limit`.
 */
export const sweepMoney = defineCommand('sweep_money', (sql, p: { before: number; limit: number }): number => {
  const ended = sql(
    `SELECT id FROM operations WHERE updated_at < ? AND state IN ('completed', 'failed') AND token_state IS NOT 'pending' AND plan_json <> '{}' LIMIT ?`,
  ).all(BigInt(p.before), BigInt(p.limit))
  for (const row of ended) {
    sql(`UPDATE operations SET plan_json = '{}' WHERE id = ?`).run(text(row, 'id'))
    sql('DELETE FROM operation_transitions WHERE operation_id = ?').run(text(row, 'id'))
    sql(`DELETE FROM proofs WHERE operation_id = ? AND state = 'spent'`).run(text(row, 'id'))
  }
  sql(`DELETE FROM mint_quotes WHERE state = 'closed' AND updated_at < ?`).run(BigInt(p.before))
  sql(`DELETE FROM spend_holds WHERE state <> 'held' AND at < ?`).run(BigInt(p.before))
  sql(
    'DELETE FROM zap_sends WHERE created_at < ? AND EXISTS (SELECT 1 FROM operations o WHERE o.idempotency_key = zap_sends.idempotency_key)',
  ).run(BigInt(p.before))
  return ended.length
})

export const getOperation = (store: Store, id: string): OperationRow | undefined => operations.get(store.sql, { id })

export const operationByKey = (store: Store, idempotencyKey: string): OperationRow | undefined =>
  operations.get(store.sql, { idempotencyKey })

/** Whether a wallet of this home paid, or is paying, the invoice of this hash; asked only of payments made since `since`. */
export const paidByUs = (store: Store, paymentHash: string, since: number): boolean =>
  isThere(
    store.sql,
    `SELECT 1 FROM operations WHERE payment_hash IS NOT NULL AND payment_hash = @hash AND state <> 'failed' AND created_at >= @since
     UNION ALL SELECT 1 FROM nwc_payments WHERE payment_hash = @hash AND state <> 'failed' AND created_at >= @since LIMIT 1`,
    { hash: paymentHash, since: BigInt(since) },
  )

const ofHash = (sql: Sql, paymentHash: string): OperationRow | undefined =>
  operations.all(sql, `WHERE payment_hash IS NOT NULL AND payment_hash = ? AND state <> 'failed'`, paymentHash)[0]

/** The payment of this home, by any of its wallets, for this hash; one that failed leaves the hash free. */
export const paymentOfHash = (store: Store, paymentHash: string): OperationRow | undefined => ofHash(store.sql, paymentHash)

/** What a second payment of one hash is told. */
export function paidElsewhere(first: OperationRow): PylonError {
  const options = { details: { operation_id: first.id, mint_url: first.mintUrl } }
  return first.state === 'completed'
    ? new PylonError('invoice_paid', `This home has paid the invoice already (operation ${first.id}): nothing more was spent.`, options)
    : new PylonError(
        'payment_in_progress',
        `This home is paying the invoice already (operation ${first.id}): nothing more was spent.`,
        options,
      )
}

const IS_OPEN = `state IN ('prepared', 'submitted', 'unknown')`

/** Unfinished operations whose time has come. */
export const dueOperations = (store: Store, now: number): OperationRow[] =>
  operations.all(store.sql, `WHERE ${IS_OPEN} AND next_try_at <= ? ORDER BY next_try_at LIMIT 500`, BigInt(now))

/** The Ys of coins from elsewhere that operations are taking in. */
export const ysUnderWay = (store: Store): Set<string> =>
  new Set(
    textsOf(
      store.sql,
      `SELECT json_extract(input.value, '$.y') FROM operations, json_each(plan_json, '$.inputs') AS input WHERE kind = 'receive' AND ${IS_OPEN}`,
    ),
  )

export const openOperations = (store: Store): OperationRow[] => operations.all(store.sql, `WHERE ${IS_OPEN} ORDER BY created_at, rowid`)

/** Sent tokens that nobody was seen to claim yet and whose time has come. */
export const dueTokens = (store: Store, now: number): OperationRow[] =>
  operations.all(store.sql, `WHERE token_state = 'pending' AND next_try_at <= ? ORDER BY next_try_at LIMIT 500`, BigInt(now))

/** What moving coins out of old keysets cost this wallet at a mint since a time, in sats. */
export const movingFees = (store: Store, move: { prefix: string; ownerPubkey: string; mintUrl: string; since: number }): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(held_sats - amount_sats), 0) AS total FROM operations
       WHERE idempotency_key >= @prefix AND idempotency_key < @prefix || char(1114111) AND owner_pubkey = @ownerPubkey AND mint_url = @mintUrl
         AND state <> 'failed' AND created_at >= @since`,
    { ...move, since: BigInt(move.since) },
  )

/** Sats that unfinished operations hold: of one wallet, or of all. */
export const atRiskSats = (store: Store, ownerPubkey?: string): bigint =>
  sumOf(store.sql, `SELECT coalesce(sum(held_sats), 0) FROM operations WHERE ${IS_OPEN} AND (@owner IS NULL OR owner_pubkey = @owner)`, {
    owner: ownerPubkey ?? null,
  })

/** When the next operation, token, quote or event wants attention. */
export function nextWalletDue(store: Store): number | undefined {
  const row = store
    .sql(
      `SELECT min(at) AS at FROM (
         SELECT min(next_try_at) AS at FROM operations WHERE state IN ('prepared', 'submitted', 'unknown')
         UNION ALL SELECT min(next_try_at) FROM operations WHERE token_state = 'pending'
         UNION ALL SELECT min(next_check_at) FROM mint_quotes WHERE state IN ('unpaid', 'paid', 'expired')
         UNION ALL SELECT min(next_try_at) FROM owed_signatures
         UNION ALL SELECT min(next_try_at) FROM purse_moves WHERE state IN ('receiving', 'planned', 'paid')
         UNION ALL SELECT min(next_try_at) FROM wallet_events)`,
    )
    .get()
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}
