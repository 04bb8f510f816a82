/** Key packages as events (MIP-00): 30443, which replaces itself, and 443 for who does not know it; 10051 says where they are. */

import { type Random, randomHex } from '../../base/random.ts'
import { identify, isHex64, tagValue, tagValues } from '../../nostr/nips/nip01.ts'
import { buildDeletion } from '../../nostr/nips/nip09.ts'
import { relayUrls } from '../../nostr/relay/relay-url.ts'
import type { EventTemplate, IdentifiedEvent } from '../../nostr/types.ts'
import { decodeKeyPackage, keyPackageInvalid, refOf } from '../mls/key-package.ts'

export const KEY_PACKAGE_KIND = 30_443
export const LEGACY_KEY_PACKAGE_KIND = 443
export const KEY_PACKAGE_RELAYS_KIND = 10_051
const MAX_CONTENT_CHARS = 16_384
const MAX_RELAYS = 10

export const newSlot = (random: Random): string => randomHex(random, 32)

export interface KeyPackageOrder {
  readonly pubkey: string
  readonly publicBytes: Uint8Array
  readonly ref: string
  /** The `d` tag. */
  readonly slot: string
  readonly relays: readonly string[]
  /** Unix seconds. */
  readonly atS: number
}

/** Both forms. */
export function keyPackageEvents({ pubkey, publicBytes, ref, slot, relays, atS }: KeyPackageOrder): {
  event: IdentifiedEvent
  legacy: IdentifiedEvent
} {
  const tags = [
    ['mls_protocol_version', '1.0'],
    ['mls_ciphersuite', '0x0001'],
    ['mls_extensions', '0x000a', '0xf2ee'],
    // mdk reads no 30443 without it, whatever the key package itself says.
    ['mls_proposals', '0x000a'],
    ['relays', ...relays],
    ['i', ref],
    ['client', 'Pylon'],
    ['encoding', 'base64'],
  ]
  const content = Buffer.from(publicBytes).toString('base64')
  const of = (kind: number, own: string[][]) => identify(pubkey, { kind, created_at: atS, tags: [...own, ...tags], content })
  return { event: of(KEY_PACKAGE_KIND, [['d', slot]]), legacy: of(LEGACY_KEY_PACKAGE_KIND, []) }
}

export const keyPackageRelaysEvent = (pubkey: string, relays: readonly string[], atS: number): IdentifiedEvent =>
  identify(pubkey, { kind: KEY_PACKAGE_RELAYS_KIND, created_at: atS, tags: relays.map((url) => ['relay', url]), content: '' })

/** Takes back what a newer one has replaced. */
export const keyPackageDeletion = (pubkey: string, eventIds: readonly string[], atS: number): IdentifiedEvent => {
  const targets = eventIds.map((id) => ['e', id])
  return identify(pubkey, buildDeletion(targets, LEGACY_KEY_PACKAGE_KIND, atS))
}

/** Relays of a 10051. */
export const keyPackageRelays = (event: Pick<EventTemplate, 'tags'>): string[] => relayUrls(tagValues(event, 'relay'), MAX_RELAYS)

/** What is inside, where the event is as MIP-00 has it; its signature was checked. @throws session_key_package_invalid */
export async function readKeyPackageEvent(event: IdentifiedEvent) {
  const isAddressable = event.kind === KEY_PACKAGE_KIND
  if (!isAddressable && event.kind !== LEGACY_KEY_PACKAGE_KIND) throw keyPackageInvalid(`its kind is ${event.kind}`)
  if (isAddressable && !isHex64(tagValue(event, 'd'))) throw keyPackageInvalid('it has no slot (d tag)')
  if (!['1.0', '1'].includes(tagValue(event, 'mls_protocol_version') ?? '')) throw keyPackageInvalid('it is for another version of MLS')
  if (!['0x0001', '1'].includes(tagValue(event, 'mls_ciphersuite') ?? '')) throw keyPackageInvalid('it is for another cipher suite')
  const keyPackage = decodeKeyPackage(bytesOf(event))
  const said = tagValue(event, 'i')
  const ref = await refOf(keyPackage)
  if (said === undefined ? isAddressable : said !== ref) throw keyPackageInvalid('it is not the one that it names (i tag)')
  return { keyPackage, ref }
}

function bytesOf(event: IdentifiedEvent): Uint8Array {
  const { content } = event
  if (content.length > MAX_CONTENT_CHARS) throw keyPackageInvalid('it is too long')
  // Old clients wrote hex, and said nothing.
  const isHex = tagValue(event, 'encoding') !== 'base64' && /^(?:[0-9a-f]{2})+$/i.test(content)
  return Uint8Array.from(Buffer.from(content, isHex ? 'hex' : 'base64'))
}
