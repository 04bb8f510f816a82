/** Signatures: one verifier, and never the same signature twice. */
import { verifySchnorr } from 'tiny-secp256k1'
import { LruMap } from '../../base/lru.ts'
import { inlineMoreWasm } from '../../base/wasm-inlining.ts'
import { eventId } from '../nips/nip01.ts'
import type { NostrEvent } from '../types.ts'

export interface Verifier {
  /** Which implementation computes, for `status`. */
  readonly name: string
  /** Whether id and signature hold. The shape must have been checked (`parseEvent`). */
  verify(event: NostrEvent): boolean
}

/** Events whose signature was computed and held. */
const REMEMBERED = 20_000

export function createVerifier(): Verifier {
  inlineMoreWasm()
  const good = new LruMap<string, string>(REMEMBERED)
  return {
    name: 'wasm',
    verify(event) {
      // The id is always computed: it is cheap, and an id alone says nothing about the fields that came with it.
      if (eventId(event) !== event.id) return false
      if (good.get(event.id) === event.sig) return true
      if (!holds(event)) return false
      good.set(event.id, event.sig)
      return true
    },
  }
}

function holds(event: NostrEvent): boolean {
  try {
    return verifySchnorr(Buffer.from(event.id, 'hex'), Buffer.from(event.pubkey, 'hex'), Buffer.from(event.sig, 'hex'))
  } catch {
    // The pubkey is not a point, or the signature is out of range.
    return false
  }
}
