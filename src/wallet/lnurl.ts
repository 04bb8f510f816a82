/** LNURL-pay as a payer (LUD-01, 06, 16): from an address to an invoice, through the guarded dialer, believing nothing. */
import { bech32 } from '@scure/base'
import { z } from 'zod'
import type { Dialer } from '../base/dialer.ts'
import { PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'

export interface PayParameters {
  readonly callback: string
  readonly minMsats: bigint
  readonly maxMsats: bigint
  /** The key that signs zap receipts; undefined where it takes no zaps. */
  readonly nostrPubkey: string | undefined
}

const MAX_LNURL_CHARS = 2000
const MAX_ANSWER_BYTES = 65_536
const TIMEOUT_MS = 10_000
const LUD16 = /^([a-z0-9_.+-]{1,64})@([a-z0-9.-]{1,253}(?::\d{1,5})?)$/i

const payParametersSchema = z.object({
  tag: z.literal('payRequest'),
  callback: z.url().max(2000),
  minSendable: z.int().min(1),
  maxSendable: z.int().min(1),
  allowsNostr: z.boolean().nullish(),
  nostrPubkey: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .nullish()
    .catch(undefined),
})
const invoiceSchema = z.object({ pr: z.string().min(10).max(8192) })
const errorSchema = z.object({ status: z.literal('ERROR'), reason: z.string().catch('no reason given') })

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

/** Where to ask about an address: lud06 first, since its URL is exact. Undefined when it has neither. @throws lnurl_invalid */
export function lnurlOfProfile(profile: { readonly lud06?: string | undefined; readonly lud16?: string | undefined }): string | undefined {
  if (profile.lud06 !== undefined && profile.lud06 !== '') return decodeLnurl(profile.lud06)
  if (profile.lud16 === undefined || profile.lud16 === '') return undefined
  const [, name, host] = LUD16.exec(profile.lud16.trim()) ?? []
  if (name === undefined || host === undefined) throw invalid('the Lightning address is malformed')
  return `https://${host.toLowerCase()}/.well-known/lnurlp/${encodeURIComponent(name.toLowerCase())}`
}

/** @throws lnurl_invalid, fetch_failed, address_refused */
export async function fetchPayParameters(dialer: Pick<Dialer, 'fetch'>, url: string): Promise<PayParameters> {
  const answer = await ask(dialer, url, payParametersSchema)
  const { callback, minSendable, maxSendable, allowsNostr, nostrPubkey } = answer
  return {
    callback,
    minMsats: BigInt(minSendable),
    maxMsats: BigInt(maxSendable),
    nostrPubkey: allowsNostr === true ? (nostrPubkey ?? undefined) : undefined,
  }
}

/** The invoice for a zap request, unchecked. @param zapRequest the signed 9734, the very bytes. @throws lnurl_invalid, fetch_failed, address_refused */
export async function requestZapInvoice(
  dialer: Pick<Dialer, 'fetch'>,
  callback: string,
  zap: { readonly amountMsats: bigint; readonly zapRequest: string; readonly lnurl: string },
): Promise<string> {
  const url = new URL(callback)
  url.searchParams.set('amount', zap.amountMsats.toString())
  url.searchParams.set('nostr', zap.zapRequest)
  url.searchParams.set('lnurl', zap.lnurl)
  return (await ask(dialer, url.href, invoiceSchema)).pr
}

async function ask<T>(dialer: Pick<Dialer, 'fetch'>, url: string, schema: z.ZodType<T>): Promise<T> {
  const { text } = await dialer.fetch(url, {
    headers: { accept: 'application/json' },
    timeoutMs: TIMEOUT_MS,
    maxBytes: MAX_ANSWER_BYTES,
    namedByStranger: true,
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
