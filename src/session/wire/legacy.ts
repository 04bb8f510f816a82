/** The form of group events before MIP-03 changed: NIP-44 over bytes, from a key of the epoch to itself. Read, never written. */
import { createDecipheriv, createECDH, createHmac, timingSafeEqual } from 'node:crypto'

const VERSION = 2
const NONCE_BYTES = 32
const MAC_BYTES = 32
const MIN_BYTES = 99

/** Undefined for what that key did not write. */
export function openLegacy(secret: Uint8Array, payload: Buffer): Uint8Array | undefined {
  if (payload.length < MIN_BYTES || payload[0] !== VERSION) return undefined
  const nonce = payload.subarray(1, 1 + NONCE_BYTES)
  const sealed = payload.subarray(1 + NONCE_BYTES, -MAC_BYTES)
  const keys = hkdfExpand(conversationKey(secret), nonce, 76)
  const mac = createHmac('sha256', keys.subarray(44)).update(nonce).update(sealed).digest()
  if (!timingSafeEqual(mac, payload.subarray(-MAC_BYTES))) return undefined
  const iv = Buffer.concat([Buffer.alloc(4), keys.subarray(32, 44)])
  const padded = createDecipheriv('chacha20', keys.subarray(0, 32), iv).update(sealed)
  const length = padded.readUInt16BE(0)
  return length === 0 || length + 2 > padded.length ? undefined : Uint8Array.from(padded.subarray(2, 2 + length))
}

function conversationKey(secret: Uint8Array): Buffer {
  const ecdh = createECDH('secp256k1')
  ecdh.setPrivateKey(secret)
  return createHmac('sha256', 'nip44-v2')
    .update(ecdh.computeSecret(evenPoint(ecdh.getPublicKey(null, 'compressed'))))
    .digest()
}

/** Nostr keys are points with an even y. */
const evenPoint = (point: Buffer): Buffer => Buffer.concat([Buffer.from([2]), point.subarray(1)])

/** HKDF-Expand alone: the key is a pseudorandom one already. */
function hkdfExpand(key: Buffer, info: Buffer, length: number): Buffer {
  const blocks: Buffer[] = []
  let block: Buffer = Buffer.alloc(0)
  for (let n = 1; blocks.length * 32 < length; n++) {
    block = createHmac('sha256', key)
      .update(block)
      .update(info)
      .update(Buffer.from([n]))
      .digest()
    blocks.push(block)
  }
  return Buffer.concat(blocks).subarray(0, length)
}
