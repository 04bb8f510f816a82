/** NIP-90 on the customer's way in: job requests and their cancellation. The answers are in nip90-answers.ts. */
import { type Msats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Random } from '../../base/random.ts'
import { decryptFrom, type EncryptionScheme, encryptTo, schemeOf } from '../keys/encryption.ts'
import { relayUrls } from '../relay/relay-url.ts'
import type { EventTemplate, LocalSigner, NostrEvent, Signer } from '../types.ts'
import { isHex64, saltTag, tagValues } from './nip01.ts'
import { buildDeletion, DELETION_KIND } from './nip09.ts'
import { parseEventPointer, parsePubkey } from './nip19.ts'
import { expirationOf, expirationTag } from './nip40.ts'

const INPUT_TYPES = ['text', 'url', 'event', 'job'] as const
export type JobInputType = (typeof INPUT_TYPES)[number]

/** What a request may hold; docs/nip90.md names each. */
export const REQUEST_LIMITS = {
  inputs: 32,
  params: 64,
  paramNameChars: 64,
  paramValues: 32,
  paramValueChars: 32_768,
  outputChars: 128,
  relays: 10,
  providers: 20,
  tokenChars: 65_536,
  encryptedTags: 200,
} as const

export interface JobInput {
  readonly data: string
  readonly type: JobInputType
  readonly relay?: string
  readonly marker?: string
}

/** `[name, value, ...]`, in the order sent; a name may repeat. */
export type JobParam = readonly [string, ...string[]]

export const isJobKind = (kind: number): boolean => kind >= 5000 && kind <= 5999
export const resultKindOf = (requestKind: number): number => requestKind + 1000

export const isEncryptedRequest = (event: Pick<NostrEvent, 'tags'>): boolean => event.tags.some((tag) => tag[0] === 'encrypted')

/** Who the request is directed to: its p tags, also those written as npub. Needs no decryption. */
export const providersOf = (event: Pick<NostrEvent, 'tags'>): string[] =>
  tagValues(event, 'p')
    .slice(0, REQUEST_LIMITS.providers)
    .map((value) => (isHex64(value) ? value : pubkeyIn(value)))
    .filter((pubkey) => pubkey !== undefined)

function pubkeyIn(text: string): string | undefined {
  try {
    return parsePubkey(text)
  } catch {
    // Names nobody.
    return undefined
  }
}

/**
 * Reads a request whose signature was verified. Tags inside an encrypted content join those outside (bid and relays may be in either).
 * @param provider whose key decrypts; needed for an encrypted request.
 * @throws event_invalid, decrypt_failed, input_invalid, param_invalid, amount_invalid
 */
export async function parseJobRequest(event: NostrEvent, provider?: Signer) {
  if (!isJobKind(event.kind)) throw new PylonError('event_invalid', `Kind ${event.kind} is no job request.`)
  const encrypted = isEncryptedRequest(event)
  const hidden = encrypted ? await decryptTags(event, provider) : []
  const tags = [...hidden, ...event.tags]
  const named = (name: string) => tags.filter((tag) => tag[0] === name)
  return {
    id: event.id,
    kind: event.kind,
    customer: event.pubkey,
    createdAtS: event.created_at,
    inputs: parseInputs(named('i')),
    params: parseParams(named('param')),
    /** Wanted MIME type. */
    output: parseOutput(named('output')[0]?.[1]),
    bidMsats: parseMsats(named('bid')[0]?.[1]?.trim().replace(/\.0*$/, ''), 'bid'),
    // Some put all of them into one value.
    relays: relayUrls(
      named('relays').flatMap((tag) => tag.slice(1, REQUEST_LIMITS.relays + 1).flatMap((value) => value.slice(0, 2000).split(/[\s,]+/))),
      REQUEST_LIMITS.relays,
    ),
    /** Those it is directed to; empty: anyone. */
    providers: providersOf(event),
    expiresAtS: expirationOf(event),
    cashuToken: parseToken(named('cashu')[0]?.[1]),
    /** How the content was encrypted; undefined for an open request. */
    encryption: encrypted ? schemeOf(event.content) : undefined,
  }
}

async function decryptTags(event: NostrEvent, provider: Signer | undefined): Promise<string[][]> {
  if (provider === undefined) throw new PylonError('decrypt_failed', 'The request is encrypted and no key was given.')
  const parsed = parseJson(await decryptFrom(provider, event.pubkey, event.content))
  const isTag = (tag: unknown): tag is string[] => Array.isArray(tag) && tag.length > 0 && tag.every((value) => typeof value === 'string')
  if (!Array.isArray(parsed) || !parsed.every(isTag)) throw new PylonError('decrypt_failed', 'The decrypted content is no list of tags.')
  if (parsed.length > REQUEST_LIMITS.encryptedTags)
    throw new PylonError(
      'input_invalid',
      `The encrypted list has ${parsed.length} tags and ${REQUEST_LIMITS.encryptedTags} are taken at most.`,
    )
  return parsed
}

