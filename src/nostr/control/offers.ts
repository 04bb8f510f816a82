/** A runtime offer: an addressable event of our own kind, one for each class that a node rents out. */
import { z } from 'zod'
import { type Json, parseJson, stringify } from '../../base/json.ts'
import { tagValue, tagValues } from '../nips/nip01.ts'
import { buildDeletion } from '../nips/nip09.ts'
import { expirationTag } from '../nips/nip40.ts'
import type { EventTemplate, IdentifiedEvent } from '../types.ts'
import { CONTROL_PROTOCOLS, CONTROL_PROVIDERS, type ControlProtocol, type ControlProvider } from './vocabulary.ts'

/** In the addressable range and named by no NIP. */
export const RUNTIME_OFFER_KIND = 30_910
/** Offers older than this are repeated by their node, or gone. */
export const OFFER_LIFETIME_S = 3600

const MAX_TEXT = 128
const MAX_MINTS = 20

export interface RuntimeOffer {
  /** The class: the `d` tag, and what commands target as `runtime_class`. */
  readonly runtimeClass: string
  readonly provider: ControlProvider
  readonly region: string
  /** Empty: one-shot runs alone. */
  readonly protocols: readonly ControlProtocol[]
  readonly priceMsatsPerHour: bigint
  readonly minLeaseS: number
  readonly maxLeaseS: number
  /** Free now, and in all. */
  readonly capacity: { readonly free: number; readonly total: number }
  readonly resources: { readonly vcpuCount?: number; readonly memoryMib?: number; readonly rootDiskGib?: number }
  readonly isolated: boolean
  readonly mints: readonly string[]
  /** Compressed public key (66 hex digits) that lease tokens are to be locked to. */
  readonly lockPubkey?: string
  /** Any JSON: what may not be done. */
  readonly policyConstraints?: Json
}

const content = z.object({
  min_lease_seconds: z.int().min(1),
  max_lease_seconds: z.int().min(1),
  resources: z
    .object({
      vcpu_count: z.int().min(1).optional(),
      memory_mib: z.int().min(1).optional(),
      root_disk_gib: z.int().min(1).optional(),
    })
    .default({}),
  isolated: z.boolean().default(false),
  policy_constraints: z.json().optional(),
})

export function buildOffer(offer: RuntimeOffer, createdAtS: number): EventTemplate {
  const { vcpuCount, memoryMib, rootDiskGib } = offer.resources
  return {
    kind: RUNTIME_OFFER_KIND,
    created_at: createdAtS,
    tags: [
      ['d', offer.runtimeClass],
      ['t', 'pylon-runtime'],
      ['provider', offer.provider],
      ['region', offer.region],
      ...offer.protocols.map((protocol) => ['protocol', protocol]),
      ['price_msats_per_hour', String(offer.priceMsatsPerHour)],
      ['capacity', String(offer.capacity.free), String(offer.capacity.total)],
      ...offer.mints.map((url) => ['mint', url, 'sat']),
      ...(offer.lockPubkey === undefined ? [] : [['pubkey', offer.lockPubkey]]),
      expirationTag(createdAtS + OFFER_LIFETIME_S),
    ],
    content: stringify({
      min_lease_seconds: offer.minLeaseS,
      max_lease_seconds: offer.maxLeaseS,
      resources: { vcpu_count: vcpuCount, memory_mib: memoryMib, root_disk_gib: rootDiskGib },
      isolated: offer.isolated,
      policy_constraints: offer.policyConstraints,
    }),
  }
}

/** A deletion request (NIP-09) for the offer; relays that ignore it drop the offer when it expires. */
export const buildWithdrawnOffer = (offer: Pick<RuntimeOffer, 'runtimeClass'>, pubkey: string, createdAtS: number): EventTemplate =>
  buildDeletion([['a', `${RUNTIME_OFFER_KIND}:${pubkey}:${offer.runtimeClass}`]], RUNTIME_OFFER_KIND, createdAtS, 'withdrawn')

/** Undefined for an event that is no offer of this form: anybody can publish under the kind. */
export function parseOffer(event: IdentifiedEvent): RuntimeOffer | undefined {
  if (event.kind !== RUNTIME_OFFER_KIND) return undefined
  const runtimeClass = tagValue(event, 'd')
  const provider = CONTROL_PROVIDERS.find((known) => known === tagValue(event, 'provider'))
  const region = tagValue(event, 'region') ?? ''
  const price = tagValue(event, 'price_msats_per_hour') ?? ''
  const capacity = event.tags.find((tag) => tag[0] === 'capacity')
  const free = countOf(capacity?.[1])
  const parsed = content.safeParse(parseJson(event.content.slice(0, 16_384)))
  if (runtimeClass === undefined || runtimeClass === '' || runtimeClass.length > MAX_TEXT || region.length > MAX_TEXT) return undefined
  if (provider === undefined || free === undefined || !/^\d{1,15}$/.test(price) || !parsed.success) return undefined
  const { data } = parsed
  if (data.min_lease_seconds > data.max_lease_seconds) return undefined
  const lockPubkey = tagValue(event, 'pubkey')
  const { vcpu_count, memory_mib, root_disk_gib } = data.resources
  return {
    runtimeClass,
    provider,
    region,
    protocols: CONTROL_PROTOCOLS.filter((protocol) => tagValues(event, 'protocol').includes(protocol)),
    priceMsatsPerHour: BigInt(price),
    minLeaseS: data.min_lease_seconds,
    maxLeaseS: data.max_lease_seconds,
    capacity: { free, total: Math.max(free, countOf(capacity?.[2]) ?? free) },
    resources: {
      ...(vcpu_count === undefined ? {} : { vcpuCount: vcpu_count }),
      ...(memory_mib === undefined ? {} : { memoryMib: memory_mib }),
      ...(root_disk_gib === undefined ? {} : { rootDiskGib: root_disk_gib }),
    },
    isolated: data.isolated,
    mints: tagValues(event, 'mint').slice(0, MAX_MINTS),
    ...(lockPubkey !== undefined && /^0[23][0-9a-f]{64}$/.test(lockPubkey) ? { lockPubkey } : {}),
    ...(data.policy_constraints === undefined ? {} : { policyConstraints: data.policy_constraints }),
  }
}

function countOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined
}

/** What a lease of this length costs, in msats, begun seconds counted whole. */
export function leasePriceMsats(priceMsatsPerHour: bigint, leaseSeconds: number): bigint {
  const product = priceMsatsPerHour * BigInt(leaseSeconds)
  return (product + 3599n) / 3600n
}
