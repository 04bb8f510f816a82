/** Payment for a job before its work: names the price with an invoice, redeems a token, and takes what the wallet says is ours. */
import { type Msats, msatsToSatsUp, type Sats, satsToMsats } from '../../base/amounts.ts'
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'
import { createTurnstile } from '../../base/turnstile.ts'
import type { Command } from '../../store/commands.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import type { JobPatch } from '../../store/selling/job-steps.ts'
import { expiredQuotes, getJob, type JobRow, jobsAwaitingInvoice } from '../../store/selling/jobs.ts'
import type { WalletEvent } from '../../wallet/types.ts'
import { judgeToken } from './admission.ts'
import { type EngineDeps, publish, step, type Ticket, tellable } from './context.ts'
import type { Order } from './order.ts'
import { depositAccount, invoiceKey, tokenKey } from './settlement.ts'

export interface PaymentHooks {
  /** Paid: it may run now. */
  onPaid(ticket: Ticket): void
  onOpen(jobId: string, customerPubkey: string): void
  onLeft(jobId: string): void
  onRefundDue(jobId: string): void
  isStranger(pubkey: string): boolean
}

export interface Payments {
  /** A job in `received` that is to be paid by invoice. Never rejects. */
  quote(order: Order, priceMsats: Msats, underBid: boolean): Promise<void>
  /** A job in `received` or `quoted` with a token in its request. Never rejects. */
  redeem(order: Order, priceMsats: Msats, from: 'received' | 'quoted'): Promise<void>
  /** Says that the token of a cancelled job was not taken. */
  sayLeftAlone(order: Order): Promise<void>
  onWalletEvent(event: WalletEvent): Promise<void>
  /** Moves quotes whose invoice ran out. */
  expire(): Promise<void>
  /** Takes payments that the wallet settled while nobody listened. */
  reconcile(): Promise<void>
}

/** Invoices that the mint is asked for at once for customers who have not paid here: the others don't wait behind them. */
const STRANGERS_AT_ONCE = 4

