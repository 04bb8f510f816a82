/** Cashu cryptography as pure functions over plain data (NUT-00, 11, 12, 13): too slow for the main loop, so a worker runs them. */
import { createHmac } from 'node:crypto'
import { messageOf } from '../../base/errors.ts'
import { blind, deriver, hashToCurve, isCoinDleqValid, isDleqValid, ORDER, unblind } from './curve.ts'

/** A blinded output with all that is needed to unblind its signature; stored before it is sent. */
export interface BlindedOutput {
  /** Sats; 0 for a blank output (NUT-08), whose amount the mint chooses. */
  readonly amount: number
  readonly id: string
  readonly B_: string
  /** The blinding factor, decimal. */
  readonly r: string
  readonly secret: string
}

export interface BlindSignature {
  readonly id: string
  readonly amount: number
  readonly C_: string
  readonly dleq?: { readonly e: string; readonly s: string } | undefined
}

/** Ecash that nobody has stored yet. */
export interface FreshProof {
  readonly y: string
  readonly id: string
  readonly amount: number
  readonly secret: string
  readonly C: string
  readonly dleq: { readonly e: string; readonly s: string; readonly r?: string } | null
}

/** A proof as a token carries it. */
export interface TokenProof {
  readonly id: string
  readonly amount: number
  readonly secret: string
  readonly C: string
  readonly dleq?: { readonly e: string; readonly s: string; readonly r?: string } | undefined
}

export type MintPublicKeys = Readonly<Record<string, string>>

export interface CryptoTasks {
  /** NUT-13: one output an amount, from `counter` up. */
  deterministic: { in: { seed: Uint8Array; keysetId: string; counter: number; amounts: readonly number[] }; out: BlindedOutput[] }
  /**
   * NUT-11: outputs that only `pubkey` can spend, and after `locktime` (unix seconds) `refundKey` too.
   * The seed and `name` make them, so that the same name gives the same token: a mint signs it once, whatever we forgot.
   */
  locked: {
    in: OutputLock & { seed: Uint8Array; name: string; keysetId: string; amounts: readonly number[] }
    out: BlindedOutput[]
  }
  /**
   * Makes proofs of signatures, each by the keyset that it names; refuses any without a valid DLEQ (NUT-12): the mint could
   * have signed with another key. A refused one says why, in place of its proof.
   */
  unblind: {
    in: {
      pairs: readonly { readonly output: BlindedOutput; readonly signature: BlindSignature }[]
      keysets: Readonly<Record<string, MintPublicKeys>>
    }
    out: ({ readonly proof: FreshProof } | { readonly fault: string })[]
  }
  /** What NUT-07 asks by. */
  ys: { in: { secrets: readonly string[] }; out: string[] }
  /** Whether every DLEQ that is there is right (NUT-12). */
  checkDleqs: { in: { proofs: readonly TokenProof[]; keysets: Readonly<Record<string, MintPublicKeys>> }; out: boolean }
}

export interface OutputLock {
  readonly pubkey: string
  readonly locktime?: number
  readonly refundKey?: string
}

export type CryptoTask = keyof CryptoTasks

const runners: { readonly [T in CryptoTask]: (input: CryptoTasks[T]['in']) => CryptoTasks[T]['out'] } = {
  deterministic: ({ seed, keysetId, counter, amounts }) => {
    const derive = deriver(seed, keysetId)
    return amounts.map((amount, i) => {
      const { secret, r } = derive(counter + i)
      return { amount, id: keysetId, B_: blind(secret, r), r: r.toString(), secret }
    })
  },
  locked: ({ seed, name, keysetId, amounts, ...lock }) =>
    amounts.map((amount, i) => {
      const nonce = derived(seed, `nonce ${i} ${name}`).subarray(0, 32).toString('hex')
      const secret = lockedSecret(nonce, lock)
      const r = scalar(derived(seed, `blinding ${i} ${name}`))
      return { amount, id: keysetId, B_: blind(secret, r), r: r.toString(), secret }
    }),
  unblind: ({ pairs, keysets }) =>
    pairs.map(({ output, signature }) => {
      try {
        return { proof: proofOf(output, signature, keysets[signature.id]) }
      } catch (error) {
        return { fault: messageOf(error) }
      }
    }),
  ys: ({ secrets }) => secrets.map(hashToCurve),
  checkDleqs: ({ proofs, keysets }) =>
    proofs.every((proof) => {
      if (proof.dleq === undefined) return true
      const key = keysets[proof.id]?.[String(proof.amount)]
      return key !== undefined && isCoinDleqValid(proof.dleq, proof, key)
    }),
}

/** Runs a task here and now. Throws an Error in words when a signature is not what the mint owes us. */
export function runCryptoTask<T extends CryptoTask>(task: T, input: CryptoTasks[T]['in']): CryptoTasks[T]['out'] {
  return runners[task](input)
}

/** NUT-10 and 11. */
function lockedSecret(nonce: string, { pubkey, locktime, refundKey }: OutputLock): string {
  const tags = [
    ...(locktime === undefined ? [] : [['locktime', String(locktime)]]),
    ...(refundKey === undefined ? [] : [['refund', refundKey]]),
  ]
  return JSON.stringify(['P2PK', { nonce, data: pubkey, tags }])
}

/** 64 bytes of the seed that nothing else is made of. */
const derived = (seed: Uint8Array, purpose: string): Buffer => createHmac('sha512', seed).update(`pylon locked output ${purpose}`).digest()

/** A blinding factor: never zero, and of 64 bytes without a bias that matters. */
const scalar = (bytes: Buffer): bigint => (BigInt(`0x${bytes.toString('hex')}`) % (ORDER - 1n)) + 1n

function proofOf(output: BlindedOutput, signature: BlindSignature, keys: MintPublicKeys | undefined): FreshProof {
  if (keys === undefined) throw new Error('the mint signed with a keyset that is not known')
  if (output.amount !== 0 && signature.amount !== output.amount) throw new Error('the mint signed another amount')
  const key = keys[String(signature.amount)]
  if (key === undefined) throw new Error('the mint signed an amount that its keyset does not have')
  if (signature.dleq === undefined) throw new Error('the mint gave a signature without its proof (NUT-12)')
  const { id, amount, C_, dleq } = signature
  const { secret } = output
  const r = BigInt(output.r)
  // Of the secret anew: what was sent is worth nothing where it was not made of it.
  if (!isDleqValid(dleq, blind(secret, r), C_, key)) throw new Error('the mint gave a signature that its keys did not make')
  const [e, s] = [dleq.e.toLowerCase(), dleq.s.toLowerCase()]
  const factor = r.toString(16).padStart(64, '0')
  return { y: hashToCurve(secret), id, amount, secret, C: unblind(C_, r, key), dleq: { e, s, r: factor } }
}
