/** One key and what it can do: sign, encrypt, decrypt. The secret stays inside. */
import { createCipheriv, createDecipheriv, createECDH, createHmac } from 'node:crypto'
import { decrypt as decrypt44, encrypt as encrypt44 } from 'nostr-tools/nip44'
import { isPrivate, signSchnorr, xOnlyPointFromScalar } from 'tiny-secp256k1'
import { PylonError } from '../../base/errors.ts'
import { LruMap } from '../../base/lru.ts'
import { type Random, systemRandom } from '../../base/random.ts'
import { identify, isHex64 } from '../nips/nip01.ts'
import type { EventTemplate, LocalSigner, NostrEvent } from '../types.ts'

/** Peers whose shared secrets are kept: an ECDH costs half a millisecond. */
const SHARED_SECRETS = 1000
/** The longest NIP-44 payload that is decoded: 1 MiB of base64. */
const MAX_PAYLOAD_CHARS = 1_048_576

/**
 * @param secret 32 bytes, a valid scalar; kept, so give a copy
 * @param random for signatures and nonces: another than the system's only where a seed is to repeat a run
 * @throws identity_invalid
 */
export function createSigner(secret: Uint8Array, random: Random = systemRandom): LocalSigner {
  if (!isPrivate(secret)) throw new PylonError('identity_invalid', 'The secret key is out of range.')
  return new SecretSigner(secret, random)
}

class SecretSigner implements LocalSigner {
  readonly pubkey: string
  readonly random: Random
  readonly #secret: Uint8Array
  readonly #ecdh = createECDH('secp256k1')
  readonly #shared = new LruMap<string, { x: Buffer; conversationKey: Buffer }>(SHARED_SECRETS)

  constructor(secret: Uint8Array, random: Random) {
    this.#secret = secret
    this.random = random
    this.#ecdh.setPrivateKey(secret)
    this.pubkey = Buffer.from(xOnlyPointFromScalar(secret)).toString('hex')
  }

  sign(template: EventTemplate): NostrEvent {
    const event = identify(this.pubkey, template)
    return { ...event, sig: this.signDigest(Buffer.from(event.id, 'hex')) }
  }

  signDigest(digest: Uint8Array): string {
    return Buffer.from(signSchnorr(digest, this.#secret, this.random.bytes(32))).toString('hex')
  }

  nip44Encrypt(peer: string, plaintext: string): string {
    try {
      return encrypt44(plaintext, this.#sharedWith(peer).conversationKey, this.random.bytes(32))
    } catch (error) {
      if (error instanceof PylonError) throw error
      throw new PylonError('event_invalid', 'The text is empty or too long to be encrypted (NIP-44).', { cause: error })
    }
  }

  nip44Decrypt(peer: string, payload: string): string {
    if (payload.length > MAX_PAYLOAD_CHARS) throw new PylonError('decrypt_failed', 'The encrypted content is too long.')
    const { conversationKey } = this.#sharedWith(peer)
    try {
      return decrypt44(payload, conversationKey)
    } catch (error) {
      throw new PylonError('decrypt_failed', 'The content was not encrypted to this key with NIP-44.', { cause: error })
    }
  }

  nip04Encrypt(peer: string, plaintext: string): string {
    const iv = this.random.bytes(16)
    const cipher = createCipheriv('aes-256-cbc', this.#sharedWith(peer).x, iv)
    return `${cipher.update(plaintext, 'utf8', 'base64')}${cipher.final('base64')}?iv=${Buffer.from(iv).toString('base64')}`
  }

  nip04Decrypt(peer: string, payload: string): string {
    const match = payload.length > MAX_PAYLOAD_CHARS ? null : /^([A-Za-z0-9+/=]+)\?iv=([A-Za-z0-9+/=]+)$/.exec(payload)
    const iv = Buffer.from(match?.[2] ?? '', 'base64')
    if (match === null || iv.length !== 16) throw new PylonError('decrypt_failed', 'The content is not NIP-04.')
    const { x } = this.#sharedWith(peer)
    try {
      const decipher = createDecipheriv('aes-256-cbc', x, iv)
      return decipher.update(match[1] ?? '', 'base64', 'utf8') + decipher.final('utf8')
    } catch (error) {
      throw new PylonError('decrypt_failed', 'The content was not encrypted to this key with NIP-04.', { cause: error })
    }
  }

  #sharedWith(peer: string): { x: Buffer; conversationKey: Buffer } {
    const known = this.#shared.get(peer)
    if (known !== undefined) return known
    const x = this.#agree(peer)
    // HKDF-extract with the salt of NIP-44 v2.
    const shared = { x, conversationKey: createHmac('sha256', 'nip44-v2').update(x).digest() }
    this.#shared.set(peer, shared)
    return shared
  }

  #agree(peer: string): Buffer {
    if (!isHex64(peer)) throw new PylonError('decrypt_failed', 'The peer is not a public key.')
    try {
      return this.#ecdh.computeSecret(Buffer.from(`02${peer}`, 'hex'))
    } catch (error) {
      throw new PylonError('decrypt_failed', 'The peer is not a point on the curve.', { cause: error })
    }
  }
}
