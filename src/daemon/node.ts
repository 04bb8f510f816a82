/** A running node: its parts, each with its own health, and what the owner may ask of the whole. */
import type { Clock } from '../base/clock.ts'
import { type Config, loadConfig } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import { systemRandom } from '../base/random.ts'
import { Scope } from '../base/scope.ts'
import { Customer } from '../customer/customer.ts'
import type { OwnNode } from '../customer/machines/own-node.ts'
import { Tenant } from '../customer/machines/tenant.ts'
import { createHost, type Host } from '../host/host.ts'
import { allowRelays } from '../host/parts.ts'
import { type Identity, isProtected, unlockIdentity } from '../nostr/keys/identity.ts'
import type { HomeKeyring } from '../nostr/keys/keyring.ts'
import { createNostr } from '../nostr/nostr.ts'
import type { Nostr } from '../nostr/types.ts'
import { createRuntimeBackend } from '../provider/backends/runtime.ts'
import { createMachinesOnNostr } from '../provider/machines/control-plane.ts'
import type { Machines } from '../provider/machines/machines.ts'
import type { OwnMachines } from '../provider/machines/service.ts'
import { createProvider, type Provider } from '../provider/provider.ts'
import { listAgents } from '../store/agents/agents.ts'
import { mintNow } from '../store/money/mint-moves.ts'
import type { Store } from '../store/store.ts'
import { createWallets, type OwnWallets } from '../wallet/wallets.ts'
import { ZapAddresses } from '../wallet/zaps/zap-addresses.ts'
import { createZapSender } from '../wallet/zaps/zaps.ts'
import type { Events } from './events.ts'
import { Part } from './health.ts'
import type { LogFile } from './home/log-file.ts'
import { askMintsAfterRestore } from './home/restored.ts'
import type { DaemonOptions, Mode } from './launch/run-options.ts'
import type { Successor } from './launch/successor.ts'
import { RuntimeCalls } from './machines/runtime-calls.ts'
import { createSubstrates } from './machines/substrates.ts'
import { indexRelaysOf, type Surroundings } from './network.ts'
import type { Services } from './services.ts'
import type { Shutdown } from './shutdown.ts'

export interface NodeDeps {
  readonly options: DaemonOptions
  readonly config: Config
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly identity: Identity
  readonly keyring: HomeKeyring
  readonly dialer: Dialer
  readonly surroundings: Surroundings
  readonly logFile: LogFile
  readonly events: Events
  readonly shutdown: Shutdown
}

/** Parts that start by asking others (mints, relays) hold the readiness up no longer than this. */
const START_WAIT_MS = 2000
/** Within the ten seconds that `pylon stop` gives by default. */
const DRAIN_MS = 7000
/** What runs under the node's scope by then asks others, and can be asked again. */
const SCOPE_DRAIN_MS = 1000
const ADD_MINT_FIRST_MS = 1000
const ADD_MINT_MAX_MS = 60_000

/** Keys whose change shows only after a restart. */
const AFTER_RESTART = ['node.mode', 'node.relays', 'node.index_relays', 'runtimes.enabled'] as const

export class PylonNode implements Services {
  readonly startedAt: number
  readonly mode: Mode
  readonly events: Events
  readonly parts = {
    nostr: new Part<Nostr>('relay connections'),
    wallets: new Part<OwnWallets>('wallet'),
    customer: new Part<Customer>('customer'),
    provider: new Part<Provider>('provider'),
    zapAddresses: new Part<ZapAddresses>('zap addresses'),
    host: new Part<Host>('host'),
    machines: new Part<OwnMachines>('machines'),
    tenant: new Part<Tenant>('tenant of machines'),
  }
  readonly runtimeCalls: RuntimeCalls
  /** Owns what runs here; parts move under it one by one. */
  readonly #scope: Scope
  /** How long running work may go on once the end has begun. */
  drainMs = DRAIN_MS
  /** Set when the end is a restart. */
  successor: Successor | undefined
  readonly #deps: NodeDeps
  #config: Config
  #starting: Promise<void> | undefined

