/** NIP-47: Nostr Wallet Connect, as a wallet service and as its client: the connection string, and the five kinds of events. */
import { z } from 'zod'
import { type Msats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson, stringify } from '../../base/json.ts'
import { relayUrls, tryRelayUrl } from '../relay/relay-url.ts'
import type { EventTemplate, LocalSigner, NostrEvent } from '../types.ts'
import { isHex64, tagValue } from './nip01.ts'
import { expirationTag } from './nip40.ts'

export const NWC_INFO_KIND = 13_194
export const NWC_REQUEST_KIND = 23_194
export const NWC_RESPONSE_KIND = 23_195
/** Notifications for clients that know NIP-04 alone; all others hear the next kind. */
export const NWC_NOTIFICATION_04_KIND = 23_196
export const NWC_NOTIFICATION_KIND = 23_197

export const isNwcKind = (kind: number): boolean => kind >= NWC_REQUEST_KIND && kind <= NWC_NOTIFICATION_KIND

export const NWC_METHODS = [
  'pay_invoice',
  'make_invoice',
  'lookup_invoice',
  'list_transactions',
  'get_balance',
  'get_budget',
  'get_info',
] as const
/** What the service does; others are known by name and not implemented. */
export type NwcMethod = (typeof NWC_METHODS)[number]

export const isNwcMethod = (name: string): name is NwcMethod => (NWC_METHODS as readonly string[]).includes(name)

export const NWC_NOTIFICATIONS = ['payment_received', 'payment_sent'] as const
export type NwcNotificationType = (typeof NWC_NOTIFICATIONS)[number]

/** As the `encryption` tags name them. */
export type NwcEncryption = 'nip44_v2' | 'nip04'

export type NwcErrorCode =
  | 'RATE_LIMITED'
  | 'NOT_IMPLEMENTED'
  | 'INSUFFICIENT_BALANCE'
  | 'QUOTA_EXCEEDED'
  | 'RESTRICTED'
  | 'UNAUTHORIZED'
  | 'INTERNAL'
  | 'UNSUPPORTED_ENCRYPTION'
  | 'PAYMENT_FAILED'
  | 'NOT_FOUND'
  | 'OTHER'

/** A request as it was decrypted; its params are checked by who does the method. */
export interface NwcRequest {
  readonly method: string
  readonly params: Readonly<Record<string, unknown>>
}

export interface NwcError {
  readonly code: NwcErrorCode
  readonly message: string
}

/** What a service answers; amounts in it are msats, times unix seconds. */
export type NwcAnswer = { readonly result: Readonly<Record<string, unknown>> } | { readonly error: NwcError }

/** What a client reads: services use codes of their own too. */
export interface NwcResponse {
  readonly method: string
  readonly result: Readonly<Record<string, unknown>> | undefined
  readonly error: { readonly code: string; readonly message: string } | undefined
}

/** An invoice or payment; amounts in msats, times in unix seconds. */
export interface NwcTransaction {
  readonly type: 'incoming' | 'outgoing'
  readonly state: 'pending' | 'settled' | 'accepted' | 'expired' | 'failed' | undefined
  readonly invoice: string | undefined
  readonly paymentHash: string
  readonly preimage: string | undefined
  readonly amountMsats: Msats
  readonly feesPaidMsats: Msats
  readonly createdAtS: number | undefined
  readonly expiresAtS: number | undefined
  readonly settledAtS: number | undefined
}

// The connection string

export interface NwcUri {
  readonly walletPubkey: string
  readonly relays: readonly string[]
  /** 64 hex digits: the key of the client. Whoever has it can use the connection. */
  readonly secret: string
  readonly lud16?: string
}

const URI = /^nostr\+?walletconnect:(?:\/\/)?([0-9a-f]{64})\/?\?(.+)$/i
const MAX_URI_CHARS = 4096
const MAX_RELAYS = 10

/** @throws nwc_invalid */
export function parseNwcUri(text: string): NwcUri {
  const [, pubkey, query] = text.length > MAX_URI_CHARS ? [] : (URI.exec(text.trim()) ?? [])
  if (pubkey === undefined || query === undefined)
    throw invalidUri('it does not begin with nostr+walletconnect:// and a key of 64 hex digits')
  const params = new URLSearchParams(query)
  const secret = params.get('secret')?.toLowerCase()
  if (!isHex64(secret)) throw invalidUri('its secret is not 64 hex digits')
  const named = params.getAll('relay').filter((relay) => relay !== '')
  const bad = named.find((relay) => tryRelayUrl(relay) === undefined)
  if (bad !== undefined) throw invalidUri('one of its relays is no ws:// or wss:// URL')
  const relays = relayUrls(named, MAX_RELAYS)
  if (relays.length === 0) throw invalidUri('it names no relay')
  const lud16 = params.get('lud16')
  return { walletPubkey: pubkey.toLowerCase(), relays, secret, ...(lud16 === null || lud16 === '' ? {} : { lud16 }) }
}

