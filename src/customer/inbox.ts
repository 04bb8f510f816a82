/** What is heard about purchases: every answer is claimed, judged and acted upon; the same one twice changes nothing. */
import { type Msats, msats } from '../base/amounts.ts'
import type { Clock } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import type { Nostr, NostrEvent } from '../nostr/types.ts'
import { claimAnswer, countAnswers, getPurchase, insertOffer, listOffers, type PurchaseRow } from '../store/purchases.ts'
import type { Store } from '../store/store.ts'
import { decodeInvoice } from '../wallet/bolt11.ts'
import { type Answer, readAnswer } from './answers.ts'
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
const MIN_RETRY_MS = 2_000
const MAX_RETRY_MS = 10 * 60_000
/** Answers to one purchase that are kept: as long as anybody may offer, anybody may send any number. */
const MAX_ANSWERS = 500

interface InboxDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'keyring'>
}

interface InboxParts {
  readonly log: PurchaseLog
  readonly turns: Turns
  readonly paying: Paying
  readonly refunds: Refunds
}

export class Inbox {
  readonly #deps: InboxDeps
  readonly #log: PurchaseLog
  readonly #turns: Turns
  readonly #paying: Paying
  readonly #refunds: Refunds

  constructor(deps: InboxDeps, { log, turns, paying, refunds }: InboxParts) {
    this.#deps = deps
    this.#log = log
    this.#turns = turns
    this.#paying = paying
    this.#refunds = refunds
  }

