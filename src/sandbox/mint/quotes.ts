/** Mint and melt quotes and the invoices behind them (NUT-04, 05, 20, 23): their rows and their wire shapes. */
import { hash } from 'node:crypto'
import { isPoint, verifySchnorr } from 'tiny-secp256k1'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Random } from '../../base/random.ts'
import type { SandboxDatabase } from '../database.ts'
import { MintError } from './errors.ts'
import { issueInvoice, readInvoice } from './invoices.ts'
import { UNIT } from './keysets.ts'
import { MAX_AMOUNT } from './requests.ts'
import type { BlindSignature } from './tokens.ts'

export interface MintQuote {
  readonly id: string
  readonly amount: number
  readonly request: string
  readonly payment_hash: string
  readonly preimage: string
  readonly pubkey: string | null
  readonly state: 'UNPAID' | 'PAID' | 'ISSUED'
  readonly expiry: number
  readonly paid_at: number | null
}

export interface MeltQuote {
  readonly id: string
  readonly amount: number
  readonly fee_reserve: number
  readonly request: string
  readonly payment_hash: string
  readonly preimage: string | null
  readonly change: string | null
  readonly state: 'UNPAID' | 'PENDING' | 'PAID'
  readonly expiry: number
}

const EXPIRY_SECONDS = 3_600
const MELT_EXPIRY_SECONDS = 3_600

export function mintQuoteBody(quote: MintQuote): Record<string, unknown> {
  const { id, request, amount, state, expiry, pubkey } = quote
  return { quote: id, request, amount, unit: UNIT, state, expiry, ...(pubkey === null ? {} : { pubkey }) }
}

export function meltQuoteBody(quote: MeltQuote): Record<string, unknown> {
  const { id, request, amount, fee_reserve, state, expiry, preimage, change } = quote
  const body = { quote: id, request, amount, unit: UNIT, fee_reserve, state, expiry, payment_preimage: preimage }
  return change === null ? body : { ...body, change: JSON.parse(change) as BlindSignature[] }
}

/** What the mint keeps back for a Lightning fee, in sats: 1 %, at least 1. The real fee inside the sandbox is 0. */
export const feeReserve = (amount: number): number => Math.max(1, Math.ceil(amount / 100))

export class Quotes {
  readonly #database: SandboxDatabase
  readonly #clock: Clock
  readonly #nodeKey: Buffer

  constructor(database: SandboxDatabase, clock: Clock) {
    this.#database = database
    this.#clock = clock
    this.#nodeKey = database.secret('node_key')
  }