  constructor(deps: NodeDeps) {
    this.#deps = deps
    this.#config = deps.config
    this.events = deps.events
    this.#scope = Scope.root('node', { clock: deps.clock, random: systemRandom }, ({ path, error }) =>
      deps.logger.error({ path, err: error }, 'running work failed; the rest goes on'),
    )
    this.startedAt = deps.clock.now()
    this.runtimeCalls = new RuntimeCalls(deps.clock)
    this.mode = deps.options.run.mode ?? deps.config.node.mode
  }

  get home(): Home {
    return this.#deps.options.home
  }
  get network(): 'sandbox' | 'live' {
    return this.#deps.options.network
  }
  get store(): Store {
    return this.#deps.store
  }
  get clock(): Clock {
    return this.#deps.clock
  }
  get logger(): Logger {
    return this.#deps.logger
  }
  get dialer(): Dialer {
    return this.#deps.dialer
  }
  get identity(): Identity {
    return this.#deps.identity
  }
  get keyring(): HomeKeyring {
    return this.#deps.keyring
  }
  get surroundings(): Surroundings {
    return this.#deps.surroundings
  }
  get sandboxUrls(): Services['sandboxUrls'] {
    return this.#deps.surroundings.sandbox?.urls
  }
  get nostr(): Nostr {
    return this.parts.nostr.get()
  }
  get wallets(): OwnWallets {
    return this.parts.wallets.get()
  }
  get customer(): Customer {
    return this.parts.customer.get()
  }
  get host(): Host {
    return this.parts.host.get()
  }
  /** As its own customer commands it when no relay does. */
  #ownNode(): OwnNode {
    return {
      pubkey: () => this.keyring.node().pubkey,
      handle: (requester, envelope, emit) => this.machines.handle(requester, envelope, emit),
    }
  }

  get machines(): Machines {
    return this.parts.machines.get()
  }
  get tenant(): Tenant {
    return this.parts.tenant.get()
  }
  config(): Config {
    return this.#config
  }

  /** Builds and starts what needs the keys; resolves when that runs, or after a short while when others are slow to answer. */
  async startParts(): Promise<void> {
    if (this.#deps.shutdown.signal.aborted) throw new PylonError('shutting_down', 'The node is ending: start it again first.')
    this.#starting ??= this.#startParts()
    await this.#starting
  }

  /** @throws passphrase_wrong */
  async unlock(passphrase: string): Promise<void> {
    // Opened already: then what that started is waited for as well.
    if (!this.keyring.locked) return void (await this.#starting)
    this.keyring.unlock(await unlockIdentity(this.identity, passphrase))
    this.events.emit('unlocked')
    await this.startParts()
  }

  /** Reopens the log and reads config.toml. @throws config_invalid; then the old configuration stays. */
  reload(): { applied: string[]; after_restart: string[] } {
    this.#deps.logFile.reopen()
    const before = this.#config
    const after = loadConfig(this.home.config)
    this.#config = after
    this.logger.level = after.node.log_level
    const changed = changedKeys(before, after)
    const late = changed.filter((key) => (AFTER_RESTART as readonly string[]).includes(key))
    this.logger.info({ changed }, 'configuration read again')
    const { provider, machines } = this.parts
    void machines.run(this.logger, (machines) => machines.reload())
    void provider.run(this.logger, (provider) => provider.reload())
    return { applied: changed.filter((key) => !late.includes(key)), after_restart: late }
  }

  reloadBySignal(): void {
    try {
      this.reload()
    } catch (error) {
      this.logger.error({ reason: messageOf(error) }, 'the configuration was not taken; the old one stays')
    }
  }

  /** Drains and ends; with `restart` a successor with the same options follows. @throws conflict in the foreground */
  end(restart?: { mode?: Mode | undefined }, drainMs = DRAIN_MS): void {
    this.drainMs = drainMs
    if (restart !== undefined) {
      if (!this.#deps.options.isDetached) {
        throw new PylonError('conflict', 'This node runs in the foreground: restart it where it was started (its terminal or supervisor).')
      }
      const run = this.#deps.options.run
      const words = isProtected(this.identity) && !this.keyring.locked ? this.keyring.words() : undefined
      this.successor = { run: restart.mode === undefined ? run : { ...run, mode: restart.mode }, words }
    }
    // After the answer to the caller has left.
    setImmediate(() => this.#deps.shutdown.request(restart === undefined ? 'asked over the socket' : 'restart'))
  }

  async #startParts(): Promise<void> {
    this.#build()
    const { logger } = this
    const { nostr, wallets, customer, provider, zapAddresses, host, tenant, machines } = this.parts
    // Before the outbox goes on: what an agent left for a relay of its own is not refused.
    for (const agent of listAgents(this.store)) allowRelays(this, agent)
    await nostr.run(logger, (nostr) => nostr.start())
    // Before anything can spend: what a restored database holds may be long gone.
    const ending = this.#deps.shutdown.signal
    await askMintsAfterRestore(this, ending)
    if (ending.aborted) return
    const started = Promise.all([
      wallets.run(logger, (wallets) => wallets.start()),
      machines.run(logger, (machines) => machines.start()),
      customer.run(logger, (customer) => customer.start()),
      provider.run(logger, (provider) => provider.start()),
      zapAddresses.run(logger, (addresses) => addresses.start()),
      host.run(logger, (host) => host.start()),
      tenant.run(logger, (tenant) => tenant.start()),
    ])
    const waited = new AbortController()
    await Promise.race([started, this.clock.sleep(START_WAIT_MS, AbortSignal.any([waited.signal, ending])).catch(() => undefined)])
    waited.abort()
    for (const url of this.surroundings.mints) void this.#addMint(url)
  }

  /** Each part in turn; one that can't be built leaves its reason, and those that need it give it on. */
  #build(): void {
    const { store, clock, logger, dialer, keyring } = this
    const common = { store, clock, logger, dialer, config: () => this.#config }
    const { nostr, wallets, customer, provider, tenant } = this.parts
    const { relays } = this.surroundings
    const indexRelays = indexRelaysOf(this.config(), this.network, relays)
    nostr.build(logger, () => createNostr({ ...common, keyring, relays, indexRelays }))
    wallets.build(logger, () => createWallets({ ...common, nostr: { keyring }, invoiceNetwork: this.#invoiceNetwork }))
    const { network } = this
    customer.build(logger, () => new Customer({ ...common, network, nostr: nostr.get(), wallets: wallets.get() }))
    tenant.build(logger, () => new Tenant({ ...common, network, nostr: nostr.get(), wallets: wallets.get(), own: this.#ownNode() }))
    this.#buildMachines()
    const machines = this.parts.machines.peek()
    const moreBackends = machines === undefined ? [] : [createRuntimeBackend(machines, () => this.#config.provider.job_timeout_s)]
    if (this.mode === 'host') provider.turnOff(...this.#offByMode('provider'))
    else
      provider.build(logger, () =>
        createProvider({
          ...common,
          nostr: nostr.get(),
          wallets: wallets.get(),
          moreBackends,
          expectsMint: () => this.surroundings.mints.length > 0,
        }),
      )
    if (this.mode === 'provider') this.parts.host.turnOff(...this.#offByMode('host'))
    else this.#buildHost()
  }

  #buildMachines(): void {
    const { store, clock, logger, dialer, keyring, network } = this
    const { nostr, wallets, machines } = this.parts
    if (this.mode === 'host') machines.turnOff(...this.#offByMode('provider'))
    else if (!this.#config.runtimes.enabled) {
      const nextStep = 'pylon config set runtimes.enabled true'
      machines.turnOff('runtimes.enabled is false', new PylonError('conflict', `Machines are off; to change that: ${nextStep}`), nextStep)
    } else {
      const adapters = ({ runtimes }: Config) => {
        const nodePubkey = keyring.node().pubkey
        return createSubstrates({ config: runtimes, dir: this.home.runtimes, nodePubkey, dialer, clock, logger }).adapters
      }
      const common = { store, clock, logger, config: () => this.#config, network }
      machines.build(logger, () => createMachinesOnNostr({ ...common, nostr: nostr.get(), wallets: wallets.get(), adapters }))
    }
  }

  /** The prefix of invoices that this node pays and shows. */
  get #invoiceNetwork(): string {
    return this.network === 'sandbox' ? 'bcrt' : 'bc'
  }

  #buildHost(): void {
    const { store, clock, logger, dialer, keyring, sandboxUrls } = this
    const common = { store, clock, logger, dialer, config: () => this.#config }
    const { nostr, wallets, zapAddresses, host } = this.parts
    if (sandboxUrls !== undefined) {
      const { lnurlBaseUrl: baseUrl, mintUrl } = sandboxUrls
      const scope = this.#scope.child('zap addresses')
      zapAddresses.build(logger, () => new ZapAddresses({ ...common, scope, nostr: nostr.get(), wallets: wallets.get(), baseUrl, mintUrl }))
    }
    host.build(logger, () => {
      const ofAgents = { ...common, nostr: nostr.get(), wallets: wallets.get() }
      const addresses = zapAddresses.peek()
      return createHost({
        ...ofAgents,
        keyring,
        sendZap: createZapSender({ ...ofAgents, invoiceNetwork: this.#invoiceNetwork }),
        ...(addresses === undefined ? {} : { zapAddresses: addresses }),
      })
    })
  }

  #offByMode(side: string): [string, PylonError, string] {
    const nextStep = 'pylon restart --mode both'
    const reason = `the node runs in mode ${this.mode}`
    return [reason, new PylonError('conflict', `There is no ${side}: ${reason}; to change that: ${nextStep}`), nextStep]
  }

  /** No new work; what runs finishes or is parked within the drain time, then the parts close. */
  async close(): Promise<void> {
    // An unlock may have come just before: nothing is started after its end.
    await this.#starting?.catch(() => undefined)
    const { nostr, wallets, customer, provider, host, tenant, machines } = this.parts
    await Promise.allSettled([
      customer.peek()?.close(),
      tenant.peek()?.close(),
      provider.peek()?.close(this.drainMs),
      host.peek()?.close(this.drainMs),
    ])
    // After the jobs that run in them.
    const ended = this.#scope.close(SCOPE_DRAIN_MS)
    await Promise.allSettled([ended, machines.peek()?.close()])
    for (const { path } of await ended) this.logger.warn({ path }, 'running work did not end in time')
    await Promise.allSettled([wallets.peek()?.close()])
    await Promise.allSettled([nostr.peek()?.close()])
  }

  /** A mint named at start goes on the list as soon as it answers. */
  async #addMint(url: string): Promise<void> {
    const { signal } = this.#deps.shutdown
    for (let waitMs = ADD_MINT_FIRST_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, ADD_MINT_MAX_MS)) {
      try {
        const wallets = this.parts.wallets.peek()
        if (wallets === undefined || wallets.mints().some((mint) => mint.url === url) || mintNow(this.store, url) !== undefined) return
        await wallets.addMint(url)
        return
      } catch (error) {
        if (isPylonError(error, 'mint_moved')) {
          this.logger.warn({ mint: url, reason: error.message }, 'the mint named at start is on the list under another address')
          return
        }
        this.logger.warn({ mint: url, reason: messageOf(error), retry_ms: waitMs }, 'the mint could not be added yet')
      }
      await this.clock.sleep(waitMs, signal).catch(() => undefined)
    }
  }
}

/** Dotted keys of two levels that differ. */
function changedKeys(before: Config, after: Config): string[] {
  const old: Record<string, Record<string, unknown>> = before
  return Object.entries(after).flatMap(([section, table]) =>
    Object.entries(table)
      .filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(old[section]?.[key]))
      .map(([key]) => `${section}.${key}`),
  )
}