export function createPayments(deps: EngineDeps, hooks: PaymentHooks): Payments {
  const { store, clock, transport, logger } = deps
  const fewAtOnce = createTurnstile(STRANGERS_AT_ONCE)

  async function refuse(order: Order, from: 'received' | 'quoted', error: unknown): Promise<void> {
    const { code, message } = toPylonError(error)
    const at = clock.now()
    const commands: Command<unknown>[] = [step(order.id, from, 'refused', `${code}: ${message}`, at, { errorCode: code, error: message })]
    if (order.directed) commands.push(publish(transport.feedback(order, { status: 'error', code, message: tellable(code, message) }), at))
    const moved = await persistIfUnmoved(deps, ...commands)
    if (!moved) return
    hooks.onLeft(order.id)
    deps.nudge()
  }

  async function createQuote(order: Order, priceMsats: Msats, underBid: boolean): Promise<void> {
    const wallet = deps.wallet()
    const ofStranger = hooks.isStranger(order.customerPubkey)
    const expiresAt = Math.min(clock.now() + deps.config().provider.invoice_expiry_s * 1000, order.deadline)
    const create = () =>
      wallet.createInvoice({
        idempotencyKey: invoiceKey(order.id),
        cause: { type: 'job', id: order.id },
        amountSats: msatsToSatsUp(priceMsats),
        description: `Job ${order.id.slice(0, 8)}, kind ${order.kind}`,
        creditAccount: depositAccount(order.id),
        expiresAt,
        ofStranger,
      })
    const invoice = await (ofStranger ? fewAtOnce(create) : create())
    const at = clock.now()
    const content = stringify({
      price_msats: priceMsats,
      expires_at: Math.floor(Math.min(expiresAt, invoice.expiresAt) / 1000),
      lock_pubkey: wallet.lockPubkey,
      ...(underBid ? { note: 'The price is above the bid.' } : {}),
    })
    // What the invoice asks for, in whole sats: some wallets compare the tag with the invoice.
    const amountMsats = satsToMsats(invoice.amountSats)
    const moved = await persistIfUnmoved(
      deps,
      step(order.id, 'received', 'quoted', underBid ? 'the price was named, above the bid' : 'the price was named', at, {
        paymentRequest: invoice.request,
        paymentExpiresAt: Math.min(expiresAt, invoice.expiresAt),
        mintUrl: invoice.mintUrl,
      }),
      publish(
        transport.feedback(order, {
          status: 'payment-required',
          ...(underBid ? { code: 'bid_too_low' as const } : {}),
          amountMsats,
          invoice: invoice.request,
          message: content,
        }),
        at,
      ),
    )
    if (!moved) return
    deps.nudge()
    deps.onWaiting()
  }

  async function redeemToken(order: Order, priceMsats: Msats, from: 'received' | 'quoted'): Promise<void> {
    const token = order.token
    if (token === undefined) throw new PylonError('token_invalid', 'The request carries no token.')
    const wallet = deps.wallet()
    const need = msatsToSatsUp(priceMsats)
    if (from === 'received') {
      const seen = await wallet.inspectToken(token)
      const fault = judgeToken({ ...seen, isPrivate: order.tokenPrivate }, priceMsats)
      if (fault !== undefined) throw new PylonError(fault.code, fault.message)
    }
    // Cancelled meanwhile: what was not taken need not be given back.
    if (getJob(store, order.id)?.status === 'cancelled') return
    const received = await wallet.receiveToken({
      idempotencyKey: tokenKey(order.id),
      cause: { type: 'job', id: order.id },
      token,
      creditAccount: depositAccount(order.id),
      minNetSats: need,
      requireLock: !order.tokenPrivate,
    })
    await takePayment(order.id, received.amountSats, { mintUrl: received.mintUrl })
  }

  /** Moves the job by what state the money finds it in; a second word of the same payment changes nothing. */
  async function takePayment(jobId: string, amountSats: Sats, patch: JobPatch = {}): Promise<void> {
    const paidMsats = satsToMsats(amountSats)
    for (let attempt = 0; attempt < 5; attempt++) {
      const job = getJob(store, jobId)
      if (job === undefined) {
        logger.error({ job_id: jobId, amount_sats: String(amountSats) }, 'a payment came for a job that is not known')
        return
      }
      const paid: JobPatch = { ...patch, paidMsats }
      const at = clock.now()
      if (job.status === 'received' || job.status === 'quoted' || job.status === 'expired') {
        const toPaid = step(jobId, job.status, 'paid', job.status === 'expired' ? 'paid late' : `paid by ${job.paymentMethod}`, at, paid)
        if (await settlePaid(job, paidMsats, toPaid, at)) return
      } else if (job.status === 'cancelled' || job.status === 'refused') {
        const moved = await persistIfUnmoved(deps, step(jobId, job.status, 'refunding', `paid after it was ${job.status}`, at, paid))
        if (moved) {
          hooks.onRefundDue(jobId)
          return
        }
      } else return
    }
  }

  async function settlePaid(job: JobRow, paidMsats: Msats, toPaid: Command<void>, at: number): Promise<boolean> {
    // Where the request was not kept, its time is over too.
    const tooLate = job.deadline <= at || job.request === null
    const tooLittle = paidMsats < job.priceMsats
    if (tooLate || tooLittle) {
      const errorCode = tooLate ? 'job_expired' : 'token_amount'
      const error = tooLate ? 'The payment came after the request had expired.' : 'The payment is below the price.'
      const moved = await persistIfUnmoved(
        deps,
        toPaid,
        step(job.id, 'paid', 'failed', error, at, { errorCode, error }),
        step(job.id, 'failed', 'refunding', 'what was paid goes back', at),
      )
      if (moved) {
        hooks.onLeft(job.id)
        hooks.onRefundDue(job.id)
      }
      return moved
    }
    const order = transport.restore(job)
    const moved = await persistIfUnmoved(deps, toPaid)
    if (moved) {
      hooks.onOpen(job.id, job.customerPubkey)
      hooks.onPaid({ order, from: 'paid', attempts: job.attempts, priceMsats: job.priceMsats, paidMsats })
    }
    return moved
  }

  /** Runs one payment step; what fails before money moved is a refusal, what is unknown waits for the wallet's word. */
  async function guarded(order: Order, from: 'received' | 'quoted', work: () => Promise<void>): Promise<'open' | 'ended'> {
    try {
      await work()
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) return 'open'
      try {
        if (isPylonError(error, 'payment_unknown')) {
          if (from === 'received') {
            await persistIfUnmoved(deps, step(order.id, 'received', 'quoted', 'the outcome of the token is not known yet', clock.now()))
          }
          return 'open'
        }
        await refuse(order, from, error)
      } catch (second) {
        logger.error({ job_id: order.id, error: messageOf(second) }, 'the job was left as it is; it goes on at the next start')
        return 'open'
      }
    }
    return 'ended'
  }

  /** The job was cancelled before its token was taken: whoever waits for the value knows where it is. */
  async function sayLeftAlone(order: Order): Promise<void> {
    if (!order.directed) return
    const message = 'The job was cancelled and its token was not taken: it is yours again as its lock allows.'
    await persistIfUnmoved(deps, publish(transport.feedback(order, { status: 'error', code: 'cancelled', message }), clock.now()))
    deps.nudge()
  }

  const payments: Payments = {
    async quote(order, priceMsats, underBid) {
      await guarded(order, 'received', () => createQuote(order, priceMsats, underBid))
    },
    async redeem(order, priceMsats, from) {
      const outcome = await guarded(order, from, () => redeemToken(order, priceMsats, from))
      // Where its outcome is open the wallet's word is waited for.
      if (outcome !== 'open' && getJob(store, order.id)?.status === 'cancelled') await sayLeftAlone(order)
    },
    sayLeftAlone,

    async onWalletEvent(event) {
      const jobId = event.cause.id
      if (event.type === 'invoice_settled' && event.idempotencyKey === invoiceKey(jobId)) await takePayment(jobId, event.amountSats)
      else if (event.type === 'token_received' && event.idempotencyKey === tokenKey(jobId)) await takePayment(jobId, event.amountSats)
      else if (event.type === 'receive_failed' && event.idempotencyKey === tokenKey(jobId)) {
        const job = getJob(store, jobId)
        // While it is `received` the call itself is still under way and will say.
        if (job?.status === 'cancelled' && job.paidMsats === 0n) await sayLeftAlone(transport.restore(job))
        if (job?.status !== 'quoted') return
        const order = transport.restore(job)
        // The same operation asked again says why, with its code; where it does not, the event's words are all we have.
        await payments.redeem(order, job.priceMsats, 'quoted')
        if (getJob(store, jobId)?.status === 'quoted') await refuse(order, 'quoted', new PylonError('token_invalid', event.reason))
      }
    },

    async expire() {
      for (const job of expiredQuotes(store, clock.now())) {
        const state = deps.wallet().invoice(invoiceKey(job.id))?.state
        // Paid, and on its way into the wallet.
        if (state === 'paid' || state === 'settled') continue
        const moved = await persistIfUnmoved(deps, step(job.id, 'quoted', 'expired', 'the invoice ran out', clock.now()))
        if (moved) hooks.onLeft(job.id)
      }
    },

    async reconcile() {
      for (const jobId of jobsAwaitingInvoice(store)) {
        const invoice = deps.wallet().invoice(invoiceKey(jobId))
        if (invoice?.state === 'settled') await takePayment(jobId, invoice.amountSats)
      }
    },
  }
  return payments
}
