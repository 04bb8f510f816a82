/** Whether a request over NIP-47 is taken at all, and what an error is called there. Pure. */
import type { ErrorCode, PylonError } from '../../base/errors.ts'
import { isNwcMethod, type NwcError, type NwcErrorCode } from '../../nostr/nips/nip47.ts'
import type { NwcConnection } from '../../store/money/nwc-service.ts'

/** A request that comes later than this is not acted on: whoever sent it has long given it up, or somebody plays it again. */
export const STALE_S = 300
/** How far before the making of its connection a request may be dated, by a clock that is slow. */
const SLOW_CLOCK_S = 60

export interface Asked {
  /** Who asks. */
  readonly pubkey: string
  /** Unix seconds, as the sender says. */
  readonly createdAtS: number
  readonly method: string
}

/** Why a request is refused whatever it asks; undefined where it is taken. */
export function refusalOf(connection: NwcConnection, asked: Asked, nowMs: number): NwcError | undefined {
  const { clientPubkey, revokedAt, expiresAt, createdAt, methods } = connection
  if (asked.pubkey !== clientPubkey) return refused('UNAUTHORIZED', 'This key has no wallet here.')
  if (revokedAt !== null) return refused('UNAUTHORIZED', 'The connection was revoked by the owner of the wallet.')
  if (expiresAt !== null && expiresAt <= nowMs) return refused('UNAUTHORIZED', 'The connection has expired.')
  if (asked.createdAtS < createdAt / 1000 - SLOW_CLOCK_S) return refused('OTHER', 'The request is older than the connection.')
  if (asked.createdAtS < nowMs / 1000 - STALE_S)
    return refused('OTHER', `The request is older than ${STALE_S} seconds: nothing was done. Send a new one, and look at your clock.`)
  if (!isNwcMethod(asked.method)) return refused('NOT_IMPLEMENTED', `This wallet does not do ${asked.method.slice(0, 60)}.`)
  if (!methods.includes(asked.method)) return refused('RESTRICTED', `This connection may not use ${asked.method}.`)
  return undefined
}

export const refused = (code: NwcErrorCode, message: string): NwcError => ({ code, message })

const CODES: Partial<Record<ErrorCode, NwcErrorCode>> = {
  insufficient_funds: 'INSUFFICIENT_BALANCE',
  funds_owed: 'INSUFFICIENT_BALANCE',
  budget_exceeded: 'QUOTA_EXCEEDED',
  spend_refused: 'RESTRICTED',
  nwc_revoked: 'UNAUTHORIZED',
  action_refused: 'RESTRICTED',
  payment_failed: 'PAYMENT_FAILED',
  mint_unreachable: 'PAYMENT_FAILED',
  mint_rejected: 'PAYMENT_FAILED',
  not_found: 'NOT_FOUND',
  internal: 'INTERNAL',
  locked: 'INTERNAL',
  no_mint: 'INTERNAL',
}

/** Only what surely spent nothing may come here. */
export const errorFor = ({ code, message }: PylonError): NwcError => ({ code: CODES[code] ?? 'OTHER', message })
