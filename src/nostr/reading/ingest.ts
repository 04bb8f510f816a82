/** The one gate for events from relays: shape, known, wanted, in time, and only then the signature. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { matchesAny, parseEvent } from '../nips/nip01.ts'
import { isExpired } from '../nips/nip40.ts'
import type { Filter, NostrEvent } from '../types.ts'
import type { Verifier } from './verify.ts'

/** Events dated further ahead are not delivered. */
export const MAX_FUTURE_S = 900

export type Rejection = 'known' | 'filter' | 'future' | 'expired' | 'charged' | 'signature'

export interface IngestDeps {
  readonly clock: Clock
  readonly verifier: Verifier
  /** Whether its signature is worth computing; all are where this is absent. */
  readonly isWorthIt?: (event: NostrEvent) => boolean
}

/**
 * The event, whose shape was checked, if it may be used, else why not. Cheap checks come first; the signature is the last.
 * @param isKnown whether this id needs no second look.
 */
export function admitEvent(
  deps: IngestDeps,
  event: NostrEvent,
  filters: readonly Filter[],
  isKnown: (id: string) => boolean,
): NostrEvent | Rejection {
  if (isKnown(event.id)) return 'known'
  if (!matchesAny(filters, event)) return 'filter'
  const now = unixSeconds(deps.clock)
  if (event.created_at > now + MAX_FUTURE_S) return 'future'
  if (isExpired(event, now)) return 'expired'
  if (deps.isWorthIt?.(event) === false) return 'charged'
  return deps.verifier.verify(event) ? event : 'signature'
}

/** What a relay sent, if it has the shape of an event. */
export function shapeOf(raw: unknown): NostrEvent | undefined {
  try {
    return parseEvent(raw)
  } catch {
    // No event: relays send what they like.
    return undefined
  }
}
