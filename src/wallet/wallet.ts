/** One key's wallet: each move is a stored operation under the caller's idempotency key. */
import { accountOf, accountOwner, type WalletOwner } from '../base/accounts.ts'
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import { given } from '../base/given.ts'
import type { WalletContext } from './context.ts'
import { decodeInvoice } from './lightning/bolt11.ts'
import { Funds } from './moves/funds.ts'
import type { Invoices } from './moves/invoices.ts'
import { OwnCoins } from './moves/own-coins.ts'
import { Paying } from './moves/paying.ts'
import { Receiving } from './moves/receiving.ts'
import { Reclaiming } from './moves/reclaiming.ts'
import { Sending } from './moves/sending.ts'
import type { SentTokens } from './moves/sent-tokens.ts'
import { Transferring } from './moves/transferring.ts'
import type { Executor } from './operations/executor.ts'
import type { Restores } from './operations/restores.ts'
import { Foreign } from './purse/foreign.ts'
import { FoundCoins } from './purse/found-coins.ts'
import { Purse, type Shortage } from './purse/purse.ts'
import type { LightningRail, SendRequest, SentToken, Spend, Wallet } from './types.ts'

export interface WalletParts {
  readonly context: WalletContext
  readonly executor: Executor
  readonly invoices: Invoices
  readonly sentTokens: SentTokens
  readonly restores: Restores
  /** Undefined where there is none. */
  readonly rail: () => LightningRail | undefined
}

/** How often sats are brought from other mints for one spend: others may take them meanwhile. */
const MAX_FILLS = 3

export class CashuWallet implements Wallet {
  readonly owner: WalletOwner
  readonly #context: WalletContext
  readonly #funds: Funds
  readonly #invoices: Invoices
  readonly #receiving: Receiving
  readonly #ownCoins: OwnCoins
  readonly #transferring: Transferring
  readonly #sending: Sending
  readonly #reclaiming: Reclaiming
  readonly #paying: Paying
  readonly purse: Purse
  readonly foreign: Foreign
  readonly found: FoundCoins
  readonly #rail: WalletParts['rail']

