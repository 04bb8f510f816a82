/** The machines of this node, put together: commands run once, offers published, upkeep; behind Nostr and the local routes alike. */
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { messageOf } from '../../base/errors.ts'
import { asRecord } from '../../base/json.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Logger } from '../../base/logger.ts'
import { type CommandName, type ControlCommand, READING_COMMANDS } from '../../nostr/control/commands.ts'
import type { CommandEnvelope, ControlResult, ControlStatus } from '../../nostr/control/envelopes.ts'
import type { Nostr } from '../../nostr/types.ts'
import type { RuntimeAdapter } from '../../runtime/adapter.ts'
import type { Command } from '../../store/commands.ts'
import { type ControlRequestRow, finishRequest, requestOf, runningRequests } from '../../store/selling/control-requests.ts'
import { leasesIn } from '../../store/selling/leases.ts'
import { countRuntimes } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import type { Wallets } from '../../wallet/types.ts'
import { createCommands } from './commands.ts'
import { createCreation, type ScriptResult, type ScriptRun } from './creation.ts'
import { fail, toControlError } from './failures.ts'
import type { Emit, KeeperDeps } from './keeper.ts'
import { createLeaseDesk } from './lease-desk.ts'
import { createLookout } from './lookout.ts'
import type { Machines, MachinesStatus } from './machines.ts'
import { createMarket } from './market.ts'
import { createOfferDesk } from './offer-desk.ts'
import { createRegistry } from './registry.ts'
import { attemptIdOf, createRequestDesk, leaseIdOf } from './requests.ts'
import { Substrates } from './substrates.ts'
import { createUpkeep } from './upkeep.ts'
import { createViews } from './views.ts'
import { createVolumes } from './volumes.ts'

/** How often capacity is looked at and offers are compared with what was said. */
const REFRESH_MS = 5000
/** What does not end by itself (a command inside a runtime) is left to the next start. */
const CLOSE_MS = 5000

export interface MachinesDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => Config
  readonly network: 'sandbox' | 'live'
  readonly nostr: Pick<Nostr, 'keyring' | 'relays' | 'nudgeOutbox'>
  readonly wallets: Wallets
  /** The substrates that config names. */
  readonly adapters: (config: Config) => readonly RuntimeAdapter[]
  /** A status outside of any command, as part of a commit: by the transport. */
  readonly notify: (tenant: string, requestId: string, status: ControlStatus) => readonly Command<unknown>[]
  /** How often runtimes are asked whether they are well; shorter in tests. */
  readonly healthEveryMs?: number
}

/** What the rest of the provider asks of machines, beyond commands. */
export interface OwnMachines extends Machines {
  /** The class that jobs of kind 5930 run in, or why there is none. */
  jobClass(): { readonly runtimeClass: string } | { readonly reason: string }
  /** Whether its class takes this script. @throws ControlError */
  checkScript(run: ScriptRun): void
  /** Runs a script of a paying stranger in an ephemeral runtime. @throws ControlError, the signal's reason */
  runScript(run: ScriptRun, signal: AbortSignal): Promise<ScriptResult>
}

