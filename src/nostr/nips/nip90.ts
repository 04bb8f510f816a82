/** NIP-90 on the customer's way in: job requests and their cancellation. The answers are in nip90-answers.ts. */
import { type Msats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { decryptFrom, type EncryptionScheme, encryptTo, schemeOf } from '../encryption.ts'
import { relayUrls } from '../relay-url.ts'
import type { EventTemplate, NostrEvent, Signer } from '../types.ts'
import { isHex64, saltTag, tagValues } from './nip01.ts'
import { expirationOf, expirationTag } from './nip40.ts'

export const CANCEL_KIND = 5

const INPUT_TYPES = ['text', 'url', 'event', 'job'] as const
export type JobInputType = (typeof INPUT_TYPES)[number]

const MAX_INPUTS = 32
const MAX_PARAMS = 64
const MAX_PARAM_VALUES = 32
const MAX_PARAM_CHARS = 32_768
const MAX_PARAM_NAME_CHARS = 64
const MAX_OUTPUT_CHARS = 128
const MAX_RELAYS = 10
const MAX_PROVIDERS = 20
const MAX_TOKEN_CHARS = 65_536
const MAX_DECRYPTED_TAGS = 200

export interface JobInput {
  readonly data: string
  readonly type: JobInputType
  readonly relay?: string
  readonly marker?: string
}

/** `[name, value, ...]`, in the order sent; a name may repeat. */
export type JobParam = readonly [string, ...string[]]

export interface JobRequest {
  readonly id: string
  /** 5000 to 5999. */
  readonly kind: number
  readonly customer: string
  readonly createdAtS: number
  readonly inputs: readonly JobInput[]
  readonly params: readonly JobParam[]
  /** Wanted MIME type. */
  readonly output: string | undefined
  readonly bidMsats: Msats | undefined
  /** Where the customer wants the answers. */
  readonly relays: readonly string[]
  /** Providers it is directed to; empty: anyone. */
  readonly providers: readonly string[]
  readonly expiresAtS: number | undefined
  /** An attached Cashu token. */
  readonly cashuToken: string | undefined
  /** How the content was encrypted; undefined for an open request. */
  readonly encryption: EncryptionScheme | undefined
}

export const isJobKind = (kind: number): boolean => kind >= 5000 && kind <= 5999
export const resultKindOf = (requestKind: number): number => requestKind + 1000

export const isEncryptedRequest = (event: Pick<NostrEvent, 'tags'>): boolean => event.tags.some((tag) => tag[0] === 'encrypted')

/** Who the request is directed to: its p tags. Needs no decryption. */
export const providersOf = (event: Pick<NostrEvent, 'tags'>): string[] => tagValues(event, 'p').filter(isHex64).slice(0, MAX_PROVIDERS)

/**
 * Reads a request whose signature was verified. Tags inside an encrypted content join those outside (bid and relays may be in either).
 * @param provider whose key decrypts; needed for an encrypted request.
 * @throws event_invalid, decrypt_failed, input_invalid, param_invalid, amount_invalid
 */
export function parseJobRequest(event: NostrEvent, provider?: Signer): JobRequest {
  if (!isJobKind(event.kind)) throw new PylonError('event_invalid', `Kind ${event.kind} is no job request.`)
  const encrypted = isEncryptedRequest(event)
  const hidden = encrypted ? decryptTags(event, provider) : []
  const tags = [...hidden, ...event.tags]
  const named = (name: string) => tags.filter((tag) => tag[0] === name)
  return {
    id: event.id,
    kind: event.kind,
    customer: event.pubkey,
    createdAtS: event.created_at,
    inputs: parseInputs(named('i')),
    params: parseParams(named('param')),
    output: parseOutput(named('output')[0]?.[1]),
    bidMsats: parseMsats(named('bid')[0]?.[1], 'bid'),
    relays: relayUrls(
      named('relays').flatMap((tag) => tag.slice(1, MAX_RELAYS + 1)),
      MAX_RELAYS,
    ),
    providers: providersOf(event),
    expiresAtS: expirationOf(event),
    cashuToken: parseToken(named('cashu')[0]?.[1]),
    encryption: encrypted ? schemeOf(event.content) : undefined,
  }
}

function decryptTags(event: NostrEvent, provider: Signer | undefined): string[][] {
  if (provider === undefined) throw new PylonError('decrypt_failed', 'The request is encrypted and no key was given.')
  const parsed = parseJson(decryptFrom(provider, event.pubkey, event.content))
  const isTag = (tag: unknown): tag is string[] => Array.isArray(tag) && tag.length > 0 && tag.every((value) => typeof value === 'string')
  if (!Array.isArray(parsed) || parsed.length > MAX_DECRYPTED_TAGS || !parsed.every(isTag)) {
    throw new PylonError('decrypt_failed', 'The decrypted content is no list of tags.')
  }
  return parsed
}

function parseInputs(tags: readonly (readonly string[])[]): JobInput[] {
  if (tags.length > MAX_INPUTS)
    throw new PylonError('input_invalid', `The job has ${tags.length} inputs and ${MAX_INPUTS} are taken at most.`)
  return tags.map(([, data, type, relay, marker], index) => {
    if (data === undefined || data === '') throw new PylonError('input_invalid', `Input ${index + 1} is empty.`)
    const known = INPUT_TYPES.find((one) => one === (type || 'text'))
    if (known === undefined) {
      throw new PylonError(
        'input_invalid',
        `Input ${index + 1} is of type ${JSON.stringify(type?.slice(0, 40))}: use text, url, event or job.`,
      )
    }
    if ((known === 'event' || known === 'job') && !isHex64(data)) {
      throw new PylonError('input_invalid', `Input ${index + 1} of type ${known} is no event id.`)
    }
    return { data, type: known, ...(relay ? { relay: relay.slice(0, 512) } : {}), ...(marker ? { marker: marker.slice(0, 128) } : {}) }
  })
}

function parseParams(tags: readonly (readonly string[])[]): JobParam[] {
  if (tags.length > MAX_PARAMS)
    throw new PylonError('param_invalid', `The job has ${tags.length} params and ${MAX_PARAMS} are taken at most.`)
  return tags.map(([, name, ...values]) => {
    if (name === undefined || name === '' || name.length > MAX_PARAM_NAME_CHARS) {
      throw new PylonError('param_invalid', 'A param has no name or one that is too long.')
    }
    if (values.length > MAX_PARAM_VALUES || values.some((value) => value.length > MAX_PARAM_CHARS)) {
      throw new PylonError('param_invalid', `The param ${name} is too long.`)
    }
    return [name, ...values] as const
  })
}

function parseOutput(output: string | undefined): string | undefined {
  if (output !== undefined && output.length > MAX_OUTPUT_CHARS) throw new PylonError('param_invalid', 'The output type is too long.')
  return output || undefined
}

/** A whole number of millisats as text; undefined when absent. @throws amount_invalid naming `what` */
export function parseMsats(text: string | undefined, what: string): Msats | undefined {
  if (text === undefined || text === '') return undefined
  if (!/^\d{1,16}$/.test(text)) throw new PylonError('amount_invalid', `The ${what} is no whole number of millisats.`)
  return msats(BigInt(text))
}

function parseToken(token: string | undefined): string | undefined {
  if (token !== undefined && token.length > MAX_TOKEN_CHARS) throw new PylonError('token_invalid', 'The attached token is too long.')
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
  /** Hides inputs, params and token from all but the provider. */
  readonly encryptBy?: { readonly signer: Signer; readonly scheme?: EncryptionScheme }
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
    saltTag(),
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
export function buildCancel(request: Pick<NostrEvent, 'id' | 'kind'>, createdAtS: number): EventTemplate {
  return {
    kind: CANCEL_KIND,
    created_at: createdAtS,
    tags: [
      ['e', request.id],
      ['k', String(request.kind)],
    ],
    content: '',
  }
}

/** The event ids that a kind 5 asks to cancel. Only those of the same pubkey count: the caller compares. */
export function cancelledIds(event: Pick<NostrEvent, 'kind' | 'tags'>): string[] {
  return event.kind === CANCEL_KIND ? tagValues(event, 'e').filter(isHex64).slice(0, 100) : []
}