  /** Every answer that the relays bring, whoever sent it. What could not be done about it (the disk is full) is tried again. */
  async hear(event: NostrEvent, attempt = 0): Promise<void> {
    const { store, clock, logger } = this.#deps
    const jobId = event.tags.find((tag) => tag[0] === 'e')?.[1]
    const row = jobId === undefined ? undefined : getPurchase(store, jobId)
    if (row === undefined || row.eventId !== jobId) return
    try {
      await this.#turns.run(row.id, () => this.#take(row.id, event))
    } catch (error) {
      const isOver = clock.now() > row.createdAt + (row.paidMsats > 0n ? LATE_REFUNDS_MS : LATE_ANSWERS_MS)
      if (this.#turns.closed || isOver) throw error
      const waitMs = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** Math.min(attempt, 10))
      logger.warn(
        { purchase: row.id, event: event.id, err: messageOf(error), retry_ms: waitMs },
        'an answer was not taken, it is tried again',
      )
      this.#turns.later(waitMs, () => {
        this.hear(event, attempt + 1).catch((again: unknown) =>
          logger.warn({ purchase: row.id, event: event.id, err: messageOf(again) }, 'an answer was given up'),
        )
      })
    }
  }

  async #take(id: string, event: NostrEvent): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const row = this.#log.row(id)
    const answer = readAnswer(event, { kind: row.kind, providers: this.#boundProviders(row), signer: nostr.keyring.customer() })
    if (answer === undefined || row.status === 'completed' || row.status === 'refunded') return
    const isFull = countAnswers(store, id) >= MAX_ANSWERS
    if (isFull && answer.type !== 'result' && answer.type !== 'error') return
    const claim = isFull
      ? undefined
      : claimAnswer({
          eventId: event.id,
          purchaseId: id,
          kind: event.kind,
          pubkey: event.pubkey,
          summary: summarise(answer),
          at: clock.now(),
        })
    if (claim !== undefined) await store.write(claim)
    // The same answer again (another relay, a restart) has the same effect: each of these bears being repeated.
    await this.#apply(row, event, answer)
    this.#log.wake(id)
  }

  async #apply(row: PurchaseRow, event: NostrEvent, answer: Answer): Promise<void> {
    switch (answer.type) {
      case 'offer':
        return row.paidMsats === 0n ? this.#offered(row, event, answer) : undefined
      case 'processing':
        return this.#log.move(row.id, 'processing', `${npubOf(event.pubkey).slice(0, 12)} is working`)
      case 'result':
        return this.#log.move(row.id, 'completed', 'result received', { result: answer.content, provider: event.pubkey })
      case 'error':
        return this.#refused(row, answer)
      case 'note':
        return
    }
  }

  async #offered(row: PurchaseRow, event: NostrEvent, offer: { amountMsats: Msats; bolt11: string | null }): Promise<void> {
    const { store, clock } = this.#deps
    const order = orderOf(row)
    const known = listOffers(store, row.id)
    if (known.some((one) => one.eventId === event.id)) return
    const verdict = judgeOffer(order, { ...offer, ...readInvoice(offer.bolt11, clock.now()) })
    const isCopy = known.some((one) => one.bolt11 !== null && one.bolt11 === offer.bolt11 && one.provider !== event.pubkey)
    const reason = isCopy ? 'offers the invoice of another key' : verdict.usable ? null : verdict.reason
    await store.write(
      insertOffer({
        eventId: event.id,
        purchaseId: row.id,
        provider: event.pubkey,
        ...offer,
        state: reason === null ? 'open' : 'unusable',
        reason,
        at: clock.now(),
      }),
    )
    await this.#log.move(row.id, 'offered', reason ?? `offer of ${offer.amountMsats} msats`)
    const asked = this.#boundProviders(row)?.includes(event.pubkey) === true
    if (reason !== null) {
      if (asked) await this.#log.fail(row.id, new PylonError('price_too_high', `The provider ${reason}.`))
    } else if (order.pay === 'never') {
      await this.#log.fail(row.id, new PylonError('price_too_high', `The provider asks ${offer.amountMsats} msats and --pay is never.`))
    } else if (order.pay === 'auto') {
      this.#turns.later(asked ? 0 : OFFER_WINDOW_MS, () => this.#turns.background(row.id, () => this.#paying.payBest(row.id)))
    }
  }

  /** An error of the provider that was asked or paid ends the purchase; one of somebody who might have served it is only noted. */
  async #refused(row: PurchaseRow, answer: { code: string; message: string; refundToken: string | null }): Promise<void> {
    if (this.#boundProviders(row) === undefined) return
    await this.#log.fail(row.id, new PylonError('job_failed', `The provider says ${answer.code}: ${answer.message}`))
    if (answer.refundToken === null) return
    await this.#refunds.take(row.id, answer.refundToken)
  }

  /**
   * Whose answers count: the one asked for or paid; undefined while anybody may offer. An offer is public and may have been
   * copied under another key: whoever offered the invoice that was paid may be the one who has the money.
   */
  #boundProviders(row: PurchaseRow): string[] | undefined {
    const offers = listOffers(this.#deps.store, row.id)
    const paid = offers.find((offer) => offer.state === 'paying' || offer.state === 'paid')
    if (paid !== undefined) return offers.filter((offer) => offer.bolt11 === paid.bolt11).map((offer) => offer.provider)
    return row.provider === null ? undefined : [row.provider]
  }
}

/** What an offered invoice says; no amount where it cannot be read. */
function readInvoice(bolt11: string | null, now: number): { invoiceMsats: Msats | null; expired: boolean } {
  try {
    const invoice = bolt11 === null ? undefined : decodeInvoice(bolt11)
    return {
      invoiceMsats: invoice?.amountMsats === undefined ? null : msats(invoice.amountMsats),
      expired: invoice !== undefined && invoice.expiresAt <= now,
    }
  } catch {
    return { invoiceMsats: null, expired: false }
  }
}

function summarise(answer: Answer): string {
  switch (answer.type) {
    case 'offer':
      return `payment-required ${answer.amountMsats} msats`
    case 'error':
      return `error ${answer.code}${answer.refundToken === null ? '' : ' with refund'}`
    case 'note':
      return answer.status
    default:
      return answer.type
  }
}
