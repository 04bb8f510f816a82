/** After a start: each job that has not ended goes on from its stored state. */
import { messageOf, PylonError } from '../../base/errors.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { type JobRow, type JobState, jobsInState, jobsOwingRefund, openJobs } from '../../store/selling/jobs.ts'
import { type EngineDeps, publish, step } from './context.ts'
import type { Occupancy } from './occupancy.ts'
import type { Payments } from './payments.ts'
import type { JobRefunds } from './refunds.ts'
import { MAX_ATTEMPTS, type Runner } from './runner.ts'
import { refundKey } from './settlement.ts'
import { OPEN_STATES } from './states.ts'
import type { Strangers } from './strangers.ts'

interface Parts {
  readonly runner: Runner
  readonly payments: Payments
  readonly refunds: JobRefunds
  readonly occupancy: Occupancy
  readonly strangers: Pick<Strangers, 'restore'>
  track(work: Promise<void>): void
}

/**
 * running: begins again, up to MAX_ATTEMPTS times (an exec or model backend may see the same work twice); queued, paid:
 * wait for their turn; received: quoted or redeemed; quoted: the wallet is asked; ready: the same result goes to the
 * outbox again; refunding: the sweep sends it.
 */
export async function resume(deps: EngineDeps, parts: Parts): Promise<void> {
  const { store, clock, transport } = deps
  const { runner, payments, refunds, occupancy, strangers, track } = parts
  for (const { id, customerPubkey } of openJobs(store, OPEN_STATES)) occupancy.add(id, customerPubkey)

  const push = (job: JobRow, from: 'queued' | 'paid' | 'running') =>
    runner.push({ order: transport.restore(job), from, attempts: job.attempts, priceMsats: job.priceMsats, paidMsats: job.paidMsats })

  await each(deps, 'running', (job) => {
    if (job.attempts < MAX_ATTEMPTS) return push(job, 'running')
    const error = new PylonError('backend_failed', `The job was cut off ${job.attempts} times and is given up.`)
    return runner.fail({ order: transport.restore(job), paidMsats: job.paidMsats }, 'running', error)
  })
  await each(deps, 'paid', (job) => push(job, 'paid'))
  await each(deps, 'queued', (job) => {
    strangers.restore(job)
    push(job, 'queued')
  })
  await each(deps, 'received', (job) => {
    strangers.restore(job)
    const order = transport.restore(job)
    const underBid = job.bidMsats !== null && job.bidMsats < job.priceMsats
    track(
      job.paymentMethod === 'token' ? payments.redeem(order, job.priceMsats, 'received') : payments.quote(order, job.priceMsats, underBid),
    )
  })
  await each(deps, 'quoted', (job) => {
    strangers.restore(job)
    if (job.paymentMethod === 'token') track(payments.redeem(transport.restore(job), job.priceMsats, 'quoted'))
  })
  await each(deps, 'ready', async (job) => void (await store.write(publish(transport.resultAgain(job), clock.now()))))
  for (const { id, status } of jobsOwingRefund(store)) {
    await persistIfUnmoved(deps, step(id, status, 'refunding', 'what was paid goes back', clock.now()))
  }
  await payments.reconcile()
  await each(deps, 'refunding', async (job) => {
    if (deps.wallet().sentToken(refundKey(job.id))?.state === 'claimed') await refunds.onClaimed(job.id)
  })
}

/** One job that cannot go on must not stop the others. */
async function each(deps: EngineDeps, state: JobState, go: (job: JobRow) => void | Promise<void>): Promise<void> {
  for (const job of jobsInState(deps.store, state)) {
    try {
      await go(job)
    } catch (error) {
      deps.logger.error({ job_id: job.id, status: state, error: messageOf(error) }, 'a job could not go on after the restart')
    }
  }
}
