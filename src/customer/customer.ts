/** Buys work: one request, the best acceptable offer, one payment, one result; every step is stored before it is taken. */

import { satsToMsats } from '../base/amounts.ts'
import { unixSeconds } from '../base/clock.ts'
import { PylonError, toPylonError } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { isPurchaseOver } from '../base/states.ts'
import { identify } from '../nostr/nips/nip01.ts'
import { buildCancel } from '../nostr/nips/nip90.ts'
import { repeatedRequests } from '../store/buying/purchase-claims.ts'
import {
  getPurchase,
  insertPurchase,
  listOffers,
  listPurchases,
  movePurchase,
  openPurchases,
  type PurchaseRow,
  sweepPurchases,
} from '../store/buying/purchases.ts'
import { all } from '../store/commands.ts'
import { purchaseCancelMessage, purchaseKey, purchaseRequestMessage } from '../store/keys.ts'
import { enqueueEvent } from '../store/nostr/outbox.ts'
import type { WalletEvent } from '../wallet/types.ts'
import type { CustomerDeps } from './deps.ts'
import { findProvider } from './discovery.ts'
import { endByAnswers, unsent, whyNothingCame } from './ending.ts'
import { Inbox, LATE_ANSWERS_MS, LATE_REFUNDS_MS } from './inbox.ts'
import { AnswerListener } from './listener.ts'
import { checkOrder, type Order, priceLimit } from './order.ts'
import { Paying } from './paying.ts'
import { orderOf, PurchaseLog } from './purchase-log.ts'
import { Refunds } from './refunds.ts'
import { buildRequest } from './request.ts'
import { Turns } from './turns.ts'
import { type PurchaseView, purchaseView } from './view.ts'

const DAY_MS = 24 * 3600_000
const SWEEP_EVERY_MS = 60_000
/** While something that was paid is not answered. */
const LOOK_AGAIN_EVERY_MS = 5 * 60_000
/** After its deadline, so long a purchase that ended well is listened for: another key may claim what was paid. */
const LATE_CLAIMS_MS = 3600_000

export class Customer {
  readonly #deps: CustomerDeps
  readonly #log: PurchaseLog
  readonly #paying: Paying
  readonly #refunds: Refunds
  readonly #listener: AnswerListener
  readonly #turns: Turns

