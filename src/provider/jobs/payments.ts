/** Payment for a job before its work: names the price with an invoice, or redeems the token that came with the request. */
import { type Msats, satsToMsats } from '../../base/amounts.ts'
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'
import { createTurnstile } from '../../base/turnstile.ts'
import { isBunkerSilent, isUnheard, untilHeard } from '../../nostr/keys/away.ts'
import type { Command } from '../../store/commands.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { getJob } from '../../store/selling/jobs.ts'
import type { Sales } from '../sale/sales.ts'
import { judgeToken } from './admission.ts'
import { type EngineDeps, publish, step, tellable } from './context.ts'
import type { JobSale } from './job-product.ts'
import type { Order } from './order.ts'

export interface PaymentHooks {
  onLeft(jobId: string): void
  isStranger(pubkey: string): boolean
}

/** Invoices that the mint is asked for at once for customers who have not paid here: the others don't wait behind them. */
const STRANGERS_AT_ONCE = 4

export class Payments {
  readonly #deps: EngineDeps
  readonly #sales: Sales<JobSale>
  readonly #hooks: PaymentHooks
  readonly #fewAtOnce = createTurnstile(STRANGERS_AT_ONCE)

  constructor(deps: EngineDeps, sales: Sales<JobSale>, hooks: PaymentHooks) {
    this.#deps = deps
    this.#sales = sales
    this.#hooks = hooks
  }

  /** A job in `received` that is to be paid by invoice. */
  async quote(order: Order, priceMsats: Msats, underBid: boolean): Promise<void> {
    await this.#guarded(order, 'received', () => this.#quote(order, priceMsats, underBid))
  }

  /** A job in `received` or `quoted` with a token in its request. */
  async redeem(order: Order, priceMsats: Msats, from: 'received' | 'quoted'): Promise<void> {
    const outcome = await this.#guarded(order, from, () => this.#redeem(order, priceMsats, from))
    // Where its outcome is open the wallet's word is waited for.
    if (outcome !== 'open' && getJob(this.#deps.store, order.id)?.status === 'cancelled') await this.sayLeftAlone(order)
  }

  /** The job was cancelled before its token was taken: whoever waits for the value knows where it is. */
  async sayLeftAlone(order: Order): Promise<void> {
    if (order.directed) await this.#onceHeard('say left alone', () => this.#sayLeftAlone(order))
  }

  /** Waits aside where the node's key is away: a quote or a wallet's word does not wait behind it. */
  async #onceHeard(name: string, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!isUnheard(error)) throw error
      this.#deps.scope.spawn(name, () => untilHeard(this.#deps.scope, work))
    }
  }

