/** NIP-90 on the provider's way out: feedback (7000), results (6xxx) and refunds. */
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { decryptFrom, type EncryptionScheme, encryptTo } from '../encryption.ts'
import type { EventTemplate, NostrEvent, Signer } from '../types.ts'
import { isHex64, tagValue } from './nip01.ts'
import { expirationTag } from './nip40.ts'
import { parseMsats, resultKindOf } from './nip90.ts'

export const FEEDBACK_KIND = 7000

const STATUSES = ['payment-required', 'processing', 'error', 'success', 'partial'] as const
/** The five of the spec; we send no other. */
export type FeedbackStatus = (typeof STATUSES)[number]

const MAX_EXTRA_CHARS = 2000
const MAX_BOLT11_CHARS = 4000

/** Encrypts the content of an answer to the customer. */
export interface AnswerEncryption {
  readonly signer: Signer
  /** That of the request. */
  readonly scheme: EncryptionScheme
}

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
  readonly relayHint?: string
  readonly expiresAtS?: number
  readonly createdAtS: number
}

const amountTag = (price: Price): string[] => [
  'amount',
  price.amountMsats.toString(),
  ...(price.bolt11 === undefined ? [] : [price.bolt11]),
]

function sealedContent(content: string, peer: string, encrypt: AnswerEncryption | undefined): string {
  return encrypt === undefined || content === '' ? content : encryptTo(encrypt.signer, peer, content, encrypt.scheme)
}

export function buildFeedback(feedback: NewFeedback): EventTemplate {
  const { request, status, extra, price, content = '', encrypt, relayHint, expiresAtS, createdAtS } = feedback
  return {
    kind: FEEDBACK_KIND,
    created_at: createdAtS,
    tags: [
      ['status', status, ...(extra === undefined ? [] : [extra])],
      ...(price === undefined ? [] : [amountTag(price)]),
      ['e', request.id, ...(relayHint === undefined ? [] : [relayHint])],
      ['p', request.pubkey],
      ...(expiresAtS === undefined ? [] : [expirationTag(expiresAtS)]),
      ...(encrypt === undefined || content === '' ? [] : [['encrypted']]),
    ],
    content: sealedContent(content, request.pubkey, encrypt),
  }
}

export interface NewResult {
  /** The whole request: its JSON goes into the result, encrypted requests as they came. */
  readonly request: NostrEvent
  readonly content: string
  readonly price?: Price
  readonly encrypt?: AnswerEncryption
  readonly relayHint?: string
  readonly expiresAtS?: number
  readonly createdAtS: number
}

export function buildResult(result: NewResult): EventTemplate {
  const { request, content, price, encrypt, relayHint, expiresAtS, createdAtS } = result
  return {
    kind: resultKindOf(request.kind),
    created_at: createdAtS,
    tags: [
      ['request', JSON.stringify(request)],
      ['e', request.id, ...(relayHint === undefined ? [] : [relayHint])],
      // The inputs of an encrypted request are its secret.
      ...(encrypt === undefined ? request.tags.filter((tag) => tag[0] === 'i') : []),
      ['p', request.pubkey],
      ...(price === undefined ? [] : [amountTag(price)]),
      ...(expiresAtS === undefined ? [] : [expirationTag(expiresAtS)]),
      ...(encrypt === undefined ? [] : [['encrypted']]),
    ],
    content: sealedContent(content, request.pubkey, encrypt),
  }
}

export interface NewRefund {
  readonly request: Pick<NostrEvent, 'id' | 'pubkey'>
  readonly signer: Signer
  readonly error: string
  /** Locked to 02 + the customer's key. */
  readonly token: string
  readonly relayHint?: string
  readonly createdAtS: number
}

/** An `error` feedback whose content, always encrypted with NIP-44, is `{error, refund_token}`. */
export function buildRefund(refund: NewRefund): EventTemplate {
  return buildFeedback({
    request: refund.request,
    status: 'error',
    extra: 'refunded',
    content: JSON.stringify({ error: refund.error, refund_token: refund.token }),
    encrypt: { signer: refund.signer, scheme: 'nip44' },
    createdAtS: refund.createdAtS,
    ...(refund.relayHint === undefined ? {} : { relayHint: refund.relayHint }),
  })
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

/** Reads a verified 7000. @param customer whose key decrypts. @throws event_invalid, amount_invalid */
export function parseFeedback(event: NostrEvent, customer?: Signer): Feedback {
  if (event.kind !== FEEDBACK_KIND) throw new PylonError('event_invalid', `Kind ${event.kind} is no job feedback.`)
  const [, status, extra] = event.tags.find((tag) => tag[0] === 'status') ?? []
  const normal = status?.toLowerCase().replaceAll('_', '-')
  const answer = parseAnswer(event, customer)
  return {
    ...answer,
    status: STATUSES.find((one) => one === normal) ?? 'unknown',
    extra: extra?.slice(0, MAX_EXTRA_CHARS),
    refundToken: answer.unreadable ? undefined : refundTokenIn(answer.content),
  }
}

/** Reads a verified 6xxx. @param customer whose key decrypts. @throws event_invalid, amount_invalid */
export function parseResult(event: NostrEvent, customer?: Signer): JobResult {
  if (event.kind < 6000 || event.kind > 6999) throw new PylonError('event_invalid', `Kind ${event.kind} is no job result.`)
  return { ...parseAnswer(event, customer), kind: event.kind }
}

function parseAnswer(event: NostrEvent, customer: Signer | undefined): Answer {
  const requestId = tagValue(event, 'e')
  if (!isHex64(requestId)) throw new PylonError('event_invalid', 'The answer names no request.')
  const [, amount, bolt11] = event.tags.find((tag) => tag[0] === 'amount') ?? []
  const opened = openContent(event, customer)
  return {
    id: event.id,
    provider: event.pubkey,
    requestId,
    customer: tagValue(event, 'p'),
    createdAtS: event.created_at,
    amountMsats: parseMsats(amount, 'amount'),
    bolt11: bolt11 !== undefined && bolt11 !== '' && bolt11.length <= MAX_BOLT11_CHARS ? bolt11.replace(/^lightning:/i, '') : undefined,
    content: opened ?? event.content,
    unreadable: opened === undefined,
  }
}

/** The readable content, or undefined where it stays ciphertext. */
function openContent(event: NostrEvent, customer: Signer | undefined): string | undefined {
  const encrypted = event.tags.some((tag) => tag[0] === 'encrypted')
  if (!encrypted || event.content === '') return event.content
  if (customer === undefined) return undefined
  try {
    return decryptFrom(customer, event.pubkey, event.content)
  } catch {
    return undefined
  }
}

function refundTokenIn(content: string): string | undefined {
  const parsed = content.startsWith('{') ? parseJson(content) : undefined
  if (typeof parsed !== 'object' || parsed === null) return undefined
  const token = (parsed as { refund_token?: unknown }).refund_token
  return typeof token === 'string' && token !== '' ? token : undefined
}
