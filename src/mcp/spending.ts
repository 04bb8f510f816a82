/** What the owner lets this server spend: so much a call, so much while it runs. Counted before anything is asked of the node. */
import { type ErrorCode, isPylonError, PylonError } from '../base/errors.ts'

/** Errors that leave open what happened. */
const UNSURE: ReadonlySet<ErrorCode> = new Set([
  'internal',
  'cancelled',
  'conflict',
  'invoice_paid',
  'idempotency_conflict',
  'version_mismatch',
  'action_failed',
])

export interface SpendingLimits {
  readonly perCallSats: number
  readonly perSessionSats: number
}

interface Hold {
  /** What may leave for it: the same again when its key is repeated. */
  readonly maxSats: number
  /** What is known to have left, else all of it. */
  readonly countedSats: number
  /** Whether the key was used once only: else an error of now says nothing of the call before. */
  readonly isFirst: boolean
}

export class Spending {
  readonly limits: SpendingLimits
  readonly #holds = new Map<string, Hold>()

  constructor(limits: SpendingLimits) {
    this.limits = limits
  }

  get leftSats(): number {
    let used = 0
    for (const { countedSats } of this.#holds.values()) used += countedSats
    return Math.max(0, this.limits.perSessionSats - used)
  }

  /**
   * Sets aside what a call may spend; the whole of it counts until `settle`.
   * @param wantedSats what the caller names, else as much as is left for one call
   * @returns the most that may leave @throws budget_exceeded
   */
  hold(key: string, wantedSats?: number): number {
    const known = this.#holds.get(key)
    if (known !== undefined) this.#holds.set(key, { ...known, isFirst: false })
    if (known !== undefined && (wantedSats === undefined || wantedSats === known.maxSats)) return known.maxSats
    const { perCallSats, perSessionSats } = this.limits
    const left = this.leftSats
    const maxSats = wantedSats ?? Math.min(perCallSats, left)
    if (maxSats > perCallSats) throw over(`${maxSats} sats are over the limit of ${perCallSats} sats a call`, '--max-sats-per-call')
    if (maxSats > left || left === 0)
      throw over(
        `of ${perSessionSats} sats for this session ${left} are left, and ${Math.max(maxSats, 1)} are asked for`,
        '--max-sats-per-session',
      )
    this.#holds.set(key, { maxSats, countedSats: maxSats + (known?.countedSats ?? 0), isFirst: known === undefined })
    return maxSats
  }

  /** After an error that says that surely nothing left. */
  settleFailed(key: string, error: unknown): void {
    const isSure = error instanceof PylonError && !error.retryable && !UNSURE.has(error.code)
    if (this.#holds.get(key)?.isFirst === true && (isSure || isPylonError(error, 'not_running'))) this.settle(key, 0)
  }

  /** What left for it in the end; nothing changes for what was never held. */
  settle(key: string, spentSats: number): void {
    const hold = this.#holds.get(key)
    if (hold !== undefined) this.#holds.set(key, { ...hold, countedSats: spentSats })
  }
}

function over(words: string, flag: string): PylonError {
  return new PylonError(
    'budget_exceeded',
    `Nothing was spent: ${words}. Only the owner can raise it: ${flag} where this server is started.`,
  )
}
