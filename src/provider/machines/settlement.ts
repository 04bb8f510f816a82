/** Whose money the deposit of a lease becomes when it ends; pure. */
import { accountOf } from '../../base/accounts.ts'
import { type Msats, msats, msatsToSatsDown, msatsToSatsUp, satsToMsats } from '../../base/amounts.ts'
import { saleInvoiceKey, saleSettled } from '../../store/keys.ts'
import { depositOf, type Entry } from '../../store/money/ledger.ts'
import type { LeaseRow } from '../../store/selling/leases.ts'
import type { Away } from './lookout.ts'

/** Why a lease ends: the tenant left, its time is up, its run is over, or the node failed it. */
export type EndedBy = 'tenant' | 'time' | 'completed' | 'node'

/** Of a lease that the node failed. All other ends are the tenant's doing, or as agreed: so are the fees of what goes back then. */
export const NODE_ENDED = 'the node could not keep it'

export const depositAccount = (leaseId: string) => depositOf({ type: 'lease', id: leaseId })

/** Keys under which the wallet knows what is done for a lease. */
export const invoiceKey = (leaseId: string): string => saleInvoiceKey({ type: 'lease', id: leaseId })

/**
 * Who failed decides, not who ends it: a runtime that its host lost, or that nobody reached again, was had only until then.
 * One whose guest ended by itself was had to its end, for its tenant could have started it again.
 */
export function endingOf(away: Away | null, by: EndedBy, at: number): { readonly by: EndedBy; readonly at: number } {
  return away === null || away.cause === 'guest' ? { by, at } : { by: 'node', at: Math.min(at, away.since) }
}

export interface Settlement {
  readonly earnedMsats: Msats
  /** Whole sats. */
  readonly refundMsats: Msats
  /** Undefined when nothing is earned. */
  readonly entry: Entry | undefined
}

/**
 * A lease that the node failed costs the time that was had; all others cost their price. What was paid beyond goes back
 * in whole sats; less than a sat is rounding. What is refunded stays in the deposit until the token is made.
 */
export function settleLease(lease: LeaseRow, by: EndedBy, at: number): Settlement {
  const earned = msats(smaller(lease.paidMsats, by === 'node' ? usedPrice(lease, at) : lease.priceMsats))
  const asked = satsToMsats(msatsToSatsUp(earned))
  const refund = lease.paidMsats > asked ? satsToMsats(msatsToSatsDown(msats(lease.paidMsats - asked))) : msats(0n)
  const kept = lease.paidMsats - refund
  const entry: Entry = {
    id: saleSettled({ type: 'lease', id: lease.id }),
    cause: { type: 'lease', id: lease.id },
    at,
    postings: [
      { account: depositAccount(lease.id), amountMsats: kept },
      { account: accountOf('node', 'income', 'lease'), amountMsats: -earned },
      { account: accountOf('node', 'income', 'rounding'), amountMsats: -(kept - earned) },
    ],
  }
  return { earnedMsats: earned, refundMsats: refund, entry: kept === 0n ? undefined : entry }
}

/** Of the time between its start and `at`, begun milliseconds whole. */
function usedPrice(lease: LeaseRow, at: number): bigint {
  if (lease.state !== 'active' || lease.startsAt === null) return 0n
  const total = BigInt(lease.seconds) * 1000n
  const used = BigInt(Math.min(Math.max(0, at - lease.startsAt), lease.seconds * 1000))
  return (lease.priceMsats * used + total - 1n) / total
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b
}
