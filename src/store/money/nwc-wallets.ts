/** NIP-47, as the client: the owner's Lightning wallets elsewhere, invoices made there, and payments that are made from there. */
import type { Account } from '../../base/accounts.ts'
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { NWC_INVOICE_STEPS, NWC_PAYMENT_STEPS, type NwcInvoiceState, type NwcPaymentState, statesBefore } from '../../base/states.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { countOf, intOrNull, isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, type RowOfTable, Table, table } from '../table.ts'
import { appendAudit } from './audit.ts'
import { causeOfRow, walletOwner } from './fields.ts'
import type { QuoteFilter } from './quotes.ts'

const wallets = table('nwc_wallets', {
  id: column.text(),
  walletPubkey: column.text(),
  clientPubkey: column.text(),
  relays: column.json<readonly string[]>('relays_json'),
  lud16: column.orNull(column.text()),
  info: column.json<WalletInfo>('info_json'),
  /** As it said last. */
  balance: column.orNull(column.group({ msats: column.amount<Msats>('balance_msats'), at: column.int('balance_at') })),
  state: column.text<'ok' | 'down'>(),
  reason: column.orNull(column.text()),
  createdAt: column.int(),
  disconnectedAt: column.orNull(column.int()),
})
export type NwcWalletRow = RowOfTable<typeof wallets>

interface WalletInfo {
  readonly methods: readonly string[]
  readonly encryptions: readonly ('nip44_v2' | 'nip04')[]
  readonly notifications: readonly string[]
}

/** Connects a wallet; one that was connected before comes back. @throws conflict while another is connected */
export const connectNwcWallet = defineCommand(
  'connect_nwc_wallet',
  (sql, p: Omit<NwcWalletRow, 'balance' | 'state' | 'reason' | 'disconnectedAt'>) => {
    const other = wallets.get(sql, { disconnectedAt: null })
    if (other !== undefined && other.id !== p.id)
      throw new PylonError('conflict', `The Lightning wallet ${other.id} is connected: pylon wallet disconnect comes first.`)
    const { createdAt, ...rest } = p
    const now = { ...rest, state: 'ok' as const, reason: null, disconnectedAt: null }
    if (!wallets.patch(sql, { id: p.id }, now)) wallets.insert(sql, { ...now, createdAt })
    appendAudit(sql, { at: createdAt, kind: 'connection_changed', data: { id: p.id, to: 'wallet connected' } })
  },
)

export const disconnectNwcWallet = defineCommand('disconnect_nwc_wallet', (sql, p: { id: string; at: number }) => {
  if (!wallets.patch(sql, { id: p.id, disconnectedAt: null }, { disconnectedAt: p.at })) return
  appendAudit(sql, { at: p.at, kind: 'connection_changed', data: { id: p.id, to: 'wallet disconnected' } })
})

/** What was learnt of it: how it is, what it holds, what it does. */
export const noteNwcWallet = defineCommand(
  'note_nwc_wallet',
  (sql, { id, ...change }: { id: string } & Partial<Pick<NwcWalletRow, 'state' | 'reason' | 'balance' | 'info'>>) => {
    wallets.patch(sql, { id }, change)
  },
)

/** The one that is connected. */
export const connectedNwcWallet = (store: Store): NwcWalletRow | undefined => wallets.get(store.sql, { disconnectedAt: null })

// Invoices

const INVOICE = {
  id: column.text(),
  walletId: column.text(),
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  owner: walletOwner,
  request: column.text(),
  paymentHash: column.text(),
  amountSats: column.amount(),
  creditAccount: column.text<Account>(),
  cause: causeOfRow,
  /** As those of mints: `expired` is nobody's to pay any more, `closed` is not asked about any more. */
  state: column.text<NwcInvoiceState>(),
  ofStranger: column.flag(),
  expiresAt: column.int(),
  nextCheckAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
}
export type NwcInvoiceRow = RowOf<typeof INVOICE>
const invoices = table('nwc_invoices', INVOICE)

/** False when the key or the invoice is there already. */
export const insertNwcInvoice = defineCommand('insert_nwc_invoice', (sql, p: NwcInvoiceRow): boolean =>
  invoices.insert(sql, p, 'ON CONFLICT DO NOTHING'),
)

