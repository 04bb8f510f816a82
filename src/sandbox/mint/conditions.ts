/** Spending conditions of inputs (NUT-10): pay to public key (NUT-11), and hash locks (NUT-14) since wallets use the same code. */
import { Amount, getP2PKSigFlag, isHTLCSpendAuthorised, isP2PKSpendAuthorised, type Proof } from '@cashu/cashu-ts'
import { z } from 'zod'
import { messageOf } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { MintError } from './errors.ts'
import type { OutputInput, ProofInput } from './requests.ts'

type Kind = 'P2PK' | 'HTLC'

/** Bounded, since each signature is tried against each key. */
const MAX_SIGNATURES = 16
const witnessSchema = z.object({
  signatures: z.array(z.string().max(200)).max(MAX_SIGNATURES).optional(),
  preimage: z.string().max(200).optional(),
})

/** @throws proof_invalid unless every locked input is unlocked by its witness. @param quoteId of a melt */
export function checkSpendingConditions(inputs: readonly ProofInput[], outputs: readonly OutputInput[], quoteId?: string): void {
  const kinds = inputs.map((input) => kindOf(input.secret))
  try {
    const first = inputs[0]
    if (inputs.some((input, i) => kinds[i] !== undefined && getP2PKSigFlag(withTextTags(input.secret)) === 'SIG_ALL')) {
      assertAlike(inputs)
      if (first !== undefined) assertUnlocked(first, kinds[0], signAllMessage(inputs, outputs, quoteId))
      return
    }
    for (const [i, input] of inputs.entries()) assertUnlocked(input, kinds[i])
  } catch (error) {
    throw error instanceof MintError ? error : new MintError('proof_invalid', `spending condition not met: ${messageOf(error)}`)
  }
}

/** The condition of a secret; undefined where anyone who knows the secret may spend. */
function kindOf(secret: string): Kind | undefined {
  if (!/^\s*\[/.test(secret)) return undefined
  const parsed = parseJson(secret)
  if (!Array.isArray(parsed)) return undefined
  return parsed[0] === 'P2PK' || parsed[0] === 'HTLC' ? parsed[0] : undefined
}

/** NUT-11: some wallets write the numbers in tags as numbers, and mean the same. */
function withTextTags(secret: string): string {
  const parsed = parseJson(secret)
  if (!Array.isArray(parsed)) return secret
  const [kind, rest] = parsed as [unknown, { tags?: unknown } | null | undefined]
  if (!Array.isArray(rest?.tags)) return secret
  const tags = rest.tags.map((tag: unknown) =>
    Array.isArray(tag) ? tag.map((item: unknown) => (typeof item === 'number' ? String(item) : item)) : tag,
  )
  return JSON.stringify([kind, { ...rest, tags }])
}

function assertUnlocked(input: ProofInput, kind: Kind | undefined, message = input.secret): void {
  if (kind === undefined) return
  const witness = typeof input.witness === 'string' ? parseJson(input.witness) : input.witness
  const parsed = witnessSchema.safeParse(witness ?? {})
  if (!parsed.success) throw new MintError('proof_invalid', 'the witness is malformed')
  const { secret, C, id } = input
  const proof: Proof = { id, secret: withTextTags(secret), C, amount: Amount.from(input.amount), witness: JSON.stringify(parsed.data) }
  const authorised = kind === 'P2PK' ? isP2PKSpendAuthorised : isHTLCSpendAuthorised
  if (!authorised(proof, undefined, message)) throw new MintError('proof_invalid', 'the signatures of the witness do not unlock the proof')
}

/** SIG_ALL: every input has the same kind, data and tags. */
function assertAlike(inputs: readonly ProofInput[]): void {
  const shapes = new Set(
    inputs.map(({ secret }) => {
      const [kind, { data, tags }] = JSON.parse(secret) as [string, { data: string; tags?: string[][] }]
      return JSON.stringify([kind, data, tags ?? []])
    }),
  )
  if (shapes.size > 1) throw new MintError('proof_invalid', 'inputs with SIG_ALL must have the same kind, data and tags')
}

function signAllMessage(inputs: readonly ProofInput[], outputs: readonly OutputInput[], quoteId = ''): string {
  const spent = inputs.map((input) => input.secret + input.C).join('')
  return spent + outputs.map((output) => `${output.amount}${output.B_}`).join('') + quoteId
}
