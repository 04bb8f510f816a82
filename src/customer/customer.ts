/** Buys work: one request, the best acceptable offer, one payment, one result; every step is stored before it is taken. */
import { type Msats, msats, satsToMsats } from '../base/amounts.ts'
import { type Clock, unixSeconds } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import { messageOf, PylonError, toPylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { identify } from '../nostr/nips/nip01.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { buildCancel } from '../nostr/nips/nip90.ts'
import type { Nostr, NostrEvent } from '../nostr/types.ts'
import { all } from '../store/commands.ts'
import { enqueueEvent } from '../store/outbox.ts'
import {
  claimAnswer,
  countAnswers,
  getPurchase,
  insertOffer,
  insertPurchase,
  listOffers,
  listPurchases,
  movePurchase,
  openPurchases,
  type PurchaseRow,
  sweepPurchases,
} from '../store/purchases.ts'
import type { Store } from '../store/store.ts'
import { decodeInvoice } from '../wallet/bolt11.ts'
import type { WalletEvent, Wallets } from '../wallet/types.ts'
import { type Answer, readAnswer } from './answers.ts'
import { findProvider } from './discovery.ts'
import { AnswerListener } from './listener.ts'
import { checkOrder, judgeOffer, type Order, priceLimit } from './order.ts'
import { Paying } from './paying.ts'
import { orderOf, PurchaseLog, statusOf } from './purchase-log.ts'
import { Refunds } from './refunds.ts'
import { buildRequest } from './request.ts'
import { isSettled } from './states.ts'
import { type PurchaseView, purchaseView } from './view.ts'

export interface CustomerDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly nostr: Nostr
  readonly wallets: Wallets
  readonly config: () => Config
}

const DAY_MS = 24 * 3600_000
/** How long offers of several providers are gathered before the cheapest is paid. */
const OFFER_WINDOW_MS = 1_000
/** A result or refund that comes this late is still taken. */
const LATE_ANSWERS_MS = 7 * DAY_MS
/** The same for what was paid: providers send a refund again for more than a month. */
const LATE_REFUNDS_MS = 60 * DAY_MS
const SWEEP_EVERY_MS = 60_000
const MIN_RETRY_MS = 2_000
const MAX_RETRY_MS = 10 * 60_000
/** Answers to one purchase that are kept: as long as anybody may offer, anybody may send any number. */
const MAX_ANSWERS = 500

export class Customer {
  readonly #deps: CustomerDeps
  readonly #log: PurchaseLog
  readonly #paying: Paying
  readonly #refunds: Refunds
  readonly #listener: AnswerListener
  /** The last step of each purchase: one purchase does one thing at a time. */
  readonly #turns = new Map<string, Promise<unknown>>()
  readonly #timers = new Set<() => void>()
  #closed = false

