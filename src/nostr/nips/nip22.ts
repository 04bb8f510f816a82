/** NIP-22: comments (1111) on anything that is no short note; replies to short notes are NIP-10. */
import type { IdentifiedEvent } from '../types.ts'
import { isAddressable, isReplaceable, tagValue } from './nip01.ts'

export const COMMENT_KIND = 1111

/** What a comment names as the root of its thread, and what of it a comment on it repeats. */
const ROOT_TAGS: ReadonlySet<string> = new Set(['E', 'A', 'I', 'K', 'P'])

/** The tags of a comment on `parent`: the root in capitals, the parent in small letters. */
export function commentTags(parent: IdentifiedEvent, author: string): string[][] {
  const item = pointersTo(parent)
  const isComment = parent.kind === COMMENT_KIND
  const copied = parent.tags.filter((tag) => ROOT_TAGS.has(tag[0] ?? '') && (tag[1] ?? '') !== '').map((tag) => [...tag])
  // A comment that names no root is its own.
  const root = isComment && copied.some(([name]) => name === 'E' || name === 'A' || name === 'I') ? copied : item.map(capital)
  const told = parent.pubkey === author ? item.filter((tag) => tag[0] !== 'p') : item
  return [...root, ...told]
}

const capital = ([name = '', ...rest]: readonly string[]): string[] => [name.toUpperCase(), ...rest]

function pointersTo(event: IdentifiedEvent): string[][] {
  const hasName = isAddressable(event.kind)
  const d = hasName ? (tagValue(event, 'd') ?? '') : ''
  const address = hasName || isReplaceable(event.kind) ? [['a', `${event.kind}:${event.pubkey}:${d}`, '']] : []
  return [...address, ['e', event.id, '', event.pubkey], ['k', String(event.kind)], ['p', event.pubkey]]
}
