/** The steps of a job: its claim, and every move from state to state, stored with its reason. */
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { JOB_STEPS, type JobState } from '../../base/states.ts'
import { type Command, defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { type StepOf, Steps, type StepTaken } from '../table.ts'
import { type JobRow, jobs } from './jobs.ts'

/** What is known of a job when it is claimed. */
export interface NewJob
  extends Pick<JobRow, 'id' | 'transport' | 'kind' | 'customerPubkey' | 'directed' | 'encryption' | 'request' | 'answerRelays'>,
    Pick<JobRow, 'requestedAtS' | 'deadline' | 'priceMsats' | 'paymentMethod'> {
  readonly bidMsats?: Msats | undefined
}

/** Columns that a step may set besides the state. */
export type JobPatch = Partial<
  Pick<JobRow, 'bill' | 'mintUrl' | 'paidMsats' | 'refundSends' | 'refundNextAt'> &
    Pick<JobRow, 'attempts' | 'result' | 'resultEvent' | 'errorCode' | 'error'>
>

type JobStep = StepOf<JobState, JobPatch>

const ENDS_WORK: readonly JobState[] = ['ready', 'failed', 'refused', 'cancelled', 'expired']

const steps = new Steps('job_transitions', 'job_id', JOB_STEPS)

/** Claims a request by its id, as `received`. @throws conflict when the id was claimed before. */
export const claimJob: (p: { job: NewJob; at: number; reason: string }) => Command<void> = defineCommand(
  'claim_job',
  (sql, { job, at, reason }: { job: NewJob; at: number; reason: string }) => {
    const { id, transport, kind, customerPubkey, directed, encryption, request, answerRelays } = job
    const { requestedAtS, deadline, priceMsats, bidMsats, paymentMethod } = job
    const asked = { id, transport, kind, customerPubkey, directed, encryption, request, answerRelays, requestedAtS, deadline }
    const row = { ...asked, priceMsats, bidMsats, paymentMethod, status: 'received', createdAt: at, updatedAt: at } as const
    if (!jobs.insert(sql, row, 'ON CONFLICT (id) DO NOTHING')) throw new PylonError('conflict', `The job ${id} was claimed before.`)
    steps.begin(sql, id, { to: 'received', reason, at })
  },
  () => 'transition_job:received',
)

/** Moves a job on and stores why. @throws conflict when it is not in `from`, internal for a step that there is not. */
export const transitionJob: (step: JobStep) => Command<void> = defineCommand(
  'transition_job',
  (sql, step: JobStep) => {
    const { id, from, to, at } = step
    steps.take(sql, id, step, () => jobs.patch(sql, { id, status: from }, { ...step.patch, ...timesOf(step), status: to, updatedAt: at }))
  },
  (step) => `transition_job:${step.to}`,
)

function timesOf({ from, to, at }: JobStep): Partial<Pick<JobRow, 'startedAt' | 'completedAt'>> {
  if (to === 'paid') return { completedAt: null }
  if (ENDS_WORK.includes(to)) return { completedAt: at }
  return to === 'running' && from !== 'running' ? { startedAt: at } : {}
}

/** What is known now of a job whose state stays; nothing where it has moved on. */
export const patchJob = defineCommand('patch_job', (sql, p: { id: string; status: JobState; patch: JobPatch; at: number }) => {
  jobs.patch(sql, { id: p.id, status: p.status }, { ...p.patch, updatedAt: p.at })
})

/** How often a job has begun to be refunded. */
export const countJobRefunds = (store: Store, id: string): number => steps.count(store.sql, id, 'refunding')

/** In the order they were taken. */
export const transitionsOf = (store: Store, id: string): StepTaken<JobState>[] => steps.newest(store.sql, id).reverse()
