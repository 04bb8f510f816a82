/** The mint: each operation is one transaction, told to listeners only after it is on the disk. */
import type { z } from 'zod'
import type { Clock } from '../../base/clock.ts'
import { parseJson, stringify } from '../../base/json.ts'
import type { SandboxDatabase } from '../database.ts'
import { checkSpendingConditions } from './conditions.ts'
import { MintError } from './errors.ts'
import { type Keyset, Keysets, UNIT } from './keysets.ts'
import type { OutgoingPayment } from './lightning.ts'
import { checkQuoteSignature, type MeltQuote, type MintQuote, meltQuoteBody, mintQuoteBody, Quotes } from './quotes.ts'
import {
  type checkStateSchema,
  type meltQuoteSchema,
  meltSchema,
  type mintQuoteSchema,
  type mintSchema,
  type OutputInput,
  type restoreSchema,
  type swapSchema,
} from './requests.ts'
import { type BlindSignature, type ProofState, sumOf, Tokens } from './tokens.ts'

/** Something whose state changed; ids as NUT-17 filters name them. */
export interface MintChange {
  readonly kind: 'bolt11_mint_quote' | 'bolt11_melt_quote' | 'proof_state'
  readonly id: string
}

export class Mint {
  readonly #database: SandboxDatabase
  readonly #keysets: Keysets
  readonly #quotes: Quotes
  readonly #tokens: Tokens
  readonly #isHeld: () => boolean
  readonly #listeners: ((change: MintChange) => void)[] = []
  #changes: MintChange[] = []
  #outgoing: OutgoingPayment[] = []
  /** The way to invoices of others; undefined: this mint pays its own only. */
  lightning: { readonly peers: readonly string[]; send(payment: OutgoingPayment): void } | undefined
  #depth = 0

  /** @param isHeld whether the payment that begins now hangs */
  constructor(database: SandboxDatabase, clock: Clock, isHeld: () => boolean = () => false) {
    this.#database = database
    this.#isHeld = isHeld
    this.#keysets = new Keysets(database)
    this.#quotes = new Quotes(database, clock)
    this.#tokens = new Tokens(database, this.#keysets, clock)
  }

  onChange(listener: (change: MintChange) => void): void {
    this.#listeners.push(listener)
  }

