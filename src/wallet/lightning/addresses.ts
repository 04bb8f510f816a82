/** From an address to the one invoice that may be paid under a key: stored before it is paid, so that a repeat never asks for another. */
import type { Clock } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import { getAddressInvoice, insertAddressInvoice } from '../../store/money/address-invoices.ts'
import type { Store } from '../../store/store.ts'
import { requestDigest } from '../context.ts'
import { decodeInvoice } from './bolt11.ts'
import { fetchPayParameters, invalid, type PayParameters, requestInvoice } from './lnurl.ts'

export interface AddressDeps {
  readonly store: Store
  readonly clock: Clock
  readonly dialer: Pick<Dialer, 'fetch'>
}

export interface AddressOrder {
  /** Of the whole payment, the wallet's own key. */
  readonly idempotencyKey: string
  /** Where LNURL-pay begins; of a profile `nostr:` and its key, for which `resolve` says where. */
  readonly url: string
  readonly resolve?: () => Promise<string>
  readonly amountSats: bigint
  readonly comment: string
  /** Throws where what the address says of itself is not to be paid. */
  readonly check?: (parameters: PayParameters) => void
}

/** @throws lnurl_invalid, fetch_failed, address_refused, amount_invalid, idempotency_conflict: in all these cases nothing was spent */
export const invoiceOfAddress = async (deps: AddressDeps, order: AddressOrder): Promise<string> => (await askAddress(deps, order)).invoice

/** The same, and who gave the invoice. */
export async function askAddress(deps: AddressDeps, order: AddressOrder): Promise<{ readonly invoice: string; readonly host: string }> {
  const { idempotencyKey, url, amountSats, comment } = order
  const digest = requestDigest('address', { url, amountSats, comment })
  if (getAddressInvoice(deps.store, idempotencyKey) === undefined) {
    const at = (await order.resolve?.()) ?? url
    const invoice = await freshInvoice(deps, { ...order, url: at })
    const host = new URL(at).hostname
    await deps.store.write(insertAddressInvoice({ idempotencyKey, requestDigest: digest, invoice, host, createdAt: deps.clock.now() }))
  }
  // The first that was stored counts, whoever asked at the same time.
  const row = getAddressInvoice(deps.store, idempotencyKey)
  if (row === undefined) throw new PylonError('internal', 'The invoice of the address was not stored.')
  if (row.requestDigest !== digest) {
    throw new PylonError('idempotency_conflict', 'This key was used for another address, amount or comment: take a new key.')
  }
  return { invoice: row.invoice, host: row.host ?? new URL(url).hostname }
}

/** Asked for and checked; network and expiry are checked where it is paid. */
async function freshInvoice({ dialer, clock }: AddressDeps, { url, amountSats, comment, check }: AddressOrder): Promise<string> {
  const parameters = await fetchPayParameters(dialer, url)
  check?.(parameters)
  const amountMsats = amountSats * 1000n
  if (amountMsats < parameters.minMsats || amountMsats > parameters.maxMsats) {
    throw new PylonError(
      'amount_invalid',
      `The address takes ${parameters.minMsats} to ${parameters.maxMsats} msats, not ${amountMsats}. Nothing was spent.`,
    )
  }
  if ([...comment].length > parameters.commentChars) {
    throw invalid(
      parameters.commentChars === 0 ? 'it takes no comment' : `it takes comments of at most ${parameters.commentChars} characters`,
    )
  }
  const invoice = decodeInvoice(await requestInvoice(dialer, parameters, { amountMsats, comment }))
  if (invoice.amountMsats !== amountMsats) {
    throw invalid(`its invoice asks for ${invoice.amountMsats ?? 'no'} msats instead of ${amountMsats}`)
  }
  if (invoice.expiresAt <= clock.now()) throw invalid('its invoice has expired')
  return invoice.request
}