/** @throws conflict when its state can't become `to` */
export const moveNwcInvoice = defineCommand(
  'move_nwc_invoice',
  (sql, p: { id: string; to: NwcInvoiceState; nextCheckAt: number | null; at: number }) => {
    const row = invoices.get(sql, { id: p.id })
    if (row === undefined || !statesBefore(NWC_INVOICE_STEPS, p.to).includes(row.state))
      throw new PylonError('conflict', `The invoice is ${row?.state ?? 'missing'}, which cannot become ${p.to}.`)
    invoices.patch(sql, { id: p.id }, { state: p.to, nextCheckAt: p.nextCheckAt, updatedAt: p.at })
  },
  (p) => `move_nwc_invoice:${p.to}`,
)

export const nwcInvoiceByKey = (store: Store, idempotencyKey: string): NwcInvoiceRow | undefined =>
  invoices.get(store.sql, { idempotencyKey })

export const nwcInvoiceOfHash = (store: Store, paymentHash: string): NwcInvoiceRow | undefined => invoices.get(store.sql, { paymentHash })

export const getNwcInvoice = (store: Store, id: string): NwcInvoiceRow | undefined => invoices.get(store.sql, { id })

export const dueNwcInvoices = (store: Store, now: number): NwcInvoiceRow[] =>
  invoices.all(store.sql, `WHERE state IN ('unpaid', 'expired') AND next_check_at <= ? ORDER BY next_check_at LIMIT 100`, BigInt(now))

export const countNwcInvoices = (store: Store, state: 'unpaid' | 'expired', ofStrangers: boolean): number =>
  countOf(store.sql, 'SELECT count(*) AS n FROM nwc_invoices WHERE state = ? AND of_stranger >= ?', state, ofStrangers ? 1n : 0n)

/** The newest first. */
export const listNwcInvoices = (store: Store, { ownerPubkey, states, limit }: QuoteFilter): NwcInvoiceRow[] =>
  invoices.all(
    store.sql,
    `WHERE (@owner IS NULL OR owner_pubkey = @owner) AND (@states IS NULL OR state IN (SELECT value FROM json_each(@states)))
     ORDER BY created_at DESC, rowid DESC LIMIT @limit`,
    { owner: ownerPubkey ?? null, states: states === undefined ? null : JSON.stringify(states), limit: BigInt(limit) },
  )

/** Forgets invoices that nobody paid. */
export const sweepNwcInvoices = defineCommand('sweep_nwc_invoices', (sql, p: { before: number }) => {
  sql(`DELETE FROM nwc_invoices WHERE state = 'closed' AND updated_at < ?`).run(BigInt(p.before))
})

// Payments

