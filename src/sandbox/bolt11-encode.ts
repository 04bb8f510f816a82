/** Signed BOLT 11 invoices: bech32 over tagged fields, with a recoverable signature of the node key. */
import { hash } from 'node:crypto'
import { bech32 } from '@scure/base'
import { signRecoverable } from 'tiny-secp256k1'
import { PylonError } from '../base/errors.ts'

export interface InvoiceFields {
  /** Human-readable prefix of the network without `ln`: `bc`, `tb`, `bcrt` (regtest, what the sandbox uses). */
  readonly network: 'bc' | 'tb' | 'bcrt'
  /** Undefined makes an invoice of any amount. */
  readonly amountMsats?: bigint
  readonly timestampSeconds: number
  /** 32 bytes. */
  readonly paymentHash: Uint8Array
  /** 32 bytes. */
  readonly paymentSecret: Uint8Array
  /** Text of up to 639 bytes, or the sha256 of a longer text. */
  readonly description: string | { readonly sha256: Uint8Array }
  readonly expirySeconds?: number
}

const CHARSET = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
/** Bits 8 and 14, var_onion_optin and payment_secret, both required: bit 0 is the lowest of the last word. */
const FEATURE_WORDS = [16, 8, 0]
const TIMESTAMP_WORDS = 7
const MAX_FIELD_WORDS = 1023

/** The amount as BOLT 11 writes it: the shortest of a number with multiplier m, u, n or p (a tenth of a msat). */
export function amountText(amountMsats: bigint): string {
  if (amountMsats <= 0n) throw new PylonError('amount_invalid', 'An invoice asks for at least 1 msat.')
  const multipliers: [bigint, string][] = [
    [100_000_000_000n, ''],
    [100_000_000n, 'm'],
    [100_000n, 'u'],
    [100n, 'n'],
  ]
  for (const [unit, letter] of multipliers) if (amountMsats % unit === 0n) return `${amountMsats / unit}${letter}`
  return `${amountMsats * 10n}p`
}

function numberWords(value: number, length?: number): number[] {
  const words: number[] = []
  for (let rest = value; rest > 0; rest = Math.floor(rest / 32)) words.unshift(rest % 32)
  while (words.length < (length ?? 1)) words.unshift(0)
  return words
}

function field(letter: string, words: readonly number[]): number[] {
  if (words.length > MAX_FIELD_WORDS) throw new PylonError('invoice_invalid', `Invoice field ${letter} is too long; shorten it.`)
  return [CHARSET.indexOf(letter), ...numberWords(words.length, 2), ...words]
}

/** Words of 5 bits to bytes, the last byte padded with zero bits: what the signature covers. */
function paddedBytes(words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((words.length * 5) / 8))
  for (const [i, word] of words.entries()) {
    for (let bit = 0; bit < 5; bit++) {
      const position = i * 5 + bit
      if (word & (16 >> bit)) bytes[position >> 3] = (bytes[position >> 3] ?? 0) | (128 >> (position & 7))
    }
  }
  return bytes
}

/** The invoice text, signed by the node's `secretKey` (32 bytes). */
export function encodeInvoice(invoice: InvoiceFields, secretKey: Uint8Array): string {
  const prefix = `ln${invoice.network}${invoice.amountMsats === undefined ? '' : amountText(invoice.amountMsats)}`
  const { description } = invoice
  const words = [
    ...numberWords(invoice.timestampSeconds, TIMESTAMP_WORDS),
    ...field('s', bech32.toWords(invoice.paymentSecret)),
    ...field('p', bech32.toWords(invoice.paymentHash)),
    ...(typeof description === 'string'
      ? field('d', bech32.toWords(new TextEncoder().encode(description)))
      : field('h', bech32.toWords(description.sha256))),
    ...(invoice.expirySeconds === undefined ? [] : field('x', numberWords(invoice.expirySeconds))),
    ...field('9', FEATURE_WORDS),
  ]
  const digest = hash('sha256', Buffer.concat([Buffer.from(prefix), paddedBytes(words)]), 'buffer')
  const { signature, recoveryId } = signRecoverable(digest, secretKey)
  return bech32.encode(prefix, [...words, ...bech32.toWords(Uint8Array.of(...signature, recoveryId))], false)
}
