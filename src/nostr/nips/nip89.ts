/** NIP-89: a provider's announcement (31990), and the heartbeat that shows it is alive (11998). */
import { type Msats, msats, wire } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { isRecord, parseJson } from '../../base/json.ts'
import type { EventTemplate, IdentifiedEvent } from '../types.ts'
import { tagValue, tagValues } from './nip01.ts'
import { expirationTag } from './nip40.ts'

export const ANNOUNCEMENT_KIND = 31_990
const HEARTBEAT_KIND = 11_998

const MAX_KINDS = 200
const MAX_MINTS = 20
const MAX_TEXT_CHARS = 2000

export interface AnnouncedPrice {
  readonly amountMsats: Msats
  /** `job`, `1k_chars` or `1k_tokens`; others may use more. */
  readonly unit: string
}

export interface Announcement {
  readonly d: string
  readonly kinds: readonly number[]
  readonly name: string
  readonly about: string
  readonly picture?: string
  /** Mints whose tokens are taken. */
  readonly mints: readonly { readonly url: string; readonly unit: string }[]
  /** Compressed public key (66 hex digits) that tokens are locked to. */
  readonly lockPubkey?: string
  /** By job kind. */
  readonly pricing: Readonly<Record<string, AnnouncedPrice>>
}

export function buildAnnouncement(announcement: Announcement, createdAtS: number): EventTemplate {
  const { d, kinds, name, about, picture, mints, lockPubkey, pricing } = announcement
  const prices = Object.entries(pricing).map(([kind, price]) => [kind, { amount_msats: wire(price.amountMsats), unit: price.unit }])
  return {
    kind: ANNOUNCEMENT_KIND,
    created_at: createdAtS,
    tags: [
      ['d', d],
      ...kinds.map((kind) => ['k', String(kind)]),
      ...mints.map((mint) => ['mint', mint.url, mint.unit]),
      ...(lockPubkey === undefined ? [] : [['pubkey', lockPubkey]]),
    ],
    content: JSON.stringify({
      name,
      about,
      ...(picture === undefined ? {} : { picture }),
      encryptionSupported: true,
      cashuAccepted: mints.length > 0,
      pricing: Object.fromEntries(prices),
    }),
  }
}

const textIn = (record: Record<string, unknown>, key: string): string => {
  const value = record[key]
  return typeof value === 'string' ? value.slice(0, MAX_TEXT_CHARS) : ''
}

/** Takes what is well-formed of a stranger's announcement. @throws event_invalid when it is none */
export function parseAnnouncement(event: IdentifiedEvent): Announcement {
  const d = tagValue(event, 'd')
  if (event.kind !== ANNOUNCEMENT_KIND || d === undefined) throw new PylonError('event_invalid', 'This is no announcement of a provider.')
  const parsed = parseJson(event.content)
  const content = isRecord(parsed) ? parsed : {}
  const lockPubkey = tagValue(event, 'pubkey')
  const picture = textIn(content, 'picture') || textIn(content, 'image')
  return {
    d,
    kinds: tagValues(event, 'k')
      .filter((kind) => /^\d{1,5}$/.test(kind))
      .map(Number)
      .slice(0, MAX_KINDS),
    name: textIn(content, 'name'),
    about: textIn(content, 'about'),
    ...(picture === '' ? {} : { picture }),
    mints: event.tags
      .filter((tag) => tag[0] === 'mint' && /^https?:\/\/\S{1,500}$/.test(tag[1] ?? ''))
      .map((tag) => ({ url: tag[1] ?? '', unit: tag[2] ?? 'sat' }))
      .slice(0, MAX_MINTS),
    ...(lockPubkey !== undefined && /^0[23][0-9a-f]{64}$/.test(lockPubkey) ? { lockPubkey } : {}),
    pricing: parsePricing(content['pricing']),
  }
}

function parsePricing(value: unknown): Record<string, AnnouncedPrice> {
  if (!isRecord(value)) return {}
  const prices: [string, AnnouncedPrice][] = []
  for (const [kind, price] of Object.entries(value).slice(0, MAX_KINDS)) {
    if (!/^\d{1,5}$/.test(kind) || !isRecord(price)) continue
    const amount = price['amount_msats']
    if (typeof amount !== 'number' || !Number.isSafeInteger(amount) || amount < 0) continue
    prices.push([kind, { amountMsats: msats(amount), unit: textIn(price, 'unit') || 'job' }])
  }
  return Object.fromEntries(prices)
}

/** Clients hide a provider whose heartbeat expired. `d` is that of the announcement. */
export function buildHeartbeat(d: string, createdAtS: number, periodS: number): EventTemplate {
  return {
    kind: HEARTBEAT_KIND,
    created_at: createdAtS,
    tags: [['d', d], ['status', 'online'], expirationTag(createdAtS + periodS)],
    content: '',
  }
}
