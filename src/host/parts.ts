/** What the parts of the host are given. */
import type { WalletOwner } from '../base/accounts.ts'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'
import type { Keyring, Nostr, Signer } from '../nostr/types.ts'
import type { AgentRow } from '../store/agents/agents.ts'
import type { Store } from '../store/store.ts'
import type { PayResult, SpendLimits, Wallets } from '../wallet/types.ts'

/** The keyring of the home, with what agents need beyond signing. */
export interface AgentKeyring extends Keyring {
  /** @throws locked, identity_invalid, agent_exists */
  importKey(text: string): Promise<Signer>
  /** @throws locked, not_found */
  exportKey(pubkey: string): { version: 1; pubkey: string; nsec: string; wallet_seed: string | null }
  /** The first agent account that was never given out. */
  nextAccount(): number
}

export interface ZapOrder {
  readonly from: WalletOwner
  readonly recipient: string
  readonly eventId?: string
  readonly eventKind?: number
  readonly amountSats: bigint
  readonly comment: string
  /** Where the receipt is wanted. */
  readonly relays: readonly string[]
  readonly actionId: string
  readonly spend: { readonly tickId: string; readonly limits: SpendLimits }
}

/** Sends a zap by NIP-57 under the wallet key `zap:<action id>`. Throws as Wallet.pay does, and lnurl_invalid. */
export type SendZap = (order: ZapOrder) => Promise<PayResult>

/** Where agents get an address at which they can be zapped. */
export interface ZapAddresses {
  /** Registers the agent (again), fetches paid zaps from then on. @throws fetch_failed, lnurl_invalid */
  register(owner: WalletOwner, name: string): Promise<{ lnurl: string }>
  /** The key that signs receipts for this agent, or undefined while unknown. */
  receiptKeyOf(pubkey: string): Promise<string | undefined>
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
  /** Relays that the owner names for an agent are exceptions of its guard. */
  readonly dialer: Pick<Dialer, 'allow'>
  readonly sendZap: SendZap
  /** Absent where no LNURL server is known: agents then have no zap address. */
  readonly zapAddresses?: ZapAddresses
}

export const ownerOf = (agent: Pick<AgentRow, 'pubkey'>): WalletOwner => ({ kind: 'agent', pubkey: agent.pubkey })

/** The relays an agent reads and writes: its own, else those of the node. */
export const relaysOf = (deps: Pick<HostDeps, 'nostr'>, agent: Pick<AgentRow, 'relays'>): readonly string[] =>
  agent.relays.length > 0 ? agent.relays : deps.nostr.relays

/** The relays that the owner named for an agent, as exceptions of the guard: before anything is sent there, else it is refused for good. */
export function allowRelays(deps: { readonly dialer: Pick<Dialer, 'allow'> }, agent: Pick<AgentRow, 'relays'>): void {
  for (const relay of agent.relays) deps.dialer.allow(relay, true)
}
