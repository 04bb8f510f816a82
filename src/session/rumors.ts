/** What is inside of a group's messages: events without a signature (MIP-03). */
import { PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import { eventId, identify, parseIdentified } from '../nostr/nips/nip01.ts'
import type { IdentifiedEvent } from '../nostr/types.ts'
import type { Said } from './types.ts'

/** NIP-C7. */
const CHAT_KIND = 9
/** So that the event that carries it stays below what relays and doors take. */
const MAX_BYTES = 40_960

/** @param number how many things we have said in this group, with this one @param atS unix seconds @throws session_refused */
export function rumorOf(author: string, { content, kind = CHAT_KIND, tags = [] }: Said, number: number, atS: number): IdentifiedEvent {
  const rumor = identify(author, { kind, created_at: atS, tags: [...tags, ['seq', String(number)]], content })
  if (Buffer.byteLength(JSON.stringify(rumor)) > MAX_BYTES) {
    throw new PylonError('session_refused', `A message holds at most ${MAX_BYTES / 1024} KiB; say it in parts.`)
  }
  return rumor
}

/** What a member said, or what is wrong with it. @param sender the member whose leaf sent it */
export function readRumor(bytes: Uint8Array, sender: string): IdentifiedEvent | string {
  const value = parseJson(Buffer.from(bytes).toString())
  if (typeof value !== 'object' || value === null) return 'it is no event'
  if ('sig' in value) return 'it is signed: whoever got it could publish it'
  let rumor: IdentifiedEvent
  try {
    rumor = parseIdentified('id' in value ? value : { ...value, id: eventId(value as IdentifiedEvent) })
  } catch {
    // Said in our words: whoever wrote it does not hear of it.
    return 'it is a malformed event'
  }
  if (rumor.pubkey !== sender) return 'it names another author than the member who sent it'
  if (eventId(rumor) !== rumor.id) return 'its id is wrong'
  return rumor.tags.some(([name]) => name === 'h') ? 'it names the group inside (h tag)' : rumor
}
