/** Gives back what was paid: a token that only the payer can spend, made once, sent again and again until it is seen spent. */
import { type Account, accountOf, isNwcDetail } from '../../base/accounts.ts'
import { type Msats, msatsToSatsDown } from '../../base/amounts.ts'
import { backoffMs } from '../../base/backoff.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import { isUnheard } from '../../nostr/keys/away.ts'
import type { Command } from '../../store/commands.ts'
import { type KeyForm, refundForgone, refundRest, type SaleCause, saleRefundKey } from '../../store/keys.ts'
import { depositNow, depositOf, mintOfCause, postEntry } from '../../store/money/ledger.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import type { SentToken } from '../../wallet/types.ts'
import { refundOwed } from './machine.ts'
import type { Product, Sale } from './product.ts'
import type { SaleDeps } from './sales.ts'

const MINUTE_MS = 60_000
const DAY_MS = 1440 * MINUTE_MS
/** When the refund is sent again after the first, second, ... time; then daily. */
const RESEND_AFTER_MS: readonly number[] = [MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 120 * MINUTE_MS, 720 * MINUTE_MS]
/** After that the token waits in our database; the owner can still hand it over. */
const MAX_SENDS = 40
/** When the wallet could not make the token (no mint answers, it holds too little). */
const RETRY = { minMs: MINUTE_MS, maxMs: 60 * MINUTE_MS }

export class Refunds<S extends Sale> {
  readonly #deps: SaleDeps
  readonly #product: Product<S>
  readonly #again: (id: string) => Promise<void>
  readonly #failures = new Map<string, number>()

  /** @param again looks at the deposit once a refund was spent: what was paid meanwhile goes back next */
  constructor(deps: SaleDeps, product: Product<S>, again: (id: string) => Promise<void>) {
    this.#deps = deps
    this.#product = product
    this.#again = again
  }

