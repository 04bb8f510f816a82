/** Lightning payments of one wallet, in and out, as wallets list them. */
import { type Msats, msats } from '../../base/amounts.ts'
import type { OperationState } from '../../base/states.ts'
import { isPurseMoveSql, nwcPaymentKey } from '../keys.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection } from '../table.ts'
import type { QuoteState } from './quotes.ts'

const found = new Selection({
  type: column.text<'incoming' | 'outgoing'>(),
  state: column.text<QuoteState | OperationState>(),
  /** The bolt11 invoice; null of payments that do not keep it. */
  request: column.orNull(column.text()),
  paymentHash: column.text(),
  amountMsats: column.amount<Msats>(),
  result: column.orNull(column.json<{ readonly preimage?: string; readonly fee_sats?: number }>('result_json')),
  createdAt: column.int(),
  updatedAt: column.int(),
})
/** Times are milliseconds since the epoch. */
export type LightningTransaction = RowOfTable<typeof found> & {
  /** `pending` may still be paid, or be under way. */
  readonly status: 'pending' | 'settled' | 'expired' | 'failed'
  readonly feeMsats: Msats
  readonly preimage: string | undefined
}

const IN = `SELECT 'incoming' AS type, state, request, payment_hash, amount_sats * 1000 AS amount_msats, NULL AS result_json, created_at, updated_at
  FROM mint_quotes`
const OUT = `SELECT 'outgoing' AS type, o.state AS state, r.params_json ->> '$.invoice' AS request, o.payment_hash AS payment_hash,
    o.amount_sats * 1000 AS amount_msats, o.result_json AS result_json, o.created_at AS created_at, o.updated_at AS updated_at
  FROM operations o LEFT JOIN nwc_requests r ON r.event_id = ${nwcPaymentKey.idSql('o.idempotency_key')} AND ${nwcPaymentKey.isIn('o.idempotency_key')}`

export interface TransactionFilter {
  readonly ownerPubkey: string
  readonly type?: 'incoming' | 'outgoing' | undefined
  /** Also invoices that nobody paid and payments that did not go through. */
  readonly unpaidToo: boolean
  /** Milliseconds since the epoch. */
  readonly from: number
  readonly until: number
  readonly limit: number
  readonly offset: number
}

/** The newest first. */
export function listTransactions(store: Store, filter: TransactionFilter): LightningTransaction[] {
  const { ownerPubkey, type, unpaidToo, from, until, limit, offset } = filter
  const most = BigInt(limit + offset)
  const ofTime = 'created_at BETWEEN @from AND @until'
  const incoming = `SELECT * FROM (${IN} WHERE owner_pubkey = @owner AND ${ofTime} AND NOT ${isPurseMoveSql('idempotency_key')} AND (@unpaid = 1 OR state = 'settled') ORDER BY created_at DESC LIMIT @most)`
  const outgoing = `SELECT * FROM (${OUT} WHERE o.owner_pubkey = @owner AND o.kind = 'melt' AND o.payment_hash IS NOT NULL
    AND NOT ${isPurseMoveSql('o.idempotency_key')} AND o.${ofTime}
    AND (@unpaid = 1 OR o.state = 'completed') ORDER BY o.created_at DESC LIMIT @most)`
  const parts = [...(type === 'outgoing' ? [] : [incoming]), ...(type === 'incoming' ? [] : [outgoing])]
  return found
    .all(store.sql, `${parts.join(' UNION ALL ')} ORDER BY created_at DESC LIMIT @limit OFFSET @offset`, {
      owner: ownerPubkey,
      from: BigInt(from),
      until: BigInt(until),
      unpaid: unpaidToo ? 1n : 0n,
      most,
      limit: BigInt(limit),
      offset: BigInt(offset),
    })
    .map(asTransaction)
}

/** What a wallet knows of a payment hash: its invoice, or else its newest payment. */
export function transactionOfHash(store: Store, ownerPubkey: string, paymentHash: string): LightningTransaction | undefined {
  const incoming = found.get(store.sql, `${IN} WHERE payment_hash = ? AND owner_pubkey = ?`, paymentHash, ownerPubkey)
  const outgoing = `${OUT} WHERE o.payment_hash = ? AND o.owner_pubkey = ? AND o.kind = 'melt' ORDER BY o.created_at DESC, o.rowid DESC LIMIT 1`
  const row = incoming ?? found.get(store.sql, outgoing, paymentHash, ownerPubkey)
  return row === undefined ? undefined : asTransaction(row)
}

function asTransaction(row: RowOfTable<typeof found>): LightningTransaction {
  const preimage = row.result?.preimage
  return {
    ...row,
    status: STATUS[row.state],
    feeMsats: msats(BigInt(row.result?.fee_sats ?? 0) * 1000n),
    preimage: preimage === '' ? undefined : preimage,
  }
}

/** Of an invoice that its mint was paid for it is pending until the ecash is ours. */
const STATUS: Readonly<Record<QuoteState | OperationState, LightningTransaction['status']>> = {
  unpaid: 'pending',
  paid: 'pending',
  settled: 'settled',
  expired: 'expired',
  closed: 'expired',
  prepared: 'pending',
  submitted: 'pending',
  unknown: 'pending',
  completed: 'settled',
  failed: 'failed',
}