  /** A new quote with its invoice. @throws amount_limit, quote_pubkey */
  createMintQuote(options: { amount: number; pubkey: string | null; description: string | { readonly sha256: Uint8Array } }): MintQuote {
    const { amount, description } = options
    if (amount < 1 || amount > MAX_AMOUNT) throw new MintError('amount_limit', `the amount must be 1 to ${MAX_AMOUNT} sat`)
    const pubkey = options.pubkey === null ? null : parsePubkey(options.pubkey)
    const nowSeconds = unixSeconds(this.#clock)
    const invoice = issueInvoice({
      random: this.#database.random,
      nodeKey: this.#nodeKey,
      amountSats: amount,
      description,
      nowSeconds,
      expirySeconds: EXPIRY_SECONDS,
    })
    const id = uuidV7(this.#clock.now(), this.#database.random)
    this.#database
      .sql(
        `INSERT INTO mint_quotes (id, amount, request, payment_hash, preimage, pubkey, state, expiry)
         VALUES (?, ?, ?, ?, ?, ?, 'UNPAID', ?)`,
      )
      .run(id, amount, invoice.request, invoice.paymentHash, invoice.preimage, pubkey, nowSeconds + EXPIRY_SECONDS)
    return this.mintQuote(id)
  }

  /** @throws invalid_request */
  mintQuote(id: string): MintQuote {
    const row = this.#database.sql('SELECT * FROM mint_quotes WHERE id = ?').get(id) as MintQuote | undefined
    if (row === undefined) throw new MintError('invalid_request', 'quote not found')
    return row
  }

  mintQuoteByHash(paymentHash: string): MintQuote | undefined {
    return this.#database.sql('SELECT * FROM mint_quotes WHERE payment_hash = ?').get(paymentHash) as MintQuote | undefined
  }

  /** Marks an unpaid quote as paid. @throws invoice_paid, quote_expired */
  pay(quote: MintQuote): void {
    if (quote.state !== 'UNPAID') throw new MintError('invoice_paid', 'the invoice is already paid')
    const now = unixSeconds(this.#clock)
    if (quote.expiry <= now) throw new MintError('quote_expired', 'the invoice has expired')
    this.#database.sql("UPDATE mint_quotes SET state = 'PAID', paid_at = ? WHERE id = ? AND state = 'UNPAID'").run(now, quote.id)
  }

  markIssued(id: string): void {
    this.#database.sql("UPDATE mint_quotes SET state = 'ISSUED' WHERE id = ? AND state = 'PAID'").run(id)
  }

  /** @throws invalid_request, amountless_invoice, amount_mismatch, amount_limit, quote_expired, invoice_paid */
  createMeltQuote(request: string, asked: { readonly whole?: number | undefined; readonly part?: number | undefined }): MeltQuote {
    const text = request.replace(/^lightning:/i, '').toLowerCase()
    const invoice = readInvoice(text)
    const { whole, part } = asked
    const amountMsats = invoice.amountMsats ?? (whole === undefined ? undefined : BigInt(whole))
    if (amountMsats === undefined) throw new MintError('amountless_invoice', 'the invoice has no amount: name one (options.amountless)')
    const isAmiss = part !== undefined ? part < 1 || BigInt(part) >= amountMsats : BigInt(whole ?? amountMsats) !== amountMsats
    if (isAmiss) throw new MintError('amount_mismatch', 'the amount asked is not the amount of the invoice, or a part of it')
    const amount = Number(((part === undefined ? amountMsats : BigInt(part)) + 999n) / 1_000n)
    if (amount < 1 || amount > MAX_AMOUNT) throw new MintError('amount_limit', `the amount must be 1 to ${MAX_AMOUNT} sat`)
    const now = unixSeconds(this.#clock)
    if (invoice.expiresAt <= now) throw new MintError('quote_expired', 'the invoice has expired')
    const own = this.mintQuoteByHash(invoice.paymentHash)
    if (own !== undefined && own.state !== 'UNPAID') throw new MintError('invoice_paid', 'the invoice is already paid')
    const id = uuidV7(this.#clock.now(), this.#database.random)
    this.#database
      .sql(`INSERT INTO melt_quotes (id, amount, fee_reserve, request, payment_hash, state, expiry) VALUES (?, ?, ?, ?, ?, 'UNPAID', ?)`)
      .run(id, amount, feeReserve(amount), text, invoice.paymentHash, Math.min(invoice.expiresAt, now + MELT_EXPIRY_SECONDS))
    if (part !== undefined) this.#database.sql('INSERT INTO melt_parts (quote_id, amount_msats) VALUES (?, ?)').run(id, part)
    return this.meltQuote(id)
  }

  /** Of a quote for a part of an invoice (NUT-15) what that is, in msats. */
  partOf(id: string): bigint | undefined {
    const part = this.#database.sql('SELECT amount_msats FROM melt_parts WHERE quote_id = ?').pluck().get(id)
    return typeof part === 'number' ? BigInt(part) : undefined
  }

  /** @throws invalid_request */
  meltQuote(id: string): MeltQuote {
    const row = this.#database.sql('SELECT * FROM melt_quotes WHERE id = ?').get(id) as MeltQuote | undefined
    if (row === undefined) throw new MintError('invalid_request', 'quote not found')
    const isHeld = this.#database.sql('SELECT 1 FROM held_melts WHERE quote_id = ?').get(id) !== undefined
    return isHeld ? { ...row, state: 'PENDING' } : row
  }

  /** @throws invoice_paid, quote_pending, quote_expired */
  assertMeltable(quote: MeltQuote): void {
    if (quote.state === 'PENDING') throw new MintError('quote_pending', 'the payment is under way')
    if (quote.state === 'PAID') throw new MintError('invoice_paid', 'the quote is already paid')
    if (quote.expiry <= unixSeconds(this.#clock)) throw new MintError('quote_expired', 'the quote has expired')
  }

  markMelted(id: string, preimage: string, change: readonly BlindSignature[]): void {
    this.#database
      .sql("UPDATE melt_quotes SET state = 'PAID', preimage = ?, change = ? WHERE id = ? AND state = 'UNPAID'")
      .run(preimage, change.length === 0 ? null : JSON.stringify(change), id)
  }
}

/** @throws quote_pubkey unless it is a compressed point. */
function parsePubkey(pubkey: string): string {
  const hex = pubkey.toLowerCase()
  if (!/^0[23][0-9a-f]{64}$/.test(hex) || !isPoint(Buffer.from(hex, 'hex'))) {
    throw new MintError('quote_pubkey', 'the pubkey of a quote must be a compressed secp256k1 point')
  }
  return hex
}

/** NUT-20: the BIP-340 signature over sha256(quote id and every B_). @throws quote_signature */
export function checkQuoteSignature(quote: MintQuote, outputs: readonly { B_: string }[], signature: string | null | undefined): void {
  if (quote.pubkey === null) return
  const valid = typeof signature === 'string' && /^[0-9a-f]{128}$/i.test(signature) && isSigned(quote.id, quote.pubkey, outputs, signature)
  if (!valid) throw new MintError('quote_signature', 'the quote is locked to a key and the signature is missing or invalid')
}

function isSigned(quoteId: string, pubkey: string, outputs: readonly { B_: string }[], signature: string): boolean {
  const digest = hash('sha256', quoteId + outputs.map((output) => output.B_).join(''), 'buffer')
  try {
    return verifySchnorr(digest, Buffer.from(pubkey.slice(2), 'hex'), Buffer.from(signature, 'hex'))
  } catch {
    return false
  }
}

/** NUT-04 asks for UUID v7: 48 bits of time, 74 random bits, so that an id cannot be guessed. */
function uuidV7(nowMs: number, random: Random): string {
  const bytes = Buffer.from(random.bytes(16))
  bytes.writeUIntBE(nowMs, 0, 6)
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f)
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f)
  const hex = bytes.toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
