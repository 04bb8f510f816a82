/** Keys for tests, the same for the same number. */
import { hash } from 'node:crypto'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import type { LocalSigner } from '../../src/nostr/types.ts'

export function testSigner(number: number): LocalSigner {
  return createSigner(new Uint8Array(hash('sha256', `test key ${number}`, 'buffer')))
}
