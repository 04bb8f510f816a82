/**
 * The life of what this home buys, pure. A purchase, which is a job of others:
 *
 *   preparing -> requested -> offered <-> paying -> paid -> processing -> completed
 *       |            |           |           |        |         |
 *       |            |           |           '--------+---------+--> failed --> refunded
 *       |            +-----------+--> timeout, cancelled            (a result or a refund that
 *       '--> failed                     comes late is still taken)
 *
 * A free job goes from requested to processing or completed at once. A purchase that carries its token is `paid` from
 * the moment the request is fixed. Once paid, only the provider that was paid can end it.
 *
 * A rental, which is one command to the machines of a node, with what was paid for it:
 *
 *   asked ----> paying ----> paid
 *     |          |  ^          |
 *     |          |  '-----.    |      (what was refused is asked for again, and paid then)
 *     v          v        |    v
 *     answered <-----> refused        (asked again under the same key, a node may say something else)
 *
 * What was paid is in its own column: an answer may come before the payment is known.
 */
import type { PurchaseStatus } from '../base/states.ts'
import type { RentalState } from '../store/buying/rentals.ts'

const NEXT: Readonly<Record<PurchaseStatus, readonly PurchaseStatus[]>> = {
  preparing: ['requested', 'paid', 'failed'],
  requested: ['offered', 'processing', 'completed', 'failed', 'timeout', 'cancelled'],
  offered: ['paying', 'processing', 'completed', 'failed', 'timeout', 'cancelled'],
  paying: ['paid', 'offered', 'failed', 'completed', 'refunded'],
  paid: ['processing', 'completed', 'failed', 'refunded'],
  processing: ['offered', 'completed', 'failed', 'timeout', 'cancelled', 'refunded'],
  completed: [],
  failed: ['completed', 'refunded'],
  timeout: ['completed', 'refunded'],
  cancelled: ['completed', 'refunded'],
  refunded: [],
}

export function canMove(from: PurchaseStatus, to: PurchaseStatus): boolean {
  return NEXT[from].includes(to)
}

/** Nothing more is expected, though a late answer would still be taken. */
export function isSettled(status: PurchaseStatus): boolean {
  return ['completed', 'failed', 'timeout', 'cancelled', 'refunded'].includes(status)
}

/** The states that may become `to`. */
export function statesBefore(to: PurchaseStatus): PurchaseStatus[] {
  return (Object.keys(NEXT) as PurchaseStatus[]).filter((from) => canMove(from, to))
}

const NEXT_OF_RENTAL: Readonly<Record<RentalState, readonly RentalState[]>> = {
  asked: ['paying', 'answered', 'refused'],
  paying: ['paying', 'paid', 'answered', 'refused'],
  paid: ['answered', 'refused'],
  answered: ['answered', 'refused'],
  refused: ['paying', 'answered', 'refused'],
}

/** The states of a rental that may become `to`. */
export function rentalStatesBefore(to: RentalState): RentalState[] {
  return (Object.keys(NEXT_OF_RENTAL) as RentalState[]).filter((from) => NEXT_OF_RENTAL[from].includes(to))
}
