/** One key's wallet: each move is a stored operation under the caller's idempotency key. */
import type { WalletOwner } from '../base/accounts.ts'
import type { Sats } from '../base/amounts.ts'
import type { WalletContext } from './context.ts'
import { WalletDesk } from './moves/desk.ts'
import type { Invoices } from './moves/invoices.ts'
import { Paying } from './moves/paying.ts'
import { Receiving } from './moves/receiving.ts'
import { Reclaiming } from './moves/reclaiming.ts'
import { Sending } from './moves/sending.ts'
import type { SentTokens } from './moves/sent-tokens.ts'
import type { Executor } from './operations/executor.ts'
import type { Restores } from './operations/restores.ts'
import type {
  Balance,
  Invoice,
  InvoiceRequest,
  PayRequest,
  PayResult,
  ReceivedToken,
  ReceiveRequest,
  SendRequest,
  SentToken,
  Spend,
  TokenInspection,
  TransferOptions,
  Wallet,
} from './types.ts'

export interface WalletParts {
  readonly context: WalletContext
  readonly executor: Executor
  readonly invoices: Invoices
  readonly sentTokens: SentTokens
  readonly restores: Restores
}

export class CashuWallet implements Wallet {
  readonly owner: WalletOwner
  readonly #context: WalletContext
  readonly #desk: WalletDesk
  readonly #invoices: Invoices
  readonly #receiving: Receiving
  readonly #sending: Sending
  readonly #reclaiming: Reclaiming
  readonly #paying: Paying

  constructor(owner: WalletOwner, parts: WalletParts) {
    this.owner = owner
    this.#context = parts.context
    this.#desk = new WalletDesk(owner, parts)
    this.#invoices = parts.invoices
    this.#receiving = new Receiving(this.#desk)
    this.#sending = new Sending(this.#desk)
    this.#reclaiming = new Reclaiming(this.#desk, this.#receiving, parts.sentTokens)
    this.#paying = new Paying(this.#desk, this.#sending)
  }

  get lockPubkey(): string {
    return `02${this.#context.keyring.walletSigner(this.owner.pubkey).pubkey}`
  }

  balance(): Balance {
    return this.#desk.balance()
  }

  createInvoice(request: InvoiceRequest): Promise<Invoice> {
    return this.#invoices.create(this.owner, request)
  }

  invoice(idempotencyKey: string): Invoice | undefined {
    return this.#invoices.get(idempotencyKey)
  }

  inspectToken(token: string): Promise<TokenInspection> {
    return this.#receiving.inspectToken(token)
  }

  receiveToken(request: ReceiveRequest): Promise<ReceivedToken> {
    return this.#receiving.receiveToken(request)
  }

  sendToken(request: SendRequest, spend?: Spend): Promise<SentToken> {
    return this.#sending.sendToken(request, spend)
  }

  sentToken(idempotencyKey: string): SentToken | undefined {
    return this.#sending.sentToken(idempotencyKey)
  }

  reclaim(idempotencyKey: string): Promise<SentToken> {
    return this.#reclaiming.reclaim(idempotencyKey)
  }

  pay(request: PayRequest, spend?: Spend): Promise<PayResult> {
    return this.#paying.pay(request, spend)
  }

  payment(idempotencyKey: string): PayResult | { readonly state: 'failed'; readonly reason: string } | undefined {
    return this.#paying.payment(idempotencyKey)
  }

  /** @throws mint_unreachable, mint_incompatible */
  moveCoins: Sending['moveCoins'] = (...move) => this.#sending.moveCoins(...move)

  /** @throws insufficient_funds, payment_unknown, mint_rejected, idempotency_conflict */
  transferTo(to: WalletOwner, amountSats: Sats, idempotencyKey: string, options: TransferOptions): Promise<Sats> {
    return this.#sending.transferTo(to, amountSats, idempotencyKey, options)
  }
}