export function formatNwcUri({ walletPubkey, relays, secret, lud16 }: NwcUri): string {
  const params = [
    ...relays.map((relay) => ['relay', relay] as const),
    ['secret', secret],
    ...(lud16 === undefined ? [] : [['lud16', lud16]]),
  ]
  return `nostr+walletconnect://${walletPubkey}?${params.map(([name, value = '']) => `${name}=${encodeURIComponent(value)}`).join('&')}`
}

/** Never with the text itself, which holds a secret. */
const invalidUri = (why: string): PylonError =>
  new PylonError('nwc_invalid', `The connection string cannot be used: ${why}. Copy it whole from your wallet.`)

// What a wallet says of itself

export interface NwcInfo {
  readonly methods: readonly string[]
  readonly encryptions: readonly NwcEncryption[]
  readonly notifications: readonly string[]
}

export function buildInfo(info: { readonly methods: readonly NwcMethod[]; readonly createdAtS: number }): EventTemplate {
  return {
    kind: NWC_INFO_KIND,
    created_at: info.createdAtS,
    tags: [
      ['encryption', 'nip44_v2 nip04'],
      ['notifications', NWC_NOTIFICATIONS.join(' ')],
    ],
    content: [...info.methods, 'notifications'].join(' '),
  }
}

/** Without the tag a wallet knows NIP-04 alone; some separate by commas, and an older form says so by a version. */
export function parseInfo(event: Pick<NostrEvent, 'tags' | 'content'>): NwcInfo {
  const words = (text: string | undefined) => (text ?? '').split(/[\s,]+/).filter((word) => word !== '')
  const named = words(tagValue(event, 'encryption'))
  const old = words(tagValue(event, 'v')).includes('1.0') ? ['nip44_v2', 'nip04'] : ['nip04']
  const encryptions = (named.length > 0 ? named : old).filter((word): word is NwcEncryption => word === 'nip44_v2' || word === 'nip04')
  return { methods: words(event.content), encryptions, notifications: words(tagValue(event, 'notifications')) }
}

// Requests

const MAX_CONTENT_CHARS = 100_000
const requestSchema = z.object({
  method: z.string().min(1).max(60),
  params: z
    .record(z.string(), z.unknown())
    .nullish()
    .transform((params) => params ?? {}),
})

export interface RequestOptions {
  readonly encryption: NwcEncryption
  readonly createdAtS: number
  /** After this the wallet is not to act on it. */
  readonly expiresAtS: number
}

export function buildNwcRequest(signer: LocalSigner, walletPubkey: string, request: NwcRequest, options: RequestOptions): EventTemplate {
  const { encryption, createdAtS, expiresAtS } = options
  return {
    kind: NWC_REQUEST_KIND,
    created_at: createdAtS,
    tags: [['p', walletPubkey], ...(encryption === 'nip04' ? [] : [['encryption', encryption]]), expirationTag(expiresAtS)],
    content: encrypt(signer, walletPubkey, stringify(request), encryption),
  }
}

/** How a request says that it is encrypted; undefined for a way that we do not know. */
export function encryptionOf(event: Pick<NostrEvent, 'tags'>): NwcEncryption | undefined {
  const named = tagValue(event, 'encryption') ?? (tagValue(event, 'v') === '1.0' ? 'nip44_v2' : 'nip04')
  return named === 'nip44_v2' || named === 'nip04' ? named : undefined
}

/** @throws decrypt_failed, event_invalid */
export function openNwcRequest(signer: LocalSigner, event: NostrEvent, encryption: NwcEncryption): NwcRequest {
  return parsed(requestSchema, decrypt(signer, event.pubkey, event.content, encryption), 'request')
}

// Responses

const responseSchema = z.object({
  result_type: z.string().max(60).catch(''),
  result: z.record(z.string(), z.unknown()).nullish(),
  error: z.object({ code: z.string().max(60).catch('OTHER'), message: z.string().catch('') }).nullish(),
})

export function buildNwcResponse(
  signer: LocalSigner,
  to: { readonly clientPubkey: string; readonly requestId: string; readonly encryption: NwcEncryption },
  method: string,
  answer: NwcAnswer,
  createdAtS: number,
): EventTemplate {
  const body = 'error' in answer ? { error: answer.error, result: null } : { error: null, result: answer.result }
  return {
    kind: NWC_RESPONSE_KIND,
    created_at: createdAtS,
    tags: [
      ['p', to.clientPubkey],
      ['e', to.requestId],
    ],
    content: encrypt(signer, to.clientPubkey, stringify({ result_type: method, ...body }), to.encryption),
  }
}

