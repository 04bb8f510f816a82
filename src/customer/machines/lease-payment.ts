/** Pays for a lease, once: judges what a node asks, pays its invoice or makes a locked token, and finds out what became of it. */
import { accountOf } from '../../base/accounts.ts'
import { type Msats, msatsToSatsUp, sats, satsToMsats } from '../../base/amounts.ts'
import { type Clock, rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { beginRentalPayment, getRental, markRentalPaid, type RentalRow } from '../../store/buying/rentals.ts'
import { rentalKey, rentalPaymentKey } from '../../store/keys.ts'
import type { Cause } from '../../store/money/ledger.ts'
import type { Store } from '../../store/store.ts'
import { decodeInvoice } from '../../wallet/lightning/bolt11.ts'
import { customerWallet, type FundingDeps, feesLeft, inWordsOfLimit, RECLAIM_AFTER_MS, topUp } from '../funding.ts'
import { type LeaseQuote, parseLeaseQuote } from './quote.ts'

export interface LeasePaymentDeps extends FundingDeps {
  readonly store: Store
  readonly clock: Clock
}

export interface LeaseTerms {
  readonly maxSats: number
  readonly payWith: 'invoice' | 'token'
  /** What was asked for; undefined: the shortest that the class has. */
  readonly leaseSeconds: number | undefined
}

/** What was done about a quote: paid over Lightning (or on its way), or a token that is to go with the command. */
export type LeasePaid = { readonly by: 'invoice' } | { readonly by: 'token'; readonly token: string }

/** What leases cost, and what of it came back. */
export const LEASE_EXPENSE_ACCOUNT = accountOf('customer', 'expense', 'lease')
/** Of a quote that names no end. */
const NO_EXPIRY_MS = 15 * 60_000

/**
 * Pays what a `queued` status asks. The same quote again, also after a restart, is the same payment; another quote is
 * paid only when nothing was spent on the one before.
 * @returns undefined where the status asks for nothing
 * @throws price_too_high, invoice_invalid, invoice_expired, mint_not_allowed, insufficient_funds, payment_failed; conflict when a
 *   second payment is asked for
 */
export async function payLease(
  deps: LeasePaymentDeps,
  rentalId: string,
  status: { readonly runtime_id?: string | undefined; readonly progress?: unknown },
  terms: LeaseTerms,
): Promise<LeasePaid | undefined> {
  const quote = parseLeaseQuote(status.progress)
  if (quote === undefined) return undefined
  const row = getRental(deps.store, rentalId)
  if (row === undefined) throw new PylonError('internal', `The rental ${rentalId} is not recorded.`)
  if (row.paymentKey !== null && !wasNotSpent(deps, row.paymentKey)) {
    if (quote.invoice !== undefined && quote.invoice !== row.invoice) {
      throw new PylonError(
        'conflict',
        `${npubOf(row.server).slice(0, 16)} asks for a second payment under one idempotency key: look at pylon runtime rentals, and use a new key.`,
      )
    }
    return row.state === 'paid' ? paidBefore(deps, row) : resume(deps, row, quote, terms)
  }
  judge(deps, row, quote, terms)
  const offer: Offer = { quote, runtimeId: status.runtime_id ?? null }
  return terms.payWith === 'token' ? byToken(deps, row, offer, terms) : byInvoice(deps, row, offer, terms)
}

interface Offer {
  readonly quote: LeaseQuote
  readonly runtimeId: string | null
}

/** What the ledger names movements for this rental after. */
export const causeOf = (rentalId: string): Cause => ({ type: 'purchase', id: rentalKey.of(rentalId) })

/** Whether the wallet knows for sure that nothing left under this key. */
function wasNotSpent(deps: LeasePaymentDeps, paymentKey: string): boolean {
  return customerWallet(deps).payment(paymentKey)?.state === 'failed'
}

/** @throws price_too_high, invoice_invalid, invoice_expired */
function judge({ clock }: LeasePaymentDeps, { server }: RentalRow, quote: LeaseQuote, terms: LeaseTerms): void {
  const who = npubOf(server).slice(0, 16)
  const priceSats = msatsToSatsUp(quote.amountMsats)
  if (priceSats > BigInt(terms.maxSats)) {
    throw new PylonError(
      'price_too_high',
      `${who} asks ${priceSats} sats and the limit is ${terms.maxSats}: raise --max-sats, or rent for less time.`,
    )
  }
  if (quote.leaseSeconds !== undefined && quote.leaseSeconds < (terms.leaseSeconds ?? 0)) {
    throw new PylonError('payment_failed', `${who} asks the price of ${quote.leaseSeconds} s, and ${terms.leaseSeconds} s were ordered.`)
  }
  if (quote.expiresAt !== undefined && quote.expiresAt <= clock.now()) {
    throw new PylonError('invoice_expired', `What ${who} asked expired at ${rfc3339(quote.expiresAt)}: send the command again.`)
  }
  if (terms.payWith === 'token') return
  if (quote.invoice === undefined) throw new PylonError('invoice_invalid', `${who} gave no invoice: use --pay-with token.`)
  const invoice = decodeInvoice(quote.invoice)
  if (invoice.amountMsats !== satsToMsats(priceSats) && invoice.amountMsats !== quote.amountMsats) {
    throw new PylonError(
      'invoice_invalid',
      `${who} asks ${quote.amountMsats} msats but its invoice says ${invoice.amountMsats ?? 'nothing'}.`,
    )
  }
  if (invoice.expiresAt <= clock.now())
    throw new PylonError('invoice_expired', `The invoice of ${who} has expired: send the command again.`)
}

async function byInvoice(deps: LeasePaymentDeps, row: RentalRow, offer: Offer, terms: LeaseTerms): Promise<LeasePaid> {
  await begin(deps, row, offer)
  return settle(deps, row.id, terms)
}

async function byToken(deps: LeasePaymentDeps, row: RentalRow, offer: Offer, terms: LeaseTerms): Promise<LeasePaid> {
  const { quote } = offer
  const listed = deps.wallets.mints().map((mint) => mint.url)
  const mintUrl = listed.find((url) => quote.mints.some((theirs) => bare(theirs) === bare(url)))
  if (mintUrl === undefined || quote.lockPubkey === undefined) {
    throw new PylonError(
      'mint_not_allowed',
      'The node takes no token of a mint on our list: use --pay-with invoice, or add one of its mints.',
    )
  }
  const amountSats = msatsToSatsUp(quote.amountMsats)
  const key = await begin(deps, row, offer)
  const cause = causeOf(row.id)
  const limitSats = sats(terms.maxSats)
  const left = () => feesLeft(deps, { cause, amountSats, limitSats })
  const token = {
    idempotencyKey: key,
    ...{ cause, amountSats, mintUrl, coverReceiverFee: true, debitAccount: LEASE_EXPENSE_ACCOUNT },
    lockTo: quote.lockPubkey,
    refundAfter: (quote.expiresAt ?? deps.clock.now() + NO_EXPIRY_MS) + RECLAIM_AFTER_MS,
  }
  try {
    await topUp(deps, { cause, neededSats: amountSats, mintUrl, maxFeeSats: left() })
    const sent = await customerWallet(deps).sendToken({ ...token, maxFeeSats: left() }, { subject: 'customer', counterparty: row.server })
    await paid(deps, row.id, satsToMsats(sent.amountSats))
    return { by: 'token', token: sent.token }
  } catch (error) {
    throw inWordsOfLimit(error, amountSats, limitSats)
  }
}

/** Fixes the payment's key before anything is spent. */
async function begin({ store, clock }: LeasePaymentDeps, row: RentalRow, { quote, runtimeId }: Offer): Promise<string> {
  const paymentKey = rentalPaymentKey(row.id, quote.invoice ?? String(quote.amountMsats))
  if (row.paymentKey === paymentKey) return paymentKey
  await store.write(
    beginRentalPayment({
      ...{ id: row.id, former: row.paymentKey, paymentKey, amountMsats: quote.amountMsats },
      ...{ invoice: quote.invoice ?? null, runtimeId, at: clock.now() },
    }),
  )
  return paymentKey
}

/** A payment that was begun: what the wallet never heard of was never made. */
async function resume(deps: LeasePaymentDeps, row: RentalRow, quote: LeaseQuote, terms: LeaseTerms): Promise<LeasePaid> {
  const sent = row.paymentKey === null ? undefined : customerWallet(deps).sentToken(row.paymentKey)
  if (sent === undefined) {
    const wasByInvoice = row.paymentKey !== null && customerWallet(deps).payment(row.paymentKey) !== undefined
    const isByToken = terms.payWith === 'token' && !wasByInvoice
    return isByToken ? byToken(deps, row, { quote, runtimeId: row.runtimeId }, terms) : settle(deps, row.id, terms)
  }
  await paid(deps, row.id, satsToMsats(sent.amountSats))
  return { by: 'token', token: sent.token }
}

function paidBefore(deps: LeasePaymentDeps, row: RentalRow): LeasePaid {
  const sent = row.paymentKey === null ? undefined : customerWallet(deps).sentToken(row.paymentKey)
  return sent === undefined ? { by: 'invoice' } : { by: 'token', token: sent.token }
}

/** Pays the recorded invoice under its recorded key. An outcome that nobody knows yet is left to the wallet, and the node to see it. */
async function settle(deps: LeasePaymentDeps, id: string, terms: LeaseTerms): Promise<LeasePaid> {
  const row = getRental(deps.store, id)
  if (row === undefined || row.paymentKey === null || row.invoice === null)
    throw new PylonError('internal', `The rental ${id} has no payment.`)
  const amountSats = msatsToSatsUp(row.amountMsats)
  const cause = causeOf(id)
  const limitSats = sats(terms.maxSats)
  const left = () => feesLeft(deps, { cause, amountSats, limitSats })
  try {
    if (customerWallet(deps).payment(row.paymentKey) === undefined)
      await topUp(deps, { cause, neededSats: sats(amountSats + left()), maxFeeSats: left() })
    const payment = {
      idempotencyKey: row.paymentKey,
      cause,
      request: row.invoice,
      maxFeeSats: left(),
      debitAccount: LEASE_EXPENSE_ACCOUNT,
    }
    const outcome = await customerWallet(deps).pay(payment, { subject: 'customer', counterparty: row.server })
    if (outcome.state === 'paid') await paid(deps, id, satsToMsats(amountSats))
  } catch (error) {
    throw inWordsOfLimit(error, amountSats, limitSats)
  }
  return { by: 'invoice' }
}

async function paid({ store, clock }: LeasePaymentDeps, id: string, paidMsats: Msats): Promise<void> {
  await store.write(markRentalPaid({ id, paidMsats, at: clock.now() }))
}

/** Learns of a payment whose outcome was not known when it was made. */
export async function learnPayment(deps: LeasePaymentDeps, id: string): Promise<void> {
  const row = getRental(deps.store, id)
  if (row === undefined || row.paymentKey === null || row.paidMsats > 0n) return
  const sent = customerWallet(deps).sentToken(row.paymentKey)
  if (sent !== undefined) await paid(deps, id, satsToMsats(sent.amountSats))
  else if (customerWallet(deps).payment(row.paymentKey)?.state === 'paid') await paid(deps, id, satsToMsats(msatsToSatsUp(row.amountMsats)))
}

function bare(url: string): string {
  return url.replace(/\/+$/, '')
}
