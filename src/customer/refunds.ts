/** Gets back what a purchase cost and did not bring: redeems the provider's refund, takes back a token that nobody took. */
import { createHash } from 'node:crypto'
import type { Sats } from '../base/amounts.ts'
import type { Clock } from '../base/clock.ts'
import { type ErrorCode, PylonError, toPylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { noteRefund, type PurchaseRow, purchasesWithRefund, purchasesWithTokenOut, purchaseTokenKey } from '../store/purchases.ts'
import type { Store } from '../store/store.ts'
import type { Wallet } from '../wallet/types.ts'
import { customerWallet, type FundingDeps, JOB_EXPENSE_ACCOUNT, RECLAIM_AFTER_MS } from './funding.ts'
import { type PurchaseLog, statusOf } from './purchase-log.ts'
import { isSettled } from './states.ts'

interface RefundsDeps extends FundingDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

/** What is wrong with a refund for good: asking its mint again changes nothing. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['token_invalid', 'token_spent', 'token_locked', 'token_amount'])

export class Refunds {
  readonly #deps: RefundsDeps
  readonly #log: PurchaseLog

  constructor(deps: RefundsDeps, log: PurchaseLog) {
    this.#deps = deps
    this.#log = log
  }

  /** Ids of the purchases whose refund is here and not yet in the wallet. */
  waiting(): string[] {
    return purchasesWithRefund(this.#deps.store).map((row) => row.id)
  }

  /** Ids of the purchases whose token may be ours again. */
  tokensOut(): string[] {
    return purchasesWithTokenOut(this.#deps.store).map((row) => row.id)
  }

  /** Stores a refund and redeems it: relays may forget it before its mint answers, or is on our list. */
  async take(id: string, token: string): Promise<void> {
    if (this.#log.row(id).refundToken === null) await this.#note(id, token, 'a refund came')
    await this.redeem(id)
  }

  /** Redeems the stored refund; the same token again is the same operation. What stands in the way is noted, and it is tried again later. */
  async redeem(id: string): Promise<void> {
    const { refundToken: token, status } = this.#log.row(id)
    if (token === null || status === 'completed' || status === 'refunded') return
    try {
      const received = await this.#wallet().receiveToken({
        idempotencyKey: `purchase:${id}:refund:${createHash('sha256').update(token).digest('hex').slice(0, 16)}`,
        cause: { type: 'purchase', id },
        token,
        creditAccount: JOB_EXPENSE_ACCOUNT,
        retryFailed: true,
      })
      await this.refunded(id, received.amountSats)
    } catch (error) {
      const { code, message } = toPylonError(error)
      const isFinal = FINAL.has(code)
      const reason = isFinal ? `the refund is no money: ${message}` : `a refund waits: ${message}`
      this.#deps.logger.warn({ purchase: id, code }, isFinal ? 'a refund was given up' : 'a refund waits')
      await this.#note(id, isFinal ? null : token, reason)
    }
  }

  async refunded(id: string, amountSats: Sats): Promise<void> {
    await this.#log.move(id, 'refunded', `${amountSats} sats came back`)
  }

  /** Takes back the token of a purchase that its provider left alone, or whose request no relay took. */
  async takeBack(row: PurchaseRow, { unsent = false } = {}): Promise<void> {
    if (statusOf(row) === 'preparing' || (!unsent && this.#deps.clock.now() < row.deadlineAt + RECLAIM_AFTER_MS)) return
    if (this.#wallet().sentToken(purchaseTokenKey(row.id))?.state !== 'pending') return
    const token = await this.#wallet().reclaim(purchaseTokenKey(row.id))
    if (token.state !== 'reclaimed') return
    if (!isSettled(statusOf(row)))
      await this.#log.fail(row.id, new PylonError('timeout', 'The provider took neither the job nor the token.'))
    await this.refunded(row.id, token.amountSats)
  }

  async #note(id: string, token: string | null, reason: string): Promise<void> {
    const row = this.#log.row(id)
    if (row.refundToken === token && row.reason === reason) return
    await this.#deps.store.write(noteRefund({ id, token, reason, at: this.#deps.clock.now() }))
    this.#log.wake(id)
  }

  #wallet(): Wallet {
    return customerWallet(this.#deps)
  }
}