  constructor(owner: WalletOwner, parts: WalletParts) {
    this.owner = owner
    this.#context = parts.context
    this.#funds = new Funds(owner, parts)
    this.#invoices = parts.invoices
    this.#rail = parts.rail
    this.#receiving = new Receiving(this.#funds)
    const ownCoins = new OwnCoins(this.#funds)
    this.#ownCoins = ownCoins
    this.#transferring = new Transferring(this.#funds, ownCoins)
    this.#sending = new Sending(this.#funds, ownCoins)
    this.#reclaiming = new Reclaiming(this.#funds, this.#receiving, parts.sentTokens)
    this.#paying = new Paying(this.#funds, ownCoins)
    const moving = { funds: this.#funds, invoices: parts.invoices, paying: this.#paying }
    this.purse = new Purse(moving)
    this.foreign = new Foreign(moving, this.#receiving, this.purse)
    this.found = new FoundCoins(moving, this.#receiving, this.foreign)
  }

  get lockPubkey(): string {
    return `02${this.#context.keyring.walletSigner(this.owner.pubkey).pubkey}`
  }

  balance: Wallet['balance'] = () => this.#funds.balance()
  createInvoice: Wallet['createInvoice'] = (request) => {
    const rail = this.#rail()
    return rail?.receives(this.owner, request) === true
      ? rail.createInvoice(this.owner, request)
      : this.#invoices.create(this.owner, request)
  }
  invoice: Wallet['invoice'] = (idempotencyKey) => this.#invoices.get(idempotencyKey) ?? this.#rail()?.invoice(idempotencyKey)
  inspectToken: Wallet['inspectToken'] = (token) => this.#receiving.inspectToken(token)
  receiveToken: Wallet['receiveToken'] = (request) => this.#receiving.receiveToken(request)
  sendToken: Wallet['sendToken'] = async (request, spend) => {
    try {
      return await this.#sendFromPurse(request, spend)
    } catch (error) {
      const isShort = request.fillIfShort === true && isPylonError(error, 'insufficient_funds')
      // What lies there is the node's: an agent has what it was given.
      const rail = isShort && this.owner.kind === 'node' ? this.#rail() : undefined
      if (rail?.isConnected !== true) throw error
      if (request.maxFeeSats !== undefined) throw unbounded(error)
      // Without a Lightning wallet the mint's lack is all there is to say.
      await rail.fill(this, request).catch((reason: unknown) => {
        throw isPylonError(reason, 'nwc_missing') ? error : reason
      })
      return await this.#sending.sendToken(request, spend)
    }
  }
  sentToken: Wallet['sentToken'] = (idempotencyKey) => this.#sending.sentToken(idempotencyKey)
  reclaim: Wallet['reclaim'] = (idempotencyKey) => this.#reclaiming.reclaim(idempotencyKey)
  pay: Wallet['pay'] = async (request, spend) => {
    if (request.from !== 'nwc') {
      // What an invoice without an amount needs no mint says before it is asked: nothing is brought to one for it.
      if (satsOfInvoice(request.request) === 0n) return await this.#paying.pay(request, spend)
      const shortage = () => ({ ...request, spend, invoice: request.request, amountSats: satsOfInvoice(request.request) })
      return await this.#withPurse(shortage, () => this.#paying.pay(request, spend))
    }
    const rail = this.#rail()
    if (rail === undefined || this.owner.kind !== 'node' || spend !== undefined)
      throw new PylonError('nwc_missing', "Only the owner pays from the owner's Lightning wallet, once it is connected.")
    return await rail.pay(this.owner, request)
  }
  payment: Wallet['payment'] = (idempotencyKey) => this.#paying.payment(idempotencyKey) ?? this.#rail()?.payment(idempotencyKey)
  /** Where a mint is named the token is of that mint, so sats come there only where that was asked for. */
  #sendFromPurse(request: SendRequest, spend?: Spend): Promise<SentToken> {
    const send = () => this.#sending.sendToken(request, spend)
    if (request.mintUrl !== undefined && request.fillIfShort !== true) return send()
    return this.#withPurse(() => ({ ...request, spend }), send)
  }

  /** What no mint can spend alone is tried again when the purse has brought it to one. */
  async #withPurse<T>(shortage: () => Shortage, spend: () => Promise<T>): Promise<T> {
    for (let fills = 0; ; fills++) {
      try {
        return await spend()
      } catch (error) {
        const isShort = isPylonError(error, 'insufficient_funds') || isPylonError(error, 'funds_owed')
        if (!isShort || fills === MAX_FILLS) throw error
        await this.purse.fill(shortage(), error)
      }
    }
  }

  /** @throws mint_unreachable, mint_incompatible */
  moveCoins: OwnCoins['moveCoins'] = (...move) => this.#ownCoins.moveCoins(...move)
  /** @throws insufficient_funds, payment_unknown, mint_rejected, idempotency_conflict */
  transferTo: Transferring['transferTo'] = (to, amountSats, idempotencyKey, options) => {
    const transfer = () => this.#transferring.transferTo(to, amountSats, idempotencyKey, options)
    const { mintUrl, fillIfShort, maxFeeSats, spend, cause = { type: 'transfer', id: idempotencyKey } } = options
    if (mintUrl !== undefined && fillIfShort !== true) return transfer()
    const debitAccount = accountOf(accountOwner(this.owner), 'equity', 'moved')
    const shortage = { idempotencyKey, cause, debitAccount, amountSats, spend, rail: 'own' as const, ...given({ mintUrl, maxFeeSats }) }
    return this.#withPurse(() => shortage, transfer)
  }
}

const unbounded = (error: unknown): PylonError =>
  new PylonError(
    'insufficient_funds',
    `${messageOf(error)} The Lightning wallet that is connected was not asked to bring them: no limit can be set to what it pays in fees (NIP-47). Leave the limit of the fee out, or fund a mint first.`,
  )

const satsOfInvoice = (invoice: string): bigint => ((decodeInvoice(invoice).amountMsats ?? 0n) + 999n) / 1000n
