/** What the parts of the host are given. */
import type { WalletOwner } from '../base/accounts.ts'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'
import type { RemoteKeys } from '../nostr/bunker/remote-keys.ts'
import type { BunkerUri } from '../nostr/nips/nip46.ts'
import type { Keyring, LetterHandler, Nostr, Signer } from '../nostr/types.ts'
import type { Sessions } from '../session/sessions.ts'
import type { SessionsDeps } from '../session/types.ts'
import type { AgentRow } from '../store/agents/agents.ts'
import type { Store } from '../store/store.ts'
import type { Nutzaps } from '../wallet/nutzaps/nutzaps.ts'
import type { Wallets } from '../wallet/types.ts'
import type { ZapAddresses } from '../wallet/zaps/zap-addresses.ts'
import type { Zaps } from '../wallet/zaps/zapping.ts'
import type { SendZap } from '../wallet/zaps/zaps.ts'
import type { Hands } from './brains/brain.ts'

/** The keyring of the home, with what agents need beyond signing. */
export interface AgentKeyring extends Keyring {
  /** @throws locked, identity_invalid, agent_exists */
  importKey(text: string): Promise<Signer>
  /** @throws locked, agent_exists */
  keepRemote(pubkey: string, bunker: BunkerUri, walletAccount: number): Promise<Signer>
  /** Keys that bunkers hold. @throws locked */
  remotes(): { readonly pubkey: string; readonly bunker: BunkerUri }[]
  /** @throws locked, not_found, bunker_unable */
  exportKey(pubkey: string): { version: 1; pubkey: string; nsec: string; wallet_seed: string | null }
  /** The first agent account that was never given out. */
  nextAccount(): number
}

export interface HostDeps {
  /** Owns what runs for agents. */
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  config(): Config
  readonly nostr: Nostr
  readonly keyring: AgentKeyring
  readonly wallets: Wallets
  /** Bunkers elsewhere; absent: none can be connected. */
  readonly remoteKeys?: Pick<RemoteKeys, 'connect' | 'watch'>
  /** Absent: agents are not talked to in sessions. */
  openSessions?(order: Pick<SessionsDeps, 'scope' | 'signer' | 'relays' | 'mayInvite'>): Sessions
  /** Relays that the owner names for an agent are exceptions of its guard. */
  readonly dialer: Pick<Dialer, 'allow'>
  readonly sendZap: SendZap
  /** What became of a zap, by the key of its payment; else the wallet knows. */
  readonly zapOutcome?: Zaps['outcome']
  /** Told when an action begins to wait for its owner. */
  readonly onAsked?: () => void
  /** For brains that are programs of others; absent where there are none. */
  readonly hands?: Hands
  /** Absent where no LNURL server is known: agents then have no zap address. */
  readonly zapAddresses?: Pick<ZapAddresses, 'register' | 'receiptKeyOf'>
  /** Absent: agents take none. */
  readonly nutzaps?: Pick<Nutzaps, 'watch' | 'unwatch' | 'onRedeemed'>
  /** Asked first about each private message to an agent: true where it was something else than talk, as a payment. Rejects where it should come again. */
  readonly takeLetter?: LetterHandler
}

export const ownerOf = (agent: Pick<AgentRow, 'pubkey'>): WalletOwner => ({ kind: 'agent', pubkey: agent.pubkey })

/** The relays an agent reads and writes: its own, else those of the node. */
export const relaysOf = (deps: Pick<HostDeps, 'nostr'>, agent: Pick<AgentRow, 'relays'>): readonly string[] =>
  agent.relays.length > 0 ? agent.relays : deps.nostr.relays

/** The relays that the owner named for an agent, as exceptions of the guard: before anything is sent there, else it is refused for good. */
export function allowRelays(deps: { readonly dialer: Pick<Dialer, 'allow'> }, agent: Pick<AgentRow, 'relays'>): void {
  for (const relay of agent.relays) deps.dialer.allow(relay, true)
}
