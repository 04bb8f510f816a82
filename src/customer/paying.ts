/** Pays for a purchase, once: the cheapest usable offer by its invoice, or a locked token sent along. */

import { sats } from '../base/amounts.ts'
import { isPylonError, PylonError, toPylonError } from '../base/errors.ts'
import { listOffers, movePurchase, notePaid, type OfferRow, type PurchaseRow, setOfferState } from '../store/buying/purchases.ts'
import { all } from '../store/commands.ts'
import { purchasePaymentKey, purchaseTokenKey } from '../store/keys.ts'
import type { SentToken, Wallet, WalletEvent } from '../wallet/types.ts'
import { AskAgain } from './again.ts'
import { contestedOffers } from './claims.ts'
import type { CustomerDeps } from './deps.ts'
import type { PaidProvider } from './discovery.ts'
import { customerWallet, feesLeft, inWordsOfLimit, JOB_EXPENSE_ACCOUNT, RECLAIM_AFTER_MS, topUp } from './funding.ts'
import { costLimit } from './order.ts'
import { orderOf, type PurchaseLog } from './purchase-log.ts'
import type { Turns } from './turns.ts'

export class Paying {
  readonly #deps: CustomerDeps
  readonly #log: PurchaseLog
  readonly #turns: Turns
  readonly #again: AskAgain

  constructor(deps: CustomerDeps, log: PurchaseLog, turns: Turns) {
    this.#deps = deps
    this.#log = log
    this.#turns = turns
    this.#again = new AskAgain(deps, log)
  }

