/** NIP-19: keys and pointers as people write them. */
import { decode, noteEncode, nprofileEncode, npubEncode, nsecEncode } from 'nostr-tools/nip19'
import { PylonError } from '../../base/errors.ts'
import { isHex64 } from './nip01.ts'

export const npubOf = (pubkey: string): string => npubEncode(pubkey)
/** A key with relays where it is found. */
export const nprofileOf = (pubkey: string, relays: readonly string[]): string => nprofileEncode({ pubkey, relays: [...relays] })
export const nsecOf = (secret: Uint8Array): string => nsecEncode(secret)
export const noteOf = (eventId: string): string => noteEncode(eventId)

/** What the bech32 text says, or undefined. The longest nprofile worth reading has 5,000 characters. */
function tryDecode(text: string): ReturnType<typeof decode> | undefined {
  if (text.length > 5000) return undefined
  try {
    return decode(text)
  } catch {
    // No bech32 text.
    return undefined
  }
}

/** npub, nprofile (also with `nostr:`) or 64 hex digits, as hex. @throws pubkey_invalid */
export function parsePubkey(text: string): string {
  const bare = text.trim().replace(/^nostr:/, '')
  if (isHex64(bare.toLowerCase())) return bare.toLowerCase()
  const decoded = tryDecode(bare)
  if (decoded?.type === 'npub') return decoded.data
  if (decoded?.type === 'nprofile') return decoded.data.pubkey
  throw new PylonError('pubkey_invalid', `${JSON.stringify(text.slice(0, 80))} is not an npub or 64 hex digits.`)
}

const MAX_HINTS = 3

/** The relays that an nprofile or nevent names; none where the text is no such pointer. */
export function relayHints(text: string): string[] {
  const decoded = tryDecode(text.trim().replace(/^nostr:/, ''))
  const relays = decoded?.type === 'nprofile' || decoded?.type === 'nevent' ? (decoded.data.relays ?? []) : []
  return relays.filter((url) => url.length <= 512).slice(0, MAX_HINTS)
}

/** nsec or 64 hex digits, as 32 bytes. @throws identity_invalid (the text is not repeated) */
export function parseSecret(text: string): Uint8Array {
  const bare = text.trim()
  if (isHex64(bare.toLowerCase())) return new Uint8Array(Buffer.from(bare, 'hex'))
  const decoded = tryDecode(bare)
  if (decoded?.type === 'nsec') return decoded.data
  throw new PylonError('identity_invalid', 'Expected an nsec or 64 hex digits.')
}

/** note, nevent (also with `nostr:`) or 64 hex digits: the id and hints. @throws invalid_request */
export function parseEventPointer(text: string): { id: string; relays: readonly string[]; author: string | undefined } {
  const bare = text.trim().replace(/^nostr:/, '')
  if (isHex64(bare.toLowerCase())) return { id: bare.toLowerCase(), relays: [], author: undefined }
  const decoded = tryDecode(bare)
  if (decoded?.type === 'note') return { id: decoded.data, relays: [], author: undefined }
  if (decoded?.type === 'nevent') return { id: decoded.data.id, relays: decoded.data.relays ?? [], author: decoded.data.author }
  throw new PylonError('invalid_request', `${JSON.stringify(text.slice(0, 80))} is not a note, nevent or 64 hex digits.`)
}
