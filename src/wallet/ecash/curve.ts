/** Points of secp256k1 as Cashu uses them (NUT-00, 12, 13), reckoned by wasm. Points are compressed hex, scalars hex of 32 bytes. */
import { createHmac, hash } from 'node:crypto'
import { isPoint, isPrivate, pointAdd, pointAddScalar, pointCompress, pointFromScalar, pointMultiply, privateNegate } from 'tiny-secp256k1'
import { childOf, HARDENED, keyAt } from '../../base/bip32.ts'

const DOMAIN = Buffer.from('Secp256k1_HashToCurve_Cashu_')
/** Of the curve. */
export const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer')
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
/** Of a scalar as 32 bytes. */
const fromScalar = (value: bigint): Buffer => Buffer.from(value.toString(16).padStart(64, '0'), 'hex')

/** `Y` of a secret. */
export function hashToCurve(secret: string): string {
  return toHex(pointOf(secret))
}

function pointOf(secret: string): Uint8Array {
  const message = sha256(Buffer.concat([DOMAIN, Buffer.from(secret)]))
  const counter = Buffer.alloc(4)
  const candidate = new Uint8Array(33)
  candidate[0] = 2
  for (let i = 0; ; i++) {
    counter.writeUInt32LE(i)
    candidate.set(sha256(Buffer.concat([message, counter])), 1)
    if (isPoint(candidate)) return candidate
  }
}

/** `B_ = Y + rG`. @param r neither zero nor the order or more */
export function blind(secret: string, r: bigint): string {
  return toHex(given(pointAddScalar(pointOf(secret), fromScalar(r), true)))
}

/** `C = C_ - rA`. @throws an Error where a point is none */
export function unblind(C_: string, r: bigint, A: string): string {
  return toHex(given(pointAdd(parsePoint(C_), given(pointMultiply(parsePoint(A), privateNegate(fromScalar(r)))), true)))
}

/** Whether one key made `A` of G and `C_` of `B_`. */
export function isDleqValid({ e, s }: { readonly e: string; readonly s: string }, B_: string, C_: string, A: string): boolean {
  try {
    const [challenge, response] = [parseScalar(e), parseScalar(s)]
    const minus = privateNegate(challenge)
    const [a, c] = [parsePoint(A), parsePoint(C_)]
    const r1 = given(pointAdd(given(pointFromScalar(response)), given(pointMultiply(a, minus)), false))
    const r2 = given(pointAdd(given(pointMultiply(parsePoint(B_), response)), given(pointMultiply(c, minus)), false))
    const points = [r1, r2, pointCompress(a, false), pointCompress(c, false)]
    return sha256(Buffer.from(points.map(toHex).join(''))).equals(challenge)
  } catch {
    // What is no point or no scalar of the curve proves nothing.
    return false
  }
}

/** As `isDleqValid`, by what somebody knows who has the coin: `r` takes its secret and `C` to what the mint signed. */
export function isCoinDleqValid(
  { e, s, r }: { readonly e: string; readonly s: string; readonly r?: string | undefined },
  { secret, C }: { readonly secret: string; readonly C: string },
  A: string,
): boolean {
  try {
    const factor = parseScalar((r ?? '').padStart(64, '0'))
    const C_ = toHex(given(pointAdd(parsePoint(C), given(pointMultiply(parsePoint(A), factor)), true)))
    return isDleqValid({ e, s }, blind(secret, BigInt(`0x${toHex(factor)}`)), C_, A)
  } catch {
    // As above.
    return false
  }
}

function parsePoint(hex: string): Buffer {
  const point = Buffer.from(/^(?:0[23][0-9a-f]{64}|04[0-9a-f]{128})$/i.test(hex) ? hex : '', 'hex')
  if (!isPoint(point)) throw new Error('the mint gave a point that is not on the curve')
  return point
}

function parseScalar(hex: string): Buffer {
  const scalar = Buffer.from(/^[0-9a-f]{64}$/i.test(hex) ? hex : '', 'hex')
  if (!isPrivate(scalar)) throw new Error('this is no scalar of the curve')
  return scalar
}

/** @throws an Error where points or scalars cancel each other out, which no honest ones do */
function given<T>(value: T | null): T {
  if (value === null) throw new Error('the sum is the point at infinity')
  return value
}

/** NUT-13: the secret and the blinding factor of each counter; the version of the keyset's id says how they come from the seed. */
export function deriver(seed: Uint8Array, keysetId: string): (counter: number) => { secret: string; r: bigint } {
  if (keysetId.startsWith('01')) {
    return (counter) => {
      const part = (kind: number) => {
        const number = Buffer.alloc(9)
        number.writeBigUInt64BE(BigInt(counter))
        number[8] = kind
        return createHmac('sha256', seed).update('Cashu_KDF_HMAC_SHA256').update(keysetId, 'hex').update(number).digest()
      }
      return { secret: toHex(part(0)), r: nonZero(BigInt(`0x${toHex(part(1))}`) % ORDER) }
    }
  }
  if (!/^00[0-9a-f]{14}$/i.test(keysetId)) throw new Error(`the keyset id ${keysetId.slice(0, 70)} is of a form that has no secrets`)
  const number = Number(BigInt(`0x${keysetId}`) % (2n ** 31n - 1n))
  const parent = keyAt(seed, [HARDENED + 129_372, HARDENED, HARDENED + number])
  return (counter) => {
    if (counter >= HARDENED) throw new Error('a keyset has no more than 2^31 secrets')
    const node = childOf(parent, HARDENED + counter)
    return { secret: toHex(childOf(node, 0).key), r: BigInt(`0x${toHex(childOf(node, 1).key)}`) }
  }
}

function nonZero(scalar: bigint): bigint {
  if (scalar === 0n) throw new Error('the blinding factor is zero')
  return scalar
}
