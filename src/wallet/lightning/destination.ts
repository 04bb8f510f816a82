/** Reads what an owner is given to pay: an invoice, an address that has to be asked for one, or a request for ecash. Nothing is asked here. */
import { PylonError } from '../../base/errors.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import { isPaymentRequest, type PaymentRequest, parsePaymentRequest } from '../ecash/payment-request.ts'
import { decodeInvoice } from './bolt11.ts'
import { invalid, lnurlOfProfile } from './lnurl.ts'

export type Destination =
  | { readonly type: 'invoice'; readonly request: string }
  /** `url` is where LNURL-pay (LUD-06, 16, 17) begins. */
  | { readonly type: 'lnurl'; readonly url: string }
  | { readonly type: 'request'; readonly request: PaymentRequest }
  /** Whoever has this key is paid at the Lightning address in its profile. */
  | { readonly type: 'profile'; readonly pubkey: string }

const ADDRESS = /^(?:lightning:)?(?:lnurl1|[^@\s]+@[^@\s]+$)/i
/** BIP-21: an amount in bitcoin, at most 8 decimals. */
const BITCOIN_AMOUNT = /^(\d{1,8})(?:\.(\d{1,8}))?$/

/**
 * bolt11 with or without `lightning:`, `name@host`, `lnurl1...`, `lnurlp:`, `npub1...`, `nprofile1...`, `creqA...` and `creqB1...` with or without `cashu:`, and BIP-21 or
 * BIP-321 with `lightning=` or `creq=`.
 * @throws invoice_invalid, lnurl_invalid, destination_invalid
 */
export function parseDestination(text: string): Destination {
  const plain = text.trim()
  if (/^bitcoin:/i.test(plain)) return ofBitcoinUri(plain)
  if (/^(?:lnurlp|keyauth|lnurlw|lnurlc):/i.test(plain)) return { type: 'lnurl', url: ofLud17(plain) }
  if (isPaymentRequest(plain)) return { type: 'request', request: parsePaymentRequest(plain) }
  if (/^(?:(?:web\+)?cashu:(?:\/\/)?)?cashu[ab]/i.test(plain))
    throw unpayable('it is a token, which is money for you: pylon wallet receive takes it')
  if (/^(?:nostr:)?(?:npub|nprofile)1/i.test(plain)) return { type: 'profile', pubkey: keyOf(plain) }
  if (!ADDRESS.test(plain)) return { type: 'invoice', request: decodeInvoice(plain).request }
  const url = lnurlOfProfile({ lud16: plain })
  if (url === undefined) throw invalid('it is empty')
  return { type: 'lnurl', url }
}

/** LUD-17: https, or http for onion services. */
function ofLud17(text: string): string {
  if (!/^lnurlp:/i.test(text)) throw unpayable('this LNURL is not for paying; ask for one that begins with lnurlp:')
  const rest = text.replace(/^lnurlp:(?:\/\/)?/i, '')
  const url = URL.parse(`https://${rest}`)
  if (url === null || url.hostname === '') throw unpayable('the lnurlp: address is malformed')
  if (url.hostname.endsWith('.onion')) url.protocol = 'http:'
  return url.href
}

/** The invoice or LNURL within. Where the URI names an amount too, both must say the same. */
function ofBitcoinUri(text: string): Destination {
  const query = new URLSearchParams([...text.split('?').slice(1)].join('?'))
  const fields = new Map([...query].map(([name, value]) => [name.toLowerCase(), value]))
  const inner = fields.get('lightning') || fields.get('creq') || ''
  if (inner === '' || /^bitcoin:/i.test(inner)) {
    throw unpayable('the bitcoin: address has no Lightning part and asks for no ecash, and this wallet does not pay on the chain')
  }
  const destination = parseDestination(inner)
  const amount = fields.get('amount')
  if (amount === undefined || destination.type === 'lnurl' || destination.type === 'profile') return destination
  const [, whole, part = ''] = BITCOIN_AMOUNT.exec(amount) ?? []
  if (whole === undefined) throw unpayable('the amount of the bitcoin: address is malformed')
  const msats = BigInt(whole + part.padEnd(8, '0')) * 1000n
  const amountMsats = askedMsats(destination)
  if (amountMsats !== undefined && amountMsats !== msats) {
    throw unpayable(`the bitcoin: address asks ${msats} msats and what it holds ${amountMsats}`)
  }
  return destination
}

function keyOf(text: string): string {
  try {
    return parsePubkey(text.toLowerCase())
  } catch {
    throw unpayable('the Nostr key is damaged')
  }
}

function askedMsats(destination: Extract<Destination, { readonly request: unknown }>): bigint | undefined {
  if (destination.type === 'invoice') return decodeInvoice(destination.request).amountMsats
  const { amountSats } = destination.request
  return amountSats === undefined ? undefined : amountSats * 1000n
}

function unpayable(why: string): PylonError {
  return new PylonError('destination_invalid', `This cannot be paid: ${why}.`)
}
