/** A wallet that relays have (NIP-60), taken into one of this home; what is gone from it then is deleted there. */

import type { WalletOwner } from '../../base/accounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import { buildDeletion, DELETION_KIND } from '../../nostr/nips/nip09.ts'
import { WALLET_KIND, WALLET_TOKEN_KIND } from '../../nostr/nips/nip60.ts'
import { NUTZAP_INFO_KIND } from '../../nostr/nips/nip61.ts'
import { RELAY_LIST_KIND } from '../../nostr/nips/nip65.ts'
import { relayUrls } from '../../nostr/relay/relay-url.ts'
import type { Filter, LocalSigner, Nostr, NostrEvent } from '../../nostr/types.ts'
import { all } from '../../store/commands.ts'
import { walletBackupMessage } from '../../store/keys.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'
import type { CoinFate, CoinsAtMint, FoundCoin, TakeOptions } from '../purse/found-coins.ts'
import type { OwnWallets } from '../wallets.ts'
import { type RelayWallet, readRelayWallet } from './relay-wallet.ts'

export interface TakingBackDeps {
  readonly store: Store
  readonly clock: Clock
  readonly keyring: { owns(pubkey: string): boolean }
  readonly nostr: Pick<Nostr, 'query' | 'newestOf' | 'relays' | 'nudgeOutbox'>
  readonly wallets: Pick<OwnWallets, 'pursesOf'>
}

export interface RelayWalletRequest extends Pick<TakeOptions, 'move' | 'maxFeeSats'> {
  /** The key whose wallet it is. */
  readonly signer: LocalSigner
  /** Who gets the coins. */
  readonly into: WalletOwner
  /** To look at, beside those of the node and those that the key says it uses. */
  readonly relays: readonly string[]
  readonly dryRun: boolean
}

export interface RelayWalletFound {
  readonly relays: readonly string[]
  /** Whether every relay that was asked told all that it has. */
  readonly isComplete: boolean
  readonly wallet: RelayWallet
  readonly mints: readonly CoinsAtMint[]
}

const READ_MS = 20_000
const MAX_RELAYS = 20
/** Ids in one filter, and in one deletion. */
const MAX_IDS = 500
const MAX_TARGETS = 200
const TTL_MS = 7 * 86_400_000

/** @throws price_too_high with nothing taken */
export async function takeBack(deps: TakingBackDeps, request: RelayWalletRequest): Promise<RelayWalletFound> {
  const { signer, into, dryRun } = request
  const relays = await relaysOf(deps, request)
  const { events, complete } = await read(deps, signer.pubkey, relays)
  const wallet = await readRelayWallet(signer, events)
  const { found } = deps.wallets.pursesOf(into)
  const options = { ...request, keys: wallet.keys }
  const mints = dryRun ? await found.look(wallet.coins, options) : await found.take(wallet.coins, options)
  if (!dryRun) await forget(deps, signer, relays, wallet, mints)
  return { relays, isComplete: complete, wallet, mints }
}

/** NIP-60: where the key's 10019 says, else where it writes (NIP-65); ours besides. */
async function relaysOf({ nostr }: TakingBackDeps, { signer, relays }: RelayWalletRequest): Promise<string[]> {
  const newest = await nostr.newestOf(signer.pubkey, [NUTZAP_INFO_KIND, RELAY_LIST_KIND], relays)
  const named = (newest.events.get(NUTZAP_INFO_KIND)?.tags ?? []).flatMap(([name, url]) =>
    name === 'relay' && url !== undefined ? [url] : [],
  )
  return relayUrls([...relays, ...nostr.relays, ...named.slice(0, MAX_RELAYS / 2), ...newest.write], MAX_RELAYS)
}

/** All of the wallet, and what was deleted of it also by programs that do not say of which kind. */
async function read(
  { nostr }: TakingBackDeps,
  pubkey: string,
  relays: readonly string[],
): Promise<{ events: NostrEvent[]; complete: boolean }> {
  const ask = (filters: Filter[]) => nostr.query(filters, { relays, timeoutMs: READ_MS })
  const authors = [pubkey]
  const first = await ask([
    { kinds: [WALLET_KIND, WALLET_TOKEN_KIND], authors },
    { kinds: [DELETION_KIND], authors, '#k': [String(WALLET_TOKEN_KIND)] },
  ])
  const ids = first.events.filter(({ kind }) => kind === WALLET_TOKEN_KIND).map(({ id }) => id)
  const chunks = Array.from({ length: Math.min(10, Math.ceil(ids.length / MAX_IDS)) }, (_, i) => ids.slice(i * MAX_IDS, (i + 1) * MAX_IDS))
  if (chunks.length === 0) return first
  const then = await ask(chunks.map((some) => ({ kinds: [DELETION_KIND], authors, '#e': some })))
  return { events: [...first.events, ...then.events], complete: first.complete && then.complete }
}

/** Whether a coin is gone from the wallet for ever. */
const isGone = (fate: CoinFate | undefined): boolean => fate === 'spent' || fate === 'taken'

/** NIP-60: an event whose coins are all spent is deleted, together with what it took the place of. */
async function forget(
  { store, clock, keyring, nostr }: TakingBackDeps,
  signer: LocalSigner,
  relays: readonly string[],
  wallet: RelayWallet,
  mints: readonly CoinsAtMint[],
): Promise<void> {
  const fates = new Map<FoundCoin, CoinFate | undefined>(
    mints.flatMap(({ coins, fates: here }) => coins.map((coin) => [coin, here.get(coin.secret)])),
  )
  const over = wallet.tokens.filter(({ coins }) => coins?.every((coin) => isGone(fates.get(coin))) === true)
  const ids = [...new Set(over.flatMap(({ id, del }) => [id, ...del]))]
  const at = clock.now()
  for (let i = 0; i < ids.length; i += MAX_TARGETS) {
    const targets = ids.slice(i, i + MAX_TARGETS).map((id) => ['e', id])
    const template = buildDeletion(targets, WALLET_TOKEN_KIND, unixSeconds(clock))
    // The outbox signs with the keys of this home only.
    const event = keyring.owns(signer.pubkey) ? identify(signer.pubkey, template) : signer.sign(template)
    await store.write(all(enqueueEvent({ key: walletBackupMessage.of(event.id), event, relays, notAfter: at + TTL_MS, at })))
  }
  if (ids.length > 0) nostr.nudgeOutbox()
}
