/** Gets back what a purchase cost and did not bring: redeems every refund that comes, takes back a token that nobody took. */

import type { Sats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'
import { isPurchaseOver } from '../base/states.ts'
import { getPurchase, type PurchaseRow, purchasesWithTokenOut } from '../store/buying/purchases.ts'
import { causesWithRefund } from '../store/buying/refund-tokens.ts'
import { purchaseKey, purchaseTokenKey } from '../store/keys.ts'
import type { Wallet } from '../wallet/types.ts'
import { claimantsOf } from './claims.ts'
import type { CustomerDeps } from './deps.ts'
import { resultsThatCount, silentClaimants } from './ending.ts'
import { customerWallet, JOB_EXPENSE_ACCOUNT, RECLAIM_AFTER_MS } from './funding.ts'
import type { PurchaseLog } from './purchase-log.ts'
import { RefundTokens, redeemedSats } from './refund-tokens.ts'

export class Refunds {
  readonly #deps: CustomerDeps
  readonly #log: PurchaseLog
  readonly #tokens: RefundTokens

  constructor(deps: CustomerDeps, log: PurchaseLog) {
    this.#deps = deps
    this.#log = log
    this.#tokens = new RefundTokens(deps)
  }

  /** Ids of the purchases whose refund is here and not yet in the wallet. */
  waiting(): string[] {
    return causesWithRefund(this.#deps.store).filter((id) => getPurchase(this.#deps.store, id)?.id === id)
  }

  /** Ids of the purchases whose token may be ours again. */
  tokensOut(): string[] {
    return purchasesWithTokenOut(this.#deps.store).map((row) => row.id)
  }

  /** Stores a refund and redeems what is there: relays may forget it before its mint answers, or is on our list. */
  async take(id: string, token: string, sender: string): Promise<void> {
    await this.#tokens.keep(id, token, sender)
    await this.redeem(id)
  }

  /** Tries every stored refund; what stands in the way is noted, and it is tried again later. */
  async redeem(id: string): Promise<void> {
    const { problem, redeemed } = await this.#tokens.redeem(id, purchaseKey.of(id), JOB_EXPENSE_ACCOUNT)
    if (redeemed) await this.refunded(id)
    if (problem !== undefined && !['completed', 'refunded'].includes(this.#log.row(id).status)) await this.#log.note(id, problem)
  }

  /**
   * Something came back. It ends the purchase, unless another key may have the rest of the money: who claims a payment that
   * others made good for is not to end it with a single sat.
   */
  async refunded(id: string, extraSats = 0n): Promise<void> {
    const { store, clock } = this.#deps
    const row = this.#log.row(id)
    const backSats = redeemedSats(store, id) + extraSats
    const isAll = backSats * 1000n >= row.paidMsats
    const others = (claimantsOf(store, row)?.length ?? 0) > 1
    const isOpen = clock.now() < row.deadlineAt && silentClaimants(store, row).length > 0
    if (others && !isAll && (isOpen || resultsThatCount(store, row).length > 0)) return
    await this.#log.move(id, 'refunded', `${backSats} sats came back`)
  }

  /** The time is up: what came back by then may end it. */
  async settle(id: string): Promise<void> {
    if (redeemedSats(this.#deps.store, id) > 0n) await this.refunded(id)
  }

  /** Takes back the token of a purchase that its provider left alone, or whose request no relay took. */
  async takeBack(row: PurchaseRow, { unsent = false } = {}): Promise<void> {
    if (row.status === 'preparing' || (!unsent && this.#deps.clock.now() < row.deadlineAt + RECLAIM_AFTER_MS)) return
    if (this.#wallet().sentToken(purchaseTokenKey.of(row.id))?.state !== 'pending') return
    const token = await this.#wallet().reclaim(purchaseTokenKey.of(row.id))
    if (token.state !== 'reclaimed') return
    if (!isPurchaseOver(row.status))
      await this.#log.fail(row.id, new PylonError('timeout', 'The provider took neither the job nor the token.'))
    await this.refunded(row.id, token.amountSats)
  }

  /** What the wallet learned of a refund by itself. */
  async learn(id: string, idempotencyKey: string, amountSats: Sats): Promise<void> {
    const isKnown = await this.#tokens.learn(id, purchaseKey.of(id), idempotencyKey, amountSats)
    await this.refunded(id, isKnown ? 0n : amountSats)
  }

  #wallet(): Wallet {
    return customerWallet(this.#deps)
  }
}
