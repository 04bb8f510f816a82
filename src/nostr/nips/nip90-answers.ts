/** NIP-90 on the provider's way out: feedback (7000), results (6xxx) and refunds. */
import { type Msats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { decryptFrom, type EncryptionScheme, encryptTo } from '../keys/encryption.ts'
import type { Awaitable, EventTemplate, LocalSigner, NostrEvent, Signer } from '../types.ts'
import { isHex64, tagValue, tagValues } from './nip01.ts'
import { expirationTag } from './nip40.ts'
import { resultKindOf } from './nip90.ts'

export const FEEDBACK_KIND = 7000

const STATUSES = ['payment-required', 'processing', 'error', 'success', 'partial'] as const
/** The five of the spec; we send no other. */
export type FeedbackStatus = (typeof STATUSES)[number]

const MAX_EXTRA_CHARS = 2000
const MAX_BOLT11_CHARS = 4000
/** Requests that one answer may be about. */
const MAX_REQUESTS = 20
/** What NIP-44 (version 2) and NIP-04 payloads look like. */
const SEALED = /^(?:A[A-Za-z0-9+/]{130,}={0,2}|[A-Za-z0-9+/=]+\?iv=[A-Za-z0-9+/=]+)$/

/** Encrypts the content of an answer to the customer. */
export interface AnswerEncryption {
  readonly signer: Signer
  /** That of the request. */
  readonly scheme: EncryptionScheme
}

/** The same where the key, if one is needed, is held here. */
export type Local<T> = Omit<T, 'encrypt'> & { readonly encrypt?: AnswerEncryption & { readonly signer: LocalSigner } }

export interface Price {
  readonly amountMsats: Msats
  readonly bolt11?: string
}

export interface NewFeedback {
  readonly request: Pick<NostrEvent, 'id' | 'pubkey'>
  readonly status: FeedbackStatus
  /** For people, in the status tag; it is never encrypted. */
  readonly extra?: string
  readonly price?: Price
  readonly content?: string
  readonly encrypt?: AnswerEncryption
  readonly expiresAtS?: number
  readonly createdAtS: number
}

const amountTag = (price: Price): string[] => [
  'amount',
  price.amountMsats.toString(),
  ...(price.bolt11 === undefined ? [] : [price.bolt11]),
]

/** The template with its content sealed: at once by a key of this home, else as soon as whoever holds it has answered. */
function sealed(template: EventTemplate, peer: string, encrypt: AnswerEncryption | undefined): Awaitable<EventTemplate> {
  if (encrypt === undefined || template.content === '') return template
  const content = encryptTo(encrypt.signer, peer, template.content, encrypt.scheme)
  return typeof content === 'string' ? { ...template, content } : content.then((text) => ({ ...template, content: text }))
}

export function buildFeedback(feedback: Local<NewFeedback>): EventTemplate
export function buildFeedback(feedback: NewFeedback): Awaitable<EventTemplate>
export function buildFeedback(feedback: NewFeedback): Awaitable<EventTemplate> {
  const { request, status, extra, price, content = '', encrypt, expiresAtS, createdAtS } = feedback
  const template = {
    kind: FEEDBACK_KIND,
    created_at: createdAtS,
    tags: [
      ['status', status, ...(extra === undefined ? [] : [extra])],
      ...(price === undefined ? [] : [amountTag(price)]),
      ['e', request.id],
      ['p', request.pubkey],
      ...(expiresAtS === undefined ? [] : [expirationTag(expiresAtS)]),
      ...(encrypt === undefined || content === '' ? [] : [['encrypted']]),
    ],
    content,
  }
  return sealed(template, request.pubkey, encrypt)
}

export interface NewResult {
  /** The whole request: its JSON goes into the result, encrypted requests as they came. */
  readonly request: NostrEvent
  readonly content: string
  readonly price?: Price
  readonly encrypt?: AnswerEncryption
  readonly expiresAtS?: number
  readonly createdAtS: number
}

export function buildResult(result: Local<NewResult>): EventTemplate
export function buildResult(result: NewResult): Awaitable<EventTemplate>
export function buildResult(result: NewResult): Awaitable<EventTemplate> {
  const { request, content, price, encrypt, expiresAtS, createdAtS } = result
  const template = {
    kind: resultKindOf(request.kind),
    created_at: createdAtS,
    tags: [
      ['request', JSON.stringify(request)],
      ['e', request.id],
      // The inputs of an encrypted request are its secret.
      ...(encrypt === undefined ? request.tags.filter((tag) => tag[0] === 'i') : []),
      ['p', request.pubkey],
      ...(price === undefined ? [] : [amountTag(price)]),
      ...(expiresAtS === undefined ? [] : [expirationTag(expiresAtS)]),
      ...(encrypt === undefined ? [] : [['encrypted']]),
    ],
    content,
  }
  return sealed(template, request.pubkey, encrypt)
}

interface Answer {
  readonly id: string
  readonly provider: string
  /** The request that it answers. */
  readonly requestId: string
  readonly customer: string | undefined
  readonly createdAtS: number
  readonly amountMsats: Msats | undefined
  readonly bolt11: string | undefined
  /** Decrypted where it was encrypted and a key was given. */
  readonly content: string
  /** The content is still ciphertext: no key was given, or it was not for that key. */
  readonly unreadable: boolean
}

export interface Feedback extends Answer {
  /** `unknown` is for statuses outside the spec; `payment_required` is read as the spec's. */
  readonly status: FeedbackStatus | 'unknown'
  readonly extra: string | undefined
  /** Of a refund. */
  readonly refundToken: string | undefined
}

export interface JobResult extends Answer {
  readonly kind: number
}

/** Reads a verified 7000; what of it can't be read is as if it were absent. @param customer whose key decrypts. @throws event_invalid */
export function parseFeedback(event: NostrEvent, customer?: LocalSigner): Feedback {
  if (event.kind !== FEEDBACK_KIND) throw new PylonError('event_invalid', `Kind ${event.kind} is no job feedback.`)
  const said = event.tags.filter((tag) => tag[0] === 'status').map(([, status, extra]) => ({ status: statusIn(status), extra }))
  const first = said.find(({ status }) => status !== 'unknown') ?? said[0]
  const answer = parseAnswer(event, customer)
  return {
    ...answer,
    status: first?.status ?? 'unknown',
    extra: first?.extra?.slice(0, MAX_EXTRA_CHARS),
    refundToken: answer.unreadable ? undefined : refundTokenIn(answer.content.trim()),
  }
}

function statusIn(text: string | undefined): FeedbackStatus | 'unknown' {
  const normal = text?.trim().toLowerCase().replaceAll('_', '-')
  return STATUSES.find((one) => one === normal) ?? 'unknown'
}

/** Reads a verified 6xxx likewise. @param customer whose key decrypts. @throws event_invalid */
export function parseResult(event: NostrEvent, customer?: LocalSigner): JobResult {
  if (event.kind < 6000 || event.kind > 6999) throw new PylonError('event_invalid', `Kind ${event.kind} is no job result.`)
  return { ...parseAnswer(event, customer), kind: event.kind }
}

/** The requests that an answer may be about: its `e` tags, whatever else they hold, then the request that it copies. */
export function* requestIdsOf(event: Pick<NostrEvent, 'tags'>): Generator<string> {
  const named = tagValues(event, 'e').map((id) => id.trim().toLowerCase())
  yield* [...new Set(named)].filter(isHex64).slice(0, MAX_REQUESTS)
  const copied = (parseJson(tagValue(event, 'request') ?? '') as { id?: unknown } | null | undefined)?.id
  if (isHex64(copied)) yield copied
}

function parseAnswer(event: NostrEvent, customer: LocalSigner | undefined): Answer {
  const [requestId] = requestIdsOf(event)
  if (requestId === undefined) throw new PylonError('event_invalid', 'The answer names no request.')
  const amounts = event.tags.filter((tag) => tag[0] === 'amount')
  const invoices = [...amounts.map((tag) => tag[2]), tagValue(event, 'bolt11')].flatMap((text) => invoiceIn(text) ?? [])
  const opened = openContent(event, customer)
  return {
    id: event.id,
    provider: event.pubkey,
    requestId,
    customer: tagValue(event, 'p'),
    createdAtS: event.created_at,
    amountMsats: amounts.flatMap((tag) => amountIn(tag[1]) ?? [])[0],
    bolt11: invoices[0],
    content: opened ?? event.content,
    unreadable: opened === undefined,
  }
}

/** Also as others write whole numbers: `5000.0`. */
function amountIn(text: string | undefined): Msats | undefined {
  const whole = /^\s*(\d{1,16})(?:\.0+)?\s*$/.exec(text ?? '')?.[1]
  const amount = whole === undefined ? undefined : BigInt(whole)
  return amount === undefined || amount > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : msats(amount)
}

function invoiceIn(text: string | undefined): string | undefined {
  const invoice = text?.trim().replace(/^lightning:/i, '') ?? ''
  return invoice === '' || invoice.length > MAX_BOLT11_CHARS ? undefined : invoice
}

/**
 * The readable content, or undefined where it stays ciphertext. The tag is what some clients forget, and others set on plain
 * text: what the content looks like counts beside it.
 */
function openContent(event: NostrEvent, customer: LocalSigner | undefined): string | undefined {
  const isTagged = event.tags.some((tag) => tag[0] === 'encrypted')
  const isSealed = SEALED.test(event.content)
  if (event.content === '' || (!isTagged && !isSealed)) return event.content
  if (customer !== undefined) {
    try {
      return decryptFrom(customer, event.pubkey, event.content)
    } catch {
      // Not for us, or no ciphertext at all: below.
    }
  }
  return isTagged && isSealed ? undefined : event.content
}

function refundTokenIn(content: string): string | undefined {
  const parsed = content.startsWith('{') ? parseJson(content) : undefined
  if (typeof parsed !== 'object' || parsed === null) return undefined
  const token = (parsed as { refund_token?: unknown }).refund_token
  return typeof token === 'string' && token !== '' ? token : undefined
}
