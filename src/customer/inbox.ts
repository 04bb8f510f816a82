/** What is heard about purchases: every answer is claimed, judged and acted upon; the same one twice changes nothing. */

import { backoffMs } from '../base/backoff.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { requestIdsOf } from '../nostr/nips/nip90-answers.ts'
import type { NostrEvent } from '../nostr/types.ts'
import { getRepeatedRequest, keepResult, refuseRepeatedRequest } from '../store/buying/purchase-claims.ts'
import {
  claimAnswer,
  countAnswers,
  getPurchase,
  insertOffer,
  listOffers,
  type OfferRow,
  type PurchaseRow,
  wasAnswerHeard,
} from '../store/buying/purchases.ts'
import { all } from '../store/commands.ts'
import { type Answer, readAnswer } from './answers.ts'
import { claimantsOf, isOpenRequest, isPrivate, paidOffer, paymentOf } from './claims.ts'
import type { CustomerDeps } from './deps.ts'
import { endByAnswers } from './ending.ts'
import { type From, type Heard, isSameOffer, type NewOffer, newClaim, newOffer, type OfferAnswer, paymentIn, termsOf } from './heard.ts'
import { judgeOffer } from './order.ts'
import type { Paying } from './paying.ts'
import { orderOf, type PurchaseLog } from './purchase-log.ts'
import type { Refunds } from './refunds.ts'
import type { Turns } from './turns.ts'

/** A result or refund that comes this late is still taken. */
export const LATE_ANSWERS_MS = 7 * 24 * 3600_000
/** The same for what was paid: providers send a refund again for more than a month. */
export const LATE_REFUNDS_MS = 60 * 24 * 3600_000
/** How long offers of several providers are gathered before the cheapest is paid. */
const OFFER_WINDOW_MS = 1_000
const AGAIN = { minMs: 2_000, maxMs: 10 * 60_000 }
/**
 * Answers to one purchase that are kept: as long as anybody may offer, anybody may send any number. Offers that can be paid (an
 * invoice that was checked, within the limits) have room of their own, and each key a share of it, so that noise drives out none.
 */
const MAX_OFFERS = 500
const MAX_OFFERS_OF_KEY = 5
const MAX_OTHERS = 500
const MAX_OTHERS_OF_KEY = 20
/** Results, errors and refunds of a key that was asked or paid: a refund is sent again forty times. */
const MAX_ENDS_OF_KEY = 200
/** Keys that name the invoice that was paid. */
const MAX_CLAIMANTS = 200
const COPIED = 'carries the invoice of another key'

/** Which of our requests an event answers, and of whom alone that one was made. */
interface About {
  readonly row: PurchaseRow
  readonly requestId: string
  readonly askedAlone: string | undefined
}

interface InboxParts {
  readonly log: PurchaseLog
  readonly turns: Turns
  readonly paying: Paying
  readonly refunds: Refunds
}

export class Inbox {
  readonly #deps: CustomerDeps
  readonly #log: PurchaseLog
  readonly #turns: Turns
  readonly #paying: Paying
  readonly #refunds: Refunds

  constructor(deps: CustomerDeps, { log, turns, paying, refunds }: InboxParts) {
    this.#deps = deps
    this.#log = log
    this.#turns = turns
    this.#paying = paying
    this.#refunds = refunds
  }

  /** Every answer that the relays bring, whoever sent it. What could not be done about it (the disk is full) is tried again. */
  async hear(event: NostrEvent, attempt = 0): Promise<void> {
    const { scope, clock, logger } = this.#deps
    const about = this.#requestOf(event)
    if (about === undefined) return
    const { row } = about
    try {
      await this.#turns.run(row.id, () => this.#take(about, event))
    } catch (error) {
      const isOver = clock.now() > row.createdAt + (row.paidMsats > 0n ? LATE_REFUNDS_MS : LATE_ANSWERS_MS)
      if (scope.isClosing || isOver) throw error
      const waitMs = backoffMs(AGAIN, attempt + 1, scope.random)
      logger.warn(
        { purchase: row.id, event: event.id, err: messageOf(error), retry_ms: waitMs },
        'an answer was not taken, it is tried again',
      )
      scope.after(`answer ${event.id}`, waitMs, () => this.hear(event, attempt + 1))
    }
  }

