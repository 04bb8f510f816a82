/**
 * What a failure of redeeming means, of a nutzap or a payment on a request: never, later, or a fault of this process, which changes
 * nothing. What a mint refuses, whatever it says, may be its own fault of the moment. Pure.
 */
import type { ErrorCode, PylonError } from '../../base/errors.ts'

/** What no later try makes better. */
const FINAL: readonly ErrorCode[] = [
  'token_invalid',
  'token_spent',
  'token_locked',
  'token_amount',
  'mint_not_allowed',
  'idempotency_conflict',
]
/** A mint or bunker that is away, or has not said yet what became of the swap: for as long as it takes. */
const PATIENT: readonly ErrorCode[] = [
  'mint_unreachable',
  'payment_unknown',
  'mint_cap_exceeded',
  'locked',
  'bunker_unreachable',
  'bunker_approval',
]
/** Of the rest: days of it, since tries grow rare. */
const MAX_TRIES = 100

/** Ended with the process, or with its disk: the claim stands, and the next look goes on. */
export const mayCome = ({ code }: PylonError): boolean => code === 'shutting_down' || code === 'disk_full' || code === 'database_busy'

export const isFinalRefusal = ({ code }: PylonError, tries: number): boolean =>
  FINAL.includes(code) || (!PATIENT.includes(code) && tries >= MAX_TRIES)
