/** Filters of NIP-01: parsed strictly, matched exactly. */
import { isHex64, type NostrEvent } from '../nostr-event.ts'

export interface Filter {
  readonly ids?: ReadonlySet<string>
  readonly authors?: ReadonlySet<string>
  readonly kinds?: ReadonlySet<number>
  readonly since?: number
  readonly until?: number
  readonly limit?: number
  /** Single-letter tags: name to the wanted values. */
  readonly tags: ReadonlyMap<string, ReadonlySet<string>>
}

const TAG_KEY = /^#[a-zA-Z]$/
const MAX_LIST = 5_000

const isKind = (value: unknown): value is number => typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 65_535
const isString = (value: unknown): value is string => typeof value === 'string'
const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

function setOf<T>(value: unknown, isItem: (item: unknown) => item is T): Set<T> | undefined {
  return Array.isArray(value) && value.length <= MAX_LIST && value.every(isItem) ? new Set(value) : undefined
}

/** The filter, or what is wrong with it. Fields that NIP-01 does not know are ignored. */
export function parseFilter(value: unknown): Filter | string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'a filter is not an object'
  const tags = new Map<string, Set<string>>()
  const filter: { -readonly [K in keyof Filter]: Filter[K] } = { tags }
  for (const [key, field] of Object.entries(value)) {
    if (key === 'ids' || key === 'authors') {
      const set = setOf(field, isHex64)
      if (set === undefined) return `${key} must be a list of 64 lowercase hex digits`
      filter[key] = set
    } else if (key === 'kinds') {
      const set = setOf(field, isKind)
      if (set === undefined) return 'kinds must be a list of integers from 0 to 65535'
      filter.kinds = set
    } else if (key === 'since' || key === 'until' || key === 'limit') {
      if (!isCount(field)) return `${key} must be a whole number`
      filter[key] = field
    } else if (TAG_KEY.test(key)) {
      const set = setOf(field, isString)
      if (set === undefined) return `${key} must be a list of strings`
      tags.set(key.slice(1), set)
    }
  }
  return filter
}

function hasTag(event: NostrEvent, name: string, values: ReadonlySet<string>): boolean {
  for (const tag of event.tags) if (tag[0] === name && tag[1] !== undefined && values.has(tag[1])) return true
  return false
}

/** Whether the event passes; `limit` plays no part (it bounds stored events only). */
export function matchesFilter(filter: Filter, event: NostrEvent): boolean {
  if (filter.kinds !== undefined && !filter.kinds.has(event.kind)) return false
  if (filter.since !== undefined && event.created_at < filter.since) return false
  if (filter.until !== undefined && event.created_at > filter.until) return false
  if (filter.authors !== undefined && !filter.authors.has(event.pubkey)) return false
  if (filter.ids !== undefined && !filter.ids.has(event.id)) return false
  for (const [name, values] of filter.tags) if (!hasTag(event, name, values)) return false
  return true
}
