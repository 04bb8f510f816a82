/** Cashu cryptography as pure functions over plain data (NUT-00, 11, 12, 13): too slow for the main loop, so a worker runs them. */
import { createHmac } from 'node:crypto'
import { Amount, blindMessage, hashToCurve, hasValidDleq, OutputData, type Proof } from '@cashu/cashu-ts'
import { messageOf } from '../../base/errors.ts'

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
  deterministic: ({ seed, keysetId, counter, amounts }) =>
    amounts.map((amount, i) => plain(OutputData.createSingleDeterministicData(amount, seed, counter + i, keysetId), amount)),
  locked: ({ seed, name, keysetId, amounts, ...lock }) =>
    amounts.map((amount, i) => {
      const nonce = derived(seed, `nonce ${i} ${name}`).subarray(0, 32).toString('hex')
      const secret = lockedSecret(nonce, lock)
      const r = scalar(derived(seed, `blinding ${i} ${name}`))
      const { B_ } = blindMessage(new TextEncoder().encode(secret), r)
      return { amount, id: keysetId, B_: B_.toHex(true), r: r.toString(), secret }
    }),
  unblind: ({ pairs, keysets }) =>
    pairs.map(({ output, signature }) => {
      try {
        return { proof: unblind(output, signature, keysets[signature.id]) }
      } catch (error) {
        return { fault: messageOf(error) }
      }
    }),
  ys: ({ secrets }) => secrets.map(yOf),
  checkDleqs: ({ proofs, keysets }) =>
    proofs.every((proof) => {
      if (proof.dleq === undefined) return true
      const keys = keysets[proof.id]
      return keys !== undefined && isDleqValid(proof, keys)
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

/** Of secp256k1. */
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n

/** A blinding factor: never zero, and of 64 bytes without a bias that matters. */
const scalar = (bytes: Buffer): bigint => (BigInt(`0x${bytes.toString('hex')}`) % (ORDER - 1n)) + 1n

function plain(data: OutputData, amount: number): BlindedOutput {
  const { B_, id } = data.blindedMessage
  return { amount, id, B_, r: data.blindingFactor.toString(), secret: new TextDecoder().decode(data.secret) }
}

function unblind(output: BlindedOutput, signature: BlindSignature, keys: MintPublicKeys | undefined): FreshProof {
  if (keys === undefined) throw new Error('the mint signed with a keyset that is not known')
  if (output.amount !== 0 && signature.amount !== output.amount) throw new Error('the mint signed another amount')
  if (keys[String(signature.amount)] === undefined) throw new Error('the mint signed an amount that its keyset does not have')
  if (signature.dleq === undefined) throw new Error('the mint gave a signature without its proof (NUT-12)')
  const { id, amount, C_, dleq } = signature
  const blinded = { amount: Amount.from(amount), B_: output.B_, id }
  const data = new OutputData(blinded, BigInt(output.r), new TextEncoder().encode(output.secret))
  const proof = data.toProof({ id, amount: Amount.from(amount), C_, dleq: { ...dleq } }, { id, keys: { ...keys } })
  const fresh = { id, amount, secret: output.secret, C: proof.C, dleq: proof.dleq }
  if (fresh.dleq === undefined || !isDleqValid(fresh, keys)) throw new Error('the mint gave a signature that its keys did not make')
  return { y: yOf(output.secret), ...fresh, dleq: fresh.dleq }
}

function isDleqValid(proof: TokenProof, keys: MintPublicKeys): boolean {
  const whole: Proof = {
    id: proof.id,
    amount: Amount.from(proof.amount),
    secret: proof.secret,
    C: proof.C,
    ...(proof.dleq === undefined ? {} : { dleq: { ...proof.dleq } }),
  }
  try {
    return hasValidDleq(whole, { id: proof.id, keys: { ...keys } }, { require: true })
  } catch {
    return false
  }
}

const yOf = (secret: string): string => hashToCurve(new TextEncoder().encode(secret)).toHex(true)
