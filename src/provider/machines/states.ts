/**
 * The life of a lease: states and the steps between them; pure. The store refuses every other step.
 *
 *   quoted --> paid --> active --> ended
 *     |          |        |          |
 *     v          +--------+----------+--> refunding <-> refunded (again for what is paid after that)
 *   expired --> paid (late) ------------> refunding
 */
import type { LeaseState } from '../../store/selling/leases.ts'

const LEASE_NEXT: Readonly<Record<LeaseState, readonly LeaseState[]>> = {
  quoted: ['paid', 'expired'],
  expired: ['paid'],
  paid: ['active', 'ended', 'refunding'],
  active: ['active', 'ended', 'refunding'],
  ended: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
}

export function canStepLease(from: LeaseState, to: LeaseState): boolean {
  return LEASE_NEXT[from].includes(to)
}
