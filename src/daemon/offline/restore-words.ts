/**
 * A home from its words alone, while no node runs: words -> keys -> relays -> the list of mints (NUT-27) -> what each mint signed for
 * each wallet (NUT-09, 13). It may be done again at any time, also after it was cut short.
 */
import { systemClock } from '../../base/clock.ts'
import { loadConfig } from '../../base/config.ts'
import { DEFAULT_RELAYS } from '../../base/default-relays.ts'
import { createDialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { silentLogger } from '../../base/logger.ts'
import type { Home } from '../../base/paths.ts'
import { systemRandom } from '../../base/random.ts'
import { Scope } from '../../base/scope.ts'
import { isOfWords, readIdentity } from '../../nostr/keys/identity.ts'
import { HomeKeyring } from '../../nostr/keys/keyring.ts'
import { parseWords } from '../../nostr/keys/mnemonic.ts'
import { createNostr } from '../../nostr/nostr.ts'
import { listedMints } from '../../store/money/mints.ts'
import { putSetting } from '../../store/settings.ts'
import { Store } from '../../store/store.ts'
import { mintBackupFilter, newestMintBackup } from '../../wallet/mint-backup/event.ts'
import { RESTORED_AT_KEY } from '../../wallet/operations/restores.ts'
import { createWallets } from '../../wallet/wallets.ts'
import { mintsToRestore, type PurseProgress, type RestoredPurse, restorePurse } from '../home/purse-restore.ts'
import { type BunkerOrder, initHome } from './init.ts'
import { withHome } from './with-home.ts'

export interface WordsOrder {
  readonly words: string
  readonly passphrase?: string
  /** Where the node's key is, if not among the words. */
  readonly bunker?: BunkerOrder
  /** Replaces another identity, which is moved aside. */
  readonly force: boolean
  /** In place of the configured or the usual ones. */
  readonly relays: readonly string[]
  /** Beside those of the list. */
  readonly mints: readonly string[]
  onProgress(progress: PurseProgress | ListProgress): void
}

type ListProgress = {
  readonly step: 'mint_list'
  readonly relays: readonly string[]
  readonly found: boolean
  readonly mints: readonly string[]
}

export type RestoredWords = RestoredPurse & {
  readonly npub: string
  readonly pubkey: string
  readonly isProtected: boolean
  readonly movedTo: string | undefined
  readonly mints: readonly string[]
}

const RELAYS_MS = 15_000

/** @throws identity_invalid, identity_exists, already_running, relay_invalid, usage */
export async function restoreFromWords(home: Home, network: 'sandbox' | 'live', order: WordsOrder): Promise<RestoredWords> {
  const { relays: configured } = loadConfig(home.config).node
  const relays = [order.relays, configured, network === 'live' ? DEFAULT_RELAYS : []].find((list) => list.length > 0)
  if (relays === undefined) throw new PylonError('usage', 'A sandbox has relays of its own: name the one that has the list with --relay.')
  const keys = await keysOf(home, order)
  return await withHome(home, async () => {
    const store = Store.open(home.database)
    const dialer = createDialer()
    const scope = Scope.root('restore', { clock: systemClock, random: systemRandom }, () => undefined)
    try {
      // Before anything is asked: the next start asks the mints for what was not read.
      await store.write(putSetting({ key: RESTORED_AT_KEY, value: systemClock.now(), at: systemClock.now() }))
      return { ...keys, ...(await restore({ store, dialer, scope, home, network }, keys.words, relays, order)) }
    } finally {
      await scope.close()
      store.close()
      await dialer.close()
    }
  })
}

/** The keys of this home, made of the words unless they are here already. */
async function keysOf(home: Home, { words: typed, passphrase, force, bunker }: WordsOrder) {
  const words = parseWords(typed)
  const existing = readIdentity(home.identity)
  if (existing !== undefined && isOfWords(existing, words)) {
    const { npub, pubkey, protection } = existing
    return { words, npub, pubkey, isProtected: protection !== null, movedTo: undefined }
  }
  return await initHome(home, { words, force, ...given({ passphrase, bunker }) })
}

interface Opened {
  readonly store: Store
  readonly dialer: ReturnType<typeof createDialer>
  readonly scope: Scope
  readonly home: Home
  readonly network: 'sandbox' | 'live'
}

async function restore({ store, dialer, scope, home, network }: Opened, words: string, relays: readonly string[], order: WordsOrder) {
  const config = loadConfig(home.config)
  const common = { store, dialer, logger: silentLogger, config: () => config }
  const identity = readIdentity(home.identity)
  if (identity === undefined) throw new PylonError('identity_invalid', `${home.identity} is gone: do it again.`)
  const keyring = new HomeKeyring({ ...common, clock: systemClock, nodePubkey: identity.pubkey, nodeBunker: identity.bunker })
  keyring.unlock(words)
  const nostr = createNostr({ ...common, scope: scope.child('nostr'), keyring, relays })
  nostr.start()
  const signer = keyring.mintBackup()
  const { events } = await nostr.query([mintBackupFilter(signer.pubkey)], { timeoutMs: RELAYS_MS })
  const list = newestMintBackup(signer, events)
  const known = [...order.mints, ...mintsToRestore(store), ...listedMints(store).map(({ url }) => url)]
  const mints = [...new Set([...(list?.mints ?? []), ...known])]
  order.onProgress({ step: 'mint_list', relays, found: list !== undefined, mints })
  const invoiceNetwork = network === 'sandbox' ? 'bcrt' : 'bc'
  const wallets = createWallets({ ...common, scope: scope.child('wallets'), nostr: { keyring }, invoiceNetwork })
  const deps = { ...common, scope, clock: systemClock, keyring, wallets, nostr }
  return { mints, ...(await restorePurse({ ...deps, onProgress: order.onProgress }, mints)) }
}