  /** One transaction around several operations; changes are told after the outermost one is committed. */
  atomically<T>(fn: () => T): T {
    const told = this.#changes.length
    const sent = this.#outgoing.length
    this.#depth++
    let result: T
    try {
      result = this.#database.transaction(fn)
    } catch (error) {
      this.#changes.length = told
      this.#outgoing.length = sent
      throw error
    } finally {
      this.#depth--
    }
    if (this.#depth === 0) this.#tell()
    return result
  }

  #tell(): void {
    const changes = this.#changes
    this.#changes = []
    for (const change of changes) for (const listener of this.#listeners) listener(change)
    for (const payment of this.#outgoing.splice(0)) this.lightning?.send(payment)
  }

  activeKeys(): unknown {
    return { keysets: [keysBody(this.#keysets.active)] }
  }

  /** @throws keyset_unknown */
  keys(id: string): unknown {
    return { keysets: [keysBody(this.#keysets.get(id))] }
  }

  keysets(): unknown {
    return { keysets: this.#keysets.all().map(({ id, active, inputFeePpk }) => ({ id, unit: UNIT, active, input_fee_ppk: inputFeePpk })) }
  }

  rotateKeyset(inputFeePpk?: number): void {
    this.#keysets.rotate(inputFeePpk)
  }

  /** NUT-03. */
  swap({ inputs, outputs }: z.output<typeof swapSchema>): { signatures: BlindSignature[] } {
    return this.atomically(() => {
      this.#tokens.checkOutputs(outputs)
      checkSpendingConditions(inputs, outputs)
      const ys = this.#tokens.spend(inputs)
      const fee = this.#keysets.inputFee(inputs)
      if (sumOf(inputs) - fee !== sumOf(outputs)) {
        throw new MintError('unbalanced', `inputs (${sumOf(inputs)}) less fees (${fee}) are not outputs (${sumOf(outputs)})`)
      }
      this.#changed('proof_state', ...ys)
      return { signatures: this.#tokens.sign(outputs) }
    })
  }

  /** NUT-04, 20, 23. */
  createMintQuote({ amount, unit, description, pubkey }: z.output<typeof mintQuoteSchema>): Record<string, unknown> {
    assertUnit(unit)
    return mintQuoteBody(this.#quotes.createMintQuote({ amount, description: description ?? '', pubkey: pubkey ?? null }))
  }

  /** The quote behind an LNURL invoice: locked to the receiver's key, the invoice committed to a hash. */
  createLockedQuote(options: { amount: number; pubkey: string; descriptionHash: Uint8Array }): MintQuote {
    const { amount, pubkey, descriptionHash } = options
    return this.#quotes.createMintQuote({ amount, pubkey, description: { sha256: descriptionHash } })
  }

  mintQuote(id: string): Record<string, unknown> {
    return mintQuoteBody(this.#quotes.mintQuote(id))
  }

  /** NUT-04: signs the outputs of a paid quote, once. */
  mint({ quote: id, outputs, signature }: z.output<typeof mintSchema>): { signatures: BlindSignature[] } {
    return this.atomically(() => {
      const quote = this.#quotes.mintQuote(id)
      checkQuoteSignature(quote, outputs, signature)
      if (quote.state === 'UNPAID') throw new MintError('quote_unpaid', 'quote is not paid')
      if (quote.state === 'ISSUED') throw new MintError('quote_issued', 'quote was already issued')
      this.#tokens.checkOutputs(outputs)
      if (sumOf(outputs) !== quote.amount) {
        throw new MintError('unbalanced', `outputs (${sumOf(outputs)}) are not the amount of the quote (${quote.amount})`)
      }
      this.#quotes.markIssued(id)
      this.#changed('bolt11_mint_quote', id)
      return { signatures: this.#tokens.sign(outputs) }
    })
  }

  /** NUT-05, 23. */
  createMeltQuote({ request, unit, options }: z.output<typeof meltQuoteSchema>): Record<string, unknown> {
    assertUnit(unit)
    return meltQuoteBody(this.#quotes.createMeltQuote(request, { whole: options?.amountless?.amount_msat, part: options?.mpp?.amount }))
  }

  meltQuote(id: string): Record<string, unknown> {
    return meltQuoteBody(this.#quotes.meltQuote(id))
  }

  /**
   * NUT-05 and 08: pays an invoice of this mint and settles its quote in the same transaction; one of another, or a part of one, is
   * pending until its way has ended.
   * @param paid the preimage that this brought
   */
  melt(
    body: z.output<typeof meltSchema>,
    { mayBeHeld = true, paid }: { mayBeHeld?: boolean; paid?: string } = {},
  ): Record<string, unknown> {
    const { quote: id, inputs, outputs } = body
    return this.atomically(() => {
      const blanks = outputs ?? []
      const quote = this.#quotes.meltQuote(id)
      // One that was held passed these when it came: a rotation or the end of its time since then takes no payment back.
      if (mayBeHeld) {
        this.#quotes.assertMeltable(quote)
        this.#tokens.checkOutputs(blanks)
        checkSpendingConditions(inputs, blanks, id)
      }
      const ys = this.#tokens.spend(inputs)
      const fee = this.#keysets.inputFee(inputs)
      const needed = quote.amount + quote.fee_reserve + fee
      if (sumOf(inputs) < needed) throw new MintError('unbalanced', `inputs (${sumOf(inputs)}) are less than needed (${needed})`)
      if (mayBeHeld && this.#isHeld()) return this.#hold(body, ys)
      const out = paid === undefined ? this.#wayOut(quote) : undefined
      if (out !== undefined) {
        this.#outgoing.push(out)
        return this.#hold(body, ys)
      }
      const preimage = paid ?? this.#payInvoice(quote)
      const change = this.#tokens.sign(shareChange(sumOf(inputs) - fee - quote.amount, blanks))
      this.#quotes.markMelted(id, preimage, change)
      this.#changed('proof_state', ...ys)
      this.#changed('bolt11_melt_quote', id)
      return meltQuoteBody(this.#quotes.meltQuote(id))
    })
  }

  /** The payment hangs: its quote and inputs are pending until it is released. */
  #hold(body: z.output<typeof meltSchema>, ys: readonly string[]): Record<string, unknown> {
    for (const y of ys) {
      this.#database.sql('DELETE FROM proofs WHERE y = ?').run(y)
      this.#database.sql('INSERT INTO pending_proofs (y, quote_id) VALUES (?, ?)').run(y, body.quote)
    }
    this.#database.sql('INSERT INTO held_melts (quote_id, body) VALUES (?, ?)').run(body.quote, stringify(body))
    this.#changed('proof_state', ...ys)
    this.#changed('bolt11_melt_quote', body.quote)
    return meltQuoteBody(this.#quotes.meltQuote(body.quote))
  }

  /** Ends every payment that hangs: it goes through, or it failed and its quote is unpaid again. */
  releaseMelts(end: 'paid' | 'failed'): void {
    const held = this.#database.sql('SELECT quote_id, body FROM held_melts').all() as { quote_id: string; body: string }[]
    for (const { quote_id, body } of held) this.#release(quote_id, body, end)
  }

  /** One that went to another mint has ended. @param preimage where it went through */
  endMelt(quoteId: string, preimage: string | undefined): void {
    const body = this.#database.sql('SELECT body FROM held_melts WHERE quote_id = ?').pluck().get(quoteId)
    if (typeof body === 'string') this.#release(quoteId, body, preimage === undefined ? 'failed' : 'paid', preimage)
  }

  #release(quoteId: string, body: string, end: 'paid' | 'failed', paid?: string): void {
    this.atomically(() => {
      this.#database.sql('DELETE FROM held_melts WHERE quote_id = ?').run(quoteId)
      this.#database.sql('DELETE FROM pending_proofs WHERE quote_id = ?').run(quoteId)
      this.#changed('bolt11_melt_quote', quoteId)
    })
    if (end === 'failed') return
    try {
      this.melt(meltSchema.parse(parseJson(body)), { mayBeHeld: false, ...(paid === undefined ? {} : { paid }) })
    } catch (error) {
      // As a Lightning payment that fails in the end: the invoice was paid by another, or ran out.
      if (!(error instanceof MintError)) throw error
    }
  }

  /** The way to others, for what can't be settled here in one transaction. */
  #wayOut({ id, request, payment_hash, amount }: MeltQuote): OutgoingPayment | undefined {
    const part = this.#quotes.partOf(id)
    const isOwn = this.#quotes.mintQuoteByHash(payment_hash)?.request === request
    if (this.lightning === undefined || (isOwn && part === undefined) || (!isOwn && this.lightning.peers.length === 0)) return undefined
    return { quoteId: id, request, amountMsats: part ?? BigInt(amount) * 1_000n }
  }

  /** The quote behind an invoice of this mint. */
  invoice(request: string): MintQuote | undefined {
    const text = request.replace(/^lightning:/i, '').toLowerCase()
    return this.#database.sql('SELECT * FROM mint_quotes WHERE request = ?').get(text) as MintQuote | undefined
  }

  #payInvoice(quote: MeltQuote): string {
    const own = this.#quotes.mintQuoteByHash(quote.payment_hash)
    if (own === undefined || own.request !== quote.request) {
      throw new MintError('payment_failed', 'Lightning payment failed: no route, this play-money mint pays its own invoices only')
    }
    this.#quotes.pay(own)
    this.#changed('bolt11_mint_quote', own.id)
    return own.preimage
  }

  /** The faucet: pays an invoice of this mint with play money. @throws invalid_request, invoice_paid, quote_expired */
  payFromNowhere(request: string): { paid: true; preimage: string } {
    return this.atomically(() => {
      const quote = this.invoice(request)
      if (quote === undefined) throw new MintError('invalid_request', 'this is not an invoice of this mint')
      this.#quotes.pay(quote)
      this.#changed('bolt11_mint_quote', quote.id)
      return { paid: true, preimage: quote.preimage }
    })
  }

  checkState({ Ys }: z.output<typeof checkStateSchema>): { states: ProofState[] } {
    return { states: this.#tokens.states(Ys) }
  }

  restore({ outputs }: z.output<typeof restoreSchema>): unknown {
    return this.#tokens.restore(outputs)
  }

  #changed(kind: MintChange['kind'], ...ids: string[]): void {
    for (const id of ids) this.#changes.push({ kind, id })
  }
}

function keysBody({ id, publicKeys, active, inputFeePpk }: Keyset): Record<string, unknown> {
  return { id, unit: UNIT, active, input_fee_ppk: inputFeePpk, keys: publicKeys }
}

function assertUnit(unit: string): void {
  if (unit !== UNIT) throw new MintError('unit_unsupported', `unit ${unit} is not supported, only ${UNIT}`)
}

/** Blank outputs with what is overpaid written on them, powers of two ascending; the largest ones if blanks are few. */
function shareChange(overpaid: number, blanks: readonly OutputInput[]): OutputInput[] {
  const amounts: number[] = []
  for (let amount = 1, rest = overpaid; rest > 0; amount *= 2, rest = Math.floor(rest / 2)) if (rest % 2 === 1) amounts.push(amount)
  const chosen = amounts.slice(Math.max(0, amounts.length - blanks.length))
  return chosen.map((amount, i) => ({ ...(blanks[i] as OutputInput), amount }))
}
