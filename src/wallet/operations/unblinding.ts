/** Signatures of a mint made into proofs, each for itself and by the keyset that it names: one that is no good spoils no other. */
import { messageOf } from '../../base/errors.ts'
import type { ProofRow } from '../../store/money/proofs.ts'
import type { WalletContext } from '../context.ts'
import type { BlindedOutput, BlindSignature, FreshProof, MintPublicKeys } from '../ecash/crypto.ts'
import type { GivenSignature } from '../mint/client.ts'

/** An output, and what the mint answered for it. */
export interface SignedOutput<O extends BlindedOutput = BlindedOutput> {
  readonly output: O
  readonly signature: GivenSignature
}

export interface Unblinded<O extends BlindedOutput> {
  readonly proofs: readonly { readonly output: O; readonly proof: FreshProof }[]
  /** Signatures that could not be used; `sats` is what they claim to be worth. */
  readonly faults: readonly { readonly output: O; readonly sats: number; readonly reason: string }[]
}

/** A signature over nothing (some mints fill up their change with them) is neither proof nor fault. */
export async function unblindEach<O extends BlindedOutput>(
  { mints, crypto }: Pick<WalletContext, 'mints' | 'crypto'>,
  mintUrl: string,
  signed: readonly SignedOutput<O>[],
): Promise<Unblinded<O>> {
  const pairs: { output: O; signature: BlindSignature }[] = []
  const faults: { output: O; sats: number; reason: string }[] = []
  for (const { output, signature } of signed) {
    if (signature === 'unreadable') faults.push({ output, sats: output.amount, reason: 'the signature is malformed' })
    else if (signature !== undefined && signature.amount !== 0) pairs.push({ output, signature })
  }
  if (pairs.length === 0) return { proofs: [], faults }
  const keysets: Record<string, MintPublicKeys> = {}
  const missing = new Map<string, string>()
  for (const id of new Set(pairs.map(({ signature }) => signature.id))) {
    try {
      keysets[id] = await mints.keys(mintUrl, id)
    } catch (error) {
      missing.set(id, messageOf(error))
    }
  }
  const known = pairs.filter(({ signature }) => !missing.has(signature.id))
  const results = await crypto.run('unblind', { pairs: known, keysets })
  const proofs: { output: O; proof: FreshProof }[] = []
  for (const { output, signature } of pairs) {
    const reason = missing.get(signature.id)
    if (reason !== undefined) faults.push({ output, sats: signature.amount, reason })
  }
  for (const [i, { output, signature }] of known.entries()) {
    const result = results[i]
    if (result !== undefined && 'proof' in result) proofs.push({ output, proof: result.proof })
    else faults.push({ output, sats: signature.amount, reason: result?.fault ?? 'it was not looked at' })
  }
  return { proofs, faults }
}

/** A proof as it is stored: free in a wallet, or given away. @param sentBy the operation that gives it away */
export function proofRow(
  proof: FreshProof,
  place: { readonly ownerPubkey: string; readonly mintUrl: string },
  sentBy: string | undefined = undefined,
): ProofRow {
  const { y, secret, id: keysetId, amount, C: c, dleq } = proof
  const row = { y, secret, keysetId, amountSats: BigInt(amount), c, dleq, ...place }
  return sentBy === undefined ? { ...row, state: 'unspent', operationId: null } : { ...row, state: 'sent', operationId: sentBy }
}
