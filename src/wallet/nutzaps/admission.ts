/** Whether a nutzap may be redeemed at all, said without asking anybody: its shape, its mint, its locks. Pure. */
import type { ErrorCode } from '../../base/errors.ts'
import { type Nutzap, parseNutzap } from '../../nostr/nips/nip61.ts'
import type { NostrEvent } from '../../nostr/types.ts'
import { lockOf } from '../ecash/locks.ts'
import { normaliseMintUrl } from '../ecash/token.ts'

export interface NutzapTaker {
  /** The Nostr key. */
  readonly pubkey: string
  /** x-only: the key of its wallet. */
  readonly lockPubkey: string
  /** Of the list, normalised. */
  readonly mints: readonly string[]
}

export type NutzapAdmission =
  | { readonly ok: true; readonly nutzap: Nutzap; readonly mintUrl: string }
  | { readonly ok: false; readonly code: ErrorCode; readonly reason: string }

const refuse = (code: ErrorCode, reason: string): NutzapAdmission => ({ ok: false, code, reason })

/** What is proven of it only its mint can say. */
export function admitNutzap(event: NostrEvent, taker: NutzapTaker): NutzapAdmission {
  const nutzap = parseNutzap(event)
  if (typeof nutzap === 'string') return refuse('token_invalid', nutzap)
  if (nutzap.recipient !== taker.pubkey) return refuse('token_invalid', 'it is for another key')
  const mintUrl = mintAmong(nutzap.mintUrl, taker.mints)
  if (mintUrl === undefined) return refuse('mint_not_allowed', 'its mint is not on our list')
  // Not merely that we can spend it: nobody else may, now or later.
  const fault = nutzap.proofs.map(({ secret }) => faultOfLock(secret, taker.lockPubkey)).find((found) => found !== undefined)
  return fault === undefined ? { ok: true, nutzap, mintUrl } : refuse('token_locked', fault)
}

function faultOfLock(secret: string, lockPubkey: string): string | undefined {
  const lock = lockOf(secret)
  if (lock.type === 'none') return 'a proof is not locked: everybody could take it'
  if (lock.type === 'unsupported') return `of a proof ${lock.reason}`
  if (lock.kind !== 'P2PK') return 'a proof has a hash lock'
  if (lock.keys.length !== 1 || lock.keys[0] !== lockPubkey) return 'a proof is locked to another key'
  return lock.locktime === undefined && lock.refundKeys.length === 0
    ? undefined
    : 'a proof can be taken back by others (locktime or refund keys)'
}

/** The mint of the list that is meant. @param named as a stranger writes it */
export function mintAmong(named: string, mints: readonly string[]): string | undefined {
  if (mints.includes(named)) return named
  if (!URL.canParse(named) || !/^https?:/i.test(named)) return undefined
  const url = normaliseMintUrl(named)
  return mints.includes(url) ? url : undefined
}
