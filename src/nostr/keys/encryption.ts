/** The two encryption schemes of the Nostr wire, told apart by what the text looks like. */
import type { Awaitable, LocalSigner, Signer } from '../types.ts'

export type EncryptionScheme = 'nip44' | 'nip04'

/** NIP-04 payloads carry `?iv=`; NIP-44 ones are plain base64. */
export const schemeOf = (payload: string): EncryptionScheme => (payload.includes('?iv=') ? 'nip04' : 'nip44')

/** @throws event_invalid when the text is empty or too long */
export function encryptTo(signer: LocalSigner, peer: string, text: string, scheme?: EncryptionScheme): string
export function encryptTo(signer: Signer, peer: string, text: string, scheme?: EncryptionScheme): Awaitable<string>
export function encryptTo(signer: Signer, peer: string, text: string, scheme: EncryptionScheme = 'nip44'): Awaitable<string> {
  return scheme === 'nip04' ? signer.nip04Encrypt(peer, text) : signer.nip44Encrypt(peer, text)
}

/** @throws decrypt_failed */
export function decryptFrom(signer: LocalSigner, peer: string, payload: string): string
export function decryptFrom(signer: Signer, peer: string, payload: string): Awaitable<string>
export function decryptFrom(signer: Signer, peer: string, payload: string): Awaitable<string> {
  return schemeOf(payload) === 'nip04' ? signer.nip04Decrypt(peer, payload) : signer.nip44Decrypt(peer, payload)
}
