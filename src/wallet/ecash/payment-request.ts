/**
 * Payment requests as people hand them on (NUT-18 `creqA`, NUT-26 `creqB`) and the payload that pays one: bounded before they are
 * read, and held to what this wallet can honour. Pure.
 */
import { PaymentRequest as EncodedRequest, PaymentRequestTransportType } from '@cashu/cashu-ts'
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { nprofileOf, parsePubkey, relayHints } from '../../nostr/nips/nip19.ts'
import type { TokenProof } from './crypto.ts'
import { encodeToken, normaliseMintUrl } from './token.ts'

/** Where the payload goes. */
export type RequestTransport =
  | { readonly type: 'nostr'; readonly pubkey: string; readonly relays: readonly string[] }
  | { readonly type: 'post'; readonly url: string }

export interface PaymentRequest {
  /** As it was given, without a `cashu:` in front. */
  readonly text: string
  readonly id: string | undefined
  /** Undefined where the payer chooses. */
  readonly amountSats: bigint | undefined
  /** Normalised; empty: any mint. */
  readonly mints: readonly string[]
  readonly description: string | undefined
  readonly singleUse: boolean
  /** Those that we speak, in the order of the payee; empty: the token is handed over by hand. */
  readonly transports: readonly RequestTransport[]
  /** The compressed key that the token must be locked to (P2PK). */
  readonly lockTo: string | undefined
}

const MAX_REQUEST_CHARS = 8192
const MAX_MINTS = 50
const MAX_TRANSPORTS = 10
const MAX_URL_CHARS = 2048
const MAX_ID_CHARS = 200
const MAX_DESCRIPTION_CHARS = 1000

/** Whether a text means to be one. */
export const isPaymentRequest = (text: string): boolean => /^(?:(?:web\+)?cashu:(?:\/\/)?)?creq[ab]/i.test(text.trim())

/** @throws destination_invalid */
export function parsePaymentRequest(input: string): PaymentRequest {
  const text = input.trim().replace(/^(?:web\+)?cashu:(?:\/\/)?/i, '')
  if (text.length > MAX_REQUEST_CHARS) throw invalid(`it is longer than ${MAX_REQUEST_CHARS} characters`)
  const decoded = decode(text)
  const { id, unit, mints = [], transport = [], description } = decoded
  const amountSats = decoded.amount?.toBigInt()
  if ((unit ?? (amountSats === undefined ? 'sat' : '')) !== 'sat')
    throw invalid(`it asks for ${unit?.slice(0, 20) ?? 'no unit'}, not for sat`)
  if (amountSats !== undefined && (amountSats <= 0n || amountSats > BigInt(Number.MAX_SAFE_INTEGER) / 1000n)) {
    throw invalid('its amount is out of range')
  }
  if (id !== undefined && id.length > MAX_ID_CHARS) throw invalid('its id is too long')
  const transports = transport.slice(0, MAX_TRANSPORTS).flatMap((one) => transportOf(one) ?? [])
  if (transport.length > 0 && transports.length === 0) throw invalid('it wants the token by a way that this wallet does not know')
  const known = mints.slice(0, MAX_MINTS).flatMap((url) => mintOf(url) ?? [])
  if (mints.length > 0 && known.length === 0) throw invalid('none of its mints is a URL')
  return {
    ...{ text, id, amountSats, transports, singleUse: decoded.singleUse },
    mints: [...new Set(known)],
    description: description?.slice(0, MAX_DESCRIPTION_CHARS),
    lockTo: lockOf(decoded.nut10),
  }
}

function decode(text: string): EncodedRequest {
  try {
    return EncodedRequest.fromEncodedRequest(/^creqa/i.test(text) ? `creqA${text.slice(5)}` : text)
  } catch {
    throw invalid('it is damaged or no payment request')
  }
}

/** Undefined for a way that we do not know, and for one whose address is none. */
function transportOf({ type, target, tags }: NonNullable<EncodedRequest['transport']>[number]): RequestTransport | undefined {
  if (typeof target !== 'string' || target.length > 5000) return undefined
  if (type === PaymentRequestTransportType.POST) {
    const url = target.length > MAX_URL_CHARS ? null : URL.parse(target)
    return url !== null && /^https?:$/.test(url.protocol) ? { type: 'post', url: url.href } : undefined
  }
  if (type !== PaymentRequestTransportType.NOSTR) return undefined
  const nips = (Array.isArray(tags) ? tags : []).flatMap((tag) => (Array.isArray(tag) && tag[0] === 'n' ? tag.slice(1) : []))
  if (nips.length > 0 && !nips.includes('17')) return undefined
  try {
    return { type: 'nostr', pubkey: parsePubkey(target), relays: relayHints(target) }
  } catch {
    // A way that can't be gone is none; others may be there.
    return undefined
  }
}

