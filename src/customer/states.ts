/**
 * The life of a purchase, pure.
 *
 *   preparing -> requested -> offered <-> paying -> paid -> processing -> completed
 *       |            |           |           |        |         |
 *       |            |           |           '--------+---------+--> failed --> refunded
 *       |            +-----------+--> timeout, cancelled            (a result or a refund that
 *       '--> failed                     comes late is still taken)
 *
 * A free job goes from requested to processing or completed at once. A purchase that carries its token is `paid` from
 * the moment the request is fixed. Once paid, only the provider that was paid can end it.
 */
export type PurchaseStatus =
  | 'preparing'
  | 'requested'
  | 'offered'
  | 'paying'
  | 'paid'
  | 'processing'
  | 'completed'
  | 'failed'
  | 'timeout'
  | 'cancelled'
  | 'refunded'

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