  constructor(deps: CustomerDeps) {
    this.#deps = deps
    this.#log = new PurchaseLog(deps.store, deps.clock)
    this.#paying = new Paying(deps, this.#log)
    this.#refunds = new Refunds(deps, this.#log)
    this.#listener = new AnswerListener(deps, (event) => this.#hear(event))
    deps.wallets.onEvent('purchase', (event) => this.#onWalletEvent(event))
  }

  /** Takes up every purchase that is not over. */
  async start(): Promise<void> {
    const open = this.#open()
    await this.#listener.cover(open)
    for (const row of open) {
      this.#watchDeadline(row)
      this.#background(row.id, () => this.#resume(row.id))
    }
    for (const id of this.#refunds.waiting()) this.#background(id, () => this.#refunds.redeem(id))
    this.#sweepLater()
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const cancel of this.#timers) cancel()
    this.#listener.close()
    await Promise.allSettled(this.#turns.values())
  }

  /**
   * Stores and publishes a request; resolves once it is fixed (and, with a token, paid for).
   * @param key the Idempotency-Key: the same key is the same purchase.
   * @throws invalid_request, input_invalid, no_offer, price_too_high, insufficient_funds, locked
   */
  async submit(order: Order, key: string): Promise<PurchaseView> {
    checkOrder(order)
    this.#deps.nostr.keyring.customer()
    const at = this.#deps.clock.now()
    if (getPurchase(this.#deps.store, key) === undefined) {
      await this.#deps.store.write(
        insertPurchase({ id: key, kind: order.kind, order, provider: order.provider ?? null, deadlineAt: at + order.timeoutMs, at }),
      )
      this.#watchDeadline(this.#log.row(key))
    }
    await this.#inTurn(key, () => this.#prepare(key))
    return this.get(key)
  }

  list(options: { limit: number }): PurchaseView[] {
    return listPurchases(this.#deps.store, options).map((row) => purchaseView(this.#deps.store, row))
  }

  /** By job id or purchase id. @throws job_not_found */
  get(id: string): PurchaseView {
    return purchaseView(this.#deps.store, this.#log.row(id))
  }

  /** Resolves when the purchase is over, or after `timeoutMs` with what is known then. */
  async wait(id: string, timeoutMs: number): Promise<PurchaseView> {
    const { id: key } = this.#log.row(id)
    const until = this.#deps.clock.now() + timeoutMs
    while (!isSettled(statusOf(this.#log.row(key))) && !this.#closed) {
      const leftMs = until - this.#deps.clock.now()
      if (leftMs <= 0) break
      await this.#log.changed(key, leftMs)
    }
    return this.get(key)
  }

  /** Pays the cheapest usable offer of a purchase that waits for its owner (`--pay ask`). @throws conflict, no_offer */
  async approve(id: string): Promise<PurchaseView> {
    const row = this.#log.row(id)
    if (row.status !== 'offered') throw new PylonError('conflict', `The job is ${row.status}: there is nothing to approve.`)
    if (!listOffers(this.#deps.store, row.id).some((offer) => offer.state === 'open')) {
      throw new PylonError('no_offer', 'No offer of this job can be paid; pylon job show lists them.')
    }
    await this.#inTurn(row.id, () => this.#paying.payBest(row.id))
    return this.get(row.id)
  }

  /** Asks the provider not to do it (NIP-09). What was paid stays watched until the result or the refund comes. @throws job_not_cancellable */
  async cancel(id: string): Promise<PurchaseView> {
    const row = this.#log.row(id)
    await this.#inTurn(row.id, () => this.#sendCancel(row.id))
    return this.get(row.id)
  }

  #open(): PurchaseRow[] {
    const now = this.#deps.clock.now()
    return openPurchases(this.#deps.store, now - LATE_ANSWERS_MS, now - LATE_REFUNDS_MS)
  }

  #inTurn<T>(id: string, step: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(id) ?? Promise.resolve()
    const mine = before.catch(() => undefined).then(step)
    this.#turns.set(id, mine)
    const done = () => {
      if (this.#turns.get(id) === mine) this.#turns.delete(id)
    }
    mine.then(done, done)
    return mine
  }

  /** A step that nobody waits for: what goes wrong is logged, and tried again when the node starts. */
  #background(id: string, step: () => Promise<void>): void {
    if (this.#closed) return
    this.#inTurn(id, step).catch((error: unknown) =>
      this.#deps.logger.warn({ purchase: id, err: messageOf(error) }, 'purchase step failed'),
    )
  }

  async #resume(id: string): Promise<void> {
    const row = this.#log.row(id)
    switch (statusOf(row)) {
      case 'preparing':
        if (this.#deps.clock.now() < row.deadlineAt) return this.#prepare(id)
        return this.#log.fail(id, new PylonError('timeout', 'The request was never sent: the node was down until it expired.'))
      case 'paying':
        return this.#paying.resume(row)
      case 'offered':
        return orderOf(row).pay === 'auto' ? this.#paying.payBest(id) : undefined
      default:
        return undefined
    }
  }

  async #prepare(id: string): Promise<void> {
    const row = this.#log.row(id)
    if (row.status !== 'preparing') return
    try {
      await this.#request(row)
    } catch (error) {
      const failure = toPylonError(error)
      // The token may or may not have been made: recovery says, and the request goes out then.
      if (failure.code !== 'payment_unknown') await this.#log.fail(id, failure)
      throw failure
    }
  }

  async #request(row: PurchaseRow): Promise<void> {
    const { nostr, store, clock, wallets } = this.#deps
    const order = orderOf(row)
    const known = order.payWith === 'token' || order.encrypt
    const provider = known
      ? await findProvider(nostr, { order, limit: priceLimit(order), mints: wallets.mints().map((mint) => mint.url) })
      : undefined
    const target = provider?.pubkey ?? order.provider
    const sent = provider?.paid === undefined ? undefined : await this.#paying.sendToken(row, provider.paid)
    const event = buildRequest({
      signer: nostr.keyring.customer(),
      order,
      relays: nostr.relays,
      createdAt: unixSeconds(clock),
      expiresAt: Math.ceil(row.deadlineAt / 1000),
      provider: target,
      token: sent?.token,
    })
    await this.#listener.cover([row])
    const relays = target === undefined ? nostr.relays : await nostr.relaysToReach(target)
    await store.write(
      all(
        movePurchase({
          id: row.id,
          from: ['preparing'],
          to: sent === undefined ? 'requested' : 'paid',
          reason: sent === undefined ? 'request published' : 'request published with its token',
          at: clock.now(),
          eventId: event.id,
          request: event,
          ...(target === undefined ? {} : { provider: target }),
          ...(sent === undefined ? {} : { paidMsats: satsToMsats(sent.amountSats) }),
        }),
        enqueueEvent({ key: `purchase:${row.id}:request`, event, relays, notAfter: row.deadlineAt, at: clock.now() }),
      ),
    )
    nostr.nudgeOutbox()
    this.#log.wake(row.id)
  }

  /** Every answer that the relays bring, whoever sent it. What could not be done about it (the disk is full) is tried again. */
  async #hear(event: NostrEvent, attempt = 0): Promise<void> {
    const { store, clock, logger } = this.#deps
    const jobId = event.tags.find((tag) => tag[0] === 'e')?.[1]
    const row = jobId === undefined ? undefined : getPurchase(store, jobId)
    if (row === undefined || row.eventId !== jobId) return
    try {
      await this.#inTurn(row.id, () => this.#take(row.id, event))
    } catch (error) {
      const isOver = clock.now() > row.createdAt + (row.paidMsats > 0n ? LATE_REFUNDS_MS : LATE_ANSWERS_MS)
      if (this.#closed || isOver) throw error
      const waitMs = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** Math.min(attempt, 10))
      logger.warn(
        { purchase: row.id, event: event.id, err: messageOf(error), retry_ms: waitMs },
        'an answer was not taken, it is tried again',
      )
      this.#later(waitMs, () => {
        this.#hear(event, attempt + 1).catch((again: unknown) =>
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
      this.#later(asked ? 0 : OFFER_WINDOW_MS, () => this.#background(row.id, () => this.#paying.payBest(row.id)))
    }
  }

  /** An error of the provider that was asked or paid ends the purchase; one of somebody who might have served it is only noted. */
  async #refused(row: PurchaseRow, answer: { code: string; message: string; refundToken: string | null }): Promise<void> {
    if (this.#boundProviders(row) === undefined) return
    await this.#log.fail(row.id, new PylonError('job_failed', `The provider says ${answer.code}: ${answer.message}`))
    if (answer.refundToken === null) return
    await this.#refunds.take(row.id, answer.refundToken)
  }

  async #onWalletEvent(event: WalletEvent): Promise<void> {
    const row = getPurchase(this.#deps.store, event.cause.id)
    if (row === undefined) return
    await this.#inTurn(row.id, async () => {
      if (event.type === 'token_received') await this.#refunds.refunded(row.id, event.amountSats)
      else await this.#paying.learn(row.id, event)
    })
    // Not waited for: the next payment may hang, and the wallet has more to tell.
    if (statusOf(this.#log.row(row.id)) === 'offered' && orderOf(row).pay === 'auto')
      this.#background(row.id, () => this.#paying.payBest(row.id))
  }

  async #sendCancel(id: string): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const row = this.#log.row(id)
    if (row.eventId === null || isSettled(statusOf(row))) {
      throw new PylonError('job_not_cancellable', `The job is ${row.status} and cannot be cancelled.`)
    }
    const cancel = buildCancel({ id: row.eventId, kind: row.kind }, unixSeconds(clock))
    const tags = row.provider === null ? cancel.tags : [...cancel.tags, ['p', row.provider]]
    const event = identify(nostr.keyring.customer().pubkey, { ...cancel, tags })
    const relays = row.provider === null ? nostr.relays : await nostr.relaysToReach(row.provider)
    const enqueue = enqueueEvent({ key: `purchase:${id}:cancel`, event, relays, notAfter: clock.now() + LATE_ANSWERS_MS, at: clock.now() })
    const valueIsOut = row.status === 'paying' || row.paidMsats > 0n
    const cancelled = movePurchase({ id, from: [row.status], to: 'cancelled', reason: 'cancelled by its owner', at: clock.now() })
    if (valueIsOut) await store.write(enqueue)
    else await store.write(all(enqueue, cancelled))
    nostr.nudgeOutbox()
    this.#log.wake(id)
  }

  #watchDeadline(row: PurchaseRow): void {
    if (isSettled(statusOf(row))) return
    this.#later(row.deadlineAt - this.#deps.clock.now(), () => this.#background(row.id, () => this.#expire(row.id)))
  }

  /** What was paid is not given up: only an unpaid purchase times out. */
  async #expire(id: string): Promise<void> {
    const row = this.#log.row(id)
    if (row.paidMsats > 0n || !['requested', 'offered', 'processing'].includes(row.status)) return
    const dear = listOffers(this.#deps.store, id).find((offer) => offer.state === 'unusable')
    const error =
      dear === undefined
        ? { code: 'no_offer', message: 'No provider answered in time: try another relay, provider or kind.' }
        : { code: 'price_too_high', message: `No offer could be paid: the provider ${dear.reason}.` }
    await this.#log.move(id, 'timeout', error.message, { error })
  }

  /** Goes on with what was left between two steps, takes back tokens that nobody spent; forgets what is long over. */
  #sweepLater(): void {
    this.#later(SWEEP_EVERY_MS, () => {
      const { store, clock, config, logger } = this.#deps
      for (const row of this.#open()) {
        if (row.status === 'preparing' || row.status === 'paying') this.#background(row.id, () => this.#resume(row.id))
        // The deadline may have passed while a payment was under way that failed then.
        else if (clock.now() > row.deadlineAt) this.#background(row.id, () => this.#expire(row.id))
      }
      for (const id of this.#refunds.tokensOut()) this.#background(id, () => this.#refunds.takeBack(this.#log.row(id)))
      for (const id of this.#refunds.waiting()) this.#background(id, () => this.#refunds.redeem(id))
      const keepMs = config().retention.finished_jobs_days * DAY_MS
      store
        .write(sweepPurchases({ before: clock.now() - keepMs }))
        .catch((error: unknown) => logger.warn({ err: messageOf(error) }, 'sweep failed'))
      this.#sweepLater()
    })
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

  #later(ms: number, step: () => void): void {
    const cancel = this.#deps.clock.after(ms, () => {
      this.#timers.delete(cancel)
      if (!this.#closed) step()
    })
    this.#timers.add(cancel)
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
