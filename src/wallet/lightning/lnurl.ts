/** LNURL-pay as a payer (LUD-01, 06, 16): from an address to an invoice, through the guarded dialer, believing nothing. */
import { bech32 } from '@scure/base'
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'

export interface PayParameters {
  readonly callback: string
  readonly minMsats: bigint
  readonly maxMsats: bigint
  /** How long a comment may be. */
  readonly commentChars: number
  /** The key that signs zap receipts; undefined where it takes no zaps. */
  readonly nostrPubkey: string | undefined
  /** Whom it says it is the address of (`text/identifier` or `text/email` of its metadata); undefined where it does not say. */
  readonly identifier: string | undefined
}

const MAX_LNURL_CHARS = 2000
const MAX_ANSWER_BYTES = 65_536
const TIMEOUT_MS = 10_000
const LNURL = /^(?:lightning:)?lnurl1/i
const LUD16 = /^([a-z0-9_.+-]{1,64})@([a-z0-9.-]{1,253}(?::\d{1,5})?)$/i

/** A host that moved answers with one redirect, seldom with two. */
const MAX_REDIRECTS = 4

/** Servers write limits as numbers, as fractions and as text. */
const limit = z.union([z.number(), z.string().trim().min(1).max(40).transform(Number)]).pipe(z.number().min(0).max(1e18))

const payParametersSchema = z.object({
  tag: z.string().regex(/^payRequest$/i),
  callback: z.string().min(1).max(2000),
  minSendable: limit,
  maxSendable: limit,
  commentAllowed: limit.nullish().catch(undefined),
  allowsNostr: z.unknown().optional(),
  nostrPubkey: z.unknown().optional(),
  metadata: z.unknown().optional(),
})
const invoiceSchema = z.object({ pr: z.string().min(10).max(8192) })
const errorSchema = z.object({ status: z.string().regex(/^error$/i), reason: z.string().catch('no reason given') })

/** The bech32 form of an LNURL. */
export function encodeLnurl(url: string): string {
  return bech32.encode('lnurl', bech32.toWords(new TextEncoder().encode(url)), MAX_LNURL_CHARS)
}

/** @throws lnurl_invalid */
export function decodeLnurl(lnurl: string): string {
  try {
    const { prefix, words } = bech32.decode(
      lnurl
        .trim()
        .replace(/^lightning:/i, '')
        .toLowerCase() as `${string}1${string}`,
      MAX_LNURL_CHARS,
    )
    if (prefix !== 'lnurl') throw new Error('another prefix')
    return new URL(new TextDecoder('utf-8', { fatal: true }).decode(bech32.fromWords(words))).href
  } catch {
    throw invalid('the LNURL cannot be decoded')
  }
}

/** Where to ask about an address: lud06 first, since its URL is exact, unless it is none. Undefined when it has neither. @throws lnurl_invalid */
export function lnurlOfProfile(profile: { readonly lud06?: string | undefined; readonly lud16?: string | undefined }): string | undefined {
  const [lud06, lud16] = [profile.lud06?.trim() ?? '', profile.lud16?.trim() ?? '']
  if (lud06 !== '' && (lud16 === '' || LNURL.test(lud06))) return decodeLnurl(lud06)
  if (lud16 === '') return undefined
  if (LNURL.test(lud16)) return decodeLnurl(lud16)
  const [, name, host] = LUD16.exec(lud16.replace(/^lightning:/i, '')) ?? []
  if (name === undefined || host === undefined) throw invalid('the Lightning address is malformed')
  return `https://${host.toLowerCase()}/.well-known/lnurlp/${encodeURIComponent(name.toLowerCase())}`
}

/** @throws lnurl_invalid, fetch_failed, address_refused */
export async function fetchPayParameters(dialer: Pick<Dialer, 'fetch'>, url: string): Promise<PayParameters> {
  const answer = await ask(dialer, url, payParametersSchema)
  const callback = URL.parse(answer.callback, url)
  if (callback === null) throw invalid('its callback is no URL')
  const minMsats = BigInt(Math.ceil(answer.minSendable))
  return {
    callback: callback.href,
    minMsats: minMsats < 1n ? 1n : minMsats,
    maxMsats: BigInt(Math.floor(answer.maxSendable)),
    commentChars: Math.floor(answer.commentAllowed ?? 0),
    nostrPubkey: String(answer.allowsNostr).toLowerCase() === 'true' ? hexKey(answer.nostrPubkey) : undefined,
    identifier: identifierIn(answer.metadata),
  }
}

/** LUD-06, 16: pairs of a type and a content, as JSON in a string. */
function identifierIn(metadata: unknown): string | undefined {
  const pairs = typeof metadata === 'string' ? parseJson(metadata) : undefined
  if (!Array.isArray(pairs)) return undefined
  const of = (type: string) =>
    pairs.flatMap((pair: unknown) => (Array.isArray(pair) && pair[0] === type && typeof pair[1] === 'string' ? [pair[1]] : []))[0]
  return (of('text/identifier') ?? of('text/email'))?.trim().toLowerCase().slice(0, 320)
}

function hexKey(value: unknown): string | undefined {
  const key = typeof value === 'string' ? value.trim().toLowerCase() : ''
  return /^[0-9a-f]{64}$/.test(key) ? key : undefined
}

/** A zap, with the very bytes of its signed request (9734); or a plain payment with words that the payee may read. */
export type InvoiceOrder = { readonly amountMsats: bigint } & (
  | { readonly zapRequest: string; readonly lnurl: string }
  | { readonly comment: string }
)

/** The invoice that an LNURL server makes, unchecked. @throws lnurl_invalid, fetch_failed, address_refused */
export async function requestInvoice(
  dialer: Pick<Dialer, 'fetch'>,
  { callback, commentChars }: Pick<PayParameters, 'callback' | 'commentChars'>,
  order: InvoiceOrder,
): Promise<string> {
  const comment = 'comment' in order ? [...order.comment].slice(0, commentChars).join('') : ''
  const fields = {
    amount: order.amountMsats.toString(),
    ...('zapRequest' in order ? { nostr: order.zapRequest, lnurl: order.lnurl } : {}),
    ...(comment === '' ? {} : { comment }),
  }
  // What the server put into its callback stays as it is.
  const url = new URL(callback)
  const query = Object.entries(fields).map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
  url.search = [...(url.search.length > 1 ? [url.search] : []), ...query].join('&')
  return (await ask(dialer, url.href, invoiceSchema)).pr
}

async function ask<T>(dialer: Pick<Dialer, 'fetch'>, url: string, schema: z.ZodType<T>): Promise<T> {
  const { text } = await dialer.fetch(url, {
    headers: { accept: 'application/json' },
    timeoutMs: TIMEOUT_MS,
    maxBytes: MAX_ANSWER_BYTES,
    maxRedirects: MAX_REDIRECTS,
    namedByStranger: 'lnurl',
  })
  const json = parseJson(text)
  const refused = errorSchema.safeParse(json)
  if (refused.success) throw invalid(`the server says: ${refused.data.reason.slice(0, 200)}`)
  const parsed = schema.safeParse(json)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw invalid(`the answer is malformed (${issue?.path.join('.') ?? ''} ${issue?.message ?? ''})`)
}

export function invalid(why: string): PylonError {
  return new PylonError('lnurl_invalid', `The Lightning address cannot be paid: ${why}.`)
}
