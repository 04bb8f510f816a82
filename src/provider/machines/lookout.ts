/** Whether a runtime is well, and who failed one that is not: the guest by itself, the host that lost it, or a network that is away; pure. */
import type { Readiness } from '../../runtime/adapter.ts'
import type { AwayCause, RuntimeRow } from '../../store/selling/runtimes.ts'

export type Away = NonNullable<RuntimeRow['away']>

export interface Sight {
  /** Null: it is well. */
  readonly away: Away | null
  readonly isGone: boolean
  readonly message: string
}

/** Who failed a runtime of which its substrate says this; null: nobody, it is well. */
export function causeOf({ state, byGuest }: Pick<Readiness, 'state' | 'byGuest'>): AwayCause | null {
  if (state === 'ready' || state === 'starting') return null
  if (state === 'unreachable') return 'network'
  return byGuest === true ? 'guest' : 'host'
}

/** One outage that changes its face goes on from where it began; one that was the guest's own ends where another begins. */
export function awayBy(cause: AwayCause, before: Away | null, wellAtMs: number): Away {
  return { cause, since: before !== null && (before.cause === cause || before.cause !== 'guest') ? before.since : wellAtMs }
}
