/** The shapes of what wallets send to the mint, checked before any work is done. */
import { z } from 'zod'

export const MAX_INPUTS = 1_000
export const MAX_OUTPUTS = 1_000
/** Sats: what one quote may move. */
export const MAX_AMOUNT = 100_000_000

const point = z.string().regex(/^0[23][0-9a-f]{64}$/, 'not a compressed point in lowercase hex')
const keysetId = z.string().regex(/^(00[0-9a-f]{14}|01[0-9a-f]{64})$/, 'not a keyset id')
const amount = z.int().min(0)
const quoteId = z.string().min(1).max(100)
const unit = z.string().max(32)
const signature = z.string().max(200)

export const proofSchema = z.object({
  amount,
  id: keysetId,
  secret: z.string().min(1).max(8_192),
  C: point,
  witness: z.union([z.string().max(16_384), z.record(z.string(), z.unknown())]).nullish(),
})
export const outputSchema = z.object({ amount, id: keysetId, B_: point })

export type ProofInput = z.output<typeof proofSchema>
export type OutputInput = z.output<typeof outputSchema>

export const swapSchema = z.object({ inputs: z.array(proofSchema).min(1), outputs: z.array(outputSchema).min(1) })
export const mintQuoteSchema = z.object({
  amount: z.int(),
  unit,
  description: z.string().max(639).nullish(),
  pubkey: z.string().max(200).nullish(),
})
export const mintSchema = z.object({ quote: quoteId, outputs: z.array(outputSchema).min(1), signature: signature.nullish() })
export const meltQuoteSchema = z.object({
  request: z.string().min(1).max(8_192),
  unit,
  options: z.object({ amountless: z.object({ amount_msat: z.int() }).nullish(), mpp: z.object({ amount: z.int() }).nullish() }).nullish(),
})
export const meltSchema = z.object({
  quote: quoteId,
  inputs: z.array(proofSchema).min(1),
  outputs: z.array(outputSchema).nullish(),
  prefer_async: z.boolean().nullish(),
})
export const checkStateSchema = z.object({ Ys: z.array(point).max(MAX_INPUTS) })
export const restoreSchema = z.object({ outputs: z.array(outputSchema) })
export const paySchema = z.object({ request: z.string().min(1).max(8_192) })
