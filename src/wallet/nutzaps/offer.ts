/** How a key of this home says that it takes nutzaps: at the mints of the list, locked to the key of its wallet. */
import type { Config } from '../../base/config.ts'
import type { OwnWords } from '../../nostr/self/self-merge.ts'
import type { Keyring } from '../../nostr/types.ts'
import type { Wallets } from '../types.ts'

interface OfferDeps {
  config(): Config
  readonly nostr: { readonly keyring: Keyring }
  readonly wallets: Pick<Wallets, 'mints'>
}

/** Undefined where it takes none: by the configuration, or for want of a mint. */
export function nutzapsOf({ config, nostr, wallets }: OfferDeps, pubkey: string): OwnWords['nutzaps'] {
  const mints = wallets.mints().map(({ url }) => url)
  if (!config().wallet.nutzaps || mints.length === 0) return undefined
  return { mints, lockPubkey: nostr.keyring.walletSigner(pubkey).pubkey }
}