  /** The request of ours that it answers, among all that it names. */
  #requestOf(event: NostrEvent): About | undefined {
    const { store } = this.#deps
    for (const id of requestIdsOf(event)) {
      const row = getPurchase(store, id)
      if (row?.eventId === id) return { row, requestId: id, askedAlone: undefined }
      const again = getRepeatedRequest(store, id)
      const purchase = again === undefined ? undefined : getPurchase(store, again.purchaseId)
      if (again !== undefined && purchase !== undefined) return { row: purchase, requestId: id, askedAlone: again.provider }
    }
    return undefined
  }

  async #take({ row: { id }, requestId, askedAlone }: About, event: NostrEvent): Promise<void> {
    const { store, nostr } = this.#deps
    const row = this.#log.row(id)
    if (askedAlone !== undefined && askedAlone !== event.pubkey) return
    const bound = claimantsOf(store, row)
    const isBound = bound === undefined ? askedAlone !== undefined : bound.includes(event.pubkey)
    // Once one is paid, others are heard only where they may turn out to be who made its offer.
    const isOther = bound !== undefined && !isBound
    if (isOther && (askedAlone !== undefined || !isOpenRequest(row))) return
    const answer = readAnswer(event, { kind: row.kind, signer: isOther ? undefined : nostr.keyring.customer() })
    if (answer === undefined || (isOther && answer.type !== 'offer' && answer.type !== 'result')) return
    // The same answer again (another relay, a restart) has the same effect: each of these bears being repeated.
    await this.#apply({ row, event, from: { requestId, isBound, isAlone: askedAlone !== undefined } }, answer)
    this.#log.wake(id)
  }

  async #apply(heard: Heard, answer: Answer): Promise<void> {
    switch (answer.type) {
      case 'offer':
        return this.#offered(heard, answer)
      case 'result':
        return this.#result(heard, answer)
      case 'error':
        return this.#refused(heard, answer)
      case 'processing':
        if (!(await this.#claim(heard, answer))) return
        return this.#log.move(heard.row.id, 'processing', `${npubOf(heard.event.pubkey).slice(0, 12)} is working`)
      case 'note':
        await this.#claim(heard, answer)
    }
  }

  /** Keeps an answer: false where there is no room for it. */
  async #claim(heard: Heard, answer: Answer, offer?: NewOffer): Promise<boolean> {
    const { row, event, from } = heard
    const { store, clock } = this.#deps
    if (wasAnswerHeard(store, event.id)) return true
    const kept = countAnswers(store, row.id, event.pubkey)
    const isEnd = from.isBound && (answer.type === 'result' || answer.type === 'error')
    const hasRoom =
      offer?.state === 'open'
        ? kept.offersOfKey < MAX_OFFERS_OF_KEY && (from.isBound || kept.offers < MAX_OFFERS)
        : kept.othersOfKey < (isEnd ? MAX_ENDS_OF_KEY : MAX_OTHERS_OF_KEY) && (from.isBound || kept.others < MAX_OTHERS)
    if (!hasRoom) return false
    const claim = claimAnswer({ ...newClaim(heard, answer, claimantsOf(store, row) !== undefined), at: clock.now() })
    await store.write(all(claim, ...(offer === undefined ? [] : [insertOffer(offer)])))
    return true
  }

  async #offered(heard: Heard, offer: OfferAnswer): Promise<void> {
    const { row, event, from } = heard
    const { store, clock } = this.#deps
    const known = listOffers(store, row.id)
    if (known.some((one) => one.eventId === event.id || isSameOffer(one, event, offer))) return
    const paid = paidOffer(known)
    if (paid !== undefined) return this.#claimed(heard, paid, offer)
    if (row.paidMsats > 0n || row.status === 'completed' || row.status === 'refunded') return
    const verdict = judgeOffer(orderOf(row), { ...offer, ...termsOf(offer.invoice, clock.now()) })
    const reason = this.#isCopy(heard, known, offer) ? COPIED : verdict.usable ? null : verdict.reason
    if (!(await this.#claim(heard, offer, newOffer(heard, offer, reason, clock.now())))) return
    if (reason === null) return this.#usable(row, offer, from)
    // Noise of strangers is listed, and the purchase stays what it is.
    if (!from.isBound) return
    if (!from.isAlone) await this.#log.move(row.id, 'offered', reason)
    if (from.isAlone) await this.#nextAfter(row, from)
    else if (!verdict.usable && verdict.isDear) await this.#log.fail(row.id, new PylonError('price_too_high', `The provider ${reason}.`))
  }

  async #usable(row: PurchaseRow, offer: OfferAnswer, from: From): Promise<void> {
    const { pay, provider } = orderOf(row)
    if (pay === 'never') {
      // Somebody else may do it for nothing.
      if (provider === undefined) return
      return this.#log.fail(row.id, new PylonError('price_too_high', `The provider asks ${offer.amountMsats} msats and --pay is never.`))
    }
    await this.#log.move(row.id, 'offered', `offer of ${offer.amountMsats} msats`)
    this.#look(row, from.isBound ? 0 : OFFER_WINDOW_MS)
  }

  /** Pays the best offer by itself, or sees to it that there is one to ask the owner about. */
  #look(row: PurchaseRow, afterMs: number): void {
    const isAuto = orderOf(row).pay === 'auto'
    this.#turns.later(row.id, afterMs, () => (isAuto ? this.#paying.payBest(row.id) : this.#paying.choose(row.id)))
  }

  /** An offer of the invoice that is paid, under another key: that key may be the one that has the money. */
  async #claimed(heard: Heard, paid: OfferRow, offer: OfferAnswer): Promise<void> {
    const { row, event, from } = heard
    const { store, clock } = this.#deps
    const isSame = paymentOf(paid) === paymentIn(offer)
    const claimants = claimantsOf(store, row) ?? []
    if (!isSame || from.isAlone || claimants.includes(event.pubkey) || claimants.length >= MAX_CLAIMANTS) return
    const at = clock.now()
    await store.write(
      all(claimAnswer({ ...newClaim(heard, offer, true), at }), insertOffer(newOffer(heard, offer, 'names the invoice that is paid', at))),
    )
  }

  /** Of an answer to us alone: an invoice that another key named before. Of any other: one that was made to us alone by another key. */
  #isCopy({ row, event, from }: Heard, known: readonly OfferRow[], offer: OfferAnswer): boolean {
    const payment = paymentIn(offer)
    const same = known.filter((one) => one.provider !== event.pubkey && payment !== undefined && paymentOf(one) === payment)
    if (!from.isAlone) return same.some((one) => isPrivate(row, one) && one.state !== 'unusable')
    const askedAt = getRepeatedRequest(this.#deps.store, from.requestId)?.createdAt ?? 0
    return same.some((one) => one.receivedAt < askedAt)
  }

  async #result(heard: Heard, answer: { type: 'result'; content: string }): Promise<void> {
    const { row, event, from } = heard
    const { store, clock } = this.#deps
    const isPaid = event.pubkey === row.provider
    const result = { eventId: event.id, purchaseId: row.id, provider: event.pubkey, content: answer.content, isPaid }
    const isNew = await store.write(keepResult({ ...result, at: clock.now() }))
    await this.#claim(heard, answer)
    const end = () => endByAnswers(this.#deps, this.#log, row.id)
    if (claimantsOf(store, row) !== undefined) await end()
    else {
      // Work that nobody was paid for: offers are heard first.
      this.#turns.later(row.id, OFFER_WINDOW_MS, end)
      if (from.isAlone) await this.#nextAfter(row, from)
    }
    const isLate = isNew && row.status === 'completed' && from.isBound && row.result !== answer.content
    if (isLate) await this.#log.note(row.id, 'another result came after it was completed: look at all of them')
  }

  /** An error of all that were asked or paid ends the purchase; one of somebody who might have served it is only noted. */
  async #refused(heard: Heard, answer: Extract<Answer, { type: 'error' }>): Promise<void> {
    const { row, event, from } = heard
    await this.#claim(heard, answer)
    if (!from.isBound) return
    const error = new PylonError('job_failed', `The provider says ${answer.code}: ${answer.message}`)
    if (claimantsOf(this.#deps.store, row) === undefined) await this.#nextAfter(row, from)
    else await endByAnswers(this.#deps, this.#log, row.id, error)
    if (answer.refundToken !== null) await this.#refunds.take(row.id, answer.refundToken, event.pubkey)
  }

  /** Who was asked alone does not serve it: the next way. */
  async #nextAfter(row: PurchaseRow, from: From): Promise<void> {
    await this.#deps.store.write(refuseRepeatedRequest({ eventId: from.requestId }))
    this.#look(row, 0)
  }
}
