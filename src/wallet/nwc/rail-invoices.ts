/** Invoices of sales that are made at the owner's own Lightning wallet, and looked up there until they are paid. */
import { accountOf, accountOwner, nwcDetail, type WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { randomUuid } from '../../base/random.ts'
import { parseTransaction } from '../../nostr/nips/nip47.ts'
import { nwcInvoicePaid } from '../../store/keys.ts'
import { postEntry } from '../../store/money/ledger.ts'
import {
  countNwcInvoices,
  getNwcInvoice,
  insertNwcInvoice,
  moveNwcInvoice,
  type NwcInvoiceRow,
  nwcInvoiceByKey,
} from '../../store/money/nwc-wallets.ts'
import { insertWalletEvent } from '../../store/money/wallet-events.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { requestDigest } from '../context.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import { nextCheck } from '../mint/quote-schedule.ts'
import type { Invoice, InvoiceRequest, WalletEvent } from '../types.ts'
import type { RailWork } from './rail.ts'

const FIRST_LOOK_MS = 1000
const DEFAULT_EXPIRY_S = 3600
const MIN_EXPIRY_S = 60

export class RailInvoices {
  readonly #deps: RailWork
  readonly #keys = new KeyedQueue()

  constructor(deps: RailWork) {
    this.#deps = deps
  }

  create(owner: WalletOwner, request: InvoiceRequest): Promise<Invoice> {
    const { amountSats, description, creditAccount, cause, idempotencyKey } = request
    const digest = requestDigest('nwc invoice', { owner: owner.pubkey, amountSats, description, creditAccount, cause })
    return this.#keys.run(idempotencyKey, async () => {
      const before = nwcInvoiceByKey(this.#deps.store, idempotencyKey)
      if (before !== undefined && before.requestDigest !== digest)
        throw new PylonError('idempotency_conflict', 'This idempotency key was used for another invoice: use a new one.')
      return asInvoice(before ?? (await this.#makeInvoice(owner, request, digest)))
    })
  }

  async #makeInvoice(owner: WalletOwner, request: InvoiceRequest, requestDigest: string): Promise<NwcInvoiceRow> {
    const { store, clock, scope, invoiceNetwork } = this.#deps
    const { amountSats, description, expiresAt: until, idempotencyKey, creditAccount, cause, ofStranger = false } = request
    const { id: walletId, info } = this.#deps.connection.connected()
    if (!info.methods.includes('lookup_invoice'))
      throw new PylonError(
        'nwc_refused',
        'The Lightning wallet does not tell of its invoices (lookup_invoice): sales cannot be received there.',
      )
    const expiry = until === undefined ? DEFAULT_EXPIRY_S : Math.max(MIN_EXPIRY_S, Math.ceil((until - clock.now()) / 1000))
    const params = {
      amount: Number(amountSats) * 1000,
      expiry,
      ...(description === undefined ? {} : { description: description.slice(0, 600) }),
    }
    const { invoice } = await this.#deps.connection.ask('make_invoice', params)
    const made = decodeInvoice(typeof invoice === 'string' ? invoice : '')
    if (made.amountMsats !== amountSats * 1000n)
      throw new PylonError(
        'invoice_invalid',
        `The Lightning wallet made an invoice over ${made.amountMsats ?? 'no'} msats when asked for ${amountSats} sats.`,
      )
    if (made.network !== invoiceNetwork)
      throw new PylonError('invoice_invalid', `The Lightning wallet is of another network (ln${made.network}).`)
    const now = clock.now()
    const row: NwcInvoiceRow = {
      ...{ id: randomUuid(scope.random), walletId, idempotencyKey, requestDigest, owner, creditAccount, cause, ofStranger },
      ...{ request: made.request, paymentHash: made.paymentHash, amountSats, state: 'unpaid' },
      ...{ expiresAt: Math.min(made.expiresAt, until ?? made.expiresAt), nextCheckAt: now + FIRST_LOOK_MS, createdAt: now, updatedAt: now },
    }
    if (!(await store.write(insertNwcInvoice(row))))
      throw new PylonError('invoice_invalid', 'The Lightning wallet gave an invoice that it had given before.')
    this.#deps.wake()
    return row
  }

  get(idempotencyKey: string): Invoice | undefined {
    const row = nwcInvoiceByKey(this.#deps.store, idempotencyKey)
    return row === undefined ? undefined : asInvoice(row)
  }

  /** Asks about one invoice, and settles it when it is paid. */
  async check(id: string): Promise<void> {
    const row = getNwcInvoice(this.#deps.store, id)
    if (row === undefined || (row.state !== 'unpaid' && row.state !== 'expired')) return
    let answered = false
    try {
      const found = parseTransaction(await this.#deps.connection.ask('lookup_invoice', { payment_hash: row.paymentHash }, row.walletId))
      if (found.paymentHash === row.paymentHash && found.state === 'settled') return await this.#settleInvoice(row)
      answered = true
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
    }
    await this.#deferInvoice(row, answered)
  }

  async #deferInvoice(row: NwcInvoiceRow, answered: boolean): Promise<void> {
    const { store, clock } = this.#deps
    const at = clock.now()
    const strangers = row.ofStranger ? countNwcInvoices(store, at > row.expiresAt ? 'expired' : 'unpaid', true) : 0
    const next = nextCheck({ ...row, payableUntil: decodeInvoice(row.request).expiresAt }, at, answered, strangers)
    await persistIfUnmoved(this.#deps, moveNwcInvoice({ id: row.id, to: next.state, nextCheckAt: next.nextCheckAt, at }))
  }

  async #settleInvoice(row: NwcInvoiceRow): Promise<void> {
    const { clock } = this.#deps
    const at = clock.now()
    const { id, owner, cause, amountSats, walletId, creditAccount, idempotencyKey } = row
    const amountMsats = amountSats * 1000n
    const event: WalletEvent = { type: 'invoice_settled', owner, cause, idempotencyKey, amountSats: sats(amountSats) }
    const isNew = await persistIfUnmoved(
      this.#deps,
      moveNwcInvoice({ id, to: 'settled', nextCheckAt: null, at }),
      postEntry({
        id: nwcInvoicePaid.of(id),
        cause,
        at,
        memo: 'received by the Lightning wallet',
        postings: [
          { account: accountOf(accountOwner(owner), 'wallet', nwcDetail(walletId)), amountMsats },
          { account: creditAccount, amountMsats: -amountMsats },
        ],
      }),
      insertWalletEvent({ causeType: cause.type, event, at }),
    )
    if (isNew) this.#deps.tell()
  }
}

function asInvoice(row: NwcInvoiceRow): Invoice {
  return {
    id: row.id,
    request: row.request,
    quoteId: row.paymentHash,
    paymentHash: row.paymentHash,
    amountSats: sats(row.amountSats),
    mintUrl: nwcDetail(row.walletId),
    expiresAt: row.expiresAt,
    state: row.state === 'closed' ? 'expired' : row.state,
  }
}
