/** HTTP to one mint: each call ends as an answer, as a refusal of that very request, or as unknown. Answers are checked for shape. */
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'

/** `rejected` only when the mint itself said no to this request; network faults, timeouts and 5xx are `unknown`. */
export type MintReply<T> =
  | { readonly kind: 'ok'; readonly value: T }
  | { readonly kind: 'rejected'; readonly code: number; readonly detail: string }
  | { readonly kind: 'unknown'; readonly reason: string }

const sats = z.int().min(0)
const hex = z
  .string()
  .regex(/^[0-9a-f]+$/i)
  .max(200)
const keysetId = z.string().regex(/^(00[0-9a-f]{14}|01[0-9a-f]{64})$/)

const signatureSchema = z.object({
  id: z.string().max(66),
  amount: sats,
  C_: hex,
  dleq: z
    .object({ e: hex, s: hex })
    .nullish()
    .transform((dleq) => dleq ?? undefined),
})
/** Each by itself: one that is malformed keeps its place and spoils no other. */
const signatures = z.array(z.union([signatureSchema, z.literal('unreadable')]).catch('unreadable')).max(1000)
/** A signature for an output; undefined where the mint gave none. */
export type GivenSignature = z.output<typeof signatureSchema> | 'unreadable' | undefined

export const mintInfoSchema = z.object({
  name: z.string().max(500).nullish(),
  nuts: z.record(z.string(), z.unknown()),
})
/** What a mint says of itself (NUT-06). */
export type MintSays = z.output<typeof mintInfoSchema>
/** Each item is looked at by itself. */
export const keysetsSchema = z.object({ keysets: z.array(z.unknown()) })
const keysOfOne = z.object({
  id: keysetId,
  input_fee_ppk: z.int().nullish(),
  final_expiry: z.int().nullish(),
  keys: z.record(z.string().regex(/^\d{1,20}$/), z.string().regex(/^0[23][0-9a-f]{64}$/)),
})
export const keysSchema = z.object({ keysets: z.array(keysOfOne.optional().catch(undefined)).min(1).max(100) })
export const mintQuoteSchema = z
  .object({
    quote: z.string().min(1).max(500),
    request: z.string().max(8192),
    amount: sats.nullish(),
    unit: z.string().nullish(),
    state: z.enum(['UNPAID', 'PAID', 'ISSUED']).nullish(),
    /** Instead of a state: what came in for it, and what of that was signed. */
    amount_paid: sats.nullish(),
    amount_issued: sats.nullish(),
    /** Instead of both, as mints had it first. */
    paid: z.boolean().nullish(),
    expiry: z.number().nullish(),
    pubkey: z.string().nullish(),
  })
  .transform((quote, context) => {
    const state = mintQuoteState(quote)
    if (state !== undefined) return { ...quote, state }
    context.addIssue({ code: 'custom', message: 'it says neither its state nor what was paid', path: ['state'] })
    return z.NEVER
  })
export const signaturesSchema = z.object({ signatures })
const restoreSchema = z.object({ outputs: z.array(z.object({ B_: z.string().max(66) })).max(1000), signatures })
const statesSchema = z.object({
  states: z
    .array(
      z
        .object({ Y: z.string().max(66), state: z.enum(['UNSPENT', 'PENDING', 'SPENT']) })
        .optional()
        .catch(undefined),
    )
    .max(1000),
})
const meltState = z.enum(['UNPAID', 'PENDING', 'PAID'])
export const meltQuoteSchema = z.object({
  quote: z.string().min(1).max(500),
  amount: sats,
  fee_reserve: sats,
  unit: z.string().nullish(),
  state: meltState.nullish().catch(undefined),
  expiry: z.number().nullish(),
})
/** What became of a payment: whatever else the answer says, or fails to say, changes nothing about that. */
export const meltOutcomeSchema = z.object({
  state: meltState,
  payment_preimage: z.string().max(200).nullish().catch(undefined),
  change: signatures.nullish().catch(undefined),
})

/** What a mint says of a quote, however it says it (NUT-04, 23): undefined where it says nothing. */
export function mintQuoteState(quote: {
  readonly state?: 'UNPAID' | 'PAID' | 'ISSUED' | null | undefined
  readonly amount?: number | null | undefined
  readonly amount_paid?: number | null | undefined
  readonly amount_issued?: number | null | undefined
  readonly paid?: boolean | null | undefined
}): 'UNPAID' | 'PAID' | 'ISSUED' | undefined {
  if (quote.state != null) return quote.state
  if (quote.amount_paid != null) {
    const issued = quote.amount_issued ?? 0
    if (issued > 0 && issued >= quote.amount_paid) return 'ISSUED'
    return quote.amount_paid > issued && quote.amount_paid - issued >= (quote.amount ?? 1) ? 'PAID' : 'UNPAID'
  }
  return quote.paid == null ? undefined : quote.paid ? 'PAID' : 'UNPAID'
}

