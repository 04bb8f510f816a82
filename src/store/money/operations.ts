/** Money operations: one request to a mint each, with every step of their lives, and the budgets that they hold. */
import type { WalletOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row } from '../commands.ts'
import { amount, int, intOrNull, json, jsonOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'
import type { Cause } from './ledger.ts'

export type OperationKind = 'mint' | 'receive' | 'send' | 'melt' | 'transfer' | 'restore'
export type OperationState = 'prepared' | 'submitted' | 'unknown' | 'completed' | 'failed'
export type TokenState = 'pending' | 'claimed' | 'reclaimed'

export interface OperationRow {
  readonly id: string
  readonly kind: OperationKind
  readonly state: OperationState
  readonly owner: WalletOwner
  readonly mintUrl: string
  readonly idempotencyKey: string
  readonly requestDigest: string
  readonly cause: Cause
  readonly amountSats: bigint
  /** What it holds in `<owner>/held/<id>` until it has ended. */
  readonly heldSats: bigint
  readonly plan: unknown
  readonly result: unknown
  readonly error: { readonly code: string; readonly message: string } | null
  readonly tokenState: TokenState | null
  readonly attempts: number
  readonly tries: number
  readonly nextTryAt: number | null
  readonly createdAt: number
  readonly updatedAt: number
}

export type NewOperation = Pick<
  OperationRow,
  'id' | 'kind' | 'owner' | 'mintUrl' | 'idempotencyKey' | 'requestDigest' | 'cause' | 'amountSats' | 'heldSats' | 'plan'
> & {
  readonly at: number
  /** Of a payment: one hash is one payment of this home, unless it failed. */
  readonly paymentHash?: string
}

/** @throws idempotency_conflict when the key is taken; payment_in_progress, invoice_paid when the payment hash is. */
export const insertOperation = defineCommand('insert_operation', (sql, p: NewOperation) => {
  const other = p.paymentHash === undefined ? undefined : sql(PAYMENT_OF_HASH).get(p.paymentHash)
  if (other !== undefined) throw paidElsewhere(decode(other))
  const inserted = sql(
    `INSERT INTO operations (id, kind, state, owner_kind, owner_pubkey, mint_url, idempotency_key, request_digest, cause_type, cause_id,
       amount_sats, held_sats, plan_json, payment_hash, next_try_at, created_at, updated_at)
     VALUES (?, ?, 'prepared', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (idempotency_key) DO NOTHING`,
  ).run(
    p.id,
    p.kind,
    p.owner.kind,
    p.owner.pubkey,
    p.mintUrl,
    p.idempotencyKey,
    p.requestDigest,
    p.cause.type,
    p.cause.id,
    p.amountSats,
    p.heldSats,
    JSON.stringify(p.plan),
    p.paymentHash ?? null,
    BigInt(p.at),
    BigInt(p.at),
    BigInt(p.at),
  )
  if (inserted.changes === 0) throw new PylonError('idempotency_conflict', 'Another operation has this idempotency key.')
  sql(`INSERT INTO operation_transitions (operation_id, from_state, to_state, reason, at) VALUES (?, NULL, 'prepared', 'created', ?)`).run(
    p.id,
    BigInt(p.at),
  )
})

export interface OperationMove {
  readonly id: string
  readonly from: readonly OperationState[]
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

/** Moves an operation on and records why. @throws conflict when its state is not one of `from`. */
export const moveOperation = defineCommand(
  'move_operation',
  (sql, p: OperationMove) => {
    const row = sql('SELECT state FROM operations WHERE id = ?').get(p.id)
    const state = row === undefined ? 'missing' : (text(row, 'state') as OperationState)
    if (state === 'missing' || !p.from.includes(state)) {
      throw new PylonError('conflict', `The operation ${p.id} is ${state}, which cannot become ${p.to}.`)
    }
    sql(
      `UPDATE operations SET state = ?, attempts = coalesce(?, attempts), tries = coalesce(?, tries), next_try_at = ?,
         plan_json = coalesce(?, plan_json), result_json = coalesce(?, result_json), error_code = ?, error_message = ?,
         token_state = coalesce(?, token_state), updated_at = ? WHERE id = ?`,
    ).run(
      p.to,
      p.attempts === undefined ? null : BigInt(p.attempts),
      p.tries === undefined ? null : BigInt(p.tries),
      p.nextTryAt === null ? null : BigInt(p.nextTryAt),
      p.plan === undefined ? null : JSON.stringify(p.plan),
      p.result === undefined ? null : JSON.stringify(p.result),
      p.error?.code ?? null,
      p.error?.message ?? null,
      p.tokenState ?? null,
      BigInt(p.at),
      p.id,
    )
    // Waiting for the same answer again is no transition worth a row.
    if (state === p.to && p.to === 'unknown') return
    sql('INSERT INTO operation_transitions (operation_id, from_state, to_state, reason, at) VALUES (?, ?, ?, ?, ?)').run(
      p.id,
      state,
      p.to,
      p.reason,
      BigInt(p.at),
    )
  },
  (p) => `move_operation:${p.to}`,
)

/** Gives the key of a failed operation free for another try; the row stays under a name of its own. Does nothing to any other operation. */
export const freeFailedKey = defineCommand('free_failed_key', (sql, p: { id: string }) => {
  sql(`UPDATE operations SET idempotency_key = idempotency_key || '#failed:' || id WHERE id = ? AND state = 'failed'`).run(p.id)
})

/** What became of a sent token, or when to ask next. @throws conflict when it is not pending any more. */
export const setTokenState = defineCommand(
  'set_token_state',
  (sql, p: { id: string; to: TokenState; tries?: number; nextTryAt: number | null; at: number }) => {
    const moved = sql(
      `UPDATE operations SET token_state = ?, tries = coalesce(?, tries), next_try_at = ?, updated_at = ? WHERE id = ? AND token_state = 'pending'`,
    ).run(p.to, p.tries === undefined ? null : BigInt(p.tries), p.nextTryAt === null ? null : BigInt(p.nextTryAt), BigInt(p.at), p.id)
    if (moved.changes !== 1) throw new PylonError('conflict', 'The token was claimed or taken back meanwhile.')
  },
  (p) => `set_token_state:${p.to}`,
)

/**
 * Forgets what operations that ended before `before` asked of their mints, and their spent proofs; the row, its key and its outcome stay.
 * Invoices that nobody paid, budgets of days past and zaps that ended go too.
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
  sql(`DELETE FROM spend_holds WHERE state <> 'held' AND day < date(? / 1000, 'unixepoch')`).run(BigInt(p.before))
  sql(
    'DELETE FROM zap_sends WHERE created_at < ? AND EXISTS (SELECT 1 FROM operations o WHERE o.idempotency_key = zap_sends.idempotency_key)',
  ).run(BigInt(p.before))
  return ended.length
})

export function getOperation(store: Store, id: string): OperationRow | undefined {
  const row = store.sql('SELECT * FROM operations WHERE id = ?').get(id)
  return row === undefined ? undefined : decode(row)
}

export function operationByKey(store: Store, idempotencyKey: string): OperationRow | undefined {
  const row = store.sql('SELECT * FROM operations WHERE idempotency_key = ?').get(idempotencyKey)
  return row === undefined ? undefined : decode(row)
}

/** Whether a wallet of this home paid, or is paying, the invoice of this hash; asked only of payments made since `since`. */
export function paidByUs(store: Store, paymentHash: string, since: number): boolean {
  return (
    store
      .sql("SELECT 1 FROM operations WHERE payment_hash IS NOT NULL AND payment_hash = ? AND state <> 'failed' AND created_at >= ? LIMIT 1")
      .get(paymentHash, BigInt(since)) !== undefined
  )
}

const PAYMENT_OF_HASH = `SELECT * FROM operations WHERE payment_hash IS NOT NULL AND payment_hash = ? AND state <> 'failed'`

/** The payment of this home, by any of its wallets, for this hash; one that failed leaves the hash free. */
export function paymentOfHash(store: Store, paymentHash: string): OperationRow | undefined {
  const row = store.sql(PAYMENT_OF_HASH).get(paymentHash)
  return row === undefined ? undefined : decode(row)
}

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

/** Unfinished operations whose time has come. */
export function dueOperations(store: Store, now: number): OperationRow[] {
  return store
    .sql(`SELECT * FROM operations WHERE state IN ('prepared', 'submitted', 'unknown') AND next_try_at <= ? ORDER BY next_try_at LIMIT 500`)
    .all(BigInt(now))
    .map(decode)
}

export function openOperations(store: Store): OperationRow[] {
  return store
    .sql(`SELECT * FROM operations WHERE state IN ('prepared', 'submitted', 'unknown') ORDER BY created_at, rowid`)
    .all()
    .map(decode)
}

/** Sent tokens that nobody was seen to claim yet and whose time has come. */
export function dueTokens(store: Store, now: number): OperationRow[] {
  return store
    .sql(`SELECT * FROM operations WHERE token_state = 'pending' AND next_try_at <= ? ORDER BY next_try_at LIMIT 500`)
    .all(BigInt(now))
    .map(decode)
}

/** What moving coins out of old keysets cost this wallet at a mint since a time, in sats. */
export function movingFees(store: Store, move: { prefix: string; ownerPubkey: string; mintUrl: string; since: number }): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(held_sats - amount_sats), 0) AS total FROM operations
       WHERE idempotency_key >= @prefix AND idempotency_key < @prefix || char(1114111) AND owner_pubkey = @ownerPubkey AND mint_url = @mintUrl
         AND state <> 'failed' AND created_at >= @since`,
    )
    .get({ ...move, since: BigInt(move.since) })
  return row === undefined ? 0n : amount(row, 'total')
}

/** Sats that unfinished operations of this wallet hold. */
export function atRiskSats(store: Store, ownerPubkey: string): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(held_sats), 0) AS total FROM operations WHERE owner_pubkey = ? AND state IN ('prepared', 'submitted', 'unknown')`,
    )
    .get(ownerPubkey)
  return row === undefined ? 0n : amount(row, 'total')
}

