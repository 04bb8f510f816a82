/** Jobs as what is sold: until when one is wanted, what its steps note, when it is earned, and how its customer hears of a refund. */

import { ERRORS, type ErrorCode } from '../../base/errors.ts'
import type { JobState } from '../../base/states.ts'
import type { Command } from '../../store/commands.ts'
import { saleSettled } from '../../store/keys.ts'
import { depositNow, depositOf, postEntry } from '../../store/money/ledger.ts'
import { countJobRefunds, patchJob } from '../../store/selling/job-steps.ts'
import { expiredQuotes, getJob, type JobRow, refundsDue } from '../../store/selling/jobs.ts'
import { type BackReason, settle } from '../sale/machine.ts'
import type { Product, RefundWord, Sale, SalePatch, SaleStep } from '../sale/product.ts'
import { type EngineDeps, publish, step, type Ticket, tellable } from './context.ts'
import { saleStateOf } from './states.ts'

/** Why a job ends by its customer's doing; a cancelled one has no code. */
export const PAYERS_CODES: readonly string[] = [
  'cancelled',
  'job_expired',
  'token_amount',
  'input_invalid',
  'param_invalid',
  'address_refused',
  'fetch_failed',
] satisfies ErrorCode[]

export interface ProductHooks {
  /** Paid: it may run now. */
  onPaid(ticket: Ticket): void
  /** It is not waited for any more. */
  onLeft(jobId: string): void
  tokenFailed(jobId: string, reason: string): Promise<void>
}

/** The sale of a job, with the row that shows it. */
export interface JobSale extends Sale {
  readonly job: JobRow
}

export class JobProduct implements Product<JobSale> {
  readonly type = 'job'
  readonly #deps: EngineDeps
  readonly #hooks: ProductHooks

  constructor(deps: EngineDeps, hooks: ProductHooks) {
    this.#deps = deps
    this.#hooks = hooks
  }

  get(id: string): JobSale | undefined {
    const job = getJob(this.#deps.store, id)
    if (job === undefined) return undefined
    return {
      id,
      transport: job.transport,
      state: saleStateOf(job.status),
      priceMsats: job.priceMsats,
      paidMsats: job.paidMsats,
      // Where the request was not kept, its time is over too.
      wantedUntil: job.request === null ? 0 : job.deadline,
      payerPubkey: job.customerPubkey,
      mintUrl: job.mintUrl,
      refundSends: job.refundSends,
      isPayersDoing: job.errorCode === null || PAYERS_CODES.includes(job.errorCode),
      job,
    }
  }

  overdue = (nowMs: number) => expiredQuotes(this.#deps.store, nowMs)
  refundsDue = (nowMs: number) => refundsDue(this.#deps.store, nowMs)
  refundsBegun = (id: string) => countJobRefunds(this.#deps.store, id)

  async paid({ job }: JobSale, patch: SalePatch, at: number): Promise<SaleStep> {
    const order = await this.#deps.transport.restore(job)
    return {
      commands: [this.#toPaid(job, patch, at)],
      done: () => this.#hooks.onPaid({ order, from: 'paid', attempts: job.attempts, priceMsats: job.priceMsats, isPaid: true }),
    }
  }

  #toPaid({ id, status, paymentMethod }: JobRow, patch: SalePatch, at: number): Command<void> {
    return step(id, status, 'paid', status === 'expired' ? 'paid late' : `paid by ${paymentMethod}`, at, columnsOf(patch))
  }

  expired({ id }: JobSale, at: number): SaleStep {
    return { commands: [step(id, 'quoted', 'expired', 'the invoice ran out', at)], done: () => this.#hooks.onLeft(id) }
  }

  back({ id, job }: JobSale, why: BackReason, patch: SalePatch, at: number): SaleStep {
    if (why === 'again') return { commands: [step(id, job.status, 'refunding', 'it was paid once more', at, columnsOf(patch))] }
    if (why === 'withdrawn')
      return { commands: [step(id, job.status, 'refunding', `paid for a job that was ${job.status}`, at, columnsOf(patch))] }
    const errorCode = why === 'late' ? 'job_expired' : 'token_amount'
    const error = why === 'late' ? 'The payment came after the request had expired.' : 'The payment is below the price.'
    return {
      commands: [
        this.#toPaid(job, patch, at),
        step(id, 'paid', 'failed', error, at, { errorCode, error }),
        step(id, 'failed', 'refunding', 'what was paid goes back', at),
      ],
      done: () => this.#hooks.onLeft(id),
    }
  }

  refunded = ({ id }: JobSale, reason: string, at: number) => step(id, 'refunding', 'refunded', reason, at, { refundNextAt: null })

  note = ({ id, job }: JobSale, patch: SalePatch, at: number) => patchJob({ id, status: job.status, patch: columnsOf(patch), at })

  async tell({ job }: JobSale, word: RefundWord): Promise<readonly Command<unknown>[]> {
    const { transport, scope } = this.#deps
    const code = codeOf(job.errorCode)
    const why = tellable(code, job.error ?? 'The job was cancelled.')
    const say = async (more: { message: string; secret?: Record<string, string>; revision?: number }) => [
      publish(await transport.feedback(job, { status: 'error', code, ...more }), scope.clock.now()),
    ]
    switch (word.type) {
      case 'token':
        return await say({ message: why, secret: { refund_token: word.token }, revision: word.sends })
      case 'deferred':
        return await say({ message: `${why} What was paid comes back as soon as the mint of this node takes part.` })
      case 'forgone':
        return await say({ message: word.reason, revision: 1 })
    }
  }

  tokenFailed = (id: string, reason: string) => this.#hooks.tokenFailed(id, reason)

  /** What a job that will not be delivered holds goes back; nothing where nothing was paid. */
  giveBack(id: string, from: JobState, at: number): readonly Command<unknown>[] {
    const { paidMsats, heldMsats } = depositNow(this.#deps.store, { type: 'job', id })
    return heldMsats <= 0n ? [] : [step(id, from, 'refunding', 'what was paid goes back', at, { paidMsats })]
  }

  /** Delivered: what was paid is earned. */
  earn(job: Pick<Ticket, 'priceMsats'> & { id: string; customerPubkey: string }, at: number): readonly Command<unknown>[] {
    const { id, priceMsats, customerPubkey } = job
    const delivered = step(id, 'ready', 'delivered', 'a relay accepted the result', at)
    const toSettled = (reason: string) => step(id, 'delivered', 'settled', reason, at)
    if (priceMsats === 0n) return [delivered, toSettled('nothing to settle')]
    const cause = { type: 'job', id } as const
    const terms = { dueMsats: priceMsats, income: 'job', over: 'tip', internal: this.#deps.owns(customerPubkey) } as const
    const { postings } = settle(depositOf(cause), depositNow(this.#deps.store, cause).heldMsats, terms)
    return [delivered, toSettled('the payment is earned'), postEntry({ id: saleSettled(cause), cause, at, postings })]
  }
}

/** A job keeps no note of what goes back: the ledger says it. */
function columnsOf({ refundMsats: _, ...columns }: SalePatch): Omit<SalePatch, 'refundMsats'> {
  return columns
}

function codeOf(stored: string | null): ErrorCode {
  return stored !== null && Object.hasOwn(ERRORS, stored) ? (stored as ErrorCode) : 'cancelled'
}
