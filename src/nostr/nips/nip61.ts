/** NIP-61: ecash that is a zap. What a key takes (10019), and the zap itself (9321), whose locked proofs are its receipt. */
import { isRecord, parseJson } from '../../base/json.ts'
import { relayUrls } from '../relay/relay-url.ts'
import type { EventTemplate } from '../types.ts'
import { isHex64, tagValue, tagValues } from './nip01.ts'

export const NUTZAP_INFO_KIND = 10_019
export const NUTZAP_KIND = 9321

/** Of one list that is looked at. */
const MAX_RELAYS = 10
const MAX_MINTS = 20
const MAX_URL_CHARS = 2048
/** 64 proofs make any amount. */
export const MAX_NUTZAP_PROOFS = 100
const MAX_PROOF_CHARS = 3000
const MAX_SECRET_CHARS = 1024

/** Where and how a key takes nutzaps. */
export interface NutzapInfo {
  readonly relays: readonly string[]
  /** As they are written; no units means any, and then sat. */
  readonly mints: readonly { readonly url: string; readonly units: readonly string[] }[]
  /** x-only, 64 hex digits: never the Nostr key itself. */
  readonly lockPubkey: string
}

/** A proof (NUT-00) with what shows offline that its mint signed it (NUT-12). */
export interface NutzapProof {
  readonly id: string
  /** Of the unit. */
  readonly amount: number
  readonly secret: string
  readonly C: string
  readonly dleq: { readonly e: string; readonly s: string; readonly r: string }
}

export interface Nutzap {
  readonly recipient: string
  /** Exactly as the recipient's 10019 has it. */
  readonly mintUrl: string
  readonly proofs: readonly NutzapProof[]
  readonly comment: string
  readonly event?: { readonly id: string; readonly kind?: number } | undefined
}

/** What a key of ours says of itself: in sat, the one unit that there is here. */
export function nutzapInfoTags(info: {
  readonly relays: readonly string[]
  readonly mints: readonly string[]
  readonly lockPubkey: string
}): string[][] {
  return [...info.relays.map((url) => ['relay', url]), ...info.mints.map((url) => ['mint', url, 'sat']), ['pubkey', info.lockPubkey]]
}

/** Undefined where nothing can be sent by it: no mint, no key, or the Nostr key as the lock. */
export function parseNutzapInfo(event: Pick<EventTemplate, 'tags'> & { readonly pubkey: string }): NutzapInfo | undefined {
  const said = tagValue(event, 'pubkey')?.toLowerCase() ?? ''
  // Some write it as Cashu does, with 02 in front.
  const lockPubkey = said.length === 66 ? said.slice(2) : said
  if (!isHex64(lockPubkey) || (said.length === 66 && !/^0[23]/.test(said)) || lockPubkey === event.pubkey) return undefined
  const mints = event.tags
    .filter(([name, url]) => name === 'mint' && url !== undefined && url.length <= MAX_URL_CHARS && URL.canParse(url))
    .slice(0, MAX_MINTS)
    .map(([, url = '', ...units]) => ({ url, units: units.map((unit) => unit.toLowerCase()) }))
  if (mints.length === 0) return undefined
  return { relays: relayUrls(tagValues(event, 'relay'), MAX_RELAYS), mints, lockPubkey }
}

export function buildNutzap(nutzap: Nutzap, createdAtS: number): EventTemplate {
  const { recipient, mintUrl, proofs, comment, event } = nutzap
  return {
    kind: NUTZAP_KIND,
    created_at: createdAtS,
    tags: [
      ...proofs.map(({ id, amount, secret, C, dleq }) => ['proof', JSON.stringify({ id, amount, secret, C, dleq })]),
      ['unit', 'sat'],
      ['u', mintUrl],
      ['p', recipient],
      ...(event === undefined ? [] : [['e', event.id]]),
      ...(event?.kind === undefined ? [] : [['k', String(event.kind)]]),
    ],
    content: comment,
  }
}

/** What a 9321 says, in bounds and of one form; nothing of it is proven. @returns why not, where it is none that can be taken */
export function parseNutzap(event: Pick<EventTemplate, 'kind' | 'tags' | 'content'>): Nutzap | string {
  if (event.kind !== NUTZAP_KIND) return 'it is no nutzap'
  const [recipient, ...others] = tagValues(event, 'p')
  if (!isHex64(recipient) || others.length > 0) return 'it is not for one key'
  const [mintUrl, ...mints] = tagValues(event, 'u')
  if (mintUrl === undefined || mints.length > 0 || mintUrl.length > MAX_URL_CHARS) return 'it does not name one mint'
  if ((tagValue(event, 'unit') ?? 'sat') !== 'sat') return 'it is not in sats'
  const texts = tagValues(event, 'proof')
  if (texts.length === 0 || texts.length > MAX_NUTZAP_PROOFS) return `it has ${texts.length} proofs, not 1 to ${MAX_NUTZAP_PROOFS}`
  const proofs: NutzapProof[] = []
  for (const text of texts) {
    const proof = parseProof(text)
    if (typeof proof === 'string') return proof
    proofs.push(proof)
  }
  if (new Set(proofs.map((proof) => proof.secret)).size < proofs.length) return 'it has the same proof twice'
  const [id, ...events] = tagValues(event, 'e')
  if (events.length > 0 || (id !== undefined && !isHex64(id))) return 'it names more than one event'
  const kind = Number(tagValue(event, 'k') ?? 'none')
  const zapped = id === undefined ? undefined : { id, ...(Number.isInteger(kind) && kind >= 0 && kind <= 65_535 ? { kind } : {}) }
  return { recipient, mintUrl, proofs, comment: event.content, ...(zapped === undefined ? {} : { event: zapped }) }
}

function parseProof(text: string): NutzapProof | string {
  const parsed = text.length > MAX_PROOF_CHARS ? undefined : parseJson(text)
  if (!isRecord(parsed)) return 'a proof is no JSON object of a fair length'
  const { id, amount, secret, C, dleq } = parsed
  if (typeof id !== 'string' || !/^[0-9a-f]{16}([0-9a-f]{50})?$/.test(id)) return 'a proof names no keyset'
  if (typeof amount !== 'number' || !Number.isSafeInteger(amount) || amount <= 0) return 'the amount of a proof is out of range'
  if (typeof secret !== 'string' || secret.length > MAX_SECRET_CHARS) return 'the secret of a proof is none, or too long'
  if (typeof C !== 'string' || !/^0[23][0-9a-f]{64}$/.test(C)) return 'the signature of a proof is no point'
  if (!isRecord(dleq)) return 'a proof does not show that its mint signed it (DLEQ)'
  const { e, s, r } = dleq
  if (!isHex64(e) || !isHex64(s) || !isHex64(r)) return 'a proof does not show that its mint signed it (DLEQ)'
  return { id, amount, secret, C, dleq: { e, s, r } }
}