/** When the next operation, token, quote or event wants attention. */
export function nextWalletDue(store: Store): number | undefined {
  const row = store
    .sql(
      `SELECT min(at) AS at FROM (
         SELECT min(next_try_at) AS at FROM operations WHERE state IN ('prepared', 'submitted', 'unknown')
         UNION ALL SELECT min(next_try_at) FROM operations WHERE token_state = 'pending'
         UNION ALL SELECT min(next_check_at) FROM mint_quotes WHERE state IN ('unpaid', 'paid', 'expired')
         UNION ALL SELECT min(next_try_at) FROM owed_signatures
         UNION ALL SELECT min(next_try_at) FROM wallet_events)`,
    )
    .get()
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}

function decode(row: Row): OperationRow {
  const code = textOrNull(row, 'error_code')
  return {
    id: text(row, 'id'),
    kind: text(row, 'kind') as OperationKind,
    state: text(row, 'state') as OperationState,
    owner: { kind: text(row, 'owner_kind') as WalletOwner['kind'], pubkey: text(row, 'owner_pubkey') },
    mintUrl: text(row, 'mint_url'),
    idempotencyKey: text(row, 'idempotency_key'),
    requestDigest: text(row, 'request_digest'),
    cause: { type: text(row, 'cause_type') as Cause['type'], id: text(row, 'cause_id') },
    amountSats: amount(row, 'amount_sats'),
    heldSats: amount(row, 'held_sats'),
    plan: json(row, 'plan_json'),
    result: jsonOrNull(row, 'result_json'),
    error: code === null ? null : { code, message: textOrNull(row, 'error_message') ?? '' },
    tokenState: textOrNull(row, 'token_state') as TokenState | null,
    attempts: int(row, 'attempts'),
    tries: int(row, 'tries'),
    nextTryAt: intOrNull(row, 'next_try_at'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}
