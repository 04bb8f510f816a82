/** The invoice encoder against the examples of BOLT 11, against another decoder, and against its own node key. */
import { createHash } from 'node:crypto'
import { bech32 } from '@scure/base'
import { decode } from 'light-bolt11-decoder'
import { recover } from 'tiny-secp256k1'
import { describe, expect, test } from 'vitest'
import { amountText, encodeInvoice, type InvoiceFields } from '../../../src/sandbox/bolt11-encode.ts'

const NODE_KEY = Buffer.from('e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734', 'hex')
const PUBKEY = '03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad'
const CAKE =
  'One piece of chocolate cake, one icecream cone, one pickle, one slice of swiss cheese, one slice of salami, one lollypop, one piece of cherry pie, one sausage, one cupcake, and one slice of watermelon'
const example = {
  network: 'bc',
  timestampSeconds: 1_496_314_658,
  paymentHash: Buffer.from('0001020304050607080900010203040506070809000102030405060708090102', 'hex'),
  paymentSecret: Buffer.alloc(32, 0x11),
} as const

function sectionsOf(invoice: string): Record<string, unknown> {
  return Object.fromEntries(decode(invoice).sections.map((section) => [section.name, 'value' in section ? section.value : undefined]))
}

/** The key that signed, recovered from the words of the invoice itself. */
function signerOf(invoice: string): string {
  const { prefix, words } = bech32.decode(invoice as `${string}1${string}`, 2_000)
  const signature = bech32.fromWords(words.slice(-104))
  const bits = words
    .slice(0, -104)
    .map((word) => word.toString(2).padStart(5, '0'))
    .join('')
  const bytes = (bits.padEnd(Math.ceil(bits.length / 8) * 8, '0').match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2))
  const digest = createHash('sha256').update(prefix).update(Uint8Array.from(bytes)).digest()
  const key = recover(digest, signature.slice(0, 64), signature[64] as 0 | 1 | 2 | 3, true)
  return Buffer.from(key ?? []).toString('hex')
}

describe('examples of BOLT 11', () => {
  test('any amount, a description', () => {
    const invoice = encodeInvoice({ ...example, description: 'Please consider supporting this project' }, NODE_KEY)
    expect(invoice).toBe(
      'lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql',
    )
  })

  test('2500u, a description in UTF-8, expiry of a minute', () => {
    const invoice = encodeInvoice({ ...example, amountMsats: 250_000_000n, description: 'ナンセンス 1杯', expirySeconds: 60 }, NODE_KEY)
    expect(invoice).toBe(
      'lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpu9qrsgqhtjpauu9ur7fw2thcl4y9vfvh4m9wlfyz2gem29g5ghe2aak2pm3ps8fdhtceqsaagty2vph7utlgj48u0ged6a337aewvraedendscp573dxr',
    )
  })

  test('20m, the hash of a description', () => {
    const sha256 = createHash('sha256').update(CAKE).digest()
    expect(encodeInvoice({ ...example, amountMsats: 2_000_000_000n, description: { sha256 } }, NODE_KEY)).toBe(
      'lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs9qrsgq7ea976txfraylvgzuxs8kgcw23ezlrszfnh8r6qtfpr6cxga50aj6txm9rxrydzd06dfeawfk6swupvz4erwnyutnjq7x39ymw6j38gp7ynn44',
    )
  })
})

test.each([
  [100_000_000_000n, '1'],
  [2_000_000_000n, '20m'],
  [250_000_000n, '2500u'],
  [1_000n, '10n'],
  [967_878_534n, '9678785340p'],
  [1n, '10p'],
])('%d msat is written %s', (amount, text) => {
  expect(amountText(amount)).toBe(text)
})

test('zero and negative amounts are refused', () => {
  expect(() => amountText(0n)).toThrow(/at least 1 msat/)
  expect(() => amountText(-1n)).toThrow(/at least 1 msat/)
})

test('a regtest invoice is read back by another decoder, and its signature recovers to the node key', () => {
  const fields: InvoiceFields = {
    ...example,
    network: 'bcrt',
    amountMsats: 21_000n,
    description: 'a zap',
    expirySeconds: 600,
  }
  const invoice = encodeInvoice(fields, NODE_KEY)
  expect(invoice).toMatch(/^lnbcrt210n1/)
  expect(sectionsOf(invoice)).toMatchObject({
    amount: '21000',
    timestamp: fields.timestampSeconds,
    payment_hash: Buffer.from(fields.paymentHash).toString('hex'),
    payment_secret: Buffer.from(fields.paymentSecret).toString('hex'),
    description: 'a zap',
    expiry: 600,
  })
  expect(signerOf(invoice)).toBe(PUBKEY)
})

test('a description that does not fit is refused', () => {
  expect(() => encodeInvoice({ ...example, description: 'x'.repeat(640) }, NODE_KEY)).toThrow(/too long/)
})
