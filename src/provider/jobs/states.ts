/**
 * The life of a job: its states and the steps between them; pure. The store refuses every other step.
 *
 *            +-> refused <-----+
 *            |                 | (token failed)
 *   received +-> quoted -------+--> paid -----------+
 *            |     |  ^             ^ |             |
 *            |     v  (token        | |             v
 *            |  expired  unknown)   | |  +----> running -> ready -> delivered -> settled
 *            |     |                | |  |      |  |
 *            |     +-- (paid late) -+ |  |      |  +-> running (again after a restart)
 *            |                        |  |      v
 *            +-> queued --------------|--+   failed -> refunding <-> refunded
 *            |     |                  |         ^         ^
 *            |     +------------------+---------+         |
 *            +-> cancelled (kind 5 before running) -------+ (what was paid, or is paid later, goes back)
 *
 * `queued` waits for its turn without payment due, `paid` waits for its turn with the money in hand. `failed` and
 * `cancelled` are ends for a job that holds no money. Not drawn: a result that no relay takes for days fails (ready ->
 * failed), and money that reaches a job that was refused or settled goes back (-> refunding).
 *
 * As a sale (sale/machine.ts) a job is `paid` from when nothing is due any more until its result is delivered.
 */

import type { JobState } from '../../base/states.ts'
import type { SaleState } from '../sale/machine.ts'

const NEXT: Readonly<Record<JobState, readonly JobState[]>> = {
  received: ['refused', 'queued', 'quoted', 'paid', 'cancelled'],
  refused: ['refunding'],
  queued: ['running', 'failed', 'cancelled'],
  quoted: ['paid', 'expired', 'refused', 'cancelled'],
  expired: ['paid'],
  paid: ['running', 'failed', 'cancelled'],
  running: ['running', 'ready', 'failed'],
  ready: ['delivered', 'failed'],
  delivered: ['settled'],
  settled: ['refunding'],
  failed: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
  cancelled: ['refunding'],
}

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

/** States in which nothing more happens, unless money arrives late (`expired`, `cancelled`) or is held (`failed`, `cancelled`). */
export const RESTING_STATES: readonly JobState[] = ['refused', 'expired', 'settled', 'failed', 'refunded', 'cancelled']

/** States that count against a customer's limit: work or an invoice is owed. */
export const OPEN_STATES: readonly JobState[] = ['received', 'queued', 'quoted', 'paid', 'running']

export function canStep(from: JobState, to: JobState): boolean {
  return NEXT[from].includes(to)
}

export function nextStates(from: JobState): readonly JobState[] {
  return NEXT[from]
}

/** Whether a cancel request (kind 5) still counts: only before the work began. */
export function isCancellable(state: JobState): boolean {
  return canStep(state, 'cancelled')
}

export function saleStateOf(state: JobState): SaleState {
  return SALE[state]
}
