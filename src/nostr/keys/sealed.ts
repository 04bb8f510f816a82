/** Secrets at rest: XChaCha20-Poly1305 under a 32-byte key, a fresh nonce each. */
import { randomBytes } from 'node:crypto'
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js'

export interface Sealed {
  readonly nonce: Uint8Array
  readonly ciphertext: Uint8Array
}

export function seal(key: Uint8Array, plaintext: string): Sealed {
  const nonce = new Uint8Array(randomBytes(24))
  return { nonce, ciphertext: xchacha20poly1305(key, nonce).encrypt(new Uint8Array(Buffer.from(plaintext, 'utf8'))) }
}

/** The plaintext, or undefined when the key is wrong or the bytes were changed. */
export function unseal(key: Uint8Array, sealed: Sealed): string | undefined {
  try {
    const plaintext = xchacha20poly1305(key, new Uint8Array(sealed.nonce)).decrypt(new Uint8Array(sealed.ciphertext))
    return Buffer.from(plaintext).toString('utf8')
  } catch {
    // The tag does not match.
    return undefined
  }
}
