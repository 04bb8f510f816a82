/** The parts of the node in order: each is built after those that it names, started in this order, and ended before them. */

import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { ensurePrivateDir, writeFileAtomic } from '../base/files.ts'
import { given } from '../base/given.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import type { Scope } from '../base/scope.ts'
import { Chat } from '../customer/agents/chat.ts'
import { DirectMessages } from '../customer/agents/direct-messages.ts'
import { ManagedAgents } from '../customer/agents/managed-agents.ts'
import { OwnerSessions } from '../customer/agents/owner-sessions.ts'
import { Customer } from '../customer/customer.ts'
import { Tenant } from '../customer/machines/tenant.ts'
import { Host } from '../host/host.ts'
import type { HostDeps } from '../host/parts.ts'
import { Bunker } from '../nostr/bunker/bunker.ts'
import { RemoteKeys } from '../nostr/bunker/remote-keys.ts'
import type { HomeKeyring } from '../nostr/keys/keyring.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { createNostr } from '../nostr/nostr.ts'
import type { Nostr } from '../nostr/types.ts'
import { createRuntimeBackend } from '../provider/backends/runtime.ts'
import { ControlPlane } from '../provider/machines/control-plane.ts'
import { RelayDoors } from '../provider/machines/doors.ts'
import { MachineService } from '../provider/machines/service.ts'
import { Provider } from '../provider/provider.ts'
import type { RuntimeAdapter } from '../runtime/adapter.ts'
import { Sessions } from '../session/sessions.ts'
import { findAgent } from '../store/agents/agents.ts'
import { isBotOfOurs } from '../store/buying/managed-agents.ts'
import type { Store } from '../store/store.ts'
import type { Crypto } from '../wallet/ecash/crypto-pool.ts'
import { MintBackup } from '../wallet/mint-backup/mint-backup.ts'
import { WalletBackups } from '../wallet/nutzaps/backups.ts'
import { Nutzaps } from '../wallet/nutzaps/nutzaps.ts'
import { NwcRail } from '../wallet/nwc/rail.ts'
import { NwcService } from '../wallet/nwc/service.ts'
import { Payouts } from '../wallet/payouts/payouts.ts'
import { PaymentRequests } from '../wallet/requests/requests.ts'
import { createWallets, type OwnWallets, WALLET_DRAIN_MS } from '../wallet/wallets.ts'
import { NpubCash } from '../wallet/zaps/npub-cash.ts'
import { ZapAddresses } from '../wallet/zaps/zap-addresses.ts'
import { Zaps } from '../wallet/zaps/zapping.ts'
import { backupsHealth, ScheduledBackups } from './backup/scheduled-backups.ts'
import { createHands } from './hands.ts'
import type { Mode } from './launch/run-options.ts'
import { Letters } from './letters/letters.ts'
import { createSubstrates } from './machines/substrates.ts'
import { indexRelaysOf, type Surroundings } from './network.ts'
import { AlertFactsSource } from './owner/alert-facts.ts'
import { Alerts } from './owner/alerts.ts'
import { ApprovalsByLetter } from './owner/approvals-by-letter.ts'
import { ownerOf } from './owner/owner.ts'
import type { Off } from './part.ts'
import { PartList } from './part-list.ts'
import { healthOf, lightningHealth, mintsHealth, NO_MINT, payoutsHealth, remoteKeysHealth } from './parts-health.ts'

export interface PartsDeps {
  /** Owns all that runs. */
  readonly scope: Scope
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly mode: Mode
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly keyring: HomeKeyring
  readonly dialer: Dialer
  readonly surroundings: Surroundings
  /** Where the wallet reckons; a worker thread when left out. */
  readonly crypto?: Crypto
  /** Where machines run; those that config names when left out. */
  readonly adapters?: (config: Config, scope: Scope) => readonly RuntimeAdapter[]
  config(): Config
}

/** Where agents get Lightning addresses. */
type AddressService = Pick<ZapAddresses, 'start' | 'register' | 'receiptKeyOf' | 'baseUrl'>

/** What runs in these by then asks others, and can be asked again. */
const ASKING_DRAIN_MS = 1000
/** For what was sent and not recorded yet, and who is told of it: what is cut short is told again after the next start. */
const OUTBOX_DRAIN_MS = 2000

export class NodeParts extends PartList {
  readonly #deps: PartsDeps

