/** Pays Lightning invoices through a mint (NUT-05, 08, 23), checked before and settled once. */
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { KeysetRow } from '../../store/money/keysets.ts'
import { operationByKey, paidElsewhere, paymentOfHash } from '../../store/money/operations.ts'
import { newId, requestDigest } from '../context.ts'
import { blankOutputs, coverFee, inputFee, selectCoins, sumOf } from '../ecash/coins.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import { type MeltQuote, type MintReply, meltQuoteSchema } from '../mint/client.ts'
import type { MeltPlan } from '../operations/machine.ts'
import { asPayResult, storedError } from '../operations/outcomes.ts'
import { inputsOf, makeOutputs, meltBody } from '../operations/requests.ts'
import type { BoundSpend } from '../policy/spends.ts'
import type { PayRequest, PayResult, Spend } from '../types.ts'
import { type Funds, type OwnCoin, plannedInput } from './funds.ts'
import { type OwnCoins, type SwapsFor, tooDear } from './own-coins.ts'

/** How many times its fee a swap must free of coins that a payment would hold. */
const BREAKING_FREES = 50n

export class Paying {
  readonly #funds: Funds
  readonly #ownCoins: OwnCoins

  constructor(funds: Funds, ownCoins: OwnCoins) {
    this.#funds = funds
    this.#ownCoins = ownCoins
  }

