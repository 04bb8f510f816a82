/**
 * What a key says of itself, merged into what it said before, wherever and with whatever program that was: profile (0), relay list
 * (10002), DM relays (10050), how it takes nutzaps (10019). What the owner did not set here stays as it is, unknown fields and tags included. Pure.
 */
import { isRecord, parseJson } from '../../base/json.ts'
import { tagValue } from '../nips/nip01.ts'
import { nutzapInfoTags } from '../nips/nip61.ts'
import { tryRelayUrl } from '../relay/relay-url.ts'
import type { EventTemplate } from '../types.ts'

export interface OwnWords {
  /** Fields of kind 0 that the owner set; an empty one is to be removed. */
  readonly set: Readonly<Record<string, string>>
  /** What is said where there is no profile yet. */
  readonly defaults: Readonly<Record<string, string | boolean>>
  /** Where zaps come in, when the profile names no other place. */
  readonly lud06: string | undefined
  readonly relays: readonly string[]
  /** How it takes nutzaps (NIP-61): its mints, and the x-only key of its wallet. Undefined: not by us. */
  readonly nutzaps?: OwnNutzaps | undefined
}

interface OwnNutzaps {
  readonly mints: readonly string[]
  readonly lockPubkey: string
}

/** What of it was said by us last: only that is ours to change or to take back. */
export interface Said {
  readonly fields: Readonly<Record<string, unknown>>
  readonly relays: readonly string[]
  readonly dmRelays: readonly string[]
  /** Absent: nothing of nutzaps. */
  readonly nutzaps?: (OwnNutzaps & { readonly relays: readonly string[] }) | undefined
  /** There was a profile before ours. */
  readonly isAdopted: boolean
}

export const NOTHING_SAID: Said = { fields: {}, relays: [], dmRelays: [], isAdopted: false }

type Found = Pick<EventTemplate, 'tags' | 'content'> | undefined
type Body = Pick<EventTemplate, 'tags' | 'content'>

export interface Merged<T> {
  readonly body: Body
  /** What of it is ours. */
  readonly ours: T
}

export function mergeProfile(found: Found, own: OwnWords, said: Said): Merged<Record<string, unknown>> {
  const before = profileIn(found)
  const fields: Record<string, unknown> = { ...before }
  const ours: Record<string, unknown> = {}
  const wasOurs = (key: string) => key in said.fields && before[key] === said.fields[key]
  const wanted = wantedFields(own, said, before)
  for (const key of Object.keys(said.fields)) if (!(key in wanted) && wasOurs(key)) delete fields[key]
  for (const [key, value] of Object.entries(wanted)) {
    const isNew = said.fields[key] !== value
    // Set here and changed elsewhere since: the later word stays.
    ours[key] = value
    if (!isNew && key in before && before[key] !== value) continue
    if (value === '') delete fields[key]
    else fields[key] = value
  }
  const content = JSON.stringify(fields)
  // As it was written, where nothing changes.
  const isSame = found !== undefined && content === JSON.stringify(before)
  return { body: { tags: found?.tags ?? [], content: isSame ? found.content : content }, ours }
}

/** The fields that we want to stand in the profile. */
function wantedFields(own: OwnWords, said: Said, before: Record<string, unknown>): Record<string, string | boolean> {
  const isFree = (key: string) => !(key in before) || (key in said.fields && before[key] === said.fields[key])
  const hasAddress = 'lud16' in own.set ? own.set['lud16'] !== '' : !isFree('lud16') || !isFree('lud06')
  const defaults = Object.entries(own.defaults).filter(([key]) => !said.isAdopted && isFree(key))
  return {
    ...Object.fromEntries(defaults),
    ...(own.lud06 === undefined || hasAddress ? {} : { lud06: own.lud06 }),
    ...own.set,
  }
}

function profileIn(found: Found): Record<string, unknown> {
  const parsed = found === undefined ? undefined : parseJson(found.content)
  return isRecord(parsed) ? parsed : {}
}

/** Our relays are added for reading and writing, those that we added before and use no more are taken out, the others stay. */
export function mergeRelayList(found: Found, relays: readonly string[], said: Said): Merged<string[]> {
  return mergeTags('r', found, relays, said.relays, (url, there) => {
    const modes = there.map((tag) => tag[2])
    if (modes.some((mode) => mode !== 'read' && mode !== 'write')) return []
    const missing = ['read', 'write'].filter((mode) => !modes.includes(mode))
    return missing.length === 2 ? [['r', url]] : missing.map((mode) => ['r', url, mode])
  })
}

export function mergeDmRelays(found: Found, relays: readonly string[], said: Said): Merged<string[]> {
  return mergeTags('relay', found, relays, said.dmRelays, (url, there) => (there.length > 0 ? [] : [['relay', url]]))
}

/**
 * How the key takes nutzaps. There is one key to lock to: where another stands there, another wallet takes them, and nothing is ours
 * to change. With our key, mints and relays that others added stay; what we said and want no more is taken back.
 */
export function mergeNutzaps(
  found: Found,
  relays: readonly string[],
  own: OwnNutzaps | undefined,
  said: Said['nutzaps'],
): Merged<Said['nutzaps']> {
  const there = found === undefined ? undefined : tagValue(found, 'pubkey')
  const body = { tags: found?.tags ?? [], content: found?.content ?? '' }
  if (there !== undefined && there !== own?.lockPubkey && there !== said?.lockPubkey) return { body, ours: undefined }
  const before = said === undefined ? [] : nutzapInfoTags(said)
  const wanted = own === undefined ? [] : nutzapInfoTags({ ...own, relays })
  const isSame = (a: readonly string[], b: readonly string[]) => a[0] === b[0] && (a[0] === 'pubkey' || a[1] === b[1])
  const kept = body.tags.filter((tag) => wanted.some((mine) => isSame(mine, tag)) || !before.some((mine) => isSame(mine, tag)))
  const missing = wanted.filter((mine) => !kept.some((tag) => isSame(mine, tag)))
  const tags = kept.map((tag) => (tag[0] === 'pubkey' && own !== undefined ? ['pubkey', own.lockPubkey] : tag))
  return { body: { ...body, tags: [...tags, ...missing] }, ours: own === undefined ? undefined : { ...own, relays } }
}

function mergeTags(
  name: string,
  found: Found,
  relays: readonly string[],
  added: readonly string[],
  tagsFor: (url: string, there: readonly (readonly string[])[]) => string[][],
): Merged<string[]> {
  const urlOf = (tag: readonly string[]) => (tag[0] === name ? tryRelayUrl(tag[1] ?? '') : undefined)
  const gone = new Set(added.filter((url) => !relays.includes(url)))
  const tags = (found?.tags ?? []).filter((tag) => !gone.has(urlOf(tag) ?? ''))
  const ours: string[] = []
  const more: string[][] = []
  for (const url of relays) {
    const there = tags.filter((tag) => urlOf(tag) === url)
    more.push(...tagsFor(url, there))
    if (there.length === 0 || added.includes(url)) ours.push(url)
  }
  return { body: { tags: [...tags, ...more], content: found?.content ?? '' }, ours }
}