  /**
   * Pays the cheapest open offer of a purchase that was not paid yet. When nothing was spent the next one gets its turn,
   * unless its owner wants to be asked: a yes is for one offer.
   * @returns whether an offer was tried
   */
  async payBest(id: string): Promise<boolean> {
    const { store, clock } = this.#deps
    for (let tried = false; ; tried = true) {
      const offer = await this.choose(id)
      if (offer === undefined) return tried
      await store.write(
        all(
          movePurchase({ id, from: ['offered', 'processing'], to: 'paying', reason: `paying ${offer.amountMsats} msats`, at: clock.now() }),
          setOfferState({ eventId: offer.eventId, state: 'paying' }),
        ),
      )
      this.#log.wake(id)
      await this.#pay(this.#log.row(id), offer)
      if (orderOf(this.#log.row(id)).pay === 'ask') return true
    }
  }

  /**
   * The offer to pay now. Where the only ones left carry an invoice that several keys name, the job is asked again of one after
   * the other first, and what they answer is looked at then.
   */
  async choose(id: string): Promise<OfferRow | undefined> {
    const { store, clock } = this.#deps
    const row = this.#log.row(id)
    if (!mayBePaid(row) || clock.now() >= row.deadlineAt) return undefined
    const offers = listOffers(store, id)
    const contested = contestedOffers(row, offers)
    const open = offers.filter((offer) => offer.state === 'open')
    const own = open.find((offer) => !contested.has(offer))
    const [first] = open
    if (own !== undefined || first === undefined) return own
    const untilAt = await this.#again.ask(row, open)
    if (untilAt !== undefined) {
      this.#turns.later(id, untilAt - clock.now(), () => this.#goOn(id))
      return undefined
    }
    if (first.reason === null) {
      await store.write(setOfferState({ eventId: first.eventId, state: 'open', reason: 'another key names its invoice too' }))
      this.#log.wake(id)
    }
    return first
  }

  async #goOn(id: string): Promise<void> {
    if (orderOf(this.#log.row(id)).pay === 'auto') await this.payBest(id)
    else await this.choose(id)
  }

  /** The process died while paying: the wallet knows what became of it; an operation it never heard of was never made. */
  async resume(row: PurchaseRow): Promise<void> {
    const offer = listOffers(this.#deps.store, row.id).find((candidate) => candidate.state === 'paying')
    if (offer === undefined) throw new PylonError('internal', `Purchase ${row.id} is paying no offer.`)
    const payment = this.#wallet().payment(purchasePaymentKey(row.id, offer.eventId))
    if (payment === undefined && this.#deps.clock.now() >= row.deadlineAt) {
      const late = new PylonError('timeout', 'The job was over before it could be paid.')
      await this.#notPaid(row.id, offer, late)
      await this.#log.fail(row.id, late)
    } else if (payment === undefined) await this.#pay(row, offer)
    else if (payment.state === 'paid') await this.#paid(row.id, offer)
    else if (payment.state === 'failed') await this.#notPaid(row.id, offer, new PylonError('payment_failed', payment.reason))
    if (orderOf(row).pay === 'auto') await this.payBest(row.id)
  }

  /** What the wallet learned about a payment whose outcome was unknown. */
  async learn(id: string, event: WalletEvent): Promise<void> {
    const offer = listOffers(this.#deps.store, id).find((candidate) => purchasePaymentKey(id, candidate.eventId) === event.idempotencyKey)
    if (offer === undefined) return
    if (event.type === 'payment_settled') await this.#paid(id, offer)
    if (event.type === 'payment_failed') await this.#notPaid(id, offer, new PylonError('payment_failed', event.reason))
  }

  async #pay(row: PurchaseRow, offer: OfferRow, isAgain = false): Promise<void> {
    const amountSats = sats((offer.amountMsats + 999n) / 1000n)
    const cause = { type: 'purchase', id: row.id } as const
    const limitSats = costLimit(orderOf(row))
    const left = () => feesLeft(this.#deps, { cause, amountSats, limitSats })
    try {
      await topUp(this.#deps, { cause, neededSats: sats(amountSats + left()), maxFeeSats: left() })
      const payment = {
        idempotencyKey: purchasePaymentKey(row.id, offer.eventId),
        cause,
        request: offer.bolt11 ?? '',
        amountMsats: offer.amountMsats,
        maxFeeSats: left(),
        debitAccount: JOB_EXPENSE_ACCOUNT,
      }
      const outcome = await this.#wallet().pay(payment, { subject: 'customer', counterparty: offer.provider })
      if (outcome.state === 'paid') await this.#paid(row.id, offer)
    } catch (error) {
      // Only what the wallet surely did not spend may make way for another offer: its books say, not the error (a full disk, a shutdown).
      const payment = this.#wallet().payment(purchasePaymentKey(row.id, offer.eventId))
      if (payment?.state === 'paid') return this.#paid(row.id, offer)
      if (payment?.state === 'unknown') return
      // Another purchase took the sats that were there a moment ago: once more, with what is there now.
      if (payment === undefined && !isAgain && isPylonError(error, 'insufficient_funds')) return this.#pay(row, offer, true)
      // The sats are on their way from the node's wallet: the sweep tries again.
      if (payment === undefined && isPylonError(error, 'payment_unknown')) return
      await this.#notPaid(row.id, offer, toPylonError(inWordsOfLimit(error, amountSats, limitSats)))
    }
  }

  async #paid(id: string, offer: OfferRow): Promise<void> {
    const at = this.#deps.clock.now()
    const isPaid = setOfferState({ eventId: offer.eventId, state: 'paid' })
    if (this.#log.row(id).status !== 'paying') {
      // Its end was heard before the payment was known: what it cost is counted all the same.
      await this.#deps.store.write(all(notePaid({ id, paidMsats: offer.amountMsats, at }), isPaid))
      return this.#log.wake(id)
    }
    await this.#deps.store.write(
      all(
        movePurchase({
          id,
          from: ['paying'],
          to: 'paid',
          reason: `paid ${offer.amountMsats} msats`,
          at,
          provider: offer.provider,
          paidMsats: offer.amountMsats,
        }),
        isPaid,
      ),
    )
    this.#log.wake(id)
  }

  /** Nothing was spent. */
  async #notPaid(id: string, offer: OfferRow, error: PylonError): Promise<void> {
    const row = this.#log.row(id)
    if (row.status !== 'paying') return
    await this.#deps.store.write(
      all(
        movePurchase({ id, from: ['paying'], to: 'offered', reason: error.message, at: this.#deps.clock.now() }),
        setOfferState({ eventId: offer.eventId, state: 'failed', reason: error.message }),
      ),
    )
    this.#log.wake(id)
    const another = listOffers(this.#deps.store, id).some((candidate) => candidate.state === 'open')
    if (!another && (orderOf(row).provider !== undefined || error.code === 'insufficient_funds')) await this.#log.fail(id, error)
  }

  /** A token for the announced price, locked to the provider, ours again some time after the deadline. */
  async sendToken(row: PurchaseRow, pubkey: string, provider: PaidProvider): Promise<SentToken> {
    const { priceSats: amountSats, mintUrl } = provider
    const cause = { type: 'purchase', id: row.id } as const
    const limitSats = costLimit(orderOf(row))
    const left = () => feesLeft(this.#deps, { cause, amountSats, limitSats })
    try {
      await topUp(this.#deps, { cause, neededSats: amountSats, mintUrl, maxFeeSats: left() })
      const token = {
        idempotencyKey: purchaseTokenKey.of(row.id),
        cause,
        amountSats,
        mintUrl,
        lockTo: provider.lockPubkey,
        refundAfter: row.deadlineAt + RECLAIM_AFTER_MS,
        coverReceiverFee: true,
        maxFeeSats: left(),
        debitAccount: JOB_EXPENSE_ACCOUNT,
      }
      return await this.#wallet().sendToken(token, { subject: 'customer', counterparty: pubkey })
    } catch (error) {
      throw inWordsOfLimit(error, amountSats, limitSats)
    }
  }

  #wallet(): Wallet {
    return customerWallet(this.#deps)
  }
}

function mayBePaid(row: PurchaseRow): boolean {
  return row.paidMsats === 0n && (row.status === 'offered' || row.status === 'processing')
}
