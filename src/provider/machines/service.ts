/** The machines of this node, put together: commands run once, offers published, upkeep; behind Nostr and the local routes alike. */
import type { Config } from '../../base/config.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Failure, Scope } from '../../base/scope.ts'
import type { CommandEnvelope, ControlResult } from '../../nostr/control/envelopes.ts'
import type { Nostr } from '../../nostr/types.ts'
import type { RuntimeAdapter } from '../../runtime/adapter.ts'
import { leasesIn } from '../../store/selling/leases.ts'
import { countRuntimes } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import type { Wallets } from '../../wallet/types.ts'
import { Commands } from './commands.ts'
import { Creation, type ScriptResult, type ScriptRun } from './creation.ts'
import type { RelayDoors } from './doors.ts'
import { fail, toControlError } from './failures.ts'
import { LeaseDesk } from './lease-desk.ts'
import type { CommandTransport, Emit, Handling } from './machines.ts'
import { Market } from './market.ts'
import { Notices } from './notices.ts'
import { Offers } from './offers.ts'
import { Requests } from './requests.ts'
import { Runtimes } from './runtimes.ts'
import { Substrates } from './substrates.ts'
import { Upkeep } from './upkeep.ts'
import { Views } from './views.ts'
import { Volumes } from './volumes.ts'

/** What does not end by itself (a command inside a runtime) is left to the next start. */
const DRAIN_MS = 4000
const HEALTH_EVERY_MS = 10_000

export interface MachinesDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly config: () => Config
  readonly network: 'sandbox' | 'live'
  readonly nostr: Pick<Nostr, 'keyring' | 'relays' | 'nudgeOutbox'>
  readonly wallets: Wallets
  /** The substrates that config names. */
  readonly adapters: (config: Config, scope: Scope) => readonly RuntimeAdapter[]
  readonly transport: CommandTransport
  /** To relays, for runtimes that have no network. */
  readonly doors?: RelayDoors
  /** How often runtimes are asked whether they are well; shorter in tests. */
  readonly healthEveryMs?: number
}

export class MachineService implements Handling {
  readonly #deps: MachinesDeps
  readonly #scope: Scope
  readonly #substrates: Substrates
  readonly #market: Market
  readonly #offers: Offers
  readonly #runtimes: Runtimes
  readonly #creation: Creation
  readonly #requests: Requests
  readonly #upkeep: Upkeep
  readonly #opened = Promise.withResolvers<void>()
  #isOpen = false

  constructor(deps: MachinesDeps) {
    const { scope, store, logger, nostr, network } = deps
    const { clock } = scope
    const { keyring } = nostr
    const config = () => deps.config().runtimes
    const wallet = () => deps.wallets.of({ kind: 'node', pubkey: keyring.node().pubkey })
    const mints = () => deps.wallets.mints().map((mint) => mint.url)
    const substrates = new Substrates(scope.child('substrates'), (scope) => deps.adapters(deps.config(), scope))
    const market = new Market({ store, clock, config, mints, network, keyring, substrates, lockPubkey: () => wallet().lockPubkey })
    const offers = new Offers(scope.child('offers'), { store, logger, nostr, substrates, market })
    const notices = new Notices(store, nostr, deps.transport)
    const onFailure = ({ path, error }: Failure) =>
      logger.warn({ path, error: messageOf(error) }, 'what machines need could not be done yet; it is tried again')
    const leases = new LeaseDesk({
      ...{ store, scope: scope.child('leases', { onFailure }), logger, config, wallet, mints },
      notify: (tenant, runtimeId, status) => notices.hand(tenant, runtimeId, status),
      nudge: () => notices.nudge(),
    })
    deps.wallets.onEvent('lease', leases.onWalletEvent)
    const healthEveryMs = deps.healthEveryMs ?? HEALTH_EVERY_MS
    const upkeepScope = scope.child('upkeep', { onFailure })
    const runtimes = new Runtimes(scope.child('runtimes', { onFailure }), {
      ...{ store, logger, config, substrates, market, offers, leases, notices, healthEveryMs, doors: deps.doors },
    })
    const views = new Views({ store, clock, config, substrates, leases })
    const creation = new Creation(scope, { store, config, keyring, substrates, market, leases, runtimes, views })
    const volumes = new Volumes({ store, substrates, keyring })
    const commands = new Commands({ store, clock, substrates, market, leases, runtimes, creation, views, volumes })
    this.#deps = deps
    this.#scope = scope
    this.#substrates = substrates
    this.#market = market
    this.#offers = offers
    this.#runtimes = runtimes
    this.#creation = creation
    this.#requests = new Requests(scope, { store, logger, commands, views, leases })
    this.#upkeep = new Upkeep(upkeepScope, { store, logger, config, substrates, leases, runtimes })
  }

