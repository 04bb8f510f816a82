/** How long to wait after the n-th failure in a row: doubling from `minMs` to `maxMs`, and some chance so that many do not come at once. */
import type { Random } from './random.ts'

export interface BackoffPolicy {
  readonly minMs: number
  readonly maxMs: number
  /** The share of the wait that is left to chance, 0 to 1; 0 when left out. */
  readonly jitter?: number
}

/** The wait without chance: for what is stored. @param failures in a row, from 1 */
export function doublingMs(policy: Pick<BackoffPolicy, 'minMs' | 'maxMs'>, failures: number): number {
  return Math.min(policy.maxMs, policy.minMs * 2 ** Math.min(Math.max(failures, 1) - 1, 40))
}

/** @param failures in a row, from 1 */
export function backoffMs(policy: BackoffPolicy, failures: number, random: Random): number {
  return Math.round(doublingMs(policy, failures) * (1 - (policy.jitter ?? 0) * random.float()))
}