  /** @param from the mint that pays an invoice of another mint of this very wallet: then only the fee leaves, and that is the rail `own` */
  pay(request: PayRequest, spend?: Spend, from?: string): Promise<PayResult> {
    const { amountMsats, debitAccount, cause } = request
    const digest = requestDigest('pay', {
      owner: this.#funds.owner.pubkey,
      request: bareInvoice(request.request),
      amountMsats,
      debitAccount,
      cause,
    })
    return this.#funds.keys.run(request.idempotencyKey, async () => {
      for (;;) {
        const before = await this.#funds.existing(request, digest)
        const bound = () => this.#funds.bind(request, from === undefined ? 'mint' : 'own', spend)
        const operation = await this.#funds.run(before?.id, () => this.#begin(request, digest, bound(), from))
        if (operation.state !== 'failed') return asPayResult(operation)
        if (operation.idempotencyKey !== request.idempotencyKey) continue
        throw storedError(operation, this.#funds.swapFeeSats(request.idempotencyKey))
      }
    })
  }

  /** Prepares the payment, one at a time for each hash in the whole home; or finds the one that it joins. */
  #begin(request: PayRequest, digest: string, spend: BoundSpend, from: string | undefined): Promise<string> {
    const { paymentHash, amountMsats } = decodeInvoice(request.request)
    return this.#funds.executor.paymentHashes.run(paymentHash, async () => {
      const first = paymentOfHash(this.#funds.context.store, paymentHash)
      if (first === undefined) return this.#funds.choosing.run('', () => this.#preparePay(request, digest, spend, from))
      // An owner who asks again from the same wallet means the same payment; for all others it is not theirs.
      const isAgain = first.owner.pubkey === this.#funds.owner.pubkey && first.cause.type === 'owner' && request.cause.type === 'owner'
      const isSame = amountMsats !== undefined || first.amountSats * 1000n === request.amountMsats
      if (!isAgain || !isSame) throw paidElsewhere(first)
      return first.id
    })
  }

  payment(idempotencyKey: string): PayResult | { readonly state: 'failed'; readonly reason: string } | undefined {
    const operation = operationByKey(this.#funds.context.store, idempotencyKey)
    if (operation?.kind !== 'melt') return undefined
    if (operation.state === 'failed') return { state: 'failed', reason: operation.error.message }
    return asPayResult(operation)
  }

  async #preparePay(request: PayRequest, digest: string, spend: BoundSpend, from: string | undefined): Promise<string> {
    const { idempotencyKey, cause, maxFeeSats } = request
    const invoice = this.#checkedInvoice(request)
    const amount = (invoice.amountMsats + 999n) / 1000n
    const maxReserve = maxFeeSats ?? defaultMaxFee(amount, this.#funds.context.config().wallet.max_fee_percent)
    const owedToo = this.#funds.maySpendOwed(request)
    const holding = from === undefined ? this.#funds.mintsHolding(amount, owedToo) : [from]
    const mints = invoice.isAmountless ? this.#amountlessAt(holding) : holding
    const { mintUrl, quote } = await this.#meltQuote(invoice, amount, maxReserve, mints)
    const reserve = BigInt(quote.fee_reserve)
    /** Before any swap, which costs a fee: not for a payment that may not be made then. */
    const admit = (feeSats: bigint) => {
      const swapFeeSats = this.#funds.swapFeeSats(idempotencyKey)
      if (!owedToo) this.#funds.assertNotOwed(mintUrl, amount + reserve + feeSats)
      if (maxFeeSats !== undefined && reserve + feeSats + swapFeeSats > maxFeeSats)
        throw tooDear(reserve + feeSats + swapFeeSats, maxFeeSats)
      this.#funds.assertMaySpend(spend, (from === undefined ? amount : 0n) + reserve + feeSats, swapFeeSats)
    }
    admit(0n)
    const keyset = await this.#funds.context.mints.activeKeyset(mintUrl)
    const coins = await this.#coinsToPay(mintUrl, keyset, amount + reserve, { idempotencyKey, cause, spend, admit })
    const fee = inputFee(coins)
    admit(fee)
    const blanks = new Array<number>(blankOutputs(sumOf(coins) - fee - amount)).fill(0)
    const outputs = await makeOutputs(this.#funds.context, keyset, [{ purpose: 'keep', amounts: blanks, owner: this.#funds.owner }])
    const swapFeeSats = this.#funds.swapFeeSats(idempotencyKey)
    const plan: MeltPlan = {
      kind: 'melt',
      path: '/v1/melt/bolt11',
      body: meltBody(quote.quote, inputsOf(coins), outputs),
      inputs: coins.map(plannedInput),
      outputs,
      debitAccount: request.debitAccount,
      quoteId: quote.quote,
      paymentHash: invoice.paymentHash,
      amountSats: Number(amount),
      inputFeeSats: Number(fee),
      ...(swapFeeSats === 0n ? {} : { swapFeeSats: Number(swapFeeSats) }),
    }
    const operation = {
      ...this.#funds.base(newId(this.#funds.context), request, digest, mintUrl),
      kind: 'melt' as const,
      amountSats: amount,
      heldSats: amount + reserve + fee,
      plan,
      paymentHash: invoice.paymentHash,
    }
    await this.#funds.insertSpend(operation, spend, undefined, swapFeeSats)
    return operation.id
  }

  /**
   * Coins for a melt. Where they are worth far more than what is needed they are broken first, if that is worth its fee and
   * may cost it: a payment may hang for long, and holds all of them.
   */
  async #coinsToPay(mintUrl: string, keyset: KeysetRow, needed: bigint, swaps: SwapsFor): Promise<readonly OwnCoin[]> {
    const choose = () => this.#ownCoins.gather(mintUrl, swaps, (own) => selectCoins(own, needed))
    const coins = await choose()
    const fee = inputFee(coins)
    const excess = sumOf(coins) - needed
    if (excess <= needed || excess < BREAKING_FREES * fee) return coins
    const exact = coverFee(needed, Object.keys(keyset.keys).map(BigInt), keyset.inputFeePpk)
    if (sumOf(coins) - fee < exact) return coins
    try {
      swaps.admit(fee + exact - needed)
    } catch (error) {
      if (isPylonError(error)) return coins
      throw error
    }
    await this.#ownCoins.breakCoins(mintUrl, exact, swaps)
    return choose()
  }

  /** Those of these mints that pay an invoice without an amount. @throws invoice_invalid where none does */
  #amountlessAt(urls: readonly string[]): readonly string[] {
    const { mints } = this.#funds.context
    const found = urls.filter((url) => mints.paysAmountless(mints.get(url)))
    if (found.length > 0 || urls.length === 0) return found
    throw new PylonError(
      'invoice_invalid',
      `The invoice has no amount, and ${urls.join(', ')} pays none such: ask for one that says how much.`,
    )
  }

  #checkedInvoice(request: PayRequest): CheckedInvoice {
    const { clock, invoiceNetwork } = this.#funds.context
    const { request: bolt11, amountMsats: asked, paymentHash, expiresAt, network } = decodeInvoice(request.request)
    const amountMsats = asked ?? request.amountMsats
    if (amountMsats === undefined || amountMsats <= 0n) {
      throw new PylonError('invoice_invalid', 'The invoice has no amount: say how much, or ask for one that does.')
    }
    if (request.amountMsats !== undefined && request.amountMsats !== amountMsats) {
      throw new PylonError('invoice_invalid', `The invoice asks for ${amountMsats} msats, not the agreed ${request.amountMsats}.`)
    }
    if (invoiceNetwork !== undefined && network !== invoiceNetwork) {
      throw new PylonError('invoice_invalid', `The invoice is for another network (ln${network}, this node pays ln${invoiceNetwork}).`)
    }
    if (expiresAt <= clock.now()) throw new PylonError('invoice_expired', 'The invoice has expired: ask for a new one.')
    return { request: bolt11, amountMsats, paymentHash, isAmountless: asked === undefined }
  }

  /** A quote of the first of these mints that asks a fair fee. @throws insufficient_funds, payment_failed, mint_unreachable */
  async #meltQuote(
    { request, amountMsats, isAmountless }: CheckedInvoice,
    amount: bigint,
    maxFee: bigint,
    mints: readonly string[],
  ): Promise<{ mintUrl: string; quote: MeltQuote }> {
    let problem: PylonError | undefined
    for (const mintUrl of mints) {
      const options = isAmountless ? { options: { amountless: { amount_msat: Number(amountMsats) } } } : {}
      const body = JSON.stringify({ request, unit: 'sat', ...options })
      const reply: MintReply<MeltQuote> = await this.#funds.context.mints
        .client(mintUrl)
        .post('/v1/melt/quote/bolt11', body, meltQuoteSchema)
      await this.#funds.context.mints.note(mintUrl, reply)
      if (reply.kind === 'unknown')
        problem ??= new PylonError('mint_unreachable', `${mintUrl} gave no usable answer: ${reply.reason}. Nothing was spent.`)
      else if (reply.kind === 'rejected')
        problem = new PylonError('payment_failed', `${mintUrl} refused: ${reply.detail}. Nothing was spent.`)
      else if (BigInt(reply.value.amount) !== amount || (reply.value.unit ?? 'sat') !== 'sat') {
        problem = new PylonError(
          'payment_failed',
          `${mintUrl} asks ${reply.value.amount} for an invoice of ${amount} sats. Nothing was spent.`,
        )
      } else if (BigInt(reply.value.fee_reserve) > maxFee) {
        problem = new PylonError(
          'payment_failed',
          `${mintUrl} reserves a fee of ${reply.value.fee_reserve} sats, at most ${maxFee} are allowed. Nothing was spent.`,
          { details: { fee_sats_needed: reply.value.fee_reserve, max_fee_sats: Number(maxFee) } },
        )
      } else return { mintUrl, quote: reply.value }
    }
    throw problem ?? this.#funds.insufficient(amount)
  }
}

interface CheckedInvoice {
  readonly request: string
  /** What it asks, or what the payer chose. */
  readonly amountMsats: bigint
  readonly paymentHash: string
  readonly isAmountless: boolean
}

/** What routing may cost in sats where nobody says another limit. */
export function defaultMaxFee(amountSats: bigint, percent: number): bigint {
  const share = (amountSats * BigInt(Math.round(percent * 100)) + 9_999n) / 10_000n
  return share > 10n ? share : 10n
}

/** The invoice as it is compared: one text for one invoice; what cannot be read is compared as it is. */
function bareInvoice(text: string): string {
  try {
    return decodeInvoice(text).request
  } catch (error) {
    if (isPylonError(error)) return text
    throw error
  }
}
