/** What a test's own store of events answers where the Nostr layer would look for lists and profiles. */
import { supersedes } from '../../src/nostr/nips/nip01.ts'
import type { Newest, NostrEvent } from '../../src/nostr/types.ts'

export function newestAmong(events: Iterable<NostrEvent>, pubkey: string, kinds: readonly number[], answered: readonly string[]): Newest {
  const newest = new Map<number, NostrEvent>()
  for (const event of events) {
    const other = newest.get(event.kind)
    if (event.pubkey !== pubkey || !kinds.includes(event.kind)) continue
    if (other === undefined || supersedes(event, other)) newest.set(event.kind, event)
  }
  return { events: newest, answered, write: [], isSure: answered.length > 0 }
}
