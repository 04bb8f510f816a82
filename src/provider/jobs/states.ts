/** A job as a sale, and groups of its states; its steps stand in base/states.ts. Pure. */
import { canStep, JOB_STEPS, type JobState } from '../../base/states.ts'
import type { SaleState } from '../sale/machine.ts'

/** It is `paid` from when nothing is due any more until its result is delivered. */
const SALE: Readonly<Record<JobState, SaleState>> = {
  received: 'quoted',
  refused: 'withdrawn',
  queued: 'paid',
  quoted: 'quoted',
  expired: 'expired',
  paid: 'paid',
  running: 'paid',
  ready: 'paid',
  delivered: 'paid',
  settled: 'earned',
  failed: 'withdrawn',
  refunding: 'refunding',
  refunded: 'refunded',
  cancelled: 'withdrawn',
}

/** States that count against a customer's limit: work or an invoice is owed. */
export const OPEN_STATES: readonly JobState[] = ['received', 'queued', 'quoted', 'paid', 'running']

/** Whether a cancel request (kind 5) still counts: only before the work began. */
export function isCancellable(state: JobState): boolean {
  return canStep(JOB_STEPS, state, 'cancelled')
}

export function saleStateOf(state: JobState): SaleState {
  return SALE[state]
}
