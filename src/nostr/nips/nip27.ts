/** NIP-27: people named in a text, as `nostr:npub1...` or `nostr:nprofile1...`, also without the scheme or with an `@`. */
import { parsePubkey } from './nip19.ts'

const NAMED = /(?<![a-z0-9])(?:npub1[a-z0-9]{58}|nprofile1[a-z0-9]{20,1000})(?![a-z0-9])/gi
/** Texts of strangers may be all names: what is decoded has a bound. */
const MAX_DECODED = 50

/** Their keys in order, each once, at most `most`. */
export function peopleNamed(text: string, most: number): string[] {
  const people = new Set<string>()
  let decoded = 0
  for (const match of text.matchAll(NAMED)) {
    if (people.size >= most || ++decoded > MAX_DECODED) break
    try {
      people.add(parsePubkey(match[0].toLowerCase()))
    } catch {
      // Not a key: plain text.
    }
  }
  return [...people]
}
