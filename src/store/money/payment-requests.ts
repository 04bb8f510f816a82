/** Payment requests (NUT-18): those of this home, what was paid on each, and what this home pays on those of others. */
import { PylonError } from '../../base/errors.ts'
import {
  canStep,
  REQUEST_PAYMENT_STEPS,
  REQUEST_SEND_STEPS,
  REQUEST_STEPS,
  type RequestPaymentState,
  type RequestSendState,
  type RequestState,
} from '../../base/states.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { countOf, intOrNull, sumOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, type RowOfTable, Table, table } from '../table.ts'
import { walletOwner } from './fields.ts'

const requests = table('payment_requests', {
  /** As it stands in the request, so that its payments name it. */
  id: column.text(),
  owner: walletOwner,
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  /** Null: whoever pays says how much. */
  amountSats: column.orNull(column.amount()),
  mints: column.json<readonly string[]>('mints_json'),
  description: column.orNull(column.text()),
  singleUse: column.flag(),
  transport: column.text<'nostr' | 'none'>(),
  request: column.text(),
  requestBech32: column.text(),
  state: column.text<RequestState>(),
  expiresAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type PaymentRequestRow = RowOfTable<typeof requests>

/** What the owner should know of a payment. */
export type PaymentNote = 'short' | 'over' | 'late' | 'cancelled' | 'again'

const PAYMENT = {
  /** Digest of the secrets of its proofs: the same proofs are the same payment, however often they come. */
  id: column.text(),
  requestId: column.text(),
  letterId: column.orNull(column.text()),
  sender: column.orNull(column.text()),
  mintUrl: column.text(),
  faceSats: column.amount(),
  token: column.text(),
  memo: column.orNull(column.text()),
  state: column.text<RequestPaymentState>(),
  /** What of it is ours, after the fee of the mint. */
  amountSats: column.orNull(column.amount()),
  /** Joined by commas. */
  notes: column.text(),
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextTryAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Payment = RowOf<typeof PAYMENT>
export type RequestPaymentRow = Payment &
  (
    | { readonly state: 'claimed'; readonly nextTryAt: number }
    | { readonly state: 'received'; readonly amountSats: bigint }
    | { readonly state: 'refused' }
  )
const isPayment = (row: Payment): row is RequestPaymentRow =>
  (row.state === 'claimed') === (row.nextTryAt !== null) && (row.state === 'received') === (row.amountSats !== null)
const payments = new Table('request_payments', PAYMENT, isPayment)

const sends = table('request_sends', {
  id: column.text(),
  owner: walletOwner,
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  request: column.text(),
  amountSats: column.amount(),
  /** Null: whichever of ours holds enough. */
  mintUrl: column.orNull(column.text()),
  transport: column.text<'nostr' | 'post' | 'none'>(),
  /** The key or URL that it goes to. */
  target: column.orNull(column.text()),
  state: column.text<RequestSendState>(),
  /** What is sent, as often as it takes: always the same proofs. */
  payload: column.orNull(column.text()),
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextTryAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type RequestSendRow = RowOfTable<typeof sends>

// Requests of ours

/** The first under a key stays. */
export const insertPaymentRequest = defineCommand(
  'insert_payment_request',
  (sql, { createdAt, ...p }: Omit<PaymentRequestRow, 'state' | 'updatedAt'>) => {
    requests.insert(sql, { ...p, state: 'open', createdAt, updatedAt: createdAt }, 'ON CONFLICT DO NOTHING')
  },
)

/** @throws not_found, conflict */
export const cancelPaymentRequest = defineCommand('cancel_payment_request', (sql, p: { id: string; at: number }) => {
  const row = requests.get(sql, { id: p.id })
  if (row === undefined) throw new PylonError('not_found', `There is no payment request ${p.id}.`)
  if (row.state === 'cancelled') return
  if (!canStep(REQUEST_STEPS, row.state, 'cancelled')) throw new PylonError('conflict', `The payment request is ${row.state}.`)
  requests.patch(sql, { id: p.id }, { state: 'cancelled', updatedAt: p.at })
})

export const getPaymentRequest = (store: Store, id: string): PaymentRequestRow | undefined => requests.get(store.sql, { id })

export const paymentRequestByKey = (store: Store, idempotencyKey: string): PaymentRequestRow | undefined =>
  requests.get(store.sql, { idempotencyKey })

/** Newest first. */
export const listPaymentRequests = (store: Store, p: { ownerPubkey?: string; limit: number }): PaymentRequestRow[] =>
  requests.all(store.sql, 'WHERE (@owner IS NULL OR owner_pubkey = @owner) ORDER BY created_at DESC, rowid DESC LIMIT @limit', {
    owner: p.ownerPubkey ?? null,
    limit: BigInt(p.limit),
  })

// What was paid on them

/** Open at once on one request: each costs a question to its mint. */
const MAX_CLAIMED = 50
/** What was refused is kept for the owner to see, not for ever. */
const MAX_REFUSED = 50

/** Before anything is asked about it; the same proofs again do nothing. @returns whether it is new @throws overloaded */
export const claimRequestPayment = defineCommand(
  'claim_request_payment',
  (
    sql,
    {
      createdAt: at,
      ...p
    }: Pick<Payment, 'id' | 'requestId' | 'letterId' | 'sender' | 'mintUrl' | 'faceSats' | 'token' | 'memo' | 'createdAt'>,
  ): boolean => {
    if (payments.get(sql, { id: p.id }) !== undefined) return false
    if (countOf(sql, "SELECT count(*) AS n FROM request_payments WHERE request_id = ? AND state = 'claimed'", p.requestId) >= MAX_CLAIMED)
      throw new PylonError('overloaded', 'Too many payments on this request are being looked at: this one comes again.')
    return payments.insert(sql, { ...p, state: 'claimed', nextTryAt: at, createdAt: at, updatedAt: at })
  },
)

/** It is in the wallet: the request is paid once all that came in reaches what it asks. @throws conflict */
export const receiveRequestPayment = defineCommand('receive_request_payment', (sql, p: { id: string; amountSats: bigint; at: number }) => {
  const row = claimed(sql, p.id)
  const request = requests.get(sql, { id: row.requestId })
  if (request === undefined) throw new PylonError('internal', `The payment ${p.id} has no request.`)
  const before = receivedFace(sql, request.id)
  const notes = notesOf(request, row, { before, amountSats: p.amountSats })
  payments.patch(
    sql,
    { id: p.id },
    { state: 'received', amountSats: p.amountSats, notes: notes.join(','), reason: null, nextTryAt: null, updatedAt: p.at },
  )
  const isPaid = request.amountSats === null || before + row.faceSats >= request.amountSats
  if (request.state === 'open' && isPaid) requests.patch(sql, { id: request.id }, { state: 'paid', updatedAt: p.at })
})

/** @throws conflict */
export const refuseRequestPayment = defineCommand('refuse_request_payment', (sql, p: { id: string; reason: string; at: number }) => {
  const row = claimed(sql, p.id)
  payments.patch(sql, { id: p.id }, { state: 'refused', reason: p.reason, nextTryAt: null, updatedAt: p.at })
  sql(
    `DELETE FROM request_payments WHERE id IN (SELECT id FROM request_payments WHERE request_id = ? AND state = 'refused'
       ORDER BY updated_at DESC, rowid DESC LIMIT -1 OFFSET ?)`,
  ).run(row.requestId, BigInt(MAX_REFUSED))
})

/** @throws conflict */
export const deferRequestPayment = defineCommand(
  'defer_request_payment',
  (sql, { id, at: updatedAt, ...change }: { id: string; reason: string; tries: number; nextTryAt: number; at: number }) => {
    claimed(sql, id)
    payments.patch(sql, { id }, { ...change, updatedAt })
  },
)

function claimed(sql: Sql, id: string): RequestPaymentRow {
  const row = payments.get(sql, { id })
  if (row === undefined || !canStep(REQUEST_PAYMENT_STEPS, row.state, 'claimed'))
    throw new PylonError('conflict', `The payment is ${row?.state ?? 'missing'} already.`)
  return row
}

const receivedFace = (sql: Sql, requestId: string): bigint =>
  sumOf(sql, "SELECT coalesce(sum(face_sats), 0) AS n FROM request_payments WHERE request_id = ? AND state = 'received'", requestId)

/** @param before what had come in on it by then; `amountSats`: what is left of this one after the fee of its mint, which the payer may add */
function notesOf(
  { amountSats: asked, state, expiresAt, singleUse }: PaymentRequestRow,
  { faceSats, createdAt }: Payment,
  { before, amountSats }: { before: bigint; amountSats: bigint },
): PaymentNote[] {
  const isRest = asked !== null && before < asked
  return [
    ...(asked !== null && before + faceSats < asked ? (['short'] as const) : []),
    ...(asked !== null && (isRest ? before : 0n) + amountSats > asked ? (['over'] as const) : []),
    ...(expiresAt !== null && createdAt > expiresAt ? (['late'] as const) : []),
    ...(state === 'cancelled' ? (['cancelled'] as const) : []),
    ...(singleUse && state === 'paid' ? (['again'] as const) : []),
  ]
}

export const getRequestPayment = (store: Store, id: string): RequestPaymentRow | undefined => payments.get(store.sql, { id })

/** Newest first. */
export const paymentsOfRequest = (store: Store, requestId: string, limit: number): RequestPaymentRow[] =>
  payments.all(store.sql, 'WHERE request_id = ? ORDER BY created_at DESC, rowid DESC LIMIT ?', requestId, BigInt(limit))

export const dueRequestPayments = (store: Store, now: number): RequestPaymentRow[] =>
  payments.all(store.sql, "WHERE state = 'claimed' AND next_try_at <= ? ORDER BY next_try_at LIMIT 100", BigInt(now))

/** Sats that came in on a request, after the fees of mints. */
export const receivedOnRequest = (store: Store, requestId: string): bigint =>
  sumOf(store.sql, "SELECT coalesce(sum(amount_sats), 0) AS n FROM request_payments WHERE request_id = ? AND state = 'received'", requestId)

// What we pay on those of others

/** Before anything is spent; the first under a key stays. */
export const claimRequestSend = defineCommand(
  'claim_request_send',
  (sql, { createdAt: at, ...p }: Omit<RequestSendRow, 'state' | 'payload' | 'reason' | 'tries' | 'nextTryAt' | 'updatedAt'>) => {
    sends.insert(sql, { ...p, state: 'claimed', nextTryAt: at, createdAt: at, updatedAt: at }, 'ON CONFLICT DO NOTHING')
  },
)

/** Nothing was spent for it: its key is free again. */
export const dropRequestSend = defineCommand('drop_request_send', (sql, p: { id: string }) => {
  sql("DELETE FROM request_sends WHERE id = ? AND state = 'claimed'").run(p.id)
})

export interface RequestSendMove {
  readonly id: string
  readonly to: RequestSendState
  readonly at: number
  readonly payload?: string
  readonly reason?: string | null
  readonly tries?: number
  readonly nextTryAt: number | null
}

/** @throws conflict when its state can't become `to` */
export const moveRequestSend = defineCommand(
  'move_request_send',
  (sql, { id, to: state, at: updatedAt, ...change }: RequestSendMove) => {
    const row = sends.get(sql, { id })
    if (row === undefined || !canStep(REQUEST_SEND_STEPS, row.state, state))
      throw new PylonError('conflict', `The payment is ${row?.state ?? 'missing'}, which cannot become ${state}.`)
    sends.patch(sql, { id }, { ...change, state, updatedAt })
  },
  (p) => `move_request_send:${p.to}`,
)

export const getRequestSend = (store: Store, id: string): RequestSendRow | undefined => sends.get(store.sql, { id })

export const requestSendByKey = (store: Store, idempotencyKey: string): RequestSendRow | undefined =>
  sends.get(store.sql, { idempotencyKey })

/** Newest first. */
export const listRequestSends = (store: Store, p: { ownerPubkey?: string; limit: number }): RequestSendRow[] =>
  sends.all(store.sql, 'WHERE (@owner IS NULL OR owner_pubkey = @owner) ORDER BY created_at DESC, rowid DESC LIMIT @limit', {
    owner: p.ownerPubkey ?? null,
    limit: BigInt(p.limit),
  })

export const dueRequestSends = (store: Store, now: number): RequestSendRow[] =>
  sends.all(store.sql, "WHERE state IN ('claimed', 'sending') AND next_try_at <= ? ORDER BY next_try_at LIMIT 100", BigInt(now))

/** When the next payment, in or out, is to be looked at. */
export function nextRequestDue(store: Store): number | undefined {
  const row = store
    .sql(
      `SELECT min(at) AS at FROM (SELECT min(next_try_at) AS at FROM request_payments WHERE state = 'claimed'
         UNION ALL SELECT min(next_try_at) FROM request_sends WHERE state IN ('claimed', 'sending'))`,
    )
    .get()
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}
