/**
 * The wallet's cryptography for simulations: the same proofs, many times as fast. Points are reckoned by wasm, and the
 * signatures of the mint are believed: it is our own here, and other tests are about mints that cheat.
 */
import { pointAdd, pointMultiply } from 'tiny-secp256k1'
import { hashToCurve } from '../../src/sandbox/mint/blind-signatures.ts'
import {
  type BlindedOutput,
  type BlindSignature,
  type CryptoTask,
  type CryptoTasks,
  type FreshProof,
  type MintPublicKeys,
  runCryptoTask,
} from '../../src/wallet/ecash/crypto.ts'
import type { Crypto } from '../../src/wallet/ecash/crypto-pool.ts'

export const quickCrypto: Crypto = {
  run: async (task, input) => runners[task](input),
  close: async () => undefined,
}

const runners: { readonly [T in CryptoTask]: (input: CryptoTasks[T]['in']) => CryptoTasks[T]['out'] } = {
  deterministic: (input) => runCryptoTask('deterministic', input),
  locked: (input) => runCryptoTask('locked', input),
  checkDleqs: () => true,
  ys: ({ secrets }) => secrets.map(yOf),
  unblind: ({ pairs, keysets }) =>
    pairs.map(({ output, signature }) => {
      const keys = keysets[signature.id]
      return keys === undefined
        ? (runCryptoTask('unblind', { pairs: [{ output, signature }], keysets })[0] ?? { fault: '' })
        : { proof: unblind(output, signature, keys) }
    }),
}

const yOf = (secret: string): string => toHex(hashToCurve(new TextEncoder().encode(secret)))
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** C = C_ - rK, as NUT-00 has it. */
function unblind(output: BlindedOutput, { id, amount, C_, dleq }: BlindSignature, keys: MintPublicKeys): FreshProof {
  const r = Buffer.from(BigInt(output.r).toString(16).padStart(64, '0'), 'hex')
  const blinding = pointMultiply(Buffer.from(keys[String(amount)] ?? '', 'hex'), r, true)
  if (blinding === null) throw new Error('the product of a valid point and factor is never infinity')
  // The other point of the same x.
  blinding[0] = 5 - (blinding[0] ?? 0)
  const c = pointAdd(Buffer.from(C_, 'hex'), blinding, true)
  if (c === null || dleq === undefined) throw new Error('the sandbox mint gives no such signature')
  return { y: yOf(output.secret), id, amount, secret: output.secret, C: toHex(c), dleq: { ...dleq, r: toHex(r) } }
}
