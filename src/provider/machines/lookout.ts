/** Whether runtimes are well, and who failed those that are not: the guest by itself, the host that lost it, or a network that is away. */
import type { Clock } from '../../base/clock.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Readiness } from '../../runtime/adapter.ts'
import type { AwayCause, RuntimePatch, RuntimeRow } from '../../store/selling/runtimes.ts'
import type { Substrates } from './substrates.ts'

/** A substrate that does not answer for so long is not reached. */
const LOOK_MS = 15_000

export interface Away {
  readonly cause: AwayCause
  /** When it was last seen well, or first seen not to be (ms). */
  readonly since: number
}

export interface Sight {
  /** Null: it is well. */
  readonly away: Away | null
  readonly isGone: boolean
  readonly message: string
}

export interface Lookout {
  /** Never rejects; takes no longer than LOOK_MS. */
  look(row: RuntimeRow): Promise<Sight>
  /** What a readiness that was asked for elsewhere means. */
  judge(row: RuntimeRow, seen: Readiness): Sight
  /** It was just seen to be ready. */
  seenWell(id: string): void
  /** Of one that is over. */
  forget(id: string): void
}

export const WELL: RuntimePatch = { awayCause: null, awaySince: null }

export const patchOfAway = (away: Away | null): RuntimePatch => (away === null ? WELL : { awayCause: away.cause, awaySince: away.since })

export function awayOf({ awayCause, awaySince }: RuntimeRow): Away | null {
  return awayCause === null || awaySince === null ? null : { cause: awayCause, since: awaySince }
}

export function createLookout(deps: { readonly clock: Clock; readonly substrates: () => Substrates }): Lookout {
  const { clock } = deps
  const wellAt = new Map<string, number>()

  /** One outage that changes its face goes on from where it began; one that was the guest's own ends where another begins. */
  function since(row: RuntimeRow, cause: AwayCause): number {
    const before = awayOf(row)
    if (before !== null && (before.cause === cause || before.cause !== 'guest')) return before.since
    return wellAt.get(row.id) ?? clock.now()
  }

  const seenWell = (id: string): void => void wellAt.set(id, clock.now())

  function sight(row: RuntimeRow, cause: AwayCause | null, message: string, isGone = false): Sight {
    if (cause !== null) return { away: { cause, since: since(row, cause) }, isGone, message }
    seenWell(row.id)
    return { away: null, isGone, message }
  }

  function judge(row: RuntimeRow, { state, message, byGuest }: Readiness): Sight {
    const words = `${state}: ${message}`
    switch (state) {
      case 'ready':
      case 'starting':
        return sight(row, null, words)
      case 'unreachable':
        return sight(row, 'network', words)
      default:
        return sight(row, byGuest === true ? 'guest' : 'host', words)
    }
  }

  async function ask(row: RuntimeRow): Promise<Readiness> {
    const over = new AbortController()
    const late = clock.sleep(LOOK_MS, over.signal).then(() => {
      over.abort()
      throw new PylonError('runtime_unreachable', `The substrate did not answer within ${LOOK_MS / 1000} s.`)
    })
    const seen = (async () => await deps.substrates().get(row.provider).readiness(row.handle, over.signal))()
    // Whichever comes second is nobody's any more.
    for (const one of [late, seen]) one.catch(() => undefined)
    return await Promise.race([seen, late]).finally(() => over.abort())
  }

  return {
    judge,
    seenWell,
    async look(row) {
      try {
        return judge(row, await ask(row))
      } catch (error) {
        return isPylonError(error, 'runtime_gone')
          ? sight(row, 'host', 'the instance is gone', true)
          : sight(row, 'network', `unreachable: ${messageOf(error)}`)
      }
    },
    forget: (id) => void wellAt.delete(id),
  }
}
