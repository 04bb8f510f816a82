/** What an owner may be given to pay, read without asking anybody. */
import { expect, it } from 'vitest'
import { nprofileOf, npubOf } from '../../../../src/nostr/nips/nip19.ts'
import { encodeInvoice } from '../../../../src/sandbox/bolt11-encode.ts'
import { parseDestination } from '../../../../src/wallet/lightning/destination.ts'
import { encodeLnurl } from '../../../../src/wallet/lightning/lnurl.ts'

const bytes = new Uint8Array(32).fill(7)
const bolt11 = encodeInvoice(
  { network: 'bcrt', amountMsats: 21_000n, timestampSeconds: 1_700_000_000, paymentHash: bytes, paymentSecret: bytes, description: 'x' },
  bytes,
)
const creq =
  'CREQB1QYQQWER9D4HNZV3NQGQQSQQQQQQQQQQRAQPSQQGQQSQQZQG9QQVXSAR5WPEN5TE0D45KUAPWV4UXZMTSD3JJUCM0D5RQQRJRDANXVET9YPCXZ7TDV4H8GXHR3TQ'
const url = 'https://pay.example/lnurlp/ada?x=1'

it.each([
  ['bolt11', bolt11],
  ['bolt11 in capitals, as QR codes have it', ` LIGHTNING:${bolt11.toUpperCase()} `],
  ['BIP-21', `bitcoin:?lightning=${bolt11}`],
  ['BIP-21 in capitals', `BITCOIN:BC1QXY?AMOUNT=0.00000021&LIGHTNING=${bolt11.toUpperCase()}`],
])('reads an invoice from %s', (_, text) => {
  expect(parseDestination(text)).toEqual({ type: 'invoice', request: bolt11 })
})

it.each([
  ['npub', npubOf('ab'.repeat(32))],
  ['nostr: and npub', `nostr:${npubOf('ab'.repeat(32))}`],
  ['nprofile in capitals', nprofileOf('ab'.repeat(32), ['wss://relay.example']).toUpperCase()],
])('reads a key from %s', (_, text) => {
  expect(parseDestination(text)).toEqual({ type: 'profile', pubkey: 'ab'.repeat(32) })
})

it.each([
  ['alone', creq],
  ['in a cashu: URI', `cashu:${creq}`],
  ['BIP-321', `bitcoin:?creq=${creq}`],
  ['BIP-321 with the same amount', `bitcoin:?amount=0.00001&creq=${creq}`],
])('reads a Cashu request %s', (_, text) => {
  expect(parseDestination(text)).toMatchObject({ type: 'request', request: { id: 'demo123', amountSats: 1000n } })
})

it.each([
  ['name@host', 'Ada@Pay.example', 'https://pay.example/.well-known/lnurlp/ada'],
  ['lightning: and name@host', 'lightning:ada@pay.example', 'https://pay.example/.well-known/lnurlp/ada'],
  ['lnurl1', encodeLnurl(url), url],
  ['LNURL1 in capitals', `LIGHTNING:${encodeLnurl(url).toUpperCase()}`, url],
  ['LUD-17', 'lnurlp://pay.example/lnurlp/ada?x=1', url],
  ['LUD-17 without slashes', 'lnurlp:pay.example/lnurlp/ada?x=1', url],
  ['LUD-17 of an onion service', 'lnurlp://abc.onion/pay', 'http://abc.onion/pay'],
  ['BIP-21 with an LNURL', `bitcoin:bc1qxy?lightning=${encodeLnurl(url)}`, url],
])('reads where to ask from %s', (_, text, expected) => {
  expect(parseDestination(text)).toEqual({ type: 'lnurl', url: expected })
})

it.each([
  ['an on-chain address alone', 'bitcoin:bc1qxy?amount=1', 'destination_invalid'],
  ['an amount that the invoice does not have', `bitcoin:bc1qxy?amount=0.0000002&lightning=${bolt11}`, 'destination_invalid'],
  ['an amount that is none', `bitcoin:bc1qxy?amount=1e9&lightning=${bolt11}`, 'destination_invalid'],
  ['a URI within a URI', 'bitcoin:x?lightning=bitcoin:y', 'destination_invalid'],
  ['an LNURL that withdraws', 'lnurlw://pay.example/w', 'destination_invalid'],
  ['no host', 'lnurlp://', 'destination_invalid'],
  ['a damaged Cashu request', 'creqAabc', 'destination_invalid'],
  ['a token', 'cashu:cashuBabc', 'destination_invalid'],
  ['an amount that the request does not have', `bitcoin:?amount=0.00000011&creq=${creq}`, 'destination_invalid'],
  ['a damaged Nostr key', 'nostr:npub1abc', 'destination_invalid'],
  ['a host that is none', 'ada@pay/../x', 'lnurl_invalid'],
  ['a damaged LNURL', 'lnurl1qqqq', 'lnurl_invalid'],
  ['anything else', 'hello', 'invoice_invalid'],
])('refuses %s', (_, text, code) => {
  expect(() => parseDestination(text)).toThrow(expect.objectContaining({ code }))
})
