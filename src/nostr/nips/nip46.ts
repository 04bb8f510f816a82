/** NIP-46: a remote signer ("bunker") and its clients: the two strings that connect them, and the kind that both speak. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { decryptFrom, type EncryptionScheme, encryptTo, schemeOf } from '../keys/encryption.ts'
import { relayUrls, tryRelayUrl } from '../relay/relay-url.ts'
import type { EventTemplate, LocalSigner, NostrEvent } from '../types.ts'
import { isHex64 } from './nip01.ts'

/** Requests and answers alike. */
export const BUNKER_KIND = 24_133

/** What an owner may grant; what only says who and how is always answered. */
export const BUNKER_METHODS = ['sign_event', 'nip44_encrypt', 'nip44_decrypt', 'nip04_encrypt', 'nip04_decrypt'] as const
export type BunkerMethod = (typeof BUNKER_METHODS)[number]

export const isBunkerMethod = (name: string): name is BunkerMethod => (BUNKER_METHODS as readonly string[]).includes(name)

export interface BunkerRequest {
  /** The client's own, given back with the answer. */
  readonly id: string
  readonly method: string
  readonly params: readonly string[]
}

export type BunkerAnswer = { readonly result: string } | { readonly error: string }

// The connection strings

export interface BunkerUri {
  /** The key that answers; not the key that signs. */
  readonly signerPubkey: string
  readonly relays: readonly string[]
  readonly secret: string
}

export function formatBunkerUri({ signerPubkey, relays, secret }: BunkerUri): string {
  const named = relays.map((relay) => `relay=${encodeURIComponent(relay)}`)
  return `bunker://${signerPubkey}?${[...named, `secret=${secret}`].join('&')}`
}

const BUNKER_URI = /^bunker:\/\/([0-9a-f]{64})\/?(?:\?(.*))?$/i

/** @throws bunker_invalid */
export function parseBunkerUri(text: string): BunkerUri {
  const [, pubkey, query] = text.length > MAX_URI_CHARS ? [] : (BUNKER_URI.exec(text.trim()) ?? [])
  if (pubkey === undefined) throw invalidUri('it does not begin with bunker:// and a key of 64 hex digits')
  const params = new URLSearchParams(query ?? '')
  const secret = params.get('secret') ?? ''
  if (secret.length > MAX_SECRET_CHARS) throw invalidUri('its secret is too long')
  const named = params.getAll('relay')
  if (named.some((relay) => tryRelayUrl(relay) === undefined)) throw invalidUri('one of its relays is no ws:// or wss:// URL')
  const relays = relayUrls(named, MAX_RELAYS)
  if (relays.length === 0) throw invalidUri('it names no relay')
  return { signerPubkey: pubkey.toLowerCase(), relays, secret }
}

export interface NostrConnectUri {
  readonly clientPubkey: string
  readonly relays: readonly string[]
  /** Given back to the client, which knows us by it. */
  readonly secret: string
  readonly name: string | undefined
}

const CONNECT_URI = /^nostrconnect:\/\/([0-9a-f]{64})\/?\?(.+)$/i
const MAX_URI_CHARS = 4096
const MAX_RELAYS = 5
const MAX_SECRET_CHARS = 200
const MAX_NAME_CHARS = 64

/** @throws bunker_invalid */
export function parseNostrConnectUri(text: string): NostrConnectUri {
  const [, pubkey, query] = text.length > MAX_URI_CHARS ? [] : (CONNECT_URI.exec(text.trim()) ?? [])
  if (pubkey === undefined || query === undefined) throw invalidUri('it does not begin with nostrconnect:// and a key of 64 hex digits')
  const params = new URLSearchParams(query)
  const secret = params.get('secret') ?? ''
  if (secret === '' || secret.length > MAX_SECRET_CHARS) throw invalidUri('it has no secret by which the client would know this node')
  const named = params.getAll('relay')
  if (named.some((relay) => tryRelayUrl(relay) === undefined)) throw invalidUri('one of its relays is no ws:// or wss:// URL')
  const relays = relayUrls(named, MAX_RELAYS)
  if (relays.length === 0) throw invalidUri('it names no relay')
  return { clientPubkey: pubkey.toLowerCase(), relays, secret, name: params.get('name')?.slice(0, MAX_NAME_CHARS) || undefined }
}

/** Never with the text itself, which holds a secret. */
const invalidUri = (why: string): PylonError =>
  new PylonError('bunker_invalid', `The connection string cannot be used: ${why}. Copy it whole from the app.`)

// Requests and answers

/** The longest payload of NIP-44 as all know it is 87,472; of NIP-04 it is about as long. */
const MAX_CONTENT_CHARS = 90_000
/** What every implementation of NIP-44 can read. */
const MAX_ANSWER_BYTES = 65_535
const requestSchema = z.object({
  id: z.string().min(1).max(200),
  method: z.string().min(1).max(60),
  params: z
    .array(z.unknown())
    .max(10)
    .transform((params) => params.map((param) => (typeof param === 'string' ? param : param == null ? '' : JSON.stringify(param))))
    .catch([]),
})

