/** Who the owner is: the key in `owner.npub`, which is never a key of this home. */
import type { Config } from '../../base/config.ts'
import { messageOf } from '../../base/errors.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import type { Keyring } from '../../nostr/types.ts'

export type Owner = { readonly pubkey: string } | { readonly pubkey: undefined; readonly problem: string | undefined }

/** An agent, or whoever writes by a key of this home, must not be able to approve what agents do. */
export function ownerOf({ owner }: Pick<Config, 'owner'>, keyring: Pick<Keyring, 'owns'>): Owner {
  if (owner.npub === '') return { pubkey: undefined, problem: undefined }
  try {
    const pubkey = parsePubkey(owner.npub)
    if (!keyring.owns(pubkey)) return { pubkey }
    return { pubkey: undefined, problem: 'owner.npub is a key of this home: name a key that you alone hold' }
  } catch (error) {
    return { pubkey: undefined, problem: `owner.npub: ${messageOf(error)}` }
  }
}