  /** Makes and sends what is due. */
  async run(): Promise<void> {
    await Promise.all(this.#product.refundsDue(this.#deps.scope.clock.now()).map((id) => this.#once(id)))
  }

  /** Has this one's refund sent now. */
  wake(id: string): void {
    this.#deps.scope.spawn('refund', () => this.#once(id))
  }

  /** What the payer can spend of the refund that is on its way. */
  token(id: string): string | undefined {
    return this.#sent(id)?.token
  }

  /** The payer spent a refund. Told of twice, it does not end the one that came after it. */
  async onClaimed(id: string): Promise<void> {
    const { scope } = this.#deps
    const sale = this.#product.get(id)
    if (sale?.state !== 'refunding' || this.#sent(id)?.state !== 'claimed') return
    await persistIfUnmoved(this.#deps, this.#product.refunded(sale, 'the refund was spent', scope.clock.now()))
    await this.#again(id)
  }

  /** One at a time for each sale. */
  #once(id: string): Promise<void> {
    return this.#deps.scope.once(id, () => this.#attempt(id))
  }

  async #attempt(id: string): Promise<void> {
    const { scope, logger } = this.#deps
    const sale = this.#product.get(id)
    if (sale?.state !== 'refunding') return
    try {
      await this.#refund(sale)
    } catch (error) {
      if (scope.isClosing || isPylonError(error, 'shutting_down')) return
      // Its token is made, and is sent once the node's key is back, which encrypts it.
      if (isUnheard(error)) return
      // Where the node failed it stays owed until the node can cover what its mint takes.
      const isWorthless = isPylonError(error, 'amount_invalid') && error.details['worthless'] === true
      if (isWorthless && sale.isPayersDoing) return await this.#forgo(sale)
      logger.warn({ [`${this.#product.type}_id`]: id, error: messageOf(error) }, 'a refund could not be sent yet')
      const failures = (this.#failures.get(id) ?? 0) + 1
      this.#failures.set(id, failures)
      const at = scope.clock.now()
      const note = this.#product.note(sale, { refundNextAt: at + backoffMs(RETRY, failures, scope.random) }, at)
      const told = failures === 1 && sale.refundSends === 0 ? await this.#deferred(sale) : []
      await persist(this.#deps, note, ...told)
      if (told.length > 0) this.#deps.nudge()
    }
  }

  async #deferred(sale: S): Promise<readonly Command<unknown>[]> {
    try {
      return await this.#product.tell(sale, { type: 'deferred' })
    } catch (error) {
      if (isUnheard(error)) return []
      throw error
    }
  }

  async #refund(sale: S): Promise<void> {
    const { scope } = this.#deps
    // One that was made is sent again as it is, whatever the rule was then.
    const sent = this.#sent(sale.id) ?? (await this.#make(sale))
    if (sent.state === 'claimed') return await this.onClaimed(sale.id)
    const at = scope.clock.now()
    const refundSends = sale.refundSends + 1
    const refundNextAt = refundSends >= MAX_SENDS ? Number.MAX_SAFE_INTEGER : at + (RESEND_AFTER_MS[sale.refundSends] ?? DAY_MS)
    this.#failures.delete(sale.id)
    await persist(
      this.#deps,
      this.#product.note(sale, { refundSends, refundNextAt }, at),
      ...(await this.#product.tell(sale, { type: 'token', token: sent.token, sends: refundSends })),
      // What could not be given back because the mint took its fee from it: that was posted as our expense, and is the payer's.
      ...this.#debit(sale, refundRest, accountOf('node', 'expense', 'fee'), at),
    )
    this.#deps.nudge()
  }

  #make(sale: S): Promise<SentToken> {
    const { store, wallet } = this.#deps
    const cause = this.#cause(sale.id)
    // Its payer may know no other mint.
    const mintUrl = mintOfCause(store, 'node', cause) ?? (sale.mintUrl === null || isNwcDetail(sale.mintUrl) ? null : sale.mintUrl)
    return wallet().sendToken({
      idempotencyKey: this.#key(sale.id),
      cause,
      amountSats: msatsToSatsDown(this.#owed(sale)),
      debitAccount: depositOf(cause),
      lockTo: `02${sale.payerPubkey}`,
      ...(mintUrl === null ? {} : { mintUrl }),
      // Whoever failed pays the fees: where that is the node, what is redeemed is what was paid. A node that holds nothing but
      // this payment gives it back all the same, less what the mint takes.
      ...(sale.isPayersDoing ? { lessFee: true } : { coverReceiverFee: true, lessFeeIfShort: true }),
      retryFailed: true,
      fillIfShort: true,
    })
  }

  /** The mint would take all of it from whoever redeems it. */
  async #forgo(sale: S): Promise<void> {
    const { scope } = this.#deps
    const at = scope.clock.now()
    const reason = `what was paid, ${msatsToSatsDown(this.#owed(sale))} sats, is no more than the mint takes for giving it back`
    await persist(
      this.#deps,
      ...this.#debit(sale, refundForgone, accountOf('node', 'income', 'rounding'), at),
      this.#product.refunded(sale, reason, at),
      ...(await this.#product.tell(sale, { type: 'forgone', reason })),
    )
    this.#deps.nudge()
  }

  /** Takes what is still owed off the deposit, once. */
  #debit(sale: S, form: KeyForm, to: Account, at: number): readonly Command<unknown>[] {
    const cause = this.#cause(sale.id)
    const amountMsats = this.#owed(sale)
    const postings = [
      { account: depositOf(cause), amountMsats },
      { account: to, amountMsats: -amountMsats },
    ]
    return amountMsats === 0n ? [] : [postEntry({ id: form.of(this.#key(sale.id)), cause, at, postings })]
  }

  #owed(sale: S): Msats {
    return refundOwed(sale, depositNow(this.#deps.store, this.#cause(sale.id)))
  }

  #sent(id: string): SentToken | undefined {
    return this.#deps.wallet().sentToken(this.#key(id))
  }

  #key(id: string): string {
    return saleRefundKey(this.#cause(id), this.#product.refundsBegun(id))
  }

  #cause(id: string): SaleCause {
    return { type: this.#product.type, id }
  }
}
