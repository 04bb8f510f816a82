/**
 * The life of a lease: states and the steps between them; pure. The store refuses every other step.
 *
 *   quoted --> paid --> active --> ended
 *     |          |        |          |
 *     v          +--------+----------+--> refunding <-> refunded (again for what is paid after that)
 *   expired --> paid (late) ------------> refunding
 *
 * As a sale (sale/machine.ts) a lease is `paid` until its time is over.
 */
import type { LeaseState } from '../../store/selling/leases.ts'
import type { SaleState } from '../sale/machine.ts'

const NEXT: Readonly<Record<LeaseState, readonly LeaseState[]>> = {
  quoted: ['paid', 'expired'],
  expired: ['paid'],
  paid: ['active', 'ended', 'refunding'],
  active: ['active', 'ended', 'refunding'],
  ended: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
}

const SALE: Readonly<Record<LeaseState, SaleState>> = {
  quoted: 'quoted',
  expired: 'expired',
  paid: 'paid',
  active: 'paid',
  ended: 'earned',
  refunding: 'refunding',
  refunded: 'refunded',
}

export function canStepLease(from: LeaseState, to: LeaseState): boolean {
  return NEXT[from].includes(to)
}

export function saleStateOf(state: LeaseState): SaleState {
  return SALE[state]
}
