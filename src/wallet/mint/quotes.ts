/** What a mint quote says (NUT-04, 20, 23), held against what was asked for. Pure. */
import { PylonError } from '../../base/errors.ts'
import type { MintRow } from '../../store/money/mints.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import type { MintQuote } from './client.ts'

interface Asked {
  readonly amountSats: bigint
  /** The compressed key that alone may mint it. */
  readonly pubkey: string
  /** The prefix that its invoice must have; undefined: any. */
  readonly network: string | undefined
}

/**
 * What a quote says must be what we asked.
 * @returns `expiresAt` in milliseconds since the epoch
 * @throws invoice_invalid, mint_rejected
 */
export function checkQuote(mintUrl: string, quote: MintQuote, asked: Asked): { paymentHash: string; expiresAt: number } {
  const { amountSats, pubkey, network } = asked
  const invoice = decodeInvoice(quote.request)
  if (invoice.amountMsats !== amountSats * 1000n || (quote.amount != null && BigInt(quote.amount) !== amountSats)) {
    throw new PylonError(
      'invoice_invalid',
      `${mintUrl} gave an invoice over ${invoice.amountMsats ?? 'no'} msats when asked for ${amountSats} sats.`,
    )
  }
  if (network !== undefined && invoice.network !== network) {
    throw new PylonError('invoice_invalid', `${mintUrl} gave an invoice of another network (ln${invoice.network}).`)
  }
  if (quote.pubkey != null && quote.pubkey !== pubkey)
    throw new PylonError('mint_rejected', `${mintUrl} did not lock the quote to our key (NUT-20).`)
  if ((quote.unit ?? 'sat') !== 'sat') throw new PylonError('mint_rejected', `${mintUrl} gave a quote in another unit.`)
  const quoteExpiry = quote.expiry != null && quote.expiry > 0 ? quote.expiry * 1000 : Number.POSITIVE_INFINITY
  return { paymentHash: invoice.paymentHash, expiresAt: Math.min(invoice.expiresAt, quoteExpiry) }
}

/** The description as part of the request, where the mint takes one. */
export function descriptionFor(mint: MintRow, description: string | undefined): { description?: string } {
  if (description === undefined) return {}
  const methods = (mint.info as { nuts?: Record<string, { methods?: { method?: string; options?: { description?: boolean } | null }[] }> })
    .nuts?.['4']?.methods
  const takes = methods?.some((one) => one.method === 'bolt11' && one.options?.description === true) === true
  return takes ? { description: description.slice(0, 600) } : {}
}