  /** Looks at the substrates, goes on with what a restart left open, sweeps orphans, then publishes offers. @throws locked */
  async start(): Promise<void> {
    this.#deps.nostr.keyring.node()
    await this.#substrates.look()
    if (this.#scope.isClosing) return
    this.#isOpen = true
    this.#opened.resolve()
    this.#runtimes.start(await this.#requests.resume())
    await this.#upkeep.start()
    await this.#offers.open()
    this.#deps.transport.listen(this)
  }

  /** Takes nothing new; runtimes go on, what is under way is taken up again at the next start. */
  async close(): Promise<void> {
    this.#deps.transport.close()
    this.#isOpen = false
    this.#opened.resolve()
    // What can't be withdrawn runs out by itself.
    await Promise.allSettled([this.#offers.close()])
    const late = [...(await this.#runtimes.close(DRAIN_MS)), ...(await this.#scope.close(DRAIN_MS))]
    for (const { path } of late) this.#deps.logger.warn({ path }, 'running work did not end in time')
  }

  status() {
    const common = {
      substrates: this.#substrates.status(),
      offers: this.#market.offerStatuses().map((offer) => ({ ...offer, published: this.#isOpen && offer.published })),
      /** Those that are not over, with the price, or what goes back. */
      leases: leasesIn(this.#deps.store, ['quoted', 'paid', 'active', 'refunding']).map(
        ({ id, runtimeId, tenantPubkey, state, priceMsats, refundMsats, time }) => ({
          ...{
            id,
            runtimeId,
            tenant: tenantPubkey,
            state,
            amountMsats: state === 'refunding' ? refundMsats : priceMsats,
            endsAt: time?.endsAt ?? null,
          },
        }),
      ),
      counts: countRuntimes(this.#deps.store),
    }
    if (!this.#isOpen) return { state: 'off' as const, reason: this.#scope.isClosing ? 'shutting down' : 'not started', ...common }
    const usable = common.substrates.some((substrate) => substrate.usable)
    if (!usable) return { state: 'degraded' as const, reason: common.substrates[0]?.reason ?? 'no substrate is configured', ...common }
    const unsold = common.offers.find((offer) => offer.priceMsatsPerHour > 0n && !offer.published)
    if (unsold !== undefined)
      return { state: 'degraded' as const, reason: `the class ${unsold.runtimeClass} is not offered: ${unsold.reason ?? ''}`, ...common }
    return { state: 'ok' as const, ...common }
  }

  /** Tries whether the substrates hold runtimes to their sizes, which takes seconds; `status` then says what did not. Never rejects. */
  proveSizes(): Promise<void> {
    return this.#substrates.proveSizes()
  }

  /** Takes the configuration as it is now: classes, prices, allowlist. */
  async reload(): Promise<void> {
    this.#substrates.replace()
    await this.#offers.refresh()
  }

  async handle(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<ControlResult> {
    // Whoever asks a node that has just come up, or read its configuration again, is served once it has looked at its substrates.
    if (!this.#isOpen && !this.#scope.isClosing) await this.#opened.promise
    await this.#substrates.seen()
    if (!this.#isOpen) throw fail('shutting_down', 'the machines of this node are not running')
    try {
      return await this.#requests.handle(requester, envelope, emit)
    } catch (error) {
      throw toControlError(error, 'internal')
    }
  }

  /** The class that jobs of kind 5930 run in, or why there is none. */
  jobClass(): { readonly runtimeClass: string } | { readonly reason: string } {
    if (!this.#isOpen) return { reason: 'the machines of this node are not running' }
    const found = this.#market.jobClass()
    return 'entry' in found ? { runtimeClass: found.entry.name } : found
  }

  /** Whether its class takes this script. @throws ControlError */
  checkScript(run: ScriptRun): void {
    this.#creation.checkScript(run)
  }

  /** Runs a script of a paying stranger in an ephemeral runtime. @throws ControlError, the signal's reason */
  runScript(run: ScriptRun, signal: AbortSignal): Promise<ScriptResult> {
    return this.#creation.runScript(run, signal)
  }
}
