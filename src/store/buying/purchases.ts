/** Purchases: work bought from others, with the offers and answers heard about it. */
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import type { PurchaseStatus } from '../../base/states.ts'
import { defineCommand, type Row } from '../commands.ts'
import { purchaseTokenKey } from '../keys.ts'
import { amount, int, json, jsonOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export interface PurchaseRow {
  readonly id: string
  readonly eventId: string | null
  readonly status: PurchaseStatus
  readonly reason: string | null
  readonly kind: number
  readonly order: unknown
  /** The request event with its id, without signature. */
  readonly request: unknown
  readonly provider: string | null
  readonly paidMsats: Msats
  readonly result: string | null
  readonly error: { readonly code: string; readonly message: string } | null
  readonly deadlineAt: number
  readonly createdAt: number
  readonly updatedAt: number
}

export interface OfferRow {
  readonly eventId: string
  readonly purchaseId: string
  readonly provider: string
  /** The request that it answers; null of former versions: the first. */
  readonly requestId: string | null
  readonly amountMsats: Msats
  readonly bolt11: string | null
  /** Of the invoice, where it can be read. */
  readonly paymentHash: string | null
  readonly state: 'open' | 'unusable' | 'paying' | 'paid' | 'failed'
  readonly reason: string | null
  readonly receivedAt: number
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
  readonly from: readonly PurchaseStatus[]
  readonly to: PurchaseStatus
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
    const status = text(row, 'status') as PurchaseStatus
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

/** Says how it is with a purchase whose status stays. */
export const notePurchase = defineCommand('note_purchase', (sql, p: { id: string; reason: string; at: number }) => {
  sql('UPDATE purchases SET reason = ?, updated_at = ? WHERE id = ?').run(p.reason, BigInt(p.at), p.id)
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
      requestId: string
      amountMsats: Msats
      bolt11: string | null
      paymentHash: string | null
      state: OfferRow['state']
      reason: string | null
      at: number
    },
  ) => {
    sql(
      `INSERT INTO purchase_offers (event_id, purchase_id, provider_pubkey, request_id, amount_msats, bolt11, payment_hash, state, reason, received_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
    ).run(...[p.eventId, p.purchaseId, p.provider, p.requestId, p.amountMsats, p.bolt11, p.paymentHash, p.state, p.reason, BigInt(p.at)])
  },
)

export const setOfferState = defineCommand('set_offer_state', (sql, p: { eventId: string; state: OfferRow['state']; reason?: string }) => {
  sql('UPDATE purchase_offers SET state = ?, reason = ? WHERE event_id = ?').run(p.state, p.reason ?? null, p.eventId)
})

/** Purchases that ended without a result and whose token nobody was seen to spend. */
const TOKENS_OUT = `operations o JOIN purchases p ON o.idempotency_key = ${purchaseTokenKey.sql('p.id')}
  WHERE o.token_state = 'pending' AND p.status NOT IN ('completed', 'refunded')`

/** Forgets finished purchases that were last touched before `before`, but none whose token may still be taken back or whose refund waits. */
export const sweepPurchases = defineCommand('sweep_purchases', (sql, p: { before: number }) => {
  const old = `SELECT id FROM purchases WHERE status IN ('completed', 'failed', 'timeout', 'cancelled', 'refunded') AND updated_at < ?
    AND id NOT IN (SELECT p.id FROM ${TOKENS_OUT}) AND id NOT IN (SELECT cause_id FROM refund_tokens WHERE state = 'waiting')`
  for (const table of ['purchase_offers', 'purchase_events', 'purchase_transitions', 'purchase_requests', 'purchase_results']) {
    sql(`DELETE FROM ${table} WHERE purchase_id IN (${old})`).run(BigInt(p.before))
  }
  sql(`DELETE FROM refund_tokens WHERE cause_id IN (${old})`).run(BigInt(p.before))
  sql(`DELETE FROM purchases WHERE id IN (${old})`).run(BigInt(p.before))
})

function decode(row: Row): PurchaseRow {
  const code = textOrNull(row, 'error_code')
  return {
    id: text(row, 'id'),
    eventId: textOrNull(row, 'event_id'),
    status: text(row, 'status') as PurchaseStatus,
    reason: textOrNull(row, 'reason'),
    kind: int(row, 'kind'),
    order: json(row, 'order_json'),
    request: jsonOrNull(row, 'request_json'),
    provider: textOrNull(row, 'provider_pubkey'),
    paidMsats: amount(row, 'paid_msats'),
    result: textOrNull(row, 'result'),
    error: code === null ? null : { code, message: text(row, 'error_message') },
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

/**
 * What may still be answered: unfinished ones, failed ones made after `since`, paid ones after `paidSince` whose money may still
 * come back, and those that ended well whose deadline is after `endedSince`: another key may have more to say.
 */
export function openPurchases(store: Store, times: { since: number; paidSince: number; endedSince: number }): PurchaseRow[] {
  return store
    .sql(
      `SELECT * FROM purchases WHERE (status IN ('completed', 'refunded') AND deadline_at > ?) OR (status NOT IN ('completed', 'refunded')
         AND (status IN ('preparing', 'requested', 'offered', 'paying', 'paid', 'processing') OR created_at > ? OR (paid_msats > 0 AND created_at > ?)))`,
    )
    .all(BigInt(times.endedSince), BigInt(times.since), BigInt(times.paidSince))
    .map(decode)
}

/** Those whose token is out, however old they are: nobody was seen to spend it, and no result came. */
export function purchasesWithTokenOut(store: Store): PurchaseRow[] {
  return store.sql(`SELECT p.* FROM ${TOKENS_OUT}`).all().map(decode)
}

export function listOffers(store: Store, purchaseId: string): OfferRow[] {
  return store
    .sql('SELECT * FROM purchase_offers WHERE purchase_id = ? ORDER BY amount_msats, received_at')
    .all(purchaseId)
    .map((row) => ({
      eventId: text(row, 'event_id'),
      purchaseId: text(row, 'purchase_id'),
      provider: text(row, 'provider_pubkey'),
      requestId: textOrNull(row, 'request_id'),
      amountMsats: amount(row, 'amount_msats'),
      bolt11: textOrNull(row, 'bolt11'),
      paymentHash: textOrNull(row, 'payment_hash'),
      state: text(row, 'state') as OfferRow['state'],
      reason: textOrNull(row, 'reason'),
      receivedAt: int(row, 'received_at'),
    }))
}

/** How many answers are kept of a purchase, of all keys and of one: offers that can be paid apart from all else. */
export function countAnswers(
  store: Store,
  purchaseId: string,
  pubkey: string,
): Readonly<Record<'others' | 'othersOfKey' | 'offers' | 'offersOfKey', number>> {
  const row = store
    .sql(
      `SELECT count(*) AS n, count(CASE WHEN e.pubkey = ? THEN 1 END) AS of_key, count(o.event_id) AS offers,
         count(CASE WHEN e.pubkey = ? THEN o.event_id END) AS offers_of_key
       FROM purchase_events e LEFT JOIN purchase_offers o ON o.event_id = e.event_id AND o.state <> 'unusable' WHERE e.purchase_id = ?`,
    )
    .get(pubkey, pubkey, purchaseId)
  if (row === undefined) return { others: 0, othersOfKey: 0, offers: 0, offersOfKey: 0 }
  const [offers, offersOfKey] = [int(row, 'offers'), int(row, 'offers_of_key')]
  return { offers, offersOfKey, others: int(row, 'n') - offers, othersOfKey: int(row, 'of_key') - offersOfKey }
}

/** Whether an answer was claimed before. */
export function wasAnswerHeard(store: Store, eventId: string): boolean {
  return store.sql('SELECT 1 FROM purchase_events WHERE event_id = ?').get(eventId) !== undefined
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