export type MintQuote = z.output<typeof mintQuoteSchema>
export type MeltQuote = z.output<typeof meltQuoteSchema>
export type ProofSpendState = 'UNSPENT' | 'PENDING' | 'SPENT'

const errorSchema = z.object({ detail: z.unknown().optional(), code: z.int().optional() })
const MAX_REPLY_BYTES = 4_000_000
/** Of one lookup or swap. */
const CALL_TIMEOUT_MS = 15_000
/** Of a melt: a payment may take long, and recovery asks again anyway. */
export const MELT_TIMEOUT_MS = 60_000
/** How many Ys or outputs go in one question, to a mint that takes as many. */
const BATCH = 100

export class MintClient {
  readonly url: string
  readonly #dialer: Pick<Dialer, 'fetch'>
  readonly #signal: AbortSignal
  #batch = BATCH

  /** @param signal ends what is under way: its outcome is unknown then. */
  constructor(url: string, dialer: Pick<Dialer, 'fetch'>, signal: AbortSignal) {
    this.url = url
    this.#dialer = dialer
    this.#signal = signal
  }

  get<T>(path: string, schema: z.ZodType<T>): Promise<MintReply<T>> {
    return this.#call('GET', path, undefined, schema, CALL_TIMEOUT_MS)
  }

  /** @param body the exact bytes: a repeated request must not differ (NUT-19). */
  post<T>(path: string, body: string, schema: z.ZodType<T>, timeoutMs = CALL_TIMEOUT_MS): Promise<MintReply<T>> {
    return this.#call('POST', path, body, schema, timeoutMs)
  }

  /** NUT-07. The states in the order asked. */
  checkStates(ys: readonly string[]): Promise<MintReply<ProofSpendState[]>> {
    return this.#inBatches(ys, async (batch) => {
      const reply = await this.#ask('/v1/checkstate', JSON.stringify({ Ys: batch }), statesSchema)
      if (reply.kind !== 'ok') return reply
      const byY = new Map(reply.value.states.flatMap((one) => (one === undefined ? [] : [[one.Y.toLowerCase(), one.state]])))
      const found = batch.flatMap((y) => byY.get(y) ?? [])
      if (found.length < batch.length) return { kind: 'unknown', reason: `${this.url} did not say the state of a proof` }
      return { kind: 'ok', value: found }
    })
  }

  /** NUT-09. For each output its signature; undefined where the mint never signed it. */
  restore(outputs: readonly { amount: number; id: string; B_: string }[]): Promise<MintReply<GivenSignature[]>> {
    const bare = outputs.map(({ amount, id, B_ }) => ({ amount, id, B_ }))
    return this.#inBatches(bare, async (batch) => {
      const reply = await this.#ask('/v1/restore', JSON.stringify({ outputs: batch }), restoreSchema)
      if (reply.kind !== 'ok') return reply
      const byB = new Map(
        reply.value.outputs.map(({ B_ }, index) => [B_.toLowerCase(), reply.value.signatures[index] ?? ('unreadable' as const)]),
      )
      return { kind: 'ok', value: batch.map(({ B_ }) => byB.get(B_)) }
    })
  }

  /** Asks about many things, some at once: fewer from then on where the mint refuses so many. */
  async #inBatches<I, O>(items: readonly I[], ask: (batch: readonly I[]) => Promise<MintReply<O[]>>): Promise<MintReply<O[]>> {
    const found: O[] = []
    while (found.length < items.length) {
      const batch = items.slice(found.length, found.length + this.#batch)
      const reply = await ask(batch)
      const refusal = reply.kind === 'rejected' ? tooMany(reply.code, reply.detail) : undefined
      if (refusal !== undefined && batch.length > 1) {
        this.#batch = Math.max(1, Math.min(refusal.most ?? batch.length, Math.floor(batch.length / 2)))
        continue
      }
      if (reply.kind !== 'ok') return reply
      found.push(...reply.value)
    }
    return { kind: 'ok', value: found }
  }

  /** A question that changes nothing is asked once more when the connection broke: one of many in a row may meet a socket that was just closed. */
  async #ask<T>(path: string, body: string, schema: z.ZodType<T>): Promise<MintReply<T>> {
    const reply = await this.post(path, body, schema)
    return reply.kind === 'unknown' && /ECONNRESET|socket hang up|other side closed/i.test(reply.reason)
      ? this.post(path, body, schema)
      : reply
  }

  async #call<T>(
    method: 'GET' | 'POST',
    path: string,
    body: string | undefined,
    schema: z.ZodType<T>,
    timeoutMs: number,
  ): Promise<MintReply<T>> {
    const headers = { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    try {
      const response = await this.#dialer.fetch(`${this.url}${path}`, {
        method,
        headers,
        ...(body === undefined ? {} : { body }),
        timeoutMs,
        maxBytes: MAX_REPLY_BYTES,
        signal: this.#signal,
      })
      return classify(response.status, parseJson(response.text), schema)
    } catch (error) {
      return { kind: 'unknown', reason: messageOf(error) }
    }
  }
}

