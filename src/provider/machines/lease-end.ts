/** What a lease costs when it ends, by who failed whom; pure. */
import type { LeaseRow } from '../../store/selling/leases.ts'
import type { Away } from './lookout.ts'

/** Why a lease ends: the tenant left, its time is up, its run is over, or the node failed it. */
export type EndedBy = 'tenant' | 'time' | 'completed' | 'node'

/** Of a lease that the node failed. All other ends are the tenant's doing, or as agreed: so are the fees of what goes back then. */
export const NODE_ENDED = 'the node could not keep it'

/**
 * Who failed decides, not who ends it: a runtime that its host lost, or that nobody reached again, was had only until then.
 * One whose guest ended by itself was had to its end, for its tenant could have started it again.
 */
export function endingOf(away: Away | null, by: EndedBy, at: number): { readonly by: EndedBy; readonly at: number } {
  return away === null || away.cause === 'guest' ? { by, at } : { by: 'node', at: Math.min(at, away.since) }
}

/**
 * A lease that the node failed costs the time that was had, begun milliseconds whole; all others cost their price. Time that
 * never began costs nothing, whoever ends it.
 */
export function priceOfEnding(lease: Pick<LeaseRow, 'state' | 'time' | 'seconds' | 'priceMsats'>, by: EndedBy, at: number): bigint {
  if (lease.state !== 'active' || lease.time === null) return 0n
  if (by !== 'node') return lease.priceMsats
  const total = BigInt(lease.seconds) * 1000n
  const used = BigInt(Math.min(Math.max(0, at - lease.time.startsAt), lease.seconds * 1000))
  return (lease.priceMsats * used + total - 1n) / total
}