export function createMachines(deps: MachinesDeps): OwnMachines {
  const { store, clock, logger, nostr } = deps
  const config = () => deps.config().runtimes
  let substrates = new Substrates(deps.adapters(deps.config()), clock)
  let state: 'off' | 'on' | 'closing' = 'off'
  const opened = Promise.withResolvers<void>()
  let cancelRefresh: () => void = () => undefined
  let refreshing: Promise<void> = Promise.resolve()
  const wallet = () => deps.wallets.of({ kind: 'node', pubkey: nostr.keyring.node().pubkey })
  const mints = () => deps.wallets.mints().map((mint) => mint.url)

  const notify: KeeperDeps['notify'] = (tenant, runtimeId, status) => {
    // The command that made it may have been sent again since, and mean another runtime now.
    const requestId = requestOf(store, runtimeId)?.requestId ?? (nostr.keyring.owns(tenant) ? undefined : runtimeId)
    return requestId === undefined ? [] : deps.notify(tenant, requestId, status)
  }
  const nudge = () => nostr.nudgeOutbox()
  const leases = createLeaseDesk({ store, clock, logger, config, wallet, mints, notify, nudge })
  const keeper: KeeperDeps = {
    ...{ store, clock, logger, config, leases, notify, nudge },
    lookout: createLookout({ clock, substrates: () => substrates }),
    substrates: () => substrates,
    placesOf: (runtimeClass) => market.placesOf(runtimeClass),
    onChange: () => refreshSoon(100),
  }
  const registry = createRegistry(keeper)
  const requests = createRequestDesk({ store, clock, logger })
  const upkeep = createUpkeep(keeper, registry, deps.healthEveryMs)
  const offers = createOfferDesk({ store, clock, nostr })
  const turns = new KeyedQueue()
  const closing = new AbortController()
  deps.wallets.onEvent('lease', leases.onWalletEvent)
  const market = createMarket({
    ...{ store, clock, config, mints, network: deps.network, keyring: nostr.keyring },
    substrates: () => substrates,
    lockPubkey: () => wallet().lockPubkey,
  })
  const views = createViews(keeper)
  const isClosing = () => closing.signal.aborted
  const creation = createCreation({ keeper, keyring: nostr.keyring, market, registry, views, isClosing })
  const volumes = createVolumes({ keeper, keyring: nostr.keyring })
  const commands = createCommands({ keeper, market, registry, views, volumes, creation, signal: closing.signal })

  /** A token that came with the repeat of a command that waits for payment. */
  async function onJoin(command: ControlCommand, row: ControlRequestRow): Promise<void> {
    const token = 'lease_token' in command ? command.lease_token : undefined
    if (token !== undefined) await leases.redeem(leaseIdOf({ ...row, attemptId: attemptIdOf(row) }), token)
  }

  async function handle(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<ControlResult> {
    // Whoever asks a node that has just come up is served once it has looked at its substrates.
    if (state === 'off') await opened.promise
    if (state !== 'on') throw fail('shutting_down', 'the machines of this node are not running')
    const { command } = envelope
    try {
      if (READING_COMMANDS.includes(command.command)) {
        // After what the same requester sent before has been taken in.
        await turns.run(requester, async () => undefined)
        return await commands.read(requester, command)
      }
      return await inTurn(requester, (admitted) =>
        requests.once(requester, envelope, emit, {
          work: (claimed) => commands.change(requester, command, claimed, admitted),
          replay: views.replay,
          holds: ({ progress }) => {
            const { payment_required, lease_id } = asRecord(progress)
            return payment_required !== true || typeof lease_id !== 'string' || leases.isDue(lease_id)
          },
          async onJoin(row) {
            admitted()
            if (row !== undefined) await onJoin(command, row)
          },
        }),
      )
    } catch (error) {
      throw toControlError(error, 'internal')
    }
  }

  /** Commands of one requester are taken in one after the other; what takes long then goes on beside the next. */
  function inTurn<T>(requester: string, work: (admitted: () => void) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      void turns.run(
        requester,
        () =>
          new Promise<void>((admitted) => {
            work(admitted).then(resolve, reject).finally(admitted)
          }),
      )
    })
  }

  // -- start, upkeep, end

  async function resume(): Promise<void> {
    const running = runningRequests(store)
    const goesOn = running.filter((row) => row.runtimeId !== null && ['provision', 'run', 'extend_lease'].includes(row.command))
    for (const row of running.filter((candidate) => !goesOn.includes(candidate))) {
      const terminal = {
        code: 'shutting_down',
        hint: 'send the command again with the same idempotency key',
        detail: 'the node was restarted meanwhile',
      }
      const { requester, idempotencyKey } = row
      await store.write(finishRequest({ requester, idempotencyKey, state: 'failed', terminal, at: clock.now() }))
    }
    for (const row of goesOn) {
      const id = row.runtimeId ?? ''
      const name = row.command as CommandName
      void requests.resume(row, (claimed) =>
        name === 'extend_lease'
          ? commands.finishExtension(id, leaseIdOf(claimed), claimed.emit, undefined)
          : creation.finish(id, name === 'run' ? 'run' : 'provision', claimed.emit, undefined),
      )
    }
    registry.resume(new Set(goesOn.filter((row) => row.command !== 'extend_lease').map((row) => row.runtimeId ?? '')))
  }

  async function refresh(): Promise<void> {
    if (state !== 'on') return
    try {
      await substrates.look()
      await offers.publish(market.offers())
    } catch (error) {
      if (state === 'on') logger.warn({ error: messageOf(error) }, 'offers of machines could not be refreshed; they are tried again')
    } finally {
      refreshSoon(REFRESH_MS)
    }
  }

  function refreshSoon(ms: number): void {
    cancelRefresh()
    if (state === 'on') {
      cancelRefresh = clock.after(ms, () => {
        refreshing = refresh()
      })
    }
  }

  function status(): MachinesStatus {
    const common = {
      substrates: substrates.status(),
      offers: market.offerStatuses().map((offer) => ({ ...offer, published: state === 'on' && offer.published })),
      leases: leasesIn(store, ['quoted', 'paid', 'active', 'refunding']).map(
        ({ id, runtimeId, tenantPubkey, state, priceMsats, refundMsats, endsAt }) => ({
          ...{ id, runtimeId, tenant: tenantPubkey, state, amountMsats: state === 'refunding' ? refundMsats : priceMsats, endsAt },
        }),
      ),
      counts: countRuntimes(store),
    }
    if (state !== 'on') return { state: 'off', reason: state === 'closing' ? 'shutting down' : 'not started', ...common }
    const usable = common.substrates.some((substrate) => substrate.usable)
    if (!usable) return { state: 'degraded', reason: common.substrates[0]?.reason ?? 'no substrate is configured', ...common }
    const unsold = common.offers.find((offer) => offer.priceMsatsPerHour > 0n && !offer.published)
    if (unsold !== undefined)
      return { state: 'degraded', reason: `the class ${unsold.runtimeClass} is not offered: ${unsold.reason ?? ''}`, ...common }
    return { state: 'ok', ...common }
  }

  return {
    async start() {
      nostr.keyring.node()
      await substrates.look()
      if (closing.signal.aborted) return
      state = 'on'
      opened.resolve()
      await resume()
      await registry.sweep()
      upkeep.start()
      await refresh()
    },

    async close() {
      if (state === 'on') await withdrawAll().catch(() => undefined)
      state = 'closing'
      opened.resolve()
      cancelRefresh()
      closing.abort(fail('shutting_down', 'the node is shutting down'))
      await upkeep.close()
      const ended = registry.close()
      const waited = new AbortController()
      const late = clock.sleep(CLOSE_MS, waited.signal).catch(() => undefined)
      await Promise.race([Promise.allSettled([requests.close(), ended, leases.close(), refreshing]), late])
      waited.abort()
      await substrates.close()
    },

    status,
    proveSizes: () => substrates.proveSizes(),
    withdraw: withdrawAll,
    handle,

    async reload() {
      const before = substrates
      substrates = new Substrates(deps.adapters(deps.config()), clock)
      await before.close()
      cancelRefresh()
      refreshing = refresh()
      await refreshing
    },

    jobClass() {
      const found = market.jobClass()
      if (state !== 'on') return { reason: 'the machines of this node are not running' }
      return 'entry' in found ? { runtimeClass: found.entry.name } : found
    },

    checkScript: creation.checkScript,
    runScript: creation.runScript,
  }

  async function withdrawAll(): Promise<void> {
    await offers.publish([])
  }
}
