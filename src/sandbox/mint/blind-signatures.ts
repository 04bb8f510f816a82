/** The mint's side of blind signatures (NUT-00) and of their proofs of equal discrete logarithm (NUT-12). */
import { createHmac, hash } from 'node:crypto'
import { isPoint, isPrivate, pointCompress, pointFromScalar, pointMultiply } from 'tiny-secp256k1'

export interface SignedOutput {
  /** Compressed point as hex. */
  readonly c: string
  readonly e: string
  readonly s: string
}

const DOMAIN = Buffer.from('Secp256k1_HashToCurve_Cashu_')
const NONCE_TAG = Buffer.from('Cashu_DLEQ_R_v1')
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer')
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const toScalar = (bytes: Uint8Array): bigint => BigInt(`0x${toHex(bytes)}`)

/** `Y` of a secret, as a compressed point. */
export function hashToCurve(secret: Uint8Array): Uint8Array {
  const message = sha256(Buffer.concat([DOMAIN, secret]))
  const counter = Buffer.alloc(4)
  const candidate = new Uint8Array(33)
  candidate[0] = 2
  for (let i = 0; ; i++) {
    counter.writeUInt32LE(i)
    candidate.set(sha256(Buffer.concat([message, counter])), 1)
    if (isPoint(candidate)) return candidate
  }
}

/** Whether `hex` is a compressed point on the curve. */
export function isPointHex(hex: string): boolean {
  return /^0[23][0-9a-f]{64}$/.test(hex) && isPoint(Buffer.from(hex, 'hex'))
}

/** Whether `c` is this mint's signature on the secret. */
export function verifyProof(y: Uint8Array, c: string, key: Uint8Array): boolean {
  const expected = pointMultiply(y, key)
  return expected !== null && toHex(expected) === c
}

/** Signs `B_` (a valid compressed point) and proves which key did it. */
export function signOutput(b: Uint8Array, key: Uint8Array): SignedOutput {
  const publicKey = pointFromScalar(key, false)
  const signature = pointMultiply(b, key, false)
  const blinded = pointCompress(b, false)
  if (publicKey === null || signature === null) throw new Error('the product of a valid point and key is never infinity')
  const nonce = deriveNonce(key, Buffer.concat([publicKey, blinded, signature]))
  const r1 = pointFromScalar(nonce, false)
  const r2 = pointMultiply(b, nonce, false)
  if (r1 === null || r2 === null) throw new Error('the product of a valid point and nonce is never infinity')
  const e = sha256(Buffer.from([r1, r2, publicKey, signature].map(toHex).join('')))
  const s = (toScalar(nonce) + toScalar(e) * toScalar(key)) % ORDER
  const c = Buffer.from(signature.subarray(0, 33))
  c[0] = 2 + ((signature[64] ?? 0) & 1)
  return { c: toHex(c), e: toHex(e), s: s.toString(16).padStart(64, '0') }
}

function deriveNonce(key: Uint8Array, points: Uint8Array): Uint8Array {
  for (let counter = 0; ; counter++) {
    const nonce = createHmac('sha256', key).update(NONCE_TAG).update(points).update(Uint8Array.of(counter)).digest()
    if (isPrivate(nonce)) return nonce
  }
}
