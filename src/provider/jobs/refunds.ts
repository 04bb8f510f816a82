/** Refunds of jobs that failed or were cancelled: what is owed, and how its token reaches the customer. */
import { msatsToSatsDown } from '../../base/amounts.ts'
import { ERRORS, type ErrorCode } from '../../base/errors.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { dueRefunds, getJob, type JobRow, noteRefundSent } from '../../store/selling/jobs.ts'
import { createRefunds, type Refunds } from '../refunds.ts'
import { type EngineDeps, publish, step, tellable } from './context.ts'
import type { Addressee } from './order.ts'
import { depositAccount, refundKey } from './settlement.ts'

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

export interface JobRefunds extends Refunds {
  /** The customer spent the token. */
  onClaimed(jobId: string): Promise<void>
}

export function createJobRefunds(deps: EngineDeps): JobRefunds {
  const { store, clock, transport } = deps

  async function onClaimed(jobId: string): Promise<void> {
    const at = clock.now()
    await persistIfUnmoved(deps, step(jobId, 'refunding', 'refunded', 'the customer spent the refund', at, { refundNextAt: null }))
  }

  const refunds = createRefunds(deps, {
    due: (now) => dueRefunds(store, now).map((job) => job.id),
    owed(id) {
      const job = getJob(store, id)
      if (job?.status !== 'refunding') return undefined
      return {
        idempotencyKey: refundKey(id),
        cause: { type: 'job', id },
        amountSats: msatsToSatsDown(job.paidMsats),
        mintUrl: job.mintUrl,
        causedByPayer: job.errorCode === null || PAYERS_CODES.includes(job.errorCode),
        pubkey: job.customerPubkey,
        debitAccount: depositAccount(id),
        sends: job.refundSends,
      }
    },
    deliver(id, token, sends) {
      const job = getJob(store, id)
      if (job === undefined) return []
      const code = codeOf(job.errorCode)
      const message = tellable(code, job.error ?? 'The job was cancelled.')
      const secret = { refund_token: token }
      return [publish(transport.feedback(addresseeOf(job), { status: 'error', code, message, secret, revision: sends }), clock.now())]
    },
    note: noteRefundSent,
    forgo(id, reason) {
      const at = clock.now()
      const job = getJob(store, id)
      const end = step(id, 'refunding', 'refunded', reason, at, { refundNextAt: null })
      if (job === undefined) return [end]
      const code = codeOf(job.errorCode)
      return [end, publish(transport.feedback(addresseeOf(job), { status: 'error', code, message: reason, revision: 1 }), at)]
    },
    deferred(id) {
      const job = getJob(store, id)
      if (job === undefined) return []
      const code = codeOf(job.errorCode)
      const message = `${tellable(code, job.error ?? 'The job was cancelled.')} What was paid comes back as soon as the mint of this node takes part.`
      return [publish(transport.feedback(addresseeOf(job), { status: 'error', code, message }), clock.now())]
    },
    onClaimed,
  })
  return { ...refunds, onClaimed }
}

/** What answering needs, from the stored job. */
function addresseeOf(job: JobRow): Addressee {
  return {
    id: job.id,
    kind: job.kind,
    customerPubkey: job.customerPubkey,
    encryption: job.encryption,
    answerRelays: job.answerRelays,
    request: job.request,
  }
}

function codeOf(stored: string | null): ErrorCode {
  return stored !== null && Object.hasOwn(ERRORS, stored) ? (stored as ErrorCode) : 'cancelled'
}