function parseInputs(tags: readonly (readonly string[])[]): JobInput[] {
  if (tags.length > REQUEST_LIMITS.inputs)
    throw new PylonError('input_invalid', `The job has ${tags.length} inputs and ${REQUEST_LIMITS.inputs} are taken at most.`)
  return tags.map(([, data, type, relay, marker], index) => {
    if (data === undefined || data === '') throw new PylonError('input_invalid', `Input ${index + 1} is empty.`)
    const named = (type || 'text').trim().toLowerCase()
    const known = INPUT_TYPES.find((one) => one === (named === 'prompt' ? 'text' : named))
    if (known === undefined) {
      throw new PylonError(
        'input_invalid',
        `Input ${index + 1} is of type ${JSON.stringify(type?.slice(0, 40))}: use text, url, event or job.`,
      )
    }
    const pointer = known === 'event' || known === 'job' ? pointerIn(data, index, known) : undefined
    const hint = relay || pointer?.relays[0]
    return {
      data: pointer?.id ?? data,
      type: known,
      ...(hint ? { relay: hint.slice(0, 512) } : {}),
      ...(marker ? { marker: marker.slice(0, 128) } : {}),
    }
  })
}

/** An event as people name it: an id, note or nevent, also with `nostr:`. @throws input_invalid */
function pointerIn(data: string, index: number, type: string): { id: string; relays: readonly string[] } {
  try {
    return parseEventPointer(data)
  } catch {
    throw new PylonError('input_invalid', `Input ${index + 1} of type ${type} is no event id: use 64 hex digits, note or nevent.`)
  }
}

function parseParams(tags: readonly (readonly string[])[]): JobParam[] {
  if (tags.length > REQUEST_LIMITS.params)
    throw new PylonError('param_invalid', `The job has ${tags.length} params and ${REQUEST_LIMITS.params} are taken at most.`)
  return tags.map(([, name, ...values]) => {
    if (name === undefined || name === '' || name.length > REQUEST_LIMITS.paramNameChars) {
      throw new PylonError('param_invalid', 'A param has no name or one that is too long.')
    }
    if (values.length > REQUEST_LIMITS.paramValues || values.some((value) => value.length > REQUEST_LIMITS.paramValueChars)) {
      throw new PylonError('param_invalid', `The param ${name} is too long.`)
    }
    return [name, ...values] as const
  })
}

function parseOutput(output: string | undefined): string | undefined {
  if (output !== undefined && output.length > REQUEST_LIMITS.outputChars)
    throw new PylonError('param_invalid', 'The output type is too long.')
  return output || undefined
}

/** A whole number of millisats as text; undefined when absent. @throws amount_invalid naming `what` */
export function parseMsats(text: string | undefined, what: string): Msats | undefined {
  if (text === undefined || text === '') return undefined
  if (!/^\d{1,16}$/.test(text)) throw new PylonError('amount_invalid', `The ${what} is no whole number of millisats.`)
  return msats(BigInt(text))
}

function parseToken(token: string | undefined): string | undefined {
  if (token !== undefined && token.length > REQUEST_LIMITS.tokenChars)
    throw new PylonError('token_invalid', 'The attached token is too long.')
  return token || undefined
}

export interface NewJobRequest {
  readonly kind: number
  readonly inputs: readonly JobInput[]
  readonly params?: readonly JobParam[]
  readonly output?: string
  readonly bidMsats?: Msats
  readonly relays?: readonly string[]
  /** Directs it to one provider; needed to encrypt. */
  readonly provider?: string
  readonly expiresAtS?: number
  /** In an open request only a token locked to the provider is safe; in an encrypted one it goes inside. */
  readonly cashuToken?: string
  readonly createdAtS: number
  /** Of its salt. */
  readonly random: Random
  /** Hides inputs, params and token from all but the provider. */
  readonly encryptBy?: { readonly signer: LocalSigner; readonly scheme?: EncryptionScheme }
}

/** @throws usage when it is to be encrypted and has no provider */
export function buildJobRequest(job: NewJobRequest): EventTemplate {
  const sensitive = [
    ...job.inputs.map(inputTag),
    ...(job.params ?? []).map((param) => ['param', ...param]),
    ...(job.cashuToken === undefined ? [] : [['cashu', job.cashuToken]]),
  ]
  const open = [
    ...(job.output === undefined ? [] : [['output', job.output]]),
    ...(job.bidMsats === undefined ? [] : [['bid', job.bidMsats.toString()]]),
    ...(job.relays === undefined || job.relays.length === 0 ? [] : [['relays', ...job.relays]]),
    ...(job.provider === undefined ? [] : [['p', job.provider]]),
    ...(job.expiresAtS === undefined ? [] : [expirationTag(job.expiresAtS)]),
    // The same order twice in a second is two jobs.
    saltTag(job.random),
  ]
  if (job.encryptBy === undefined) return { kind: job.kind, created_at: job.createdAtS, tags: [...sensitive, ...open], content: '' }
  if (job.provider === undefined) throw new PylonError('usage', 'An encrypted job needs a provider to encrypt to.')
  const content = encryptTo(job.encryptBy.signer, job.provider, JSON.stringify(sensitive), job.encryptBy.scheme)
  return { kind: job.kind, created_at: job.createdAtS, tags: [...open, ['encrypted']], content }
}

/** `["i", data, type, relay?, marker?]`, without empty ends. */
export function inputTag(input: JobInput): string[] {
  const tag = ['i', input.data, input.type, input.relay ?? '', input.marker ?? '']
  while (tag.at(-1) === '') tag.pop()
  return tag
}

/** A customer's own kind 5 for a request. */
export const buildCancel = (request: Pick<NostrEvent, 'id' | 'kind'>, createdAtS: number): EventTemplate =>
  buildDeletion([['e', request.id]], request.kind, createdAtS)

/** The event ids that a kind 5 asks to cancel. Only those of the same pubkey count: the caller compares. */
export function cancelledIds(event: Pick<NostrEvent, 'kind' | 'tags'>): string[] {
  return event.kind === DELETION_KIND ? tagValues(event, 'e').filter(isHex64).slice(0, 100) : []
}