  constructor(deps: PartsDeps) {
    super(deps)
    this.#deps = deps
  }

  readonly nostr = this.part({
    name: 'relay connections',
    build: (_, scope): Nostr => {
      const { config, network, surroundings, keyring } = this.#deps
      const { relays } = surroundings
      return createNostr({ ...this.#common(scope), keyring, relays, indexRelays: indexRelaysOf(config(), network, relays) })
    },
    start: (nostr) => nostr.start(),
    drainMs: OUTBOX_DRAIN_MS,
  })

  /** Keys that bunkers elsewhere hold. */
  readonly remoteKeys = this.part({
    name: 'remote keys',
    needs: { nostr: this.nostr },
    build: ({ nostr }, scope) => new RemoteKeys({ ...this.#common(scope), nostr, keyring: this.#deps.keyring }),
    start: (remoteKeys) => remoteKeys.start(),
    // What was asked is asked again after the next start.
    drainMs: ASKING_DRAIN_MS,
    health: (remoteKeys) => remoteKeysHealth(remoteKeys.troubled(), (pubkey) => this.#nameOf(pubkey)),
  })

  readonly wallets = this.part({
    name: 'wallet',
    build: (_, scope): OwnWallets => {
      const { keyring, crypto, surroundings } = this.#deps
      const known = { invoiceNetwork: this.#invoiceNetwork(), expectedMints: surroundings.mints }
      return createWallets({ ...this.#common(scope), ...known, nostr: { keyring }, ...(crypto === undefined ? {} : { crypto }) })
    },
    start: (wallets) => wallets.start(),
    drainMs: WALLET_DRAIN_MS,
    health: () => mintsHealth(this.#deps.store),
  })

  /** The owner's own Lightning wallet elsewhere. */
  readonly lightning = this.part({
    name: 'Lightning wallet',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: (found, scope) =>
      new NwcRail({ ...this.#common(scope), ...found, keyring: this.#deps.keyring, invoiceNetwork: this.#invoiceNetwork() }),
    start: (lightning) => lightning.start(),
    // What is open is asked about after the next start.
    drainMs: ASKING_DRAIN_MS,
    health: (lightning) => lightningHealth(lightning.connection.get(), this.#deps.config()),
  })

  /** Connections by which programs elsewhere use wallets of this home. */
  readonly nwc = this.part({
    name: 'wallet connections',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: (found, scope) => new NwcService({ ...this.#common(scope), ...found, keyring: this.#deps.keyring, network: this.#deps.network }),
    start: (nwc) => nwc.start(),
    // What was asked is gone on with after the next start.
    drainMs: ASKING_DRAIN_MS,
  })

  /** Private messages of the node's own key; who takes some says so when it is built (`letters.handle`). */
  readonly letters = this.part({
    name: 'letters',
    needs: { nostr: this.nostr },
    build: ({ nostr }, scope) =>
      // A provider introduces the key with all that it says of itself.
      new Letters({ ...this.#common(scope), nostr, signer: this.#deps.keyring.node(), isIntroduced: this.#deps.mode !== 'host' }),
    start: (letters) => letters.start(),
    // What was not taken comes again.
    drainMs: ASKING_DRAIN_MS,
  })

  /** The list of mints, on relays for the words alone (NUT-27). */
  readonly mintBackup = this.part({
    name: 'mint list backup',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: ({ nostr }, scope) => new MintBackup({ ...this.#common(scope), nostr, keyring: this.#deps.keyring }),
    start: (backup) => backup.start(),
    drainMs: 0,
  })

  /** What wallets hold above their owner's limits and leaves by itself. */
  readonly payouts = this.part({
    name: 'payouts',
    needs: { wallets: this.wallets },
    build: ({ wallets }, scope) =>
      new Payouts({ ...this.#common(scope), wallets, writeToken: (name, token) => this.#writeToken(name, token) }),
    start: (payouts) => payouts.start(),
    // What is under way is gone on with after the next start.
    drainMs: WALLET_DRAIN_MS,
    health: () => payoutsHealth(this.#deps.store),
  })

  /** Ecash that others publish for keys of this home. */
  readonly nutzaps = this.part({
    name: 'nutzaps',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: (found, scope) => new Nutzaps({ ...this.#common(scope), ...found, keyring: this.#deps.keyring }),
    start: (nutzaps) => nutzaps.start(),
    // What was claimed is gone on with after the next start.
    drainMs: ASKING_DRAIN_MS,
  })

  /** Payment requests (NUT-18) of both directions. */
  readonly requests = this.part({
    name: 'payment requests',
    needs: { nostr: this.nostr, wallets: this.wallets },
    wants: { letters: this.letters },
    build: ({ letters, ...found }, scope) => {
      const requests = new PaymentRequests({ ...this.#common(scope), ...found, keyring: this.#deps.keyring })
      letters?.handle('payment requests', (letter) => requests.made.take(letter))
      return requests
    },
    start: (requests) => requests.start(),
    // What is under way is gone on with after the next start.
    drainMs: ASKING_DRAIN_MS,
  })

  /** What the wallets hold, on relays too where the owner wants that. */
  readonly walletBackups = this.part({
    name: 'wallets on relays',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: (found, scope) => new WalletBackups({ ...this.#common(scope), ...found, keyring: this.#deps.keyring }),
    start: (backups) => backups.start(),
    drainMs: 0,
  })

  /** Zaps out, of agents and of the owner. */
  readonly zaps = this.part({
    name: 'zaps',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: (found, scope) => new Zaps({ ...this.#common(scope), ...found, invoiceNetwork: this.#invoiceNetwork() }),
    start: (zaps) => zaps.start(),
    // What was fixed is gone on with after the next start.
    drainMs: ASKING_DRAIN_MS,
  })

  readonly customer = this.part({
    name: 'customer',
    needs: { nostr: this.nostr, wallets: this.wallets },
    build: (found, scope) => new Customer({ ...this.#common(scope), ...found, network: this.#deps.network }),
    start: (customer) => customer.start(),
  })

  readonly machines = this.part({
    name: 'machines',
    needs: { nostr: this.nostr, wallets: this.wallets },
    off: () => this.#offByMode('provider') ?? this.#offByConfig(),
    build: (found, scope) => {
      const { network, home } = this.#deps
      const common = { ...this.#common(scope), ...found }
      const doors = new RelayDoors({ ...common, scope: scope.child('doors'), dir: join(home.runtimes, 'doors') })
      const adapters = this.#deps.adapters ?? ((config: Config, scope: Scope) => this.#adapters(config, scope))
      return new MachineService({ ...common, transport: new ControlPlane(common), network, adapters, doors })
    },
    start: (machines) => machines.start(),
    reload: (machines) => machines.reload(),
    stop: (machines) => machines.close(),
    health: (machines) => healthOf(machines.status(), { nextStep: 'pylon doctor' }),
  })

  readonly tenant = this.part({
    name: 'tenant of machines',
    needs: { nostr: this.nostr, wallets: this.wallets },
    wants: { machines: this.machines },
    build: ({ nostr, wallets }, scope) => {
      const { keyring, network } = this.#deps
      return new Tenant({
        ...{ ...this.#common(scope), nostr, wallets, network },
        // As its own customer commands this node when no relay does.
        own: {
          pubkey: () => keyring.node().pubkey,
          handle: (requester, envelope, emit) => this.machines.get().handle(requester, envelope, emit),
        },
      })
    },
    start: (tenant) => tenant.start(),
    // Commands are asked about after the next start.
    drainMs: 0,
  })

  /** Of the customer key: with agents that it made, hosts, or that somebody else has. */
  readonly sessions = this.part({
    name: 'sessions',
    needs: { nostr: this.nostr },
    build: ({ nostr }, scope): OwnerSessions => {
      const { store, keyring } = this.#deps
      return new OwnerSessions({
        ...{ ...this.#common(scope), nostr, signer: keyring.customer(), relays: nostr.relays },
        mayInvite: (pubkey) => keyring.owns(pubkey) || isBotOfOurs(store, pubkey),
        onRumor: async (rumor) => {
          await this.agents.get().onRumor(rumor)
          await this.direct.get().onRumor(rumor)
        },
      })
    },
    start: (sessions) => sessions.start(),
  })

  readonly agents = this.part({
    name: 'managed agents',
    needs: { owner: this.sessions, tenant: this.tenant },
    build: (found, scope) => {
      const { keyring } = this.#deps
      return new ManagedAgents({ ...this.#common(scope), ...found, ownPubkey: () => keyring.node().pubkey })
    },
    start: (agents) => agents.start(),
    // Each goes on after the next start.
    drainMs: 0,
  })

  /** With keys that no session can be begun with. */
  readonly direct = this.part({
    name: 'direct messages',
    needs: { nostr: this.nostr },
    build: ({ nostr }, scope) => new DirectMessages({ ...this.#common(scope), nostr, signer: this.#deps.keyring.customer() }),
    start: (direct) => direct.start(),
  })

  readonly chat = this.part({
    name: 'chat',
    needs: { nostr: this.nostr, owner: this.sessions, direct: this.direct },
    build: ({ nostr, owner, direct }, scope) => {
      const { store } = this.#deps
      const hostedKey = (ref: string) => findAgent(store, ref)?.pubkey
      return new Chat({ ...this.#common(scope), owner, direct, relays: nostr.relays, hostedKey })
    },
  })

  /** Programs elsewhere that sign with keys of this home. */
  readonly bunker = this.part({
    name: 'bunker',
    needs: { nostr: this.nostr },
    build: ({ nostr }, scope) => new Bunker({ ...this.#common(scope), nostr, keyring: this.#deps.keyring }),
    start: (bunker) => bunker.start(),
    drainMs: 0,
  })

  readonly backups = this.part({
    name: 'backups',
    build: (_, scope) => {
      const { home, network, keyring } = this.#deps
      return new ScheduledBackups({ ...this.#common(scope), home, network, npub: npubOf(keyring.node().pubkey) })
    },
    start: (backups) => backups.start(),
    reload: (backups) => backups.reload(),
    // What is not whole is begun again after the next start.
    drainMs: 0,
    health: () => backupsHealth(this.#deps.store, this.#deps.config()),
  })

  readonly provider = this.part({
    name: 'provider',
    needs: { nostr: this.nostr, wallets: this.wallets },
    wants: { machines: this.machines },
    off: () => this.#offByMode('provider'),
    build: ({ machines, ...found }, scope): Provider => {
      const { config, surroundings } = this.#deps
      const moreBackends = machines === undefined ? [] : [createRuntimeBackend(machines, () => config().provider.job_timeout_s)]
      return new Provider({ ...this.#common(scope), ...found, moreBackends, expectsMint: () => surroundings.mints.length > 0 })
    },
    start: (provider) => provider.start(),
    reload: (provider) => provider.reload(),
    stop: (provider, drainMs) => provider.close(drainMs),
    health: (provider) => {
      const status = provider.status()
      return healthOf(status, 'reason' in status && status.reason.startsWith('no_mint') ? { nextStep: NO_MINT.nextStep } : {})
    },
  })

  readonly zapAddresses = this.part({
    name: 'zap addresses',
    needs: { nostr: this.nostr, wallets: this.wallets },
    off: () => this.#offByMode('host') ?? this.#offWithoutAddresses(),
    build: (found, scope): AddressService => {
      const { address_service: service } = this.#deps.config().wallet
      if (service !== '') return new NpubCash({ ...this.#common(scope), ...found, baseUrl: service.replace(/\/+$/, '') })
      const urls = this.#deps.surroundings.sandbox?.urls ?? { lnurlBaseUrl: '', mintUrl: '' }
      return new ZapAddresses({ ...this.#common(scope), ...found, baseUrl: urls.lnurlBaseUrl, mintUrl: urls.mintUrl })
    },
    start: (addresses) => addresses.start(),
    drainMs: ASKING_DRAIN_MS,
  })

  readonly host = this.part({
    name: 'host',
    needs: { nostr: this.nostr, wallets: this.wallets, zaps: this.zaps },
    wants: { zapAddresses: this.zapAddresses, nutzaps: this.nutzaps, requests: this.requests, remoteKeys: this.remoteKeys },
    off: () => this.#offByMode('host'),
    build: ({ zapAddresses, nutzaps, requests, remoteKeys, zaps, ...found }, scope) => {
      const common = { ...this.#common(scope), ...found, keyring: this.#deps.keyring }
      const sendZap = zaps.send
      const zapOutcome: HostDeps['zapOutcome'] = (from, key) => zaps.outcome(from, key)
      const hands = createHands({ ...common, home: this.#deps.home, network: this.#deps.network, parts: this })
      const openSessions: HostDeps['openSessions'] = (order) => new Sessions({ ...common, ...order })
      const onAsked = () => this.owner.peek()?.onAsked()
      const takeLetter: HostDeps['takeLetter'] = requests === undefined ? undefined : (letter) => requests.made.take(letter)
      const beside = given({ zapAddresses, nutzaps, takeLetter, remoteKeys })
      return new Host({ ...common, sendZap, zapOutcome, hands, openSessions, onAsked, ...beside })
    },
    start: (host) => host.start(),
    stop: (host, drainMs) => host.close(drainMs),
    health: (host) => healthOf(host.status(), { nextStep: 'pylon agent list' }),
  })

  /** What the owner is told by letter, and what he answers. */
  readonly owner = this.part({
    name: 'letters to the owner',
    needs: { letters: this.letters },
    wants: { host: this.host },
    build: ({ letters, host }, scope) => {
      const { keyring, config } = this.#deps
      const owner = () => ownerOf(config(), keyring)
      return new ApprovalsByLetter({ ...this.#common(scope), letters, owner, approvals: () => host?.approvals })
    },
    start: (owner) => owner.start(),
    reload: async (owner) => owner.onAsked(),
    drainMs: ASKING_DRAIN_MS,
  })

  /** What the owner is told by itself. */
  readonly alerts = this.part({
    name: 'alerts',
    needs: { letters: this.letters },
    wants: { nostr: this.nostr, machines: this.machines },
    build: ({ letters, nostr, machines }, scope) => {
      const { keyring, config, home } = this.#deps
      const common = this.#common(scope)
      const facts = new AlertFactsSource({
        ...{ ...common, home },
        relays: () => nostr?.health() ?? [],
        lightning: () => this.lightning.health,
        backups: () => this.backups.health,
        substrates: () => machines?.status().substrates ?? [],
      })
      return new Alerts({ ...common, letters, owner: () => ownerOf(config(), keyring), facts: () => facts.read() })
    },
    start: (alerts) => alerts.start(),
    drainMs: ASKING_DRAIN_MS,
  })

  /** Starts all but the relay connections. @returns when each runs or has failed */
  startOthers(): Promise<void> {
    return this.startAllBut(this.nostr)
  }

  #common(scope: Scope) {
    const { store, clock, logger, dialer, config } = this.#deps
    return { scope, store, clock, logger, dialer, config }
  }

  /** The prefix of invoices that this node pays and shows. */
  #invoiceNetwork(): string {
    return this.#deps.network === 'sandbox' ? 'bcrt' : 'bc'
  }

  /** Below the home, for the owner alone. */
  #writeToken(name: string, token: string): string {
    const dir = join(this.#deps.home.dir, 'payouts')
    ensurePrivateDir(dir)
    const path = join(dir, name)
    writeFileAtomic(path, `${token}\n`)
    return path
  }

  /** As the owner knows it. */
  #nameOf(pubkey: string): string {
    const { store, keyring } = this.#deps
    return pubkey === keyring.node().pubkey ? 'the node' : (findAgent(store, pubkey)?.name ?? npubOf(pubkey))
  }

  #adapters({ runtimes }: Config, scope: Scope) {
    const { home, keyring, dialer, logger } = this.#deps
    return createSubstrates({ config: runtimes, dir: home.runtimes, nodePubkey: keyring.node().pubkey, dialer, scope, logger }).adapters
  }

  #offByMode(side: 'host' | 'provider'): Off | undefined {
    const { mode } = this.#deps
    if (mode === 'both' || mode === side) return undefined
    const nextStep = 'pylon restart --mode both'
    const reason = `the node runs in mode ${mode}`
    return { reason, message: `There is no ${side}: ${reason}; to change that: ${nextStep}`, nextStep }
  }

  #offByConfig(): Off | undefined {
    if (this.#deps.config().runtimes.enabled) return undefined
    const nextStep = 'pylon config set runtimes.enabled true'
    return { reason: 'runtimes.enabled is false', message: `Machines are off; to change that: ${nextStep}`, nextStep }
  }

  #offWithoutAddresses(): Off | undefined {
    if (this.#deps.surroundings.sandbox !== undefined || this.#deps.config().wallet.address_service !== '') return undefined
    const reason = 'no address service is configured (wallet.address_service), and only a sandbox has one of its own'
    return { reason, message: `There are no zap addresses: ${reason}.`, nextStep: 'pylon agent set NAME --lud16 ADDRESS' }
  }
}