/** In whichever way it was encrypted: some services answer in another than they were asked in. @throws decrypt_failed, event_invalid */
export function openNwcResponse(signer: LocalSigner, event: NostrEvent): NwcResponse {
  const body = parsed(responseSchema, decryptAny(signer, event.pubkey, event.content), 'response')
  const error = body.error ?? (body.result == null ? { code: 'OTHER', message: 'the answer has no result' } : undefined)
  return { method: body.result_type, result: error === undefined ? (body.result ?? undefined) : undefined, error }
}

// Notifications

const notificationSchema = z.object({ notification_type: z.string().max(60), notification: z.record(z.string(), z.unknown()) })

/** One for each way of encryption, as services that know both are to send. */
export function buildNotifications(
  signer: LocalSigner,
  clientPubkey: string,
  type: NwcNotificationType,
  notification: Readonly<Record<string, unknown>>,
  createdAtS: number,
): EventTemplate[] {
  const text = stringify({ notification_type: type, notification })
  const forms = [
    [NWC_NOTIFICATION_KIND, 'nip44_v2'],
    [NWC_NOTIFICATION_04_KIND, 'nip04'],
  ] as const
  return forms.map(([kind, encryption]) => ({
    kind,
    created_at: createdAtS,
    tags: [['p', clientPubkey]],
    content: encrypt(signer, clientPubkey, text, encryption),
  }))
}

/** @throws decrypt_failed, event_invalid */
export function openNotification(
  signer: LocalSigner,
  event: NostrEvent,
): { type: string; notification: Readonly<Record<string, unknown>> } {
  const { notification_type, notification } = parsed(notificationSchema, decryptAny(signer, event.pubkey, event.content), 'notification')
  return { type: notification_type, notification }
}

// Transactions

const amount = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const time = z
  .number()
  .nullish()
  .transform((value) => (typeof value === 'number' && value > 0 ? Math.floor(value) : undefined))
const transactionSchema = z.object({
  type: z.enum(['incoming', 'outgoing']).catch('incoming'),
  state: z.enum(['pending', 'settled', 'accepted', 'expired', 'failed']).nullish().catch(undefined),
  invoice: z.string().max(8192).nullish(),
  payment_hash: z
    .string()
    .transform((text) => text.toLowerCase())
    .refine(isHex64),
  preimage: z.string().max(200).nullish(),
  amount,
  fees_paid: amount.nullish(),
  created_at: time,
  expires_at: time,
  settled_at: time,
})

/** What a wallet tells of an invoice or payment. @throws event_invalid */
export function parseTransaction(value: unknown): NwcTransaction {
  const found = transactionSchema.safeParse(value)
  if (!found.success) throw new PylonError('event_invalid', 'The wallet told of a payment in a form that cannot be read.')
  const { data } = found
  const text = (field: string | null | undefined) => (field == null || field === '' ? undefined : field)
  // Older services have no state: what has a time or a preimage is settled.
  const isSettled = data.settled_at !== undefined || (data.type === 'outgoing' && isHex64(data.preimage ?? ''))
  return {
    type: data.type,
    state: data.state ?? (isSettled ? 'settled' : undefined),
    invoice: text(data.invoice),
    paymentHash: data.payment_hash,
    preimage: text(data.preimage),
    amountMsats: msats(data.amount),
    feesPaidMsats: msats(data.fees_paid ?? 0),
    createdAtS: data.created_at,
    expiresAtS: data.expires_at,
    settledAtS: data.settled_at,
  }
}

function encrypt(signer: LocalSigner, peer: string, text: string, encryption: NwcEncryption): string {
  return encryption === 'nip04' ? signer.nip04Encrypt(peer, text) : signer.nip44Encrypt(peer, text)
}

function decrypt(signer: LocalSigner, peer: string, payload: string, encryption: NwcEncryption): string {
  if (payload.length > MAX_CONTENT_CHARS) throw new PylonError('event_invalid', 'The message is too long.')
  return encryption === 'nip04' ? signer.nip04Decrypt(peer, payload) : signer.nip44Decrypt(peer, payload)
}

const decryptAny = (signer: LocalSigner, peer: string, payload: string): string =>
  decrypt(signer, peer, payload, payload.includes('?iv=') ? 'nip04' : 'nip44_v2')

function parsed<T>(schema: z.ZodType<T>, text: string, what: string): T {
  const found = schema.safeParse(parseJson(text))
  if (found.success) return found.data
  throw new PylonError('event_invalid', `The ${what} is malformed: ${found.error.issues[0]?.message ?? ''}.`)
}
