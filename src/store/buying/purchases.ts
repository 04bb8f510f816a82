/** Purchases: work bought from others, with the offers and answers heard about it. */
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { PURCHASE_STEPS, type PurchaseStatus } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import { purchaseTokenKey } from '../keys.ts'
import { int, isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, type RowOfTable, Steps, Table, table } from '../table.ts'

const COLUMNS = {
  id: column.text(),
  eventId: column.orNull(column.text()),
  status: column.text<PurchaseStatus>(),
  reason: column.orNull(column.text()),
  kind: column.int(),
  order: column.json<unknown>('order_json'),
  /** The request event with its id, without signature. */
  request: column.orNull(column.json<unknown>('request_json')),
  provider: column.orNull(column.text('provider_pubkey')),
  paidMsats: column.amount<Msats>(),
  result: column.orNull(column.text()),
  error: column.orNull(column.group({ code: column.text('error_code'), message: column.text('error_message') })),
  deadlineAt: column.int(),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

/** Once it is asked for there is the request that asks. */
export type PurchaseRow = Columns &
  (
    | { readonly status: 'requested' | 'offered' | 'paying' | 'paid' | 'processing' | 'completed'; readonly eventId: string }
    | { readonly status: 'preparing' | 'failed' | 'timeout' | 'cancelled' | 'refunded' }
  )

const UNASKED: readonly PurchaseStatus[] = ['preparing', 'failed', 'timeout', 'cancelled', 'refunded']
const isPurchase = (row: Columns): row is PurchaseRow => row.eventId !== null || UNASKED.includes(row.status)

const purchases = new Table('purchases', COLUMNS, isPurchase)
const steps = new Steps('purchase_transitions', 'purchase_id', PURCHASE_STEPS, 'status')

const offers = table('purchase_offers', {
  eventId: column.text(),
  purchaseId: column.text(),
  provider: column.text('provider_pubkey'),
  /** The request that it answers; null of former versions: the first. */
  requestId: column.orNull(column.text()),
  amountMsats: column.amount<Msats>(),
  bolt11: column.orNull(column.text()),
  /** Of the invoice, where it can be read. */
  paymentHash: column.orNull(column.text()),
  state: column.text<'open' | 'unusable' | 'paying' | 'paid' | 'failed'>(),
  reason: column.orNull(column.text()),
  receivedAt: column.int(),
})
export type OfferRow = RowOfTable<typeof offers>

const answers = table('purchase_events', {
  eventId: column.text(),
  purchaseId: column.text(),
  kind: column.int(),
  pubkey: column.text(),
  summary: column.text(),
  receivedAt: column.int(),
})
export type PurchaseEventRow = RowOfTable<typeof answers>

export const insertPurchase = defineCommand(
  'insert_purchase',
  (sql, { at, ...p }: Pick<PurchaseRow, 'id' | 'kind' | 'order' | 'provider' | 'deadlineAt'> & { readonly at: number }) => {
    purchases.insert(sql, { ...p, status: 'preparing', createdAt: at, updatedAt: at })
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
  readonly error?: NonNullable<PurchaseRow['error']>
}

/** Moves a purchase on and records why. @throws conflict when its status is not one of `from`, internal for a step that there is not. */
export const movePurchase = defineCommand(
  'move_purchase',
  (sql, { id, from, to, reason, at, ...change }: PurchaseChange) => {
    const row = purchases.get(sql, { id })
    if (row === undefined) throw new PylonError('job_not_found', `There is no purchase ${id}.`)
    const { status } = row
    if (!from.includes(status)) throw new PylonError('conflict', `The purchase is ${status}, which cannot become ${to}.`)
    const step = { from: status, to, reason, at }
    steps.take(sql, id, step, () => purchases.patch(sql, { id }, { ...change, status: to, reason, updatedAt: at }))
  },
  (p) => `move_purchase:${p.to}`,
)

/** What a purchase cost that was over before its payment was known. */
export const notePaid = defineCommand('note_paid', (sql, p: { id: string; paidMsats: Msats; at: number }) => {
  purchases.patch(sql, { id: p.id }, { paidMsats: p.paidMsats, updatedAt: p.at })
})

/** Says how it is with a purchase whose status stays. */
export const notePurchase = defineCommand('note_purchase', (sql, p: { id: string; reason: string; at: number }) => {
  purchases.patch(sql, { id: p.id }, { reason: p.reason, updatedAt: p.at })
})

/** Claims an answer: false when it was handled before. */
export const claimAnswer = defineCommand('claim_answer', (sql, { at, ...answer }: Omit<PurchaseEventRow, 'receivedAt'> & { at: number }) =>
  answers.insert(sql, { ...answer, receivedAt: at }, 'ON CONFLICT DO NOTHING'),
)

export const insertOffer = defineCommand('insert_offer', (sql, { at, ...offer }: Omit<OfferRow, 'receivedAt'> & { at: number }) => {
  offers.insert(sql, { ...offer, receivedAt: at }, 'ON CONFLICT DO NOTHING')
})

export const setOfferState = defineCommand('set_offer_state', (sql, p: { eventId: string; state: OfferRow['state']; reason?: string }) => {
  offers.patch(sql, { eventId: p.eventId }, { state: p.state, reason: p.reason ?? null })
})

/** Purchases that ended without a result and whose token nobody was seen to spend. */
const TOKENS_OUT = `operations o JOIN purchases p ON p.id = ${purchaseTokenKey.idSql('o.idempotency_key')}
  WHERE o.token_state = 'pending' AND ${purchaseTokenKey.isIn('o.idempotency_key')} AND p.status NOT IN ('completed', 'refunded')`

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

/** By our id or by the id of the request event. */
export const getPurchase = (store: Store, id: string): PurchaseRow | undefined =>
  purchases.all(store.sql, 'WHERE id = ? OR event_id = ?', id, id)[0]

export const listPurchases = (store: Store, options: { limit: number }): PurchaseRow[] =>
  purchases.all(store.sql, 'ORDER BY created_at DESC LIMIT ?', BigInt(options.limit))

/**
 * What may still be answered: unfinished ones, failed ones made after `since`, paid ones after `paidSince` whose money may still
 * come back, and those that ended well whose deadline is after `endedSince`: another key may have more to say.
 */
export const openPurchases = (store: Store, times: { since: number; paidSince: number; endedSince: number }): PurchaseRow[] =>
  purchases.all(
    store.sql,
    `WHERE rowid IN (SELECT rowid FROM purchases WHERE status IN ('completed', 'refunded') AND deadline_at > @endedSince
       UNION SELECT rowid FROM purchases WHERE status IN ('preparing', 'requested', 'offered', 'paying', 'paid', 'processing')
       UNION SELECT rowid FROM purchases INDEXED BY purchases_created WHERE created_at > @oldest AND status NOT IN ('completed', 'refunded')
         AND (created_at > @since OR paid_msats > 0 AND created_at > @paidSince))`,
    {
      ...{ endedSince: BigInt(times.endedSince), since: BigInt(times.since), paidSince: BigInt(times.paidSince) },
      oldest: BigInt(Math.min(times.since, times.paidSince)),
    },
  )

/** Those whose token is out, however old they are: nobody was seen to spend it, and no result came. */
export const purchasesWithTokenOut = (store: Store): PurchaseRow[] =>
  purchases.all(store.sql, `WHERE id IN (SELECT p.id FROM ${TOKENS_OUT})`)

export const listOffers = (store: Store, purchaseId: string): OfferRow[] =>
  offers.all(store.sql, 'WHERE purchase_id = ? ORDER BY amount_msats, received_at', purchaseId)

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
export const wasAnswerHeard = (store: Store, eventId: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM purchase_events WHERE event_id = ?', eventId)

export const listAnswers = (store: Store, purchaseId: string): PurchaseEventRow[] =>
  answers.all(store.sql, 'WHERE purchase_id = ? ORDER BY received_at, rowid', purchaseId)
