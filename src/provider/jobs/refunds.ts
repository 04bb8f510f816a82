/** Gives back what was paid for a job that failed or was cancelled: a token that only the customer can spend, sent until it is seen spent. */

import { msatsToSatsDown } from '../../base/amounts.ts'
import { ERRORS, type ErrorCode, isPylonError, messageOf } from '../../base/errors.ts'
import { dueRefunds, getJob, type JobRow, noteRefundSent } from '../../store/jobs.ts'
import { type EngineDeps, persist, persistIfUnmoved, publish, step, tellable } from './context.ts'
import type { Addressee } from './order.ts'
import { depositAccount, refundKey } from './settlement.ts'

const MINUTE_MS = 60_000
const DAY_MS = 1440 * MINUTE_MS
/** When the refund is sent again after the first, second, ... time; then daily. */
const RESEND_AFTER_MS: readonly number[] = [MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 120 * MINUTE_MS, 720 * MINUTE_MS]
/** After that the token waits in our database; the owner can still hand it over. */
const MAX_SENDS = 40
/** When the wallet could not make the token (no mint answers): again after this. */
const RETRY_MS = MINUTE_MS

export interface Refunds {
  /** Makes and sends what is due. Never rejects. */
  run(): Promise<void>
  /** Has this job's refund sent now. */
  wake(jobId: string): void
  /** The customer spent the token. */
  onClaimed(jobId: string): Promise<void>
  /** Resolves when nothing is under way. */
  close(): Promise<void>
}

export function createRefunds(deps: EngineDeps): Refunds {
  const { store, clock, transport, logger } = deps
  const busy = new Map<string, Promise<void>>()
  let closing = false

  async function refund(job: JobRow): Promise<void> {
    const sent = await deps.wallet().sendToken({
      idempotencyKey: refundKey(job.id),
      cause: { type: 'job', id: job.id },
      amountSats: msatsToSatsDown(job.paidMsats),
      ...(job.mintUrl === null ? {} : { mintUrl: job.mintUrl }),
      lockTo: `02${job.customerPubkey}`,
      debitAccount: depositAccount(job.id),
    })
    if (sent.state === 'claimed') {
      await onClaimed(job.id)
      return
    }
    const at = clock.now()
    const sends = job.refundSends + 1
    const nextAt = sends >= MAX_SENDS ? Number.MAX_SAFE_INTEGER : at + (RESEND_AFTER_MS[job.refundSends] ?? DAY_MS)
    const code = codeOf(job.errorCode)
    const entry = transport.feedback(addresseeOf(job), {
      status: 'error',
      code,
      message: tellable(code, job.error ?? 'The job was cancelled.'),
      secret: { refund_token: sent.token },
      revision: sends,
    })
    await persist(deps, noteRefundSent({ id: job.id, sends, nextAt, at }), publish(entry, at))
    deps.nudge()
  }

  async function attempt(jobId: string): Promise<void> {
    const job = getJob(store, jobId)
    if (job?.status !== 'refunding' || closing) return
    try {
      await refund(job)
    } catch (error) {
      if (closing || isPylonError(error, 'shutting_down')) return
      logger.warn({ job_id: jobId, error: messageOf(error) }, 'a refund could not be sent yet')
      const at = clock.now()
      await persist(deps, noteRefundSent({ id: jobId, sends: job.refundSends, nextAt: at + RETRY_MS, at }))
    }
  }

  /** One at a time for a job. */
  function once(jobId: string): Promise<void> {
    const existing = busy.get(jobId)
    if (existing !== undefined) return existing
    const work = attempt(jobId)
      .catch((error: unknown) => {
        if (!closing) logger.error({ job_id: jobId, error: messageOf(error) }, 'a refund failed; it is tried again')
      })
      .finally(() => busy.delete(jobId))
    busy.set(jobId, work)
    return work
  }

  async function onClaimed(jobId: string): Promise<void> {
    const at = clock.now()
    await persistIfUnmoved(deps, step(jobId, 'refunding', 'refunded', 'the customer spent the refund', at, { refundNextAt: null }))
  }

  return {
    async run() {
      if (!closing) await Promise.all(dueRefunds(store, clock.now()).map((job) => once(job.id)))
    },
    wake: (jobId) => void once(jobId),
    onClaimed,
    async close() {
      closing = true
      await Promise.allSettled([...busy.values()])
    },
  }
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
