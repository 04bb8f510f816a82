/** An identity whose key a bunker holds, at rest: how the bunker is reached, and whose wallet it has; sealed under the words. */
import { z } from 'zod'
import { parseJson } from '../../base/json.ts'
import type { BunkerUri } from '../nips/nip46.ts'
import { deriveBytes } from './mnemonic.ts'
import { seal, unseal } from './sealed.ts'

export const remoteKeySchema = z.object({
  bunker: z.object({ signer_pubkey: z.string(), relays: z.array(z.string()), secret: z.string() }),
  /** The NIP-06 account whose wallet is this identity's: its sats come back by the words alone. */
  wallet_account: z.int(),
})
export type RemoteKey = z.infer<typeof remoteKeySchema>

export const remoteKeyOf = (bunker: BunkerUri, walletAccount: number): RemoteKey => ({
  bunker: { signer_pubkey: bunker.signerPubkey, relays: [...bunker.relays], secret: bunker.secret },
  wallet_account: walletAccount,
})

/** Under which all secrets of a home are kept. */
export const wrapKeyOf = (seed: Uint8Array): Uint8Array => deriveBytes(seed, 'pylon wrapped keys', 32)

/** As identity.json has the connection of the node's key. */
export const sealedConnectionSchema = z.strictObject({ nonce: z.string().regex(/^[0-9a-f]{48}$/), ciphertext: z.string().min(1) })
export type SealedConnection = z.infer<typeof sealedConnectionSchema>

const ofNodeSchema = remoteKeySchema.extend({ pubkey: z.string() })

/** @param pubkey goes with it, so that a file in which either was changed does not open */
export function sealConnection(seed: Uint8Array, pubkey: string, key: RemoteKey): SealedConnection {
  const { nonce, ciphertext } = seal(wrapKeyOf(seed), JSON.stringify({ ...key, pubkey }))
  return { nonce: Buffer.from(nonce).toString('hex'), ciphertext: Buffer.from(ciphertext).toString('base64') }
}

/** Undefined where these are not its words, or it is another key's. */
export function openConnection(seed: Uint8Array, pubkey: string, { nonce, ciphertext }: SealedConnection): RemoteKey | undefined {
  const opened = unseal(wrapKeyOf(seed), { nonce: Buffer.from(nonce, 'hex'), ciphertext: Buffer.from(ciphertext, 'base64') })
  const parsed = ofNodeSchema.safeParse(opened === undefined ? undefined : parseJson(opened))
  return parsed.success && parsed.data.pubkey === pubkey ? parsed.data : undefined
}
