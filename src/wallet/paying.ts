/** Pays Lightning invoices through a mint (NUT-05, 08, 23), checked before and settled once. */
import { isPylonError, PylonError } from '../base/errors.ts'
import type { KeysetRow } from '../store/mints.ts'
import { operationByKey } from '../store/operations.ts'
import { decodeInvoice } from './bolt11.ts'
import { blankOutputs, coverFee, inputFee, selectCoins, sumOf } from './coins.ts'
import { newId, requestDigest } from './context.ts'
import { type OwnCoin, plannedInput, type WalletDesk } from './desk.ts'
import { type MeltQuote, type MintReply, meltQuoteSchema } from './mint-client.ts'
import type { MeltPlan } from './operations.ts'
import { asPayResult, storedError } from './outcomes.ts'
import { inputsOf, makeOutputs, meltBody } from './requests.ts'
import type { Sending } from './sending.ts'
import type { PayRequest, PayResult, Spend } from './types.ts'

export class Paying {
  readonly #desk: WalletDesk
  readonly #sending: Sending

  constructor(desk: WalletDesk, sending: Sending) {
    this.#desk = desk
    this.#sending = sending
  }

  pay(request: PayRequest, spend?: Spend): Promise<PayResult> {
    const { amountMsats, debitAccount, cause } = request
    const digest = requestDigest('pay', {
      owner: this.#desk.owner.pubkey,
      request: bareInvoice(request.request),
      amountMsats,
      debitAccount,
      cause,
    })
    return this.#desk.keys.run(request.idempotencyKey, async () => {
      const before = this.#desk.existing(request.idempotencyKey, digest)
      const id = before?.id ?? (await this.#desk.choosing.run('', () => this.#preparePay(request, digest, spend)))
      const operation = await this.#desk.executor.run(id)
      if (operation.state === 'failed') throw storedError(operation)
      return asPayResult(operation)
    })
  }

  payment(idempotencyKey: string): PayResult | { readonly state: 'failed'; readonly reason: string } | undefined {
    const operation = operationByKey(this.#desk.context.store, idempotencyKey)
    if (operation?.kind !== 'melt') return undefined
    if (operation.state === 'failed') return { state: 'failed', reason: operation.error?.message ?? 'refused' }
    return asPayResult(operation)
  }

  async #preparePay(request: PayRequest, digest: string, spend: Spend | undefined): Promise<string> {
    const invoice = this.#checkedInvoice(request)
    const amount = (invoice.amountMsats + 999n) / 1000n
    const maxFee = request.maxFeeSats ?? this.#defaultMaxFee(amount)
    const owedToo = this.#desk.maySpendOwed(request)
    const { mintUrl, quote } = await this.#meltQuote(invoice.request, amount, maxFee, owedToo)
    // Breaking a coin costs a fee: not for a payment that may not be made.
    if (!owedToo) this.#desk.assertNotOwed(mintUrl, amount + BigInt(quote.fee_reserve))
    if (spend !== undefined) this.#desk.assertInBudget(spend, amount + BigInt(quote.fee_reserve))
    const keyset = await this.#desk.context.mints.activeKeyset(mintUrl)
    const coins = await this.#coinsToPay(mintUrl, keyset, amount + BigInt(quote.fee_reserve), request.idempotencyKey)
    const fee = inputFee(coins)
    const blanks = new Array<number>(blankOutputs(sumOf(coins) - fee - amount)).fill(0)
    const outputs = await makeOutputs(this.#desk.context, keyset, [{ purpose: 'keep', amounts: blanks, owner: this.#desk.owner }])
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
    }
    const held = amount + BigInt(quote.fee_reserve) + fee
    if (!owedToo) this.#desk.assertNotOwed(mintUrl, held)
    const operation = {
      ...this.#desk.base(newId(), request, digest, mintUrl),
      kind: 'melt' as const,
      amountSats: amount,
      heldSats: held,
      plan,
    }
    await this.#desk.insertSpend(operation, spend, undefined)
    return operation.id
  }

  /** Coins for a melt. Where they are worth more than twice what is needed they are broken first: a payment may hang for long, and holds all of them. */
  async #coinsToPay(mintUrl: string, keyset: KeysetRow, needed: bigint, idempotencyKey: string): Promise<readonly OwnCoin[]> {
    const choose = () => this.#sending.gather(mintUrl, idempotencyKey, (own) => selectCoins(own, needed))
    const coins = await choose()
    if (sumOf(coins) <= 2n * needed) return coins
    const exact = coverFee(needed, Object.keys(keyset.keys).map(BigInt), keyset.inputFeePpk)
    if (sumOf(coins) - inputFee(coins) < exact) return coins
    await this.#sending.breakCoins(mintUrl, exact, `break:${idempotencyKey}`)
    return choose()
  }

  #checkedInvoice(request: PayRequest): { request: string; amountMsats: bigint; paymentHash: string } {
    const { clock, invoiceNetwork } = this.#desk.context
    const { request: bolt11, amountMsats, paymentHash, expiresAt, network } = decodeInvoice(request.request)
    if (amountMsats === undefined || amountMsats <= 0n) {
      throw new PylonError('invoice_invalid', 'The invoice has no amount: ask for one that says how much.')
    }
    if (request.amountMsats !== undefined && request.amountMsats !== amountMsats) {
      throw new PylonError('invoice_invalid', `The invoice asks for ${amountMsats} msats, not the agreed ${request.amountMsats}.`)
    }
    if (invoiceNetwork !== undefined && network !== invoiceNetwork) {
      throw new PylonError('invoice_invalid', `The invoice is for another network (ln${network}, this node pays ln${invoiceNetwork}).`)
    }
    if (expiresAt <= clock.now()) throw new PylonError('invoice_expired', 'The invoice has expired: ask for a new one.')
    return { request: bolt11, amountMsats, paymentHash }
  }

  #defaultMaxFee(amount: bigint): bigint {
    const percent = this.#desk.context.config().wallet.max_fee_percent
    const share = (amount * BigInt(Math.round(percent * 100)) + 9_999n) / 10_000n
    return share > 10n ? share : 10n
  }

  /** A quote of the first mint that holds enough and asks a fair fee. @throws insufficient_funds, funds_owed, payment_failed, mint_unreachable */
  async #meltQuote(request: string, amount: bigint, maxFee: bigint, owedToo: boolean): Promise<{ mintUrl: string; quote: MeltQuote }> {
    let problem: PylonError | undefined
    for (const mintUrl of this.#desk.mintsHolding(amount, owedToo)) {
      const body = JSON.stringify({ request, unit: 'sat' })
      const reply: MintReply<MeltQuote> = await this.#desk.context.mints
        .client(mintUrl)
        .post('/v1/melt/quote/bolt11', body, meltQuoteSchema)
      await this.#desk.context.mints.note(mintUrl, reply)
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
        )
      } else return { mintUrl, quote: reply.value }
    }
    throw problem ?? this.#desk.insufficient(amount)
  }
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