/** @returns how it was encrypted too: older clients know NIP-04 alone @throws decrypt_failed, event_invalid */
export function openBunkerRequest(signer: LocalSigner, event: NostrEvent): { request: BunkerRequest; scheme: EncryptionScheme } {
  if (event.content.length > MAX_CONTENT_CHARS) throw new PylonError('event_invalid', 'The request is too long.')
  const parsed = requestSchema.safeParse(parseJson(decryptFrom(signer, event.pubkey, event.content)))
  if (!parsed.success) throw new PylonError('event_invalid', 'The request to the bunker is malformed.')
  return { request: parsed.data, scheme: schemeOf(event.content) }
}

/** To whom an answer goes, and to what. */
export interface BunkerAsker {
  readonly clientPubkey: string
  readonly requestId: string
  readonly scheme: EncryptionScheme
}

/** @throws event_invalid when the answer is too long to be encrypted */
export function buildBunkerAnswer(signer: LocalSigner, to: BunkerAsker, answer: BunkerAnswer, createdAtS: number): EventTemplate {
  const body = 'error' in answer ? { id: to.requestId, result: '', error: answer.error } : { id: to.requestId, result: answer.result }
  const text = JSON.stringify(body)
  if (Buffer.byteLength(text) > MAX_ANSWER_BYTES) throw new PylonError('event_invalid', 'The answer is too long.')
  const content = encryptTo(signer, to.clientPubkey, text, to.scheme)
  return { kind: BUNKER_KIND, created_at: createdAtS, tags: [['p', to.clientPubkey]], content }
}

const answerSchema = z.object({
  id: z.string().min(1).max(200),
  result: z
    .string()
    .nullish()
    .transform((result) => result ?? ''),
  error: z
    .string()
    .nullish()
    .transform((error) => error ?? ''),
})

/** What a bunker answers a client; `result` and `error` are empty where it left them out. @throws decrypt_failed, event_invalid */
export function openBunkerAnswer(client: LocalSigner, event: NostrEvent): { id: string; result: string; error: string } {
  if (event.content.length > MAX_CONTENT_CHARS) throw new PylonError('event_invalid', 'The answer of the bunker is too long.')
  const parsed = answerSchema.safeParse(parseJson(decryptFrom(client, event.pubkey, event.content)))
  if (!parsed.success) throw new PylonError('event_invalid', 'The answer of the bunker is malformed.')
  return parsed.data
}

/** @throws event_invalid when what is asked is too long to be encrypted */
export function buildBunkerRequest(client: LocalSigner, bunkerPubkey: string, request: BunkerRequest, createdAtS: number): EventTemplate {
  const text = JSON.stringify(request)
  if (Buffer.byteLength(text) > MAX_ANSWER_BYTES) throw new PylonError('event_invalid', 'This is too long to be asked of a bunker.')
  return { kind: BUNKER_KIND, created_at: createdAtS, tags: [['p', bunkerPubkey]], content: encryptTo(client, bunkerPubkey, text) }
}

/** Of a signed event beside its template, and of the answer around it. */
const SIGNED_CHARS = 400

/** Whether a bunker can be asked to sign it: the answer, which holds it as a text within a text, is one message of NIP-44. */
export const isSignableByBunker = (template: EventTemplate): boolean =>
  Buffer.byteLength(JSON.stringify(JSON.stringify(template))) + SIGNED_CHARS <= MAX_ANSWER_BYTES

const MAX_TAGS = 2000
const templateSchema = z.object({
  kind: z.int().min(0).max(65_535),
  content: z.string(),
  tags: z.array(z.array(z.string()).max(100)).max(MAX_TAGS),
  created_at: z
    .int()
    .min(0)
    .max(2 ** 40),
  pubkey: z.string().refine(isHex64).optional(),
})

/** What `sign_event` is to sign; the pubkey where it names one. @throws event_invalid */
export function parseTemplate(text: string | undefined): EventTemplate & { readonly pubkey?: string | undefined } {
  const parsed = templateSchema.safeParse(parseJson(text ?? ''))
  if (!parsed.success)
    throw new PylonError('event_invalid', 'The event to be signed is malformed: it needs kind, content, tags and created_at.')
  return parsed.data
}

/** The name that a client gives itself in `connect`: a hint to read, nothing else. */
export function clientNameIn(metadata: string | undefined): string | undefined {
  const parsed = z.object({ name: z.string() }).safeParse(parseJson(metadata ?? ''))
  return parsed.success ? parsed.data.name.slice(0, MAX_NAME_CHARS) || undefined : undefined
}