const PAYMENT = {
  id: column.text(),
  walletId: column.text(),
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  owner: walletOwner,
  request: column.text(),
  paymentHash: column.text(),
  amountMsats: column.amount<Msats>(),
  debitAccount: column.text<Account>(),
  cause: causeOfRow,
  state: column.text<NwcPaymentState>(),
  /** Of the request to the wallet. */
  eventId: column.text(),
  /** Unix seconds: later the wallet is not to act on the request. */
  expiresAtS: column.int(),
  preimage: column.orNull(column.text()),
  feeMsats: column.orNull(column.amount<Msats>()),
  /** Why it failed, or what it waits for. */
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextCheckAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Payment = RowOf<typeof PAYMENT>
export type NwcPaymentRow = Payment &
  (
    | { readonly state: 'unknown'; readonly nextCheckAt: number }
    | { readonly state: 'completed'; readonly feeMsats: Msats }
    | { readonly state: 'failed' }
  )
const isPayment = (row: Payment): row is NwcPaymentRow => row.state !== 'completed' || row.feeMsats !== null
const payments = new Table('nwc_payments', PAYMENT, isPayment)

/** @throws idempotency_conflict when the key is taken; payment_in_progress, invoice_paid when the payment hash is, here or at a mint */
export const insertNwcPayment = defineCommand(
  'insert_nwc_payment',
  (sql, p: Omit<Payment, 'state' | 'preimage' | 'feeMsats' | 'reason' | 'tries' | 'updatedAt'>) => {
    assertNotPaidByNwc(sql, p.paymentHash)
    const atMint = sql(`SELECT state FROM operations WHERE payment_hash IS NOT NULL AND payment_hash = ? AND state <> 'failed'`).get(
      p.paymentHash,
    )
    if (atMint !== undefined) throw paidBefore(atMint['state'] === 'completed')
    const isNew = payments.insert(sql, { ...p, state: 'unknown', updatedAt: p.createdAt }, 'ON CONFLICT (idempotency_key) DO NOTHING')
    if (!isNew) throw new PylonError('idempotency_conflict', 'Another payment has this idempotency key.')
    const data = { payment: p.id, rail: `nwc:${p.walletId}`, owner: p.owner, cause: p.cause, amount_msats: p.amountMsats }
    appendAudit(sql, { at: p.createdAt, kind: 'spend', data })
  },
)

/** @throws payment_in_progress, invoice_paid where the owner's Lightning wallet paid or pays it */
export function assertNotPaidByNwc(sql: Sql, paymentHash: string): void {
  const row = sql(`SELECT state FROM nwc_payments WHERE payment_hash = ? AND state <> 'failed'`).get(paymentHash)
  if (row !== undefined) throw paidBefore(row['state'] === 'completed')
}

const paidBefore = (isOver: boolean): PylonError =>
  isOver
    ? new PylonError('invoice_paid', 'This home has paid the invoice already: nothing more was spent.')
    : new PylonError('payment_in_progress', 'This home is paying the invoice already: nothing more was spent.')

export interface NwcPaymentMove {
  readonly id: string
  readonly to: NwcPaymentState
  readonly reason: string
  readonly at: number
  readonly preimage?: string
  readonly feeMsats?: Msats
  readonly tries?: number
  readonly nextCheckAt: number | null
}

/** @throws conflict when its state can't become `to` */
export const moveNwcPayment = defineCommand(
  'move_nwc_payment',
  (sql, { id, to: state, at: updatedAt, ...change }: NwcPaymentMove) => {
    const row = payments.get(sql, { id })
    if (row === undefined || !statesBefore(NWC_PAYMENT_STEPS, state).includes(row.state))
      throw new PylonError('conflict', `The payment is ${row?.state ?? 'missing'}, which cannot become ${state}.`)
    payments.patch(sql, { id }, { ...change, state, updatedAt })
  },
  (p) => `move_nwc_payment:${p.to}`,
)

/** Gives the key of a failed payment free for another try; the row stays under a name of its own. */
export const freeFailedNwcKey = defineCommand('free_failed_nwc_key', (sql, p: { id: string }) => {
  sql(`UPDATE nwc_payments SET idempotency_key = idempotency_key || '#failed:' || id WHERE id = ? AND state = 'failed'`).run(p.id)
})

export const nwcPaymentByKey = (store: Store, idempotencyKey: string): NwcPaymentRow | undefined =>
  payments.get(store.sql, { idempotencyKey })

export const nwcPaymentOfEvent = (store: Store, eventId: string): NwcPaymentRow | undefined => payments.get(store.sql, { eventId })

export const getNwcPayment = (store: Store, id: string): NwcPaymentRow | undefined => payments.get(store.sql, { id })

export const openNwcPayments = (store: Store): NwcPaymentRow[] =>
  payments.all(store.sql, `WHERE state = 'unknown' ORDER BY created_at LIMIT 1000`)

export const dueNwcPayments = (store: Store, now: number): NwcPaymentRow[] =>
  payments.all(store.sql, `WHERE state = 'unknown' AND next_check_at <= ? ORDER BY next_check_at LIMIT 100`, BigInt(now))

/** Whether a payment whose key begins so is under way. */
export const isNwcPaymentOpen = (store: Store, keyPrefix: string): boolean =>
  isThere(
    store.sql,
    `SELECT 1 FROM nwc_payments WHERE state = 'unknown' AND idempotency_key >= ? AND idempotency_key < ? || char(1114111)`,
    keyPrefix,
    keyPrefix,
  )

/** When the next invoice or payment is to be asked about. */
export function nextNwcDue(store: Store): number | undefined {
  const row = store
    .sql(
      `SELECT min(at) AS at FROM (SELECT min(next_check_at) AS at FROM nwc_invoices WHERE state IN ('unpaid', 'expired')
         UNION ALL SELECT min(next_check_at) FROM nwc_payments WHERE state = 'unknown')`,
    )
    .get()
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}
