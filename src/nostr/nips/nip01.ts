/** NIP-01: ids, shapes, kinds and filters. */
import { hash } from 'node:crypto'
import { PylonError } from '../../base/errors.ts'
import { isRecord } from '../../base/json.ts'
import { type Random, randomHex } from '../../base/random.ts'
import type { EventTemplate, Filter, IdentifiedEvent, NostrEvent, UnsignedEvent } from '../types.ts'

const HEX_64 = /^[0-9a-f]{64}$/
const HEX_128 = /^[0-9a-f]{128}$/
const MAX_KIND = 65_535
const MAX_TAGS = 2000
const MAX_TAG_VALUES = 1000
/** Of one text: what a frame may hold, since whoever reads a kind knows better what is too long, and may say so. */
const MAX_TEXT_CHARS = 2 * 1024 * 1024

export const isHex64 = (value: unknown): value is string => typeof value === 'string' && HEX_64.test(value)

/** sha256 of `[0,pubkey,created_at,kind,tags,content]` as hex. */
export function eventId(event: UnsignedEvent): string {
  return hash('sha256', JSON.stringify([0, event.pubkey, event.created_at, event.kind, event.tags, event.content]))
}

/** The event of that key with its id fixed; a signature may come later. */
export function identify(pubkey: string, template: EventTemplate): IdentifiedEvent {
  const { kind, created_at, tags, content } = template
  const unsigned = { pubkey, created_at, kind, tags, content }
  return { id: eventId(unsigned), ...unsigned }
}

/** A tag that makes an event one of its own: the same words in the same second are two events. (`nonce` is NIP-13's.) */
export const saltTag = (random: Random): string[] => ['salt', randomHex(random, 8)]

export const isSigned = (event: IdentifiedEvent): event is NostrEvent => 'sig' in event && typeof event.sig === 'string'

/** What is wrong with the tags, or undefined. */
function faultOfTags(tags: unknown): string | undefined {
  if (!Array.isArray(tags)) return 'tags are not an array'
  if (tags.length > MAX_TAGS) return `there are more than ${MAX_TAGS} tags`
  for (const tag of tags as unknown[]) {
    if (!Array.isArray(tag) || tag.length === 0 || tag.length > MAX_TAG_VALUES) return 'a tag is not an array of strings'
    for (const value of tag as unknown[]) {
      if (typeof value !== 'string') return 'a tag is not an array of strings'
      if (value.length > MAX_TEXT_CHARS) return 'a tag value is too long'
    }
  }
  return undefined
}

/** What is wrong with the fields that an unsigned event has, or undefined. */
function faultOfFields(value: Record<string, unknown>): string | undefined {
  const { id, pubkey, created_at, kind, content } = value
  if (!isHex64(id)) return 'id is not 64 lowercase hex digits'
  if (!isHex64(pubkey)) return 'pubkey is not 64 lowercase hex digits'
  if (typeof created_at !== 'number' || !Number.isSafeInteger(created_at) || created_at < 0) return 'created_at is not unix seconds'
  if (typeof kind !== 'number' || !Number.isInteger(kind) || kind < 0 || kind > MAX_KIND) return 'kind is not 0 to 65535'
  if (typeof content !== 'string') return 'content is not a string'
  if (content.length > MAX_TEXT_CHARS) return 'content is too long'
  return faultOfTags(value['tags'])
}

/** Exactly the seven fields, within our caps, no cryptography yet. @throws event_invalid */
export function parseEvent(value: unknown): NostrEvent {
  const event = parseIdentified(value)
  const sig = (value as { sig?: unknown }).sig
  if (typeof sig !== 'string' || !HEX_128.test(sig)) throw new PylonError('event_invalid', 'sig is not 128 lowercase hex digits.')
  return { ...event, sig }
}

/** The six fields of an event whose signature does not matter or is absent (a rumor). @throws event_invalid */
export function parseIdentified(value: unknown): IdentifiedEvent {
  if (!isRecord(value)) throw new PylonError('event_invalid', 'The event is not an object.')
  const fault = faultOfFields(value)
  if (fault !== undefined) throw new PylonError('event_invalid', `The event is malformed: ${fault}.`)
  const { id, pubkey, created_at, kind, tags, content } = value as Record<string, unknown> & IdentifiedEvent
  return { id, pubkey, created_at, kind, tags, content }
}

export const isReplaceable = (kind: number): boolean => kind === 0 || kind === 3 || (kind >= 10_000 && kind < 20_000)
export const isEphemeral = (kind: number): boolean => kind >= 20_000 && kind < 30_000
export const isAddressable = (kind: number): boolean => kind >= 30_000 && kind < 40_000

type Tagged = Pick<EventTemplate, 'tags'>

/** The first value of the first tag of that name. */
export function tagValue(event: Tagged, name: string): string | undefined {
  for (const tag of event.tags) if (tag[0] === name) return tag[1]
  return undefined
}

/** The first values of all tags of that name. */
export function tagValues(event: Tagged, name: string): string[] {
  const values: string[] = []
  for (const tag of event.tags) if (tag[0] === name && tag[1] !== undefined) values.push(tag[1])
  return values
}

/** Whether a newer event wins over an older one of the same address: by created_at, then the lowest id. */
export function supersedes(event: IdentifiedEvent, other: IdentifiedEvent): boolean {
  return event.created_at > other.created_at || (event.created_at === other.created_at && event.id < other.id)
}

export function matchesFilter(filter: Filter, event: IdentifiedEvent): boolean {
  if (filter.ids !== undefined && !filter.ids.includes(event.id)) return false
  if (filter.kinds !== undefined && !filter.kinds.includes(event.kind)) return false
  if (filter.authors !== undefined && !filter.authors.includes(event.pubkey)) return false
  if (filter.since !== undefined && event.created_at < filter.since) return false
  if (filter.until !== undefined && event.created_at > filter.until) return false
  for (const key in filter) {
    if (key[0] !== '#') continue
    const wanted = filter[key as `#${string}`]
    if (wanted === undefined) continue
    const name = key.slice(1)
    if (!event.tags.some((tag) => tag[0] === name && tag[1] !== undefined && wanted.includes(tag[1]))) return false
  }
  return true
}

export const matchesAny = (filters: readonly Filter[], event: IdentifiedEvent): boolean =>
  filters.some((filter) => matchesFilter(filter, event))
