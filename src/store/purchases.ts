/** Purchases: work bought from others, with the offers and answers heard about it. */
import type { Msats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'
import { defineCommand, type Row } from './commands.ts'
import { amount, int, json, jsonOrNull, text, textOrNull } from './row.ts'
import type { Store } from './store.ts'

export interface PurchaseRow {
  readonly id: string
  readonly eventId: string | null
  readonly status: string
  readonly reason: string | null
  readonly kind: number
  readonly order: unknown
  /** The request event with its id, without signature. */
  readonly request: unknown
  readonly provider: string | null
  readonly paidMsats: Msats
  readonly result: string | null
  readonly error: { readonly code: string; readonly message: string } | null
  /** A refund that is not in the wallet yet. */
  readonly refundToken: string | null
  readonly deadlineAt: number
  readonly createdAt: number
  readonly updatedAt: number
}

export interface OfferRow {
  readonly eventId: string
  readonly purchaseId: string
  readonly provider: string
  readonly amountMsats: Msats
  readonly bolt11: string | null
  readonly state: 'open' | 'unusable' | 'paying' | 'paid' | 'failed'
  readonly reason: string | null
}

export interface PurchaseEventRow {
  readonly eventId: string
  readonly kind: number
  readonly pubkey: string
  readonly summary: string
  readonly receivedAt: number
}

export const insertPurchase = defineCommand(
  'insert_purchase',
  (sql, p: { id: string; kind: number; order: unknown; provider: string | null; deadlineAt: number; at: number }) => {
    sql(
      `INSERT INTO purchases (id, status, kind, order_json, provider_pubkey, deadline_at, created_at, updated_at)
       VALUES (?, 'preparing', ?, ?, ?, ?, ?, ?)`,
    ).run(p.id, BigInt(p.kind), JSON.stringify(p.order), p.provider, BigInt(p.deadlineAt), BigInt(p.at), BigInt(p.at))
  },
)

interface PurchaseChange {
  readonly id: string
  readonly from: readonly string[]
  readonly to: string
  readonly reason: string
  readonly at: number
  readonly eventId?: string
  readonly request?: unknown
  readonly provider?: string
  readonly paidMsats?: Msats
  readonly result?: string
  readonly error?: { readonly code: string; readonly message: string }
}

/** Moves a purchase on and records why. @throws conflict when its status is not one of `from`. */
export const movePurchase = defineCommand(
  'move_purchase',
  (sql, p: PurchaseChange) => {
    const row = sql('SELECT status FROM purchases WHERE id = ?').get(p.id)
    if (row === undefined) throw new PylonError('job_not_found', `There is no purchase ${p.id}.`)
    const status = text(row, 'status')
    if (!p.from.includes(status)) throw new PylonError('conflict', `The purchase is ${status}, which cannot become ${p.to}.`)
    sql(
      `UPDATE purchases SET status = ?, reason = ?, updated_at = ?, event_id = coalesce(?, event_id), request_json = coalesce(?, request_json),
       provider_pubkey = coalesce(?, provider_pubkey), paid_msats = coalesce(?, paid_msats), result = coalesce(?, result),
       error_code = coalesce(?, error_code), error_message = coalesce(?, error_message) WHERE id = ?`,
    ).run(
      p.to,
      p.reason,
      BigInt(p.at),
      p.eventId ?? null,
      p.request === undefined ? null : JSON.stringify(p.request),
      p.provider ?? null,
      p.paidMsats ?? null,
      p.result ?? null,
      p.error?.code ?? null,
      p.error?.message ?? null,
      p.id,
    )
    sql('INSERT INTO purchase_transitions (purchase_id, from_status, to_status, reason, at) VALUES (?, ?, ?, ?, ?)').run(
      p.id,
      status,
      p.to,
      p.reason,
      BigInt(p.at),
    )
  },
  (p) => `move_purchase:${p.to}`,
)

/** What a purchase cost that was over before its payment was known. */
export const notePaid = defineCommand('note_paid', (sql, p: { id: string; paidMsats: Msats; at: number }) => {
  sql('UPDATE purchases SET paid_msats = ?, updated_at = ? WHERE id = ?').run(p.paidMsats, BigInt(p.at), p.id)
})

/** Keeps the refund that came for a purchase, or forgets it (null), and says how it is; the status stays. */
export const noteRefund = defineCommand('note_refund', (sql, p: { id: string; token: string | null; reason: string; at: number }) => {
  sql('UPDATE purchases SET refund_token = ?, reason = ?, updated_at = ? WHERE id = ?').run(p.token, p.reason, BigInt(p.at), p.id)
})

/** Claims an answer: false when it was handled before. */
export const claimAnswer = defineCommand(
  'claim_answer',
  (sql, p: { eventId: string; purchaseId: string; kind: number; pubkey: string; summary: string; at: number }) =>
    sql(
      `INSERT INTO purchase_events (event_id, purchase_id, kind, pubkey, summary, received_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
    ).run(p.eventId, p.purchaseId, BigInt(p.kind), p.pubkey, p.summary, BigInt(p.at)).changes > 0,
)

export const insertOffer = defineCommand(
  'insert_offer',
  (
    sql,
    p: {
      eventId: string
      purchaseId: string
      provider: string
      amountMsats: Msats
      bolt11: string | null
      state: OfferRow['state']
      reason: string | null
      at: number
    },
  ) => {
    sql(
      `INSERT INTO purchase_offers (event_id, purchase_id, provider_pubkey, amount_msats, bolt11, state, reason, received_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
    ).run(p.eventId, p.purchaseId, p.provider, p.amountMsats, p.bolt11, p.state, p.reason, BigInt(p.at))
  },
)

export const setOfferState = defineCommand('set_offer_state', (sql, p: { eventId: string; state: OfferRow['state']; reason?: string }) => {
  sql('UPDATE purchase_offers SET state = ?, reason = ? WHERE event_id = ?').run(p.state, p.reason ?? null, p.eventId)
})

/** The key of the wallet's operation that makes the token of a purchase. */
export const purchaseTokenKey = (id: string): string => `purchase:${id}:token`

/** Purchases that ended without a result and whose token nobody was seen to spend. */
const TOKENS_OUT = `operations o JOIN purchases p ON o.idempotency_key = 'purchase:' || p.id || ':token'
  WHERE o.token_state = 'pending' AND p.status NOT IN ('completed', 'refunded')`

/** Forgets finished purchases that were last touched before `before`, but none whose token may still be taken back or whose refund waits. */
export const sweepPurchases = defineCommand('sweep_purchases', (sql, p: { before: number }) => {
  const old = `SELECT id FROM purchases WHERE status IN ('completed', 'failed', 'timeout', 'cancelled', 'refunded') AND updated_at < ?
    AND id NOT IN (SELECT p.id FROM ${TOKENS_OUT}) AND (refund_token IS NULL OR status IN ('completed', 'refunded'))`
  for (const table of ['purchase_offers', 'purchase_events', 'purchase_transitions']) {
    sql(`DELETE FROM ${table} WHERE purchase_id IN (${old})`).run(BigInt(p.before))
  }
  sql(`DELETE FROM purchases WHERE id IN (${old})`).run(BigInt(p.before))
})

function decode(row: Row): PurchaseRow {
  const code = textOrNull(row, 'error_code')
  return {
    id: text(row, 'id'),
    eventId: textOrNull(row, 'event_id'),
    status: text(row, 'status'),
    reason: textOrNull(row, 'reason'),
    kind: int(row, 'kind'),
    order: json(row, 'order_json'),
    request: jsonOrNull(row, 'request_json'),
    provider: textOrNull(row, 'provider_pubkey'),
    paidMsats: amount(row, 'paid_msats'),
    result: textOrNull(row, 'result'),
    error: code === null ? null : { code, message: text(row, 'error_message') },
    refundToken: textOrNull(row, 'refund_token'),
    deadlineAt: int(row, 'deadline_at'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}

/** By our id or by the id of the request event. */
export function getPurchase(store: Store, id: string): PurchaseRow | undefined {
  const row = store.sql('SELECT * FROM purchases WHERE id = ? OR event_id = ?').get(id, id)
  return row === undefined ? undefined : decode(row)
}

export function listPurchases(store: Store, options: { limit: number }): PurchaseRow[] {
  return store.sql('SELECT * FROM purchases ORDER BY created_at DESC LIMIT ?').all(BigInt(options.limit)).map(decode)
}

/** What may still be answered: unfinished ones, finished ones made after `since`, and paid ones after `paidSince` whose money may still come back. */
export function openPurchases(store: Store, since: number, paidSince: number): PurchaseRow[] {
  return store
    .sql(
      `SELECT * FROM purchases WHERE status NOT IN ('completed', 'refunded') AND (status IN ('preparing', 'requested', 'offered', 'paying', 'paid', 'processing')
         OR created_at > ? OR (paid_msats > 0 AND created_at > ?))`,
    )
    .all(BigInt(since), BigInt(paidSince))
    .map(decode)
}

/** Those whose token is out, however old they are: nobody was seen to spend it, and no result came. */
export function purchasesWithTokenOut(store: Store): PurchaseRow[] {
  return store.sql(`SELECT p.* FROM ${TOKENS_OUT}`).all().map(decode)
}

/** Those whose refund came and is not in the wallet yet. */
export function purchasesWithRefund(store: Store): PurchaseRow[] {
  return store.sql(`SELECT * FROM purchases WHERE refund_token IS NOT NULL AND status NOT IN ('completed', 'refunded')`).all().map(decode)
}

export function listOffers(store: Store, purchaseId: string): OfferRow[] {
  return store
    .sql('SELECT * FROM purchase_offers WHERE purchase_id = ? ORDER BY amount_msats, received_at')
    .all(purchaseId)
    .map((row) => ({
      eventId: text(row, 'event_id'),
      purchaseId: text(row, 'purchase_id'),
      provider: text(row, 'provider_pubkey'),
      amountMsats: amount(row, 'amount_msats'),
      bolt11: textOrNull(row, 'bolt11'),
      state: text(row, 'state') as OfferRow['state'],
      reason: textOrNull(row, 'reason'),
    }))
}

export function countAnswers(store: Store, purchaseId: string): number {
  const row = store.sql('SELECT count(*) AS n FROM purchase_events WHERE purchase_id = ?').get(purchaseId)
  return row === undefined ? 0 : int(row, 'n')
}

export function listAnswers(store: Store, purchaseId: string): PurchaseEventRow[] {
  return store
    .sql('SELECT * FROM purchase_events WHERE purchase_id = ? ORDER BY received_at, rowid')
    .all(purchaseId)
    .map((row) => ({
      eventId: text(row, 'event_id'),
      kind: int(row, 'kind'),
      pubkey: text(row, 'pubkey'),
      summary: text(row, 'summary'),
      receivedAt: int(row, 'received_at'),
    }))
}
