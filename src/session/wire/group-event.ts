/** Group events (kind 445, MIP-03): what an MLS message is wrapped in, under a key of its epoch, signed by a key that is thrown away. */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { type Random, randomHex } from '../../base/random.ts'
import { isHex64, tagValues } from '../../nostr/nips/nip01.ts'
import { freshSigner } from '../../nostr/nips/nip59.ts'
import type { NostrEvent } from '../../nostr/types.ts'
import { openLegacy } from './legacy.ts'

export const GROUP_EVENT_KIND = 445
/** Of a content, in base64: what is longer is not looked at. */
export const MAX_CONTENT_CHARS = 262_144
const NONCE_BYTES = 12
const TAG_BYTES = 16
const ALGORITHM = 'chacha20-poly1305'

/** What reads the events of one epoch. */
export interface EpochKeys {
  readonly epoch: number
  /** MLS-Exporter("marmot", "group-event", 32). */
  readonly key: Uint8Array
  /** MLS-Exporter("nostr", "nostr", 32): the secret key of the form before. */
  readonly legacySecret: Uint8Array
}

/** A signed event. @param atS unix seconds */
export function sealGroupEvent(groupId: string, key: Uint8Array, message: Uint8Array, atS: number, random: Random): NostrEvent {
  const nonce = random.bytes(NONCE_BYTES)
  const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES })
  const sealed = Buffer.concat([nonce, cipher.update(message), cipher.final(), cipher.getAuthTag()])
  const tags = [
    ['h', groupId],
    ['encoding', 'base64'],
  ]
  return freshSigner(random).sign({ kind: GROUP_EVENT_KIND, created_at: atS, tags, content: sealed.toString('base64') })
}

/** The one group that an event names, or undefined. */
export function groupOf(event: NostrEvent): string | undefined {
  const ids = tagValues(event, 'h')
  return event.kind === GROUP_EVENT_KIND && ids.length === 1 && isHex64(ids[0]) ? ids[0] : undefined
}

/** Whether there can be anything in it at all. */
export const hasPayload = (event: NostrEvent): boolean => bytesOf(event) !== undefined

/** The MLS message, and the epoch whose key opened it; undefined where none of these does. */
export function openGroupEvent(event: NostrEvent, epochs: readonly EpochKeys[]): { message: Uint8Array; epoch: number } | undefined {
  const bytes = bytesOf(event)
  if (bytes === undefined) return undefined
  for (const keys of epochs) {
    const message = openWith(keys.key, bytes)
    if (message !== undefined) return { message, epoch: keys.epoch }
  }
  if (tagValues(event, 'encoding').length > 0) return undefined
  for (const { epoch, legacySecret } of epochs) {
    const message = openLegacy(legacySecret, bytes)
    if (message !== undefined) return { message, epoch }
  }
  return undefined
}

function bytesOf({ content }: NostrEvent): Buffer | undefined {
  if (content.length > MAX_CONTENT_CHARS || !/^[A-Za-z0-9+/]+={0,2}$/.test(content)) return undefined
  const bytes = Buffer.from(content, 'base64')
  return bytes.length > NONCE_BYTES + TAG_BYTES ? bytes : undefined
}

function openWith(key: Uint8Array, bytes: Buffer): Uint8Array | undefined {
  const decipher = createDecipheriv(ALGORITHM, key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
  try {
    return Uint8Array.from(Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]))
  } catch {
    // Another key, or no such event at all: both are usual.
    return undefined
  }
}

/** A new `h` tag. */
export const newGroupId = (random: Random): string => randomHex(random, 32)