function mintOf(url: unknown): string | undefined {
  if (typeof url !== 'string' || url.length > MAX_URL_CHARS) return undefined
  try {
    return normaliseMintUrl(url)
  } catch {
    // No mint of ours is called that.
    return undefined
  }
}

/** Only what the token can really be locked to: a condition that is left out would be one that the payee counts on. */
function lockOf(nut10: EncodedRequest['nut10']): string | undefined {
  if (nut10 === undefined) return undefined
  const { kind, data, tags = [] } = nut10
  if (kind !== 'P2PK') throw invalid(`it wants a lock of the kind ${String(kind).slice(0, 20)}, which this wallet does not make`)
  if (!/^0[23][0-9a-f]{64}$/i.test(data)) throw invalid('the key of its lock is malformed')
  const strange = tags.find((tag) => !(tag[0] === 'sigflag' && tag[1] === 'SIG_INPUTS'))
  if (strange !== undefined)
    throw invalid(`it wants a lock with the condition ${String(strange[0]).slice(0, 20)}, which this wallet does not make`)
  return data.toLowerCase()
}

/** A request of ours in both forms. */
export function encodePaymentRequest(request: Omit<PaymentRequest, 'text' | 'lockTo'>): { creqA: string; creqB: string } {
  const transports = request.transports.map((one) =>
    one.type === 'nostr'
      ? { type: PaymentRequestTransportType.NOSTR, target: nprofileOf(one.pubkey, one.relays), tags: [['n', '17']] }
      : { type: PaymentRequestTransportType.POST, target: one.url },
  )
  const { id, amountSats, mints, description, singleUse } = request
  const encoded = new EncodedRequest(transports, id, amountSats, 'sat', [...mints], description, singleUse)
  return { creqA: encoded.toEncodedCreqA(), creqB: encoded.toEncodedCreqB() }
}

/** A letter or body far above this is no payment. */
const MAX_PAYLOAD_CHARS = 128 * 1024
const MAX_PROOFS = 200

const hex64 = z.string().regex(/^[0-9a-f]{64}$/i)
const payloadSchema = z.object({
  id: z.string().min(1).max(MAX_ID_CHARS),
  memo: z.string().nullish().catch(undefined),
  mint: z.string().min(1).max(MAX_URL_CHARS),
  unit: z.string().min(1).max(20),
  proofs: z
    .array(
      z.object({
        id: z.string().regex(/^[0-9a-f]{16,66}$/i),
        amount: z.int().min(1),
        secret: z.string().min(1).max(1024),
        C: z.string().regex(/^0[23][0-9a-f]{64}$/i),
        dleq: z.object({ e: hex64, s: hex64, r: hex64 }).nullish(),
      }),
    )
    .min(1)
    .max(MAX_PROOFS),
})

/** What pays a request, as strangers send it. */
export interface RequestPayload {
  readonly id: string
  readonly memo: string | undefined
  /** Normalised. */
  readonly mintUrl: string
  readonly unit: string
  readonly faceSats: bigint
  readonly secrets: readonly string[]
  /** The same as one token (cashuB). */
  readonly token: string
}

/** Undefined for what is no payload of a request: nothing of it is looked at before its size. */
export function readPayload(text: string): RequestPayload | undefined {
  if (text.length > MAX_PAYLOAD_CHARS || !text.trimStart().startsWith('{') || !text.includes('"proofs"')) return undefined
  const parsed = payloadSchema.safeParse(parseJson(text))
  const mintUrl = parsed.success ? mintOf(parsed.data.mint) : undefined
  if (!parsed.success || mintUrl === undefined) return undefined
  const { id, memo, unit, proofs } = parsed.data
  const given = proofs.map(({ dleq, ...proof }) => ({ ...proof, ...(dleq == null ? {} : { dleq }) }))
  try {
    const token = encodeToken(mintUrl, given)
    const faceSats = proofs.reduce((sum, { amount }) => sum + BigInt(amount), 0n)
    return { id, memo: memo?.slice(0, 500), mintUrl, unit, faceSats, secrets: proofs.map(({ secret }) => secret), token }
  } catch {
    // Keyset ids that no token carries.
    return undefined
  }
}

/** The payload that pays a request (NUT-18). @returns JSON */
export const writePayload = (payment: {
  readonly id: string | undefined
  readonly mintUrl: string
  readonly proofs: readonly TokenProof[]
}): string =>
  JSON.stringify({
    ...(payment.id === undefined ? {} : { id: payment.id }),
    mint: payment.mintUrl,
    unit: 'sat',
    proofs: payment.proofs.map(({ id, amount, secret, C, dleq }) => ({ id, amount, secret, C, ...(dleq === undefined ? {} : { dleq }) })),
  })

function invalid(why: string): PylonError {
  return new PylonError('destination_invalid', `The payment request cannot be paid: ${why}.`)
}
