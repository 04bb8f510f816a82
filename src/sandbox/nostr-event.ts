/** Nostr events as the sandbox needs them: shape, id, signature, signing, and the classes of kinds (NIP-01). */
import { hash } from 'node:crypto'
import { signSchnorr, verifySchnorr, xOnlyPointFromScalar } from 'tiny-secp256k1'
import { isRecord } from '../base/json.ts'

export interface NostrEvent {
  readonly id: string
  readonly pubkey: string
  readonly created_at: number
  readonly kind: number
  readonly tags: readonly (readonly string[])[]
  readonly content: string
  readonly sig: string
}

export type UnsignedEvent = Omit<NostrEvent, 'id' | 'pubkey' | 'sig'>

const HEX_64 = /^[0-9a-f]{64}$/
const HEX_128 = /^[0-9a-f]{128}$/
const MAX_KIND = 65_535

export const isHex64 = (value: unknown): value is string => typeof value === 'string' && HEX_64.test(value)
const isSeconds = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

function isTags(value: unknown): value is string[][] {
  if (!Array.isArray(value)) return false
  for (const tag of value) {
    if (!Array.isArray(tag) || tag.length === 0) return false
    for (const item of tag) if (typeof item !== 'string') return false
  }
  return true
}

/** The event with exactly the seven fields of NIP-01, or what is wrong with it. Checks shape only. */
export function parseEvent(value: unknown): NostrEvent | string {
  if (!isRecord(value)) return 'the event is not an object'
  const { id, pubkey, created_at, kind, tags, content, sig } = value
  if (!isHex64(id)) return 'id is not 64 lowercase hex digits'
  if (!isHex64(pubkey)) return 'pubkey is not 64 lowercase hex digits'
  if (!isSeconds(created_at)) return 'created_at is not a whole number of seconds'
  if (typeof kind !== 'number' || !Number.isInteger(kind) || kind < 0 || kind > MAX_KIND) return 'kind is not 0 to 65535'
  if (!isTags(tags)) return 'tags are not arrays of strings'
  if (typeof content !== 'string') return 'content is not a string'
  if (typeof sig !== 'string' || !HEX_128.test(sig)) return 'sig is not 128 lowercase hex digits'
  return { id, pubkey, created_at, kind, tags, content, sig }
}

/** sha256 of `[0,pubkey,created_at,kind,tags,content]` as hex (NIP-01). */
export function eventId(event: Omit<NostrEvent, 'id' | 'sig'>): string {
  return hash('sha256', JSON.stringify([0, event.pubkey, event.created_at, event.kind, event.tags, event.content]))
}

/** What is wrong with id or signature, or undefined when both hold. */
export function verifyEvent(event: NostrEvent): string | undefined {
  if (eventId(event) !== event.id) return 'the id is not the hash of the event'
  try {
    const ok = verifySchnorr(Buffer.from(event.id, 'hex'), Buffer.from(event.pubkey, 'hex'), Buffer.from(event.sig, 'hex'))
    return ok ? undefined : 'the signature does not verify'
  } catch {
    return 'the pubkey is not a point on the curve'
  }
}

/** The signed event of the holder of `secretKey` (32 bytes). */
export function signEvent(template: UnsignedEvent, secretKey: Uint8Array): NostrEvent {
  const { created_at, kind, tags, content } = template
  const unsigned = { pubkey: Buffer.from(xOnlyPointFromScalar(secretKey)).toString('hex'), created_at, kind, tags, content }
  const id = eventId(unsigned)
  return { id, ...unsigned, sig: Buffer.from(signSchnorr(Buffer.from(id, 'hex'), secretKey)).toString('hex') }
}

export const isEphemeral = (kind: number): boolean => kind >= 20_000 && kind < 30_000
export const isAddressable = (kind: number): boolean => kind >= 30_000 && kind < 40_000
export const isReplaceable = (kind: number): boolean => kind === 0 || kind === 3 || (kind >= 10_000 && kind < 20_000)

/** The first value of the first tag of that name. */
export function tagValue(event: Pick<NostrEvent, 'tags'>, name: string): string | undefined {
  for (const tag of event.tags) if (tag[0] === name) return tag[1]
  return undefined
}

/** When the event expires, in unix seconds (NIP-40); undefined when it never does or the tag is no number. */
export function expirationOf(event: NostrEvent): number | undefined {
  const value = tagValue(event, 'expiration')
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}
