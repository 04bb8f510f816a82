/** NIP-65 relay lists (10002) and NIP-17 DM relays (10050). */
import { relayUrls, tryRelayUrl } from '../relay/relay-url.ts'
import type { EventTemplate } from '../types.ts'
import { tagValues } from './nip01.ts'

export const RELAY_LIST_KIND = 10_002
export const DM_RELAYS_KIND = 10_050

/** Relays of one list that are looked at. */
const MAX_RELAYS = 10

export interface RelayList {
  readonly read: readonly string[]
  readonly write: readonly string[]
}

export function parseRelayList(event: Pick<EventTemplate, 'tags'>): RelayList {
  const read = new Set<string>()
  const write = new Set<string>()
  for (const [name, text, mode] of event.tags) {
    const url = name === 'r' && text !== undefined ? tryRelayUrl(text) : undefined
    if (url === undefined) continue
    if (mode !== 'write' && read.size < MAX_RELAYS) read.add(url)
    if (mode !== 'read' && write.size < MAX_RELAYS) write.add(url)
  }
  return { read: [...read], write: [...write] }
}

export function parseDmRelays(event: Pick<EventTemplate, 'tags'>): string[] {
  return relayUrls(tagValues(event, 'relay'), MAX_RELAYS)
}
