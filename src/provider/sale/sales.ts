/** Sells for a product: bills, redeems tokens, takes what the ledger holds, lets quotes expire, gives back; jobs and leases alike. */
import { setImmediate } from 'node:timers/promises'
import { type Msats, msatsToSatsUp } from '../../base/amounts.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { type SaleCause, saleInvoiceKey, saleTokenKey } from '../../store/keys.ts'
import { type Deposit, depositNow, depositOf, depositsFor } from '../../store/money/ledger.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import type { Store } from '../../store/store.ts'
import type { Invoice, TokenInspection, Wallet, WalletEvent } from '../../wallet/types.ts'
import { judgePayment, type PaymentVerdict } from './machine.ts'
import type { Product, Sale, SaleStep } from './product.ts'
import { Refunds } from './refunds.ts'

/** Who loses the race with another step of the same sale looks again; so often. */
const MAX_TRIES = 5
/** Sales that are looked at in one turn of the event loop. */
const LOOKS_A_TURN = 20

export interface SaleDeps {
  readonly store: Store
  readonly scope: Scope
  readonly logger: Logger
  /** The node's wallet. @throws locked */
  readonly wallet: () => Wallet
  /** Sends what was put in the outbox. */
  readonly nudge: () => void
}

export interface Bill {
  readonly id: string
  readonly priceMsats: Msats
  readonly description: string
  readonly expiresAt: number
  readonly ofStranger: boolean
}

export class Sales<S extends Sale> {
  readonly refunds: Refunds<S>
  readonly #deps: SaleDeps
  readonly #product: Product<S>

  constructor(deps: SaleDeps, product: Product<S>) {
    this.#deps = deps
    this.#product = product
    this.refunds = new Refunds(deps, product, (id) => this.take(id))
  }

  /** An invoice over the price, to be paid until its own end or the bill's. */
  async bill({ id, priceMsats, description, expiresAt, ofStranger }: Bill): Promise<Invoice> {
    const cause = this.#cause(id)
    const invoice = await this.#deps.wallet().createInvoice({
      idempotencyKey: saleInvoiceKey(cause),
      cause,
      amountSats: msatsToSatsUp(priceMsats),
      description,
      creditAccount: depositOf(cause),
      expiresAt,
      ofStranger,
    })
    return { ...invoice, expiresAt: Math.min(expiresAt, invoice.expiresAt) }
  }

  /**
   * Swaps a token for ecash of ours and takes it as payment. @param admit looks for what speaks against it before anything is spent
   * @throws what `admit` throws, and the wallet: payment_unknown where its event will say
   */
  async redeem(
    sale: Pick<Sale, 'id' | 'priceMsats'>,
    token: string,
    options: { requireLock: boolean; admit: (inspect: () => Promise<TokenInspection>) => Promise<void> },
  ): Promise<void> {
    const wallet = this.#deps.wallet()
    await options.admit(() => wallet.inspectToken(token))
    const cause = this.#cause(sale.id)
    await wallet.receiveToken({
      idempotencyKey: saleTokenKey(cause, token),
      cause,
      token,
      creditAccount: depositOf(cause),
      minNetSats: msatsToSatsUp(sale.priceMsats),
      requireLock: options.requireLock,
    })
    await this.take(sale.id)
  }

  /** Moves the sale by what the ledger holds for it; a second word of the same payment changes nothing. */
  async take(id: string): Promise<void> {
    const { scope, logger } = this.#deps
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const sale = this.#product.get(id)
      if (sale === undefined) {
        logger.error({ [`${this.#product.type}_id`]: id }, 'a payment came for what is not known')
        return
      }
      const deposit = depositNow(this.#deps.store, this.#cause(id))
      const at = scope.clock.now()
      const verdict = judgePayment(sale, deposit, at)
      if (verdict.type === 'nothing') return
      const step = await this.#stepFor(sale, verdict, deposit, at)
      if (!(await persistIfUnmoved(this.#deps, ...step.commands))) continue
      step.done?.()
      if (verdict.type === 'back') this.refunds.wake(id)
      return
    }
  }

  async #stepFor(sale: S, verdict: PaymentVerdict, { paidMsats, heldMsats }: Deposit, at: number): Promise<SaleStep> {
    switch (verdict.type) {
      case 'nothing':
        return { commands: [] }
      case 'paid':
        return await this.#product.paid(sale, { paidMsats }, at)
      case 'more':
        return { commands: [this.#product.note(sale, { paidMsats }, at)] }
      case 'back':
        return this.#product.back(sale, verdict.why, { paidMsats, refundMsats: heldMsats, refundSends: 0, refundNextAt: at }, at)
    }
  }

  /** Lets quotes end whose time to pay is over, unless their payment is on its way. */
  async expire(): Promise<void> {
    const { scope } = this.#deps
    await this.#each(this.#product.overdue(scope.clock.now()), async (id) => {
      const state = this.#deps.wallet().invoice(saleInvoiceKey(this.#cause(id)))?.state
      if (state === 'settled') return await this.take(id)
      const sale = this.#product.get(id)
      if (state === 'paid' || sale?.state !== 'quoted') return
      const step = this.#product.expired(sale, scope.clock.now())
      if (await persistIfUnmoved(this.#deps, ...step.commands)) step.done?.()
    })
  }

  /** Takes payments whose event was lost or came while their sale was being ended: the ledger knows them. */
  async reconcile(): Promise<void> {
    await this.#each([...depositsFor(this.#deps.store, this.#product.type).keys()], async (id) => {
      if (this.#product.get(id) !== undefined) await this.take(id)
    })
  }

  async onWalletEvent(event: WalletEvent): Promise<void> {
    const { id } = event.cause
    if (event.type === 'invoice_settled' || event.type === 'token_received') await this.take(id)
    else if (event.type === 'receive_failed') await this.#product.tokenFailed(id, event.reason)
    else if (event.type === 'sent_claimed') await this.refunds.onClaimed(id)
  }

  /** One that can't be looked at holds up no other. */
  async #each(ids: readonly string[], work: (id: string) => Promise<void>): Promise<void> {
    const { scope, logger } = this.#deps
    for (const [nth, id] of ids.entries()) {
      if (nth % LOOKS_A_TURN === LOOKS_A_TURN - 1) await setImmediate()
      try {
        await work(id)
      } catch (error) {
        if (scope.isClosing) return
        logger.warn({ [`${this.#product.type}_id`]: id, error: messageOf(error) }, 'a sale could not be looked at; it is tried again')
      }
    }
  }

  #cause(id: string): SaleCause {
    return { type: this.#product.type, id }
  }
}
