/** The steps of a job: its claim, and every move from state to state, stored with its reason. */

import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'
import type { JobState } from '../../base/states.ts'
import { type Command, defineCommand, type Sql } from '../commands.ts'
import { int } from '../row.ts'
import type { Store } from '../store.ts'
import type { JobRow } from './jobs.ts'

/** What is known of a job when it is claimed. */
export interface NewJob {
  readonly id: string
  readonly transport: 'nip90'
  readonly kind: number
  readonly customerPubkey: string
  readonly directed: boolean
  readonly encryption: JobRow['encryption']
  readonly request: unknown
  readonly answerRelays: readonly string[]
  readonly requestedAtS: number
  readonly deadline: number
  readonly priceMsats: Msats
  readonly bidMsats?: Msats | undefined
  readonly paymentMethod: JobRow['paymentMethod']
}

/** Columns that a step may set besides the state. */
export interface JobPatch {
  readonly request?: null
  readonly paymentMethod?: JobRow['paymentMethod']
  readonly paymentRequest?: string
  readonly paymentExpiresAt?: number
  readonly mintUrl?: string
  readonly paidMsats?: Msats
  readonly attempts?: number
  readonly result?: string
  readonly resultEvent?: unknown
  readonly errorCode?: string
  readonly error?: string
  readonly refundSends?: number
  readonly refundNextAt?: number | null
}

export interface JobStep {
  readonly id: string
  readonly from: JobState
  readonly to: JobState
  readonly reason: string
  readonly at: number
  readonly patch?: JobPatch
}

const COLUMN_OF: Readonly<Record<keyof JobPatch, string>> = {
  request: 'request',
  paymentMethod: 'payment_method',
  paymentRequest: 'payment_request',
  paymentExpiresAt: 'payment_expires_at',
  mintUrl: 'mint_url',
  paidMsats: 'paid_msats',
  attempts: 'attempts',
  result: 'result',
  resultEvent: 'result_event',
  errorCode: 'error_code',
  error: 'error',
  refundSends: 'refund_sends',
  refundNextAt: 'refund_next_at',
}

const ENDS_WORK: readonly JobState[] = ['ready', 'failed', 'refused', 'cancelled', 'expired']

function recordStep(sql: Sql, step: Omit<JobStep, 'from'> & { from: JobState | null }): void {
  sql('INSERT INTO job_transitions (job_id, from_state, to_state, reason, at) VALUES (?, ?, ?, ?, ?)').run(
    step.id,
    step.from,
    step.to,
    step.reason,
    BigInt(step.at),
  )
}

/** Claims a request by its id, as `received`. @throws conflict when the id was claimed before. */
export const claimJob: (p: { job: NewJob; at: number; reason: string }) => Command<void> = defineCommand(
  'claim_job',
  (sql, p: { job: NewJob; at: number; reason: string }) => {
    const { job } = p
    const inserted = sql(
      `INSERT INTO jobs (id, transport, kind, customer_pubkey, status, directed, encryption, request, answer_relays, requested_at_s, deadline,
       price_msats, bid_msats, payment_method, created_at, updated_at)
       VALUES (?, ?, ?, ?, 'received', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
    ).run(
      job.id,
      job.transport,
      BigInt(job.kind),
      job.customerPubkey,
      job.directed ? 1n : 0n,
      job.encryption,
      job.request === null ? null : JSON.stringify(job.request),
      JSON.stringify(job.answerRelays),
      BigInt(job.requestedAtS),
      BigInt(job.deadline),
      job.priceMsats,
      job.bidMsats ?? null,
      job.paymentMethod,
      BigInt(p.at),
      BigInt(p.at),
    )
    if (inserted.changes === 0) throw new PylonError('conflict', `The job ${job.id} was claimed before.`)
    recordStep(sql, { id: job.id, from: null, to: 'received', reason: p.reason, at: p.at })
  },
  () => 'transition_job:received',
)

/** Moves a job on and stores why. @throws conflict when it is not in `from`. */
export const transitionJob: (step: JobStep) => Command<void> = defineCommand(
  'transition_job',
  (sql, step: JobStep) => {
    const patch = columnsOf(step.patch)
    const sets = ['status = ?', 'updated_at = ?', ...patch.sets]
    const values: unknown[] = [step.to, BigInt(step.at), ...patch.values]
    if (step.to === 'running') {
      sets.push('started_at = coalesce(started_at, ?)')
      values.push(BigInt(step.at))
    }
    if (step.to === 'paid') sets.push('completed_at = NULL')
    if (ENDS_WORK.includes(step.to)) {
      sets.push('completed_at = ?')
      values.push(BigInt(step.at))
    }
    const changed = sql(`UPDATE jobs SET ${sets.join(', ')} WHERE id = ? AND status = ?`).run(...values, step.id, step.from)
    if (changed.changes === 0) throw new PylonError('conflict', `The job ${step.id} is not ${step.from}, it cannot become ${step.to}.`)
    recordStep(sql, step)
  },
  (step) => `transition_job:${step.to}`,
)

/** What is known now of a job whose state stays; nothing where it has moved on. */
export const patchJob = defineCommand('patch_job', (sql, p: { id: string; status: JobState; patch: JobPatch; at: number }) => {
  const { sets, values } = columnsOf(p.patch)
  sql(`UPDATE jobs SET ${[...sets, 'updated_at = ?'].join(', ')} WHERE id = ? AND status = ?`).run(...values, BigInt(p.at), p.id, p.status)
})

/** How often a job has begun to be refunded. */
export function countJobRefunds(store: Store, id: string): number {
  const row = store.sql(`SELECT count(*) AS total FROM job_transitions WHERE job_id = ? AND to_state = 'refunding'`).get(id)
  return row === undefined ? 0 : int(row, 'total')
}

function columnsOf(patch: JobPatch = {}): { sets: string[]; values: unknown[] } {
  const given = Object.entries(patch).filter(([, value]) => value !== undefined)
  return {
    sets: given.map(([key]) => `${COLUMN_OF[key as keyof JobPatch]} = ?`),
    values: given.map(([, value]) => columnValue(value)),
  }
}

function columnValue(value: unknown): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'bigint') return value
  return typeof value === 'number' ? BigInt(value) : stringify(value)
}