/** Codes that say nothing by themselves, and what some mints say only in words. */
const GENERIC_CODES = new Set([0, 10_000, 11_000, 12_000])
const KEYSET_INACTIVE = 12_002
const OF_OLD_KEYSET = /\bkeyset\b.{0,100}\b(?:inactive|not active|expired|retired)\b|\b(?:inactive|expired|retired) keyset\b/i

const codeOf = (code: number, detail: string): number => (GENERIC_CODES.has(code) && OF_OLD_KEYSET.test(detail) ? KEYSET_INACTIVE : code)

/** NUT error codes of a request with more inputs or outputs than a mint takes at once. */
const TOO_MANY_INPUTS = 11_014
const TOO_MANY_OUTPUTS = 11_015

/** Whether a request was refused for the number of things in it; `most` where the mint says how many it takes. */
export function tooMany(code: number, detail: string): { readonly most?: number } | undefined {
  const isSaid =
    /too many (?!requests)|too_long|at most \d+ (?:items|inputs|outputs|proofs)|max(?:imum)?[ _a-z]{0,30}(?:inputs|outputs|proofs|items)|(?:inputs|outputs|proofs|request)[ _a-z]{0,30}too (?:long|large)/i.test(
      detail,
    )
  if (code !== TOO_MANY_INPUTS && code !== TOO_MANY_OUTPUTS && !isSaid) return undefined
  const most = Number(/at most (\d{1,6})/i.exec(detail)?.[1] ?? /max[a-z_ "':]{0,30}(\d{1,6})/i.exec(detail)?.[1] ?? 0)
  return most > 0 ? { most } : {}
}

/** Statuses of 4xx that say "later" or nothing about the request itself. */
const NOT_A_REFUSAL = new Set([408, 425, 429])

function classify<T>(status: number, json: unknown, schema: z.ZodType<T>): MintReply<T> {
  if (status >= 200 && status < 300) {
    const parsed = schema.safeParse(json)
    if (parsed.success) return { kind: 'ok', value: parsed.data }
    const issue = parsed.error.issues[0]
    return { kind: 'unknown', reason: `the answer of the mint is malformed (${issue?.path.join('.') ?? ''} ${issue?.message ?? ''})` }
  }
  // Too large for it, or for a proxy before it, which has no words of the mint: that never becomes smaller.
  if (status === 413) return { kind: 'rejected', code: TOO_MANY_INPUTS, detail: 'the request is too large' }
  const error = errorSchema.safeParse(json)
  const said = error.success && (error.data.code !== undefined || error.data.detail !== undefined)
  if (status < 400 || status >= 500 || NOT_A_REFUSAL.has(status) || !said) {
    return { kind: 'unknown', reason: `the mint answered with status ${status}` }
  }
  const words = error.data.detail
  const detail = typeof words === 'string' ? words : words === undefined ? 'no reason given' : JSON.stringify(words)
  return { kind: 'rejected', code: codeOf(error.data.code ?? 0, detail), detail: detail.slice(0, 300) }
}

/** The value, or what to throw where nothing was at stake. @throws mint_unreachable, mint_rejected */
export function unwrap<T>(url: string, reply: MintReply<T>): T {
  if (reply.kind === 'ok') return reply.value
  if (reply.kind === 'rejected') {
    throw new PylonError('mint_rejected', `The mint ${url} refused: ${reply.detail} (code ${reply.code}).`, {
      details: { code: reply.code },
    })
  }
  throw new PylonError('mint_unreachable', `The mint ${url} gave no usable answer: ${reply.reason}. Nothing was spent; try again later.`)
}