  constructor(deps: CustomerDeps) {
    this.#deps = deps
    this.#log = new PurchaseLog(deps.store, deps.scope)
    this.#turns = new Turns(deps.scope, deps.logger)
    this.#paying = new Paying(deps, this.#log, this.#turns)
    this.#refunds = new Refunds(deps, this.#log)
    const inbox = new Inbox(deps, { log: this.#log, turns: this.#turns, paying: this.#paying, refunds: this.#refunds })
    this.#listener = new AnswerListener(deps, (event) => inbox.hear(event))
    deps.wallets.onEvent('purchase', (event) => this.#onWalletEvent(event))
    deps.nostr.onGivenUp(purchaseKey.of(''), (key, why) => this.#onGivenUp(key, why))
  }

  /** Takes up every purchase that is not over. */
  async start(): Promise<void> {
    const open = this.#open()
    await this.#listener.cover(open)
    for (const row of open) {
      this.#watchDeadline(row)
      this.#turns.background(row.id, () => this.#resume(row.id))
    }
    for (const id of this.#refunds.waiting()) this.#turns.background(id, () => this.#refunds.redeem(id))
    this.#deps.scope.every('sweep', SWEEP_EVERY_MS, () => this.#sweep())
    this.#deps.scope.every('looking again', LOOK_AGAIN_EVERY_MS, () => this.#lookAgain())
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
    await this.#turns.run(key, () => this.#prepare(key))
    return this.get(key)
  }

  list(options: { limit: number }): PurchaseView[] {
    return listPurchases(this.#deps.store, options).map((row) => purchaseView(this.#deps.store, row))
  }

  /** By job id or purchase id. @throws job_not_found */
  get(id: string): PurchaseView {
    return purchaseView(this.#deps.store, this.#log.row(id))
  }

  /** Resolves when the purchase is over, or after `timeoutMs` or by the signal with what is known then. */
  async wait(id: string, timeoutMs: number, signal?: AbortSignal): Promise<PurchaseView> {
    const { id: key } = this.#log.row(id)
    const until = this.#deps.clock.now() + timeoutMs
    while (!isPurchaseOver(this.#log.row(key).status) && !this.#deps.scope.isClosing && signal?.aborted !== true) {
      const leftMs = until - this.#deps.clock.now()
      if (leftMs <= 0) break
      await this.#log.changed(key, leftMs, signal)
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
    const tried = await this.#turns.run(row.id, () => this.#paying.payBest(row.id))
    if (!tried && this.#log.row(row.id).status === 'offered' && this.#deps.clock.now() < row.deadlineAt) {
      throw new PylonError(
        'conflict',
        'Two keys name the same invoice, so one of them is asked for an offer of its own first: look again with pylon job show, then pay.',
      )
    }
    return this.get(row.id)
  }

  /** Asks the provider not to do it (NIP-09). What was paid stays watched until the result or the refund comes. @throws job_not_cancellable */
  async cancel(id: string): Promise<PurchaseView> {
    const row = this.#log.row(id)
    await this.#turns.run(row.id, () => this.#sendCancel(row.id))
    return this.get(row.id)
  }

  #open(): PurchaseRow[] {
    const now = this.#deps.clock.now()
    return openPurchases(this.#deps.store, {
      since: now - LATE_ANSWERS_MS,
      paidSince: now - LATE_REFUNDS_MS,
      endedSince: now - LATE_CLAIMS_MS,
    })
  }

  async #resume(id: string): Promise<void> {
    const row = this.#log.row(id)
    switch (row.status) {
      case 'preparing':
        if (this.#deps.clock.now() < row.deadlineAt) return this.#prepare(id)
        return this.#log.fail(id, new PylonError('timeout', 'The request was never sent: the node was down until it expired.'))
      case 'paying':
        return this.#paying.resume(row)
      case 'offered':
        await (orderOf(row).pay === 'auto' ? this.#paying.payBest(id) : this.#paying.choose(id))
        return endByAnswers(this.#deps, this.#log, id)
      default:
        return isPurchaseOver(row.status) ? undefined : endByAnswers(this.#deps, this.#log, id)
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
    const sent = provider?.paid === undefined ? undefined : await this.#paying.sendToken(row, provider.pubkey, provider.paid)
    const event = buildRequest(this.#deps, row, order, { provider: target, token: sent?.token })
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
          ...given({ provider: target }),
          ...(sent === undefined ? {} : { paidMsats: satsToMsats(sent.amountSats) }),
        }),
        enqueueEvent({ key: purchaseRequestMessage.of(row.id), event, relays, notAfter: row.deadlineAt, at: clock.now() }),
      ),
    )
    nostr.nudgeOutbox()
    this.#log.wake(row.id)
  }

  async #onWalletEvent(event: WalletEvent): Promise<void> {
    const row = getPurchase(this.#deps.store, event.cause.id)
    if (row === undefined) return
    await this.#turns.run(row.id, async () => {
      if (event.type === 'token_received') await this.#refunds.learn(row.id, event.idempotencyKey, event.amountSats)
      else await this.#paying.learn(row.id, event)
    })
    // Not waited for: the next payment may hang, and the wallet has more to tell.
    if (this.#log.row(row.id).status === 'offered' && orderOf(row).pay === 'auto')
      this.#turns.background(row.id, () => this.#paying.payBest(row.id))
  }

  /** The request reached nobody: waiting for answers is over, and a token that went along is ours again. */
  async #onGivenUp(key: string, why: string): Promise<void> {
    const id = purchaseRequestMessage.idIn(key)
    const row = id === undefined ? undefined : getPurchase(this.#deps.store, id)
    if (row === undefined) return
    await this.#turns.run(row.id, async () => {
      const status = this.#log.row(row.id).status
      if (status !== 'requested' && status !== 'paid') return
      await this.#log.fail(row.id, unsent(this.#deps.store, key, why))
      await this.#refunds.takeBack(this.#log.row(row.id), { unsent: true })
    })
  }

  async #sendCancel(id: string): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const row = this.#log.row(id)
    if (row.eventId === null || isPurchaseOver(row.status)) {
      throw new PylonError('job_not_cancellable', `The job is ${row.status} and cannot be cancelled.`)
    }
    const cancel = buildCancel({ id: row.eventId, kind: row.kind }, unixSeconds(clock))
    const again = repeatedRequests(store, id)
    const asked = [...new Set([row.provider, ...again.map((request) => request.provider)])].filter((key) => key !== null)
    const tags = [...cancel.tags, ...again.map((request) => ['e', request.eventId]), ...asked.map((key) => ['p', key])]
    const event = identify(nostr.keyring.customer().pubkey, { ...cancel, tags })
    const relays = [...new Set([...nostr.relays, ...(await Promise.all(asked.map((key) => nostr.relaysToReach(key)))).flat()])]
    const enqueue = enqueueEvent({
      key: purchaseCancelMessage.of(id),
      event,
      relays,
      notAfter: clock.now() + LATE_ANSWERS_MS,
      at: clock.now(),
    })
    const valueIsOut = row.status === 'paying' || row.paidMsats > 0n
    const cancelled = movePurchase({ id, from: [row.status], to: 'cancelled', reason: 'cancelled by its owner', at: clock.now() })
    if (valueIsOut) await store.write(enqueue)
    else await store.write(all(enqueue, cancelled))
    nostr.nudgeOutbox()
    this.#log.wake(id)
  }

  #watchDeadline(row: PurchaseRow): void {
    if (isPurchaseOver(row.status)) return
    this.#turns.later(row.id, row.deadlineAt - this.#deps.clock.now(), () => this.#expire(row.id))
  }

  /** What was paid is not given up: only an unpaid purchase times out. Of a paid one, what came by now is what there is. */
  async #expire(id: string): Promise<void> {
    await endByAnswers(this.#deps, this.#log, id)
    await this.#refunds.settle(id)
    const row = this.#log.row(id)
    if (row.paidMsats > 0n || !['requested', 'offered', 'processing'].includes(row.status)) return
    const error = whyNothingCame(this.#deps.store, id)
    await this.#log.move(id, 'timeout', error.message, { error: { code: error.code, message: error.message } })
  }

  async #lookAgain(): Promise<void> {
    const asked = this.#deps.clock.now() - LOOK_AGAIN_EVERY_MS
    const isMissing = (row: PurchaseRow) => row.paidMsats > 0n && row.createdAt < asked && !isPurchaseOver(row.status)
    if (this.#open().some(isMissing)) await this.#listener.askAgain()
  }

  /** Goes on with what was left between two steps, takes back tokens that nobody spent, redeems refunds that wait; forgets what is long over. */
  async #sweep(): Promise<void> {
    const { store, clock, config } = this.#deps
    for (const row of this.#open()) {
      if (row.status === 'preparing' || row.status === 'paying') this.#turns.background(row.id, () => this.#resume(row.id))
      // The deadline may have passed while a payment was under way that failed then.
      else if (clock.now() > row.deadlineAt && !isPurchaseOver(row.status)) this.#turns.background(row.id, () => this.#expire(row.id))
      else if (!isPurchaseOver(row.status)) this.#turns.background(row.id, () => endByAnswers(this.#deps, this.#log, row.id))
    }
    for (const id of this.#refunds.tokensOut()) this.#turns.background(id, () => this.#refunds.takeBack(this.#log.row(id)))
    for (const id of this.#refunds.waiting()) this.#turns.background(id, () => this.#refunds.redeem(id))
    await store.write(sweepPurchases({ before: clock.now() - config().retention.finished_jobs_days * DAY_MS }))
  }
}
