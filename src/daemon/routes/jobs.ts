/** Handlers of the routes about jobs that others ordered here: reads of the store. */
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { jobsRoutes } from '../../control/contract/jobs.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { transitionsOf } from '../../store/selling/job-steps.ts'
import { getJob, type JobRow, jobIdsWithPrefix, listJobs } from '../../store/selling/jobs.ts'
import type { Store } from '../../store/store.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_LIMIT = 50

export function jobsReadHandlers({ store }: Pick<ReadServices, 'store'>): Handlers<typeof jobsRoutes> {
  return {
    listJobs: ({ state, limit }) => ({
      jobs: listJobs(store, { limit: limit ?? DEFAULT_LIMIT, ...(state === undefined ? {} : { states: [state] }) }).map(jobView),
    }),
    getJob: ({ id }) => {
      const job = findJob(store, id)
      return {
        ...jobView(job),
        bid_msats: job.bidMsats,
        mint_url: job.mintUrl,
        payment_expires_at: timeOrNull(job.bill?.expiresAt ?? null),
        deadline: rfc3339(job.deadline),
        attempts: job.attempts,
        result: job.result,
        result_event_id: idOf(job.resultEvent),
        error: job.error,
        transitions: transitionsOf(store, job.id).map((step) => ({ ...step, at: rfc3339(step.at) })),
      }
    },
  }
}

/** By id or a unique beginning of it. @throws job_not_found */
function findJob(store: Store, id: string): JobRow {
  const [first, second] = jobIdsWithPrefix(store, id.toLowerCase())
  if (second !== undefined) throw new PylonError('job_not_found', `More than one job begins with ${id}; give more of its id.`)
  const job = first === undefined ? undefined : getJob(store, first)
  if (job === undefined) throw new PylonError('job_not_found', `There is no job ${id}; pylon jobs list shows them.`)
  return job
}

function jobView(job: JobRow) {
  return {
    id: job.id,
    kind: job.kind,
    customer: npubOf(job.customerPubkey),
    customer_pubkey: job.customerPubkey,
    status: job.status,
    price_msats: job.priceMsats,
    paid_msats: job.paidMsats,
    payment_method: job.paymentMethod,
    encryption: job.encryption,
    error_code: job.errorCode,
    created_at: rfc3339(job.createdAt),
    started_at: timeOrNull(job.startedAt),
    completed_at: timeOrNull(job.completedAt),
  }
}

function timeOrNull(ms: number | null): string | null {
  return ms === null ? null : rfc3339(ms)
}

function idOf(event: unknown): string | null {
  const id = typeof event === 'object' && event !== null ? (event as { id?: unknown }).id : undefined
  return typeof id === 'string' ? id : null
}
