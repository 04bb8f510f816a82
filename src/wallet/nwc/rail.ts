/**
 * The owner's own Lightning wallet elsewhere (NIP-47) as a way for sats to move beside the mints: invoices of sales made there, and
 * payments made from there. What passes is posted to `node/wallet/nwc:<id>`; what the wallet holds it says itself.
 */
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import type { Config } from '../../base/config.ts'
import { PylonError } from '../../base/errors.ts'
import { fillKey, fillKeys } from '../../store/keys.ts'
import {
  dueNwcInvoices,
  dueNwcPayments,
  freeFailedNwcKey,
  isNwcPaymentOpen,
  nextNwcDue,
  nwcInvoiceOfHash,
  nwcPaymentByKey,
  sweepNwcInvoices,
} from '../../store/money/nwc-wallets.ts'
import type { Invoice, InvoiceRequest, LightningRail, SendRequest, Wallet } from '../types.ts'
import { type ConnectionDeps, WalletConnection } from './connection.ts'
import { RailInvoices } from './rail-invoices.ts'
import { RailPayments } from './rail-payments.ts'

export interface NwcRailDeps extends ConnectionDeps {
  readonly config: () => Config
  readonly wallets: { useRail(rail: LightningRail): () => void }
  /** The prefix that invoices must have. */
  readonly invoiceNetwork: string
}

/** What invoices and payments need of the rail. */
export interface RailWork extends Pick<NwcRailDeps, 'scope' | 'store' | 'clock' | 'logger' | 'nostr' | 'config' | 'invoiceNetwork'> {
  readonly connection: WalletConnection
  /** Tells the other parts what was committed. */
  readonly tell: () => void
  /** Something is to be asked about later. */
  readonly wake: () => void
}

const MAX_NAP_MS = 60_000
const MIN_NAP_MS = 100
const BUSY_NAP_MS = 1000
const DAY_MS = 86_400_000
const KEPT_MS = 30 * DAY_MS
/** What filling a mint brings beyond what is missing: its fees of making a token. */
const FILL_EXTRA_SATS = 5n
const FILL_WAIT_MS = 20_000
const POLL_MS = 250

export class NwcRail implements LightningRail {
  readonly connection: WalletConnection
  readonly #deps: NwcRailDeps
  readonly #invoices: RailInvoices
  readonly #payments: RailPayments
  #cancelNap: (() => void) | undefined

  constructor(deps: NwcRailDeps) {
    this.#deps = deps
    this.connection = new WalletConnection(deps)
    const work = { ...deps, connection: this.connection, tell: deps.wallets.useRail(this), wake: () => this.#nap(MIN_NAP_MS) }
    this.#invoices = new RailInvoices(work)
    this.#payments = new RailPayments(work)
    this.connection.onResponse = (requestId, response) => this.#payments.onResponse(requestId, response)
    this.connection.onNotification = (notification) => this.#onNotification(notification)
  }

  start(): void {
    const { scope, store, clock } = this.#deps
    this.connection.start()
    scope.every('sweep', DAY_MS, () => store.write(sweepNwcInvoices({ before: clock.now() - KEPT_MS })))
    this.#look()
  }

  get isConnected(): boolean {
    return this.connection.get() !== undefined
  }

  receives(owner: WalletOwner, { cause, mintUrl }: InvoiceRequest): boolean {
    const isSale = cause.type === 'job' || cause.type === 'lease'
    return isSale && owner.kind === 'node' && mintUrl === undefined && this.#deps.config().wallet.receive_by === 'nwc'
  }

  createInvoice: LightningRail['createInvoice'] = (owner, request) => this.#invoices.create(owner, request)
  invoice: LightningRail['invoice'] = (idempotencyKey) => this.#invoices.get(idempotencyKey)
  pay: LightningRail['pay'] = (owner, request) => this.#payments.pay(owner, request)
  payment: LightningRail['payment'] = (idempotencyKey) => this.#payments.payment(idempotencyKey)

  async fill(wallet: Wallet, request: SendRequest): Promise<void> {
    const { store, clock, scope } = this.#deps
    const { mints } = wallet.balance()
    const usable = request.mintUrl === undefined ? mints : mints.filter(({ url }) => url === request.mintUrl)
    const fullest = [...usable].sort((a, b) => Number(b.balanceSats - a.balanceSats))[0]
    this.connection.connected()
    if (isNwcPaymentOpen(store, fillKeys.of(request.idempotencyKey)))
      throw new PylonError('payment_unknown', 'Sats are on their way from the Lightning wallet to the mint.')
    const heldSats = fullest?.balanceSats ?? 0n
    const missingSats = (request.amountSats > heldSats ? request.amountSats - heldSats : 0n) + FILL_EXTRA_SATS
    let nth = 1
    const keyNow = () => fillKey(request.idempotencyKey, { heldSats, missingSats }, nth)
    while (isOver(wallet.invoice(keyNow()), clock.now())) nth++
    const key = keyNow()
    const between = accountOf(accountOwner(wallet.owner), 'equity', 'moved')
    const common = { idempotencyKey: key, cause: request.cause }
    const mintUrl = fullest?.url
    const invoice = await wallet.createInvoice({
      ...{ ...common, amountSats: sats(missingSats), creditAccount: between, description: 'From the Lightning wallet to the mint' },
      ...(mintUrl === undefined ? {} : { mintUrl }),
    })
    const before = nwcPaymentByKey(store, key)
    if (before?.state === 'failed') await store.write(freeFailedNwcKey({ id: before.id }))
    const paid = await this.#payments.pay(wallet.owner, { ...common, request: invoice.request, debitAccount: between }, 'own')
    if (paid.state === 'unknown') throw new PylonError('payment_unknown', 'Sats are on their way from the Lightning wallet to the mint.')
    const until = clock.now() + FILL_WAIT_MS
    while (wallet.invoice(key)?.state !== 'settled' && clock.now() < until) await scope.sleep(POLL_MS)
  }

  #onNotification(notification: Readonly<Record<string, unknown>>): void {
    const { store, scope } = this.#deps
    const paymentHash = notification['payment_hash']
    if (typeof paymentHash !== 'string') return
    // It is asked: what a notification says may be of an older form, or come twice.
    const invoice = nwcInvoiceOfHash(store, paymentHash.toLowerCase())
    if (invoice !== undefined) scope.spawnOnce(`invoice ${invoice.id}`, () => this.#invoices.check(invoice.id))
  }

  /** Starts what is due, each on its own, then naps until the next. */
  #look(): void {
    const { scope, store, clock } = this.#deps
    const now = clock.now()
    if (this.connection.get() !== undefined) {
      for (const { id } of dueNwcInvoices(store, now)) scope.spawnOnce(`invoice ${id}`, () => this.#invoices.check(id))
      for (const { id } of dueNwcPayments(store, now)) scope.spawnOnce(`payment ${id}`, () => this.#payments.look(id))
    }
    const due = nextNwcDue(store) ?? now + MAX_NAP_MS
    const shortest = scope.running().length > 0 ? BUSY_NAP_MS : MIN_NAP_MS
    this.#nap(Math.min(MAX_NAP_MS, Math.max(shortest, due - now)))
  }

  #nap(ms: number): void {
    this.#cancelNap?.()
    this.#cancelNap = this.#deps.scope.after('look', ms, () => this.#look())
  }
}

/** Nobody paid it in time: another is needed. */
const isOver = (invoice: Invoice | undefined, now: number): boolean =>
  invoice !== undefined && (invoice.state === 'expired' || (invoice.state === 'unpaid' && invoice.expiresAt <= now))
