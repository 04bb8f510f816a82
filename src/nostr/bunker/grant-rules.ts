/** What a client of the bunker may do. Pure. */

import type { BunkerGrant } from '../../store/nostr/bunker.ts'
import { isBunkerMethod } from '../nips/nip46.ts'

/** A request that comes later than this is not acted on, nor one of so far ahead of our clock. */
export const STALE_S = 300
/** A string whose secret nobody used so long is used up. */
export const UNUSED_MS = 24 * 3_600_000

/**
 * Kinds that say who a key is, take back what it said, prove it to servers, move its money or command nodes: signed only for whom they
 * were named. By range: from, to.
 */
const BY_NAME_ONLY: readonly (readonly [number, number])[] = [
  [0, 0], // NIP-01 profile
  [3, 3], // NIP-02 follows
  [5, 5], // NIP-09 deletion
  [62, 62], // NIP-62 request to vanish
  [443, 445], // Marmot: key packages, welcomes, group events
  [5000, 7999], // NIP-90 jobs; NIP-60 ecash (7374 to 7376)
  [9321, 9321], // NIP-61 nutzap
  [9734, 9735], // NIP-57 zaps
  [10_000, 19_999], // lists of the key itself: relays (10002, 10050), mints (10019), wallets (13194, 17375), key packages
  [22_242, 22_242], // NIP-42 authentication to relays
  [23_194, 23_197], // NIP-47 wallet connect
  [24_133, 24_133], // NIP-46 itself
  [24_242, 24_242], // authentication to media servers
  [24_910, 24_913], // control plane of machines
  [27_235, 27_235], // NIP-98 authentication to web servers
  [30_443, 30_443], // Marmot key packages
  [31_989, 31_990], // NIP-89 announcements
]

export const isByNameOnly = (kind: number): boolean => BY_NAME_ONLY.some(([from, to]) => kind >= from && kind <= to)

export const mayBeSigned = (kind: number, kinds: readonly number[] | null): boolean =>
  kinds === null ? !isByNameOnly(kind) : kinds.includes(kind)

export type GrantState = 'waiting' | 'active' | 'expired' | 'revoked'

/** Waiting: for the client that brings the secret. */
export function stateOf(grant: BunkerGrant, nowMs: number): GrantState {
  if (grant.revokedAt !== null) return 'revoked'
  if (grant.expiresAt !== null && grant.expiresAt <= nowMs) return 'expired'
  if (grant.clientPubkey !== null) return 'active'
  return grant.createdAt + UNUSED_MS <= nowMs ? 'expired' : 'waiting'
}

/** Answered to every client that has a connection: who we are, and that we are there. */
const ALWAYS = ['connect', 'ping', 'get_public_key', 'switch_relays', 'logout']

/** Why a request of the grant's own client is refused whatever is in it; undefined where it is taken. */
export function refusalOf(grant: BunkerGrant, asked: { method: string; createdAtS: number }, nowMs: number): string | undefined {
  const state = stateOf(grant, nowMs)
  if (state !== 'active') return `unauthorized: the connection ${state === 'revoked' ? 'was revoked by its owner' : 'has expired'}`
  if (Math.abs(asked.createdAtS - nowMs / 1000) > STALE_S)
    return `stale: the request is dated more than ${STALE_S} seconds from now; nothing was done: send a new one, and look at your clock`
  if (ALWAYS.includes(asked.method)) return undefined
  if (!isBunkerMethod(asked.method)) return `unsupported: this bunker does not do ${asked.method.slice(0, 60)}`
  if (!grant.methods.includes(asked.method)) return `forbidden: this connection may not use ${asked.method}`
  return undefined
}
