/** NIP-98: HTTP requests signed by a Nostr key. */
import { hash } from 'node:crypto'
import type { Signer } from '../types.ts'
import { saltTag } from './nip01.ts'

export const HTTP_AUTH_KIND = 27_235

/** The value of the Authorization header for exactly this request. */
export async function buildHttpAuth(
  signer: Signer,
  request: { url: string; method: string; body?: string | Uint8Array; nowS: number },
): Promise<string> {
  const event = await signer.sign({
    kind: HTTP_AUTH_KIND,
    created_at: request.nowS,
    tags: [
      ['u', request.url],
      ['method', request.method.toUpperCase()],
      ...(request.body === undefined ? [] : [['payload', hash('sha256', request.body)]]),
      // Servers refuse an id that they have seen.
      saltTag(signer.random),
    ],
    content: '',
  })
  return `Nostr ${Buffer.from(JSON.stringify(event)).toString('base64')}`
}
