/** NIP-10: the tags of a reply. */
import type { IdentifiedEvent } from '../types.ts'

/** People mentioned in a thread beyond this many are not notified again. */
const MAX_PEOPLE = 20

/** Marked e tags (root, reply) and p tags of everyone in the parent, without the one who replies. */
export function replyTags(parent: IdentifiedEvent, author: string, relayHint = ''): string[][] {
  const root = parent.tags.find((tag) => tag[0] === 'e' && tag[3] === 'root')
  const first = parent.tags.find((tag) => tag[0] === 'e' && tag[3] !== 'mention')
  const rootId = root?.[1] ?? first?.[1]
  const rootHint = root?.[2] ?? first?.[2] ?? ''
  const events =
    rootId === undefined
      ? [['e', parent.id, relayHint, 'root', parent.pubkey]]
      : [
          ['e', rootId, rootHint, 'root'],
          ['e', parent.id, relayHint, 'reply', parent.pubkey],
        ]
  const people = new Set([parent.pubkey])
  for (const tag of parent.tags) if (tag[0] === 'p' && tag[1] !== undefined && people.size < MAX_PEOPLE) people.add(tag[1])
  people.delete(author)
  return [...events, ...[...people].map((pubkey) => ['p', pubkey])]
}
