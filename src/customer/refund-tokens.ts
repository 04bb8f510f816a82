/** Every refund that comes, of jobs and of leases: kept, and tried until it is in the wallet or surely no money. */

import type { Account } from '../base/accounts.ts'
import { type Sats, sats } from '../base/amounts.ts'
import { type ErrorCode, toPylonError } from '../base/errors.ts'
import { keepRefundToken, noteRefundToken, refundTokensOf } from '../store/buying/refund-tokens.ts'
import { refundTokenKey } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { CustomerDeps } from './deps.ts'
import { customerWallet, type FundingDeps } from './funding.ts'

type RefundTokensDeps = FundingDeps & Pick<CustomerDeps, 'store' | 'clock' | 'logger'>

/** What is wrong with a refund for good: asking its mint again changes nothing. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['token_invalid', 'token_spent', 'token_locked', 'token_amount'])

export interface Redeemed {
  /** Something came into the wallet by this call. */
  readonly redeemed: boolean
  /** What stands in the way of a refund: of one that still may be money, else of the last that is none. */
  readonly problem: string | undefined
}

export class RefundTokens {
  readonly #deps: RefundTokensDeps

  constructor(deps: RefundTokensDeps) {
    this.#deps = deps
  }

  /** @param causeId as the ledger names it: a purchase, or `rental:<id>` */
  async keep(causeId: string, token: string, sender: string): Promise<void> {
    await this.#deps.store.write(keepRefundToken({ causeId, token, sender, at: this.#deps.clock.now() }))
  }

  /** Tries each that waits; the same token again is the same operation. @param keyPrefix of the operations' keys */
  async redeem(causeId: string, keyPrefix: string, creditAccount: Account): Promise<Redeemed> {
    let redeemed = false
    let waits: string | undefined
    let refused: string | undefined
    for (const { token, reason } of refundTokensOf(this.#deps.store, causeId).filter((row) => row.state === 'waiting')) {
      try {
        const received = await customerWallet(this.#deps).receiveToken({
          idempotencyKey: refundTokenKey(keyPrefix, token),
          cause: { type: 'purchase', id: causeId },
          token,
          creditAccount,
          retryFailed: true,
        })
        await this.#note(causeId, token, 'redeemed', null, received.amountSats)
        redeemed = true
      } catch (error) {
        const { code, message } = toPylonError(error)
        const isFinal = FINAL.has(code)
        if (isFinal) refused = `the refund is no money: ${message}`
        else waits ??= `a refund waits: ${message}`
        if (!isFinal && reason === message) continue
        this.#deps.logger.warn({ cause: causeId, code }, isFinal ? 'a refund was given up' : 'a refund waits')
        await this.#note(causeId, token, isFinal ? 'refused' : 'waiting', message, null)
      }
    }
    return { redeemed, problem: waits ?? refused }
  }

  /** The wallet has it, as it says by itself: whether the token is one of ours. */
  async learn(causeId: string, keyPrefix: string, idempotencyKey: string, amountSats: Sats): Promise<boolean> {
    const row = refundTokensOf(this.#deps.store, causeId).find(({ token }) => refundTokenKey(keyPrefix, token) === idempotencyKey)
    if (row !== undefined) await this.#note(causeId, row.token, 'redeemed', null, amountSats)
    return row !== undefined
  }

  async #note(causeId: string, token: string, state: 'waiting' | 'redeemed' | 'refused', reason: string | null, amountSats: Sats | null) {
    await this.#deps.store.write(noteRefundToken({ causeId, token, state, reason, amountSats }))
  }
}

/** What came back by refunds. */
export function redeemedSats(store: Store, causeId: string): Sats {
  return sats(refundTokensOf(store, causeId).reduce((sum, row) => sum + (row.amountSats ?? 0n), 0n))
}
