/** One key's wallet: each move is a stored operation under the caller's idempotency key. */
import type { WalletOwner } from '../base/accounts.ts'
import { isPylonError, PylonError } from '../base/errors.ts'
import type { WalletContext } from './context.ts'
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
import type { LightningRail, Wallet } from './types.ts'

export interface WalletParts {
  readonly context: WalletContext
  readonly executor: Executor
  readonly invoices: Invoices
  readonly sentTokens: SentTokens
  readonly restores: Restores
  /** Undefined where there is none. */
  readonly rail: () => LightningRail | undefined
}

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
      return await this.#sending.sendToken(request, spend)
    } catch (error) {
      const rail = request.fillIfShort === true && isPylonError(error, 'insufficient_funds') ? this.#rail() : undefined
      if (rail === undefined) throw error
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
    if (request.from !== 'nwc') return await this.#paying.pay(request, spend)
    const rail = this.#rail()
    if (rail === undefined || this.owner.kind !== 'node' || spend !== undefined)
      throw new PylonError('nwc_missing', "Only the owner pays from the owner's Lightning wallet, once it is connected.")
    return await rail.pay(this.owner, request)
  }
  payment: Wallet['payment'] = (idempotencyKey) => this.#paying.payment(idempotencyKey) ?? this.#rail()?.payment(idempotencyKey)
  /** @throws mint_unreachable, mint_incompatible */
  moveCoins: OwnCoins['moveCoins'] = (...move) => this.#ownCoins.moveCoins(...move)
  /** @throws insufficient_funds, payment_unknown, mint_rejected, idempotency_conflict */
  transferTo: Transferring['transferTo'] = (...transfer) => this.#transferring.transferTo(...transfer)
}
