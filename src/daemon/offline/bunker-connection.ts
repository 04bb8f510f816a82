/** Connects to the bunker that is to hold the key of a node that is being made. */
import { join } from 'node:path'
import { systemClock } from '../../base/clock.ts'
import { loadConfig } from '../../base/config.ts'
import { createDialer } from '../../base/dialer.ts'
import { silentLogger } from '../../base/logger.ts'
import type { Home } from '../../base/paths.ts'
import { systemRandom } from '../../base/random.ts'
import { Scope } from '../../base/scope.ts'
import { RemoteKeys } from '../../nostr/bunker/remote-keys.ts'
import { HomeKeyring } from '../../nostr/keys/keyring.ts'
import { NODE_ACCOUNT, secretOfAccount, seedOfWords } from '../../nostr/keys/mnemonic.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import type { BunkerUri } from '../../nostr/nips/nip46.ts'
import { createNostr } from '../../nostr/nostr.ts'
import { Store } from '../../store/store.ts'
import { withScratch } from '../backup/scratch.ts'

/**
 * The home has no identity yet, so its own database stays as it is.
 * @param words by which the bunker knows this home from now on
 * @returns the key that the bunker signs for, once it has shown that it does
 * @throws bunker_unreachable, bunker_refused, bunker_approval, bunker_answer_invalid, bunker_key_changed
 */
export async function pubkeyAtBunker(home: Home, words: string, bunker: BunkerUri, onApproval: (url: string) => void): Promise<string> {
  return await withScratch(home, systemClock.now(), async (dir) => {
    const store = Store.open(join(dir, 'pylon.db'))
    const dialer = createDialer()
    const scope = Scope.root('init', { clock: systemClock, random: systemRandom }, () => undefined)
    try {
      const config = loadConfig(home.config)
      const common = { store, dialer, logger: silentLogger, config: () => config }
      const nodePubkey = createSigner(secretOfAccount(seedOfWords(words), NODE_ACCOUNT)).pubkey
      const keyring = new HomeKeyring({ ...common, clock: systemClock, nodePubkey })
      keyring.unlock(words)
      const nostr = createNostr({ ...common, scope: scope.child('nostr'), keyring, relays: bunker.relays })
      const remoteKeys = new RemoteKeys({ ...common, scope: scope.child('bunker'), nostr, keyring, onApproval })
      nostr.start()
      const pubkey = await remoteKeys.connect(bunker)
      const signer = await keyring.keepRemote(pubkey, bunker, NODE_ACCOUNT)
      // What it is for: an event that is signed and never sent.
      await signer.sign({ kind: PROOF_KIND, created_at: Math.floor(systemClock.now() / 1000), tags: [], content: '' })
      return pubkey
    } finally {
      await scope.close()
      store.close()
      await dialer.close()
    }
  })
}

/** NIP-65: what this node signs first, so a bunker that is asked about each kind asks about none that it will not be asked for. */
const PROOF_KIND = 10_002
