/** Private keys that follow from one seed (BIP-32), reckoned by wasm: no public key is made that the path does not need. */
import { createHmac } from 'node:crypto'
import { pointFromScalar, privateAdd } from 'tiny-secp256k1'

export interface KeyNode {
  /** Private. */
  readonly key: Uint8Array
  readonly chainCode: Uint8Array
}

/** Added to an index: a child that no public key leads to. */
export const HARDENED = 2 ** 31

/** @param path indices from the master down, hardened ones from 2^31 up */
export const keyAt = (seed: Uint8Array, path: readonly number[]): KeyNode =>
  path.reduce(childOf, nodeOf(createHmac('sha512', 'Bitcoin seed').update(seed)))

/** @throws an Error where the index makes no key, which one of 2^127 does */
export function childOf({ key, chainCode }: KeyNode, index: number): KeyNode {
  const number = Buffer.alloc(4)
  number.writeUInt32BE(index)
  const own = index >= HARDENED ? Buffer.concat([Buffer.alloc(1), key]) : pointFromScalar(key, true)
  const added = nodeOf(
    createHmac('sha512', chainCode)
      .update(own ?? '')
      .update(number),
  )
  const child = privateAdd(key, added.key)
  if (child === null) throw new Error(`the index ${index} makes no key`)
  return { key: child, chainCode: added.chainCode }
}

function nodeOf(hmac: { digest(): Buffer }): KeyNode {
  const bytes = hmac.digest()
  return { key: bytes.subarray(0, 32), chainCode: bytes.subarray(32) }
}