  async #sayLeftAlone(order: Order): Promise<void> {
    const { transport, scope } = this.#deps
    const message = 'The job was cancelled and its token was not taken: it is yours again as its lock allows.'
    await persistIfUnmoved(
      this.#deps,
      publish(await transport.feedback(order, { status: 'error', code: 'cancelled', message }), scope.clock.now()),
    )
    this.#deps.nudge()
  }

  /** The wallet's word that a token whose outcome was open did not come. */
  async tokenFailed(jobId: string, reason: string): Promise<void> {
    const { store, transport } = this.#deps
    const job = getJob(store, jobId)
    // While it is `received` the call itself is still under way and will say.
    if (job?.status === 'cancelled' && job.paidMsats === 0n) await this.sayLeftAlone(await transport.restore(job))
    if (job?.status !== 'quoted') return
    const order = await transport.restore(job)
    // The same operation asked again says why, with its code; where it does not, the event's words are all we have.
    await this.redeem(order, job.priceMsats, 'quoted')
    if (getJob(store, jobId)?.status === 'quoted') await this.#refuse(order, 'quoted', new PylonError('token_invalid', reason))
  }

  async #refuse(order: Order, from: 'received' | 'quoted', error: unknown): Promise<void> {
    await this.#onceHeard('refuse', () => this.#refuseNow(order, from, error))
  }

  async #refuseNow(order: Order, from: 'received' | 'quoted', error: unknown): Promise<void> {
    const { transport, scope } = this.#deps
    const { code, message } = toPylonError(error)
    const at = scope.clock.now()
    const commands: Command<unknown>[] = [step(order.id, from, 'refused', `${code}: ${message}`, at, { errorCode: code, error: message })]
    if (order.directed)
      commands.push(publish(await transport.feedback(order, { status: 'error', code, message: tellable(code, message) }), at))
    if (!(await persistIfUnmoved(this.#deps, ...commands))) return
    this.#hooks.onLeft(order.id)
    this.#deps.nudge()
  }

  async #quote(order: Order, priceMsats: Msats, underBid: boolean): Promise<void> {
    const { scope, transport, wallet, config } = this.#deps
    const { lockPubkey } = wallet()
    const ofStranger = this.#hooks.isStranger(order.customerPubkey)
    const expiresAt = Math.min(scope.clock.now() + config().provider.invoice_expiry_s * 1000, order.deadline)
    const description = `Job ${order.id.slice(0, 8)}, kind ${order.kind}`
    const bill = () => this.#sales.bill({ id: order.id, priceMsats, description, expiresAt, ofStranger })
    const invoice = await (ofStranger ? this.#fewAtOnce(bill) : bill())
    const message = stringify({
      price_msats: priceMsats,
      expires_at: Math.floor(invoice.expiresAt / 1000),
      lock_pubkey: lockPubkey,
      ...(underBid ? { note: 'The price is above the bid.' } : {}),
    })
    // What the invoice asks for, in whole sats: some wallets compare the tag with the invoice.
    const asked = { amountMsats: satsToMsats(invoice.amountSats), invoice: invoice.request, message }
    const code = underBid ? { code: 'bid_too_low' as const } : {}
    // While the node's key is away it waits, and is told late.
    const told = await untilHeard(scope, () => transport.feedback(order, { status: 'payment-required', ...code, ...asked }))
    const at = scope.clock.now()
    const moved = await persistIfUnmoved(
      this.#deps,
      step(order.id, 'received', 'quoted', underBid ? 'the price was named, above the bid' : 'the price was named', at, {
        bill: { request: invoice.request, expiresAt: invoice.expiresAt },
        mintUrl: invoice.mintUrl,
      }),
      publish(told, at),
    )
    if (!moved) return
    this.#deps.nudge()
    this.#deps.onWaiting()
  }

  async #redeem(order: Order, priceMsats: Msats, from: 'received' | 'quoted'): Promise<void> {
    const { token, tokenPrivate: isPrivate } = order
    if (token === undefined) throw new PylonError('token_invalid', 'The request carries no token.')
    await this.#sales.redeem({ id: order.id, priceMsats }, token, {
      requireLock: !isPrivate,
      admit: async (inspect) => {
        const fault = from === 'received' ? judgeToken({ ...(await inspect()), isPrivate }, priceMsats) : undefined
        if (fault !== undefined) throw new PylonError(fault.code, fault.message)
        // What was not taken need not be given back.
        if (getJob(this.#deps.store, order.id)?.status === 'cancelled')
          throw new PylonError('cancelled', 'The job was cancelled meanwhile.')
      },
    })
  }

  /** Runs one payment step; what fails before money moved is a refusal, what is unknown waits for the wallet's word. */
  async #guarded(order: Order, from: 'received' | 'quoted', work: () => Promise<void>): Promise<'open' | 'ended'> {
    try {
      await work()
    } catch (error) {
      // A payment was taken and the key that opens its request is away: the next look at the ledger takes it on.
      if (isPylonError(error, 'shutting_down') || isBunkerSilent(error)) return 'open'
      try {
        if (isPylonError(error, 'payment_unknown')) {
          const waits = 'the outcome of the token is not known yet'
          if (from === 'received')
            await persistIfUnmoved(this.#deps, step(order.id, 'received', 'quoted', waits, this.#deps.scope.clock.now()))
          return 'open'
        }
        await this.#refuse(order, from, error)
      } catch (second) {
        this.#deps.logger.error({ job_id: order.id, error: messageOf(second) }, 'the job was left as it is; it goes on at the next start')
        return 'open'
      }
    }
    return 'ended'
  }
}
