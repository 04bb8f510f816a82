/** The machines of this node: who may have what, commands to runtimes and leases, offers; behind Nostr and the local routes alike. */
import { createHash, randomBytes } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { messageOf } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import { type CommandName, type CommandOf, type ControlCommand, READING_COMMANDS } from '../../nostr/control/commands.ts'
import type { CommandEnvelope, ControlResult, ControlStatus } from '../../nostr/control/envelopes.ts'
import type { RuntimeOffer } from '../../nostr/control/offers.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import { createSigner } from '../../nostr/signer.ts'
import type { Nostr } from '../../nostr/types.ts'
import type { RuntimeAdapter } from '../../runtime/adapter.ts'
import { decodeRuntimeSpec, type RuntimeSpec } from '../../runtime/contract/spec.ts'
import type { Command } from '../../store/commands.ts'
import { bindRequest, type ControlRequestRow, finishRequest, getRequest, requestOf, runningRequests } from '../../store/control-requests.ts'
import { getLease, leasesIn, leasesOf } from '../../store/leases.ts'
import { countRuntimes, getRuntime, insertRuntime, type RuntimeRow, runtimesIn, runtimesOf } from '../../store/runtimes.ts'
import type { Store } from '../../store/store.ts'
import type { Wallets } from '../../wallet/types.ts'
import { persist } from '../jobs/context.ts'
import { allowsUnisolated, assertIsolation, type Terms, termsOf } from './authorisation.ts'
import { chooseClass, classesOf, freeOf, type RuntimeClass } from './classes.ts'
import { describe } from './descriptor.ts'
import { fail, runtimeNotFound, toControlError } from './failures.ts'
import { type Emit, type KeeperDeps, Queues } from './keeper.ts'
import { createLeaseDesk } from './lease-desk.ts'
import type { Machines, MachinesStatus, OfferStatus } from './machines.ts'
import { createOfferDesk } from './offer-desk.ts'
import * as operations from './operations.ts'
import { orderProvision, orderRun, volumesIn } from './order.ts'
import { createRegistry } from './registry.ts'
import { type Claimed, createRequestDesk } from './requests.ts'
import { LIVING_STATES, phaseOf } from './states.ts'
import { Substrates } from './substrates.ts'
import { createUpkeep } from './upkeep.ts'

/** How often capacity is looked at and offers are compared with what was said. */
const REFRESH_MS = 5000
/** Unpaid leases at once, of all strangers: each costs an invoice at the mint. */
const MAX_QUOTED = 200
/** JSON of a list at most; what does not fit is left out, `limit` and filters narrow it. */
const MAX_LIST_BYTES = 40 * 1024

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
}

export interface ScriptRun {
  readonly script: string
  readonly timeoutS: number
  readonly image?: string
}

export interface ScriptResult {
  readonly exitCode: number | null
  readonly stdout: string
  readonly stderr: string
}

/** What the rest of the provider asks of machines, beyond commands. */
export interface OwnMachines extends Machines {
  /** The class that jobs of kind 5930 run in, or why there is none. */
  jobClass(): { readonly runtimeClass: string } | { readonly reason: string }
  /** Runs a script of a paying stranger in an ephemeral runtime. @throws ControlError, the signal's reason */
  runScript(run: ScriptRun, signal: AbortSignal): Promise<ScriptResult>
}

export function createMachines(deps: MachinesDeps): OwnMachines {
  const { store, clock, logger, nostr } = deps
  const config = () => deps.config().runtimes
  let substrates = new Substrates(deps.adapters(deps.config()), clock)
  let state: 'off' | 'on' | 'closing' = 'off'
  let cancelRefresh: () => void = () => undefined
  let refreshing: Promise<void> = Promise.resolve()
  const wallet = () => deps.wallets.of({ kind: 'node', pubkey: nostr.keyring.node().pubkey })
  const mints = () => deps.wallets.mints().map((mint) => mint.url)

  const notify: KeeperDeps['notify'] = (tenant, runtimeId, status) => {
    const request = requestOf(store, runtimeId)
    return request === undefined ? [] : deps.notify(tenant, request.requestId, status)
  }
  const nudge = () => nostr.nudgeOutbox()
  const leases = createLeaseDesk({ store, clock, logger, config, wallet, mints, notify, nudge })
  const keeper: KeeperDeps = {
    ...{ store, clock, logger, config, leases, notify, nudge },
    substrates: () => substrates,
    onChange: () => refreshSoon(100),
  }
  const registry = createRegistry(keeper)
  const requests = createRequestDesk({ store, clock, logger })
  const upkeep = createUpkeep(keeper, registry)
  const offers = createOfferDesk({ store, clock, nostr })
  const turns = new Queues()
  const closing = new AbortController()
  deps.wallets.onEvent('lease', leases.onWalletEvent)

  // -- who may have what

  const allowlist = () => new Set(config().allowlist.map(parsePubkey))
  const terms = (requester: string): Terms => termsOf({ pubkey: requester, isOwn: nostr.keyring.owns(requester) }, allowlist())
  const mayUnisolated = () => allowsUnisolated(config(), deps.network)
  const classes = () => classesOf(config(), substrates.providers)

  function livingOf(runtimeClass: string): number {
    return runtimesIn(store, LIVING_STATES).filter((row) => row.runtimeClass === runtimeClass).length
  }

  const free = (entry: RuntimeClass) => freeOf(entry, livingOf(entry.name), substrates.capacity(entry.provider).free)

  /** Whether strangers can rent it now, or why not. */
  function sellable(entry: RuntimeClass): { ok: true } | { ok: false; reason: string } {
    const probe = substrates.probe(entry.provider)
    if (entry.price_msats_per_hour === 0) return { ok: false, reason: 'no price' }
    if (!probe.usable) return { ok: false, reason: probe.reason ?? 'the substrate is not usable' }
    if (!probe.isolated && !mayUnisolated()) return { ok: false, reason: 'nothing isolates runtimes there' }
    if (mints().length === 0) return { ok: false, reason: 'no_mint' }
    return { ok: true }
  }

  function offerOf(entry: RuntimeClass): RuntimeOffer {
    return {
      runtimeClass: entry.name,
      provider: entry.provider,
      region: entry.region,
      protocols: entry.protocols,
      priceMsatsPerHour: BigInt(entry.price_msats_per_hour),
      minLeaseS: entry.min_lease_s,
      maxLeaseS: entry.max_lease_s,
      capacity: { free: free(entry), total: entry.capacity },
      resources: {
        ...(entry.vcpu_count === undefined ? {} : { vcpuCount: entry.vcpu_count }),
        ...(entry.memory_mib === undefined ? {} : { memoryMib: entry.memory_mib }),
        ...(entry.root_disk_gib === undefined ? {} : { rootDiskGib: entry.root_disk_gib }),
      },
      isolated: substrates.probe(entry.provider).isolated,
      mints: mints(),
      lockPubkey: wallet().lockPubkey,
      policyConstraints: { network: entry.provider === 'local' ? config().local.network : 'none', max_per_owner: config().max_per_owner },
    }
  }

  /** @throws ControlError for what speaks against it before anything is spent */
  function admit(requester: string, command: CommandOf<'provision'> | CommandOf<'run'>): { entry: RuntimeClass; terms: Terms } {
    const theirs = terms(requester)
    const protocol = command.command === 'provision' ? command.protocol : null
    const asked = command.provider
    if (theirs === 'free' && asked !== undefined && !substrates.providers.includes(asked)) {
      throw fail(
        'provider_temporarily_disabled',
        `${asked} is not set up on this node`,
        `use provider ${substrates.providers.join(' or ') || '(none)'}`,
      )
    }
    const entry = chooseClass(classes(), { provider: asked, runtimeClass: command.runtime_class, protocol, paid: theirs === 'lease' })
    const probe = substrates.probe(entry.provider)
    if (!probe.usable)
      throw fail('provider_temporarily_disabled', `${entry.provider} is not usable now`, 'use another provider, or try later')
    assertIsolation(theirs, probe.isolated, mayUnisolated())
    if (!nostr.keyring.owns(requester)) {
      const theirOwn = runtimesOf(store, requester).filter((row) => row.state !== 'gone')
      if (theirOwn.length >= config().max_per_owner) throw fail('rate_limited', `you have ${theirOwn.length} runtimes`, 'tear one down')
    }
    if (theirs === 'lease' && leasesIn(store, ['quoted']).length >= MAX_QUOTED)
      throw fail('rate_limited', 'too many leases wait for payment', 'try later')
    if (free(entry) < 1) throw fail('capacity_exhausted', `no place of the class ${entry.name} is free now`)
    return { entry, terms: theirs }
  }

  // -- commands

  async function create(requester: string, command: CommandOf<'provision'> | CommandOf<'run'>, claimed: Claimed): Promise<string> {
    let admitted: ReturnType<typeof admit>
    claimed.emit({ phase: 'queued', message: 'request queued', ...(command.provider === undefined ? {} : { provider: command.provider }) })
    try {
      await substrates.lookAtCapacity(command.provider ?? classes()[0]?.provider ?? 'local').catch(() => undefined)
      admitted = admit(requester, command)
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      const progress =
        failure.code === 'runtime_class_unavailable'
          ? {
              progress: {
                requested_runtime_class: command.runtime_class ?? null,
                available_runtime_class: classes().map((entry) => entry.name),
              },
            }
          : {}
      claimed.emit({ phase: 'failed', message: failure.message, ...progress })
      throw failure
    }
    const { entry } = admitted
    const runtimeId = `${entry.provider}-${randomBytes(8).toString('hex')}`
    const botPubkey =
      command.command === 'provision' && command.bot_secret_key_hex !== undefined ? botKey(command.bot_secret_key_hex) : null
    const requireIsolation = admitted.terms === 'lease' && !mayUnisolated()
    const context = { runtimeId, owner: requester, botPubkey, requireIsolation }
    try {
      const order = command.command === 'provision' ? orderProvision(command, entry, context) : orderRun(command, entry, context)
      assertVolumesFree(requester, order.spec)
      const leaseId = leaseIdOf(claimed)
      const seconds = leaseSeconds(entry, command)
      await persist(
        deps,
        insertRuntime({
          id: runtimeId,
          provider: entry.provider,
          ownerPubkey: requester,
          runtimeClass: entry.name,
          protocol: order.protocol,
          spec: asJson(order.spec),
          input: asJson(order.input),
          region: entry.region === '' ? null : entry.region,
          botPubkey,
          keepVolume: order.keepVolume,
          expiresAt: null,
          reason: 'asked for',
          at: clock.now(),
        }),
        bindRequest({ requester, idempotencyKey: claimed.idempotencyKey, runtimeId }),
        ...(admitted.terms === 'free'
          ? []
          : [leases.open({ id: leaseId, runtimeId, tenant: requester, entry, seconds: leases.terms(entry, seconds), extendsId: null })]),
      )
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      claimed.emit({ phase: 'failed', message: failure.message })
      throw failure
    }
    return runtimeId
  }

  /** A run is rented for its time at least. */
  function leaseSeconds(entry: RuntimeClass, command: CommandOf<'provision'> | CommandOf<'run'>): number | undefined {
    if (command.command === 'provision') return command.lease_seconds
    return Math.max(entry.min_lease_s, command.lease_seconds ?? 0, command.timeout_s)
  }

  function assertVolumesFree(owner: string, spec: RuntimeSpec): void {
    const wanted = volumesIn(spec)
    const taken = runtimesOf(store, owner).find(
      (row) => row.state !== 'gone' && volumesIn(decodeRuntimeSpec(row.spec)).some((volume) => wanted.includes(volume)),
    )
    if (taken !== undefined)
      throw fail(
        'invalid_command',
        `name: the runtime ${taken.id} has the volume of this name`,
        'tear it down first, or choose another name',
      )
  }

  /** From a runtime in whatever state to the answer of the command that made it. */
  async function finish(id: string, name: 'provision' | 'run', emit: Emit, token: string | undefined): Promise<ControlResult> {
    let row: RuntimeRow
    try {
      row = await registry.drive(id, { token, emit })
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      if (failure.code !== 'shutting_down') {
        emit({ phase: 'failed', runtime_id: id, message: failure.detail ?? failure.message, ...providerOf(id) })
      }
      throw failure
    }
    if (name === 'provision' && row.state !== 'ready') throw fail('operation_failed', `the runtime is ${row.state}: ${row.stateReason}`)
    const message = name === 'provision' ? 'runtime ready' : 'the run is over'
    emit({ phase: 'ready', runtime_id: id, provider: row.provider, message })
    const payload = name === 'provision' ? { operation: 'provision' } : operations.runAnswer(keeper, row)
    return { runtime: await view(row), payload }
  }

  const providerOf = (id: string) => {
    const row = getRuntime(store, id)
    return row === undefined ? {} : { provider: row.provider }
  }

  /** The same for what is not there and what is another's. @throws ControlError runtime_not_found */
  function own(requester: string, runtimeId: string): RuntimeRow {
    const row = getRuntime(store, runtimeId)
    if (row === undefined || row.ownerPubkey !== requester) throw runtimeNotFound(runtimeId)
    return row
  }

  async function view(row: RuntimeRow, withBackup = false): Promise<ControlResult['runtime']> {
    const of = leasesOf(store, row.id)
    const refundToken = of.map((lease) => leases.refundToken(lease)).find((token) => token !== undefined)
    const backup = withBackup ? await operations.backupOf(keeper, row) : undefined
    return describe(row, { leases: of, ...(backup === undefined ? {} : { backup }), ...(refundToken === undefined ? {} : { refundToken }) })
  }

  const viewNow = (row: RuntimeRow): ControlResult['runtime'] =>
    describe(getRuntime(store, row.id) ?? row, { leases: leasesOf(store, row.id) })

  async function tearDown(requester: string, command: CommandOf<'teardown'>, emit: Emit): Promise<ControlResult> {
    const row = own(requester, command.runtime_id)
    emit({ phase: 'teardown', runtime_id: row.id, provider: row.provider, message: 'teardown in progress' })
    const options = command.keep_volume === undefined ? {} : { keepVolume: command.keep_volume }
    const done = await registry.tearDown(row.id, 'asked for by its owner', 'tenant', options)
    const told =
      typeof done.payload === 'object' && done.payload !== null && !Array.isArray(done.payload)
        ? done.payload
        : { provider_payload: done.payload }
    const payload: Record<string, Json> = { operation: 'teardown', ...told }
    if (done.persistError !== undefined) {
      emit({
        phase: 'teardown',
        runtime_id: row.id,
        provider: row.provider,
        message: 'the instance is gone, the record could not be written',
      })
      Object.assign(payload, { state_persist: 'failed', state_persist_error: done.persistError })
    }
    const now = getRuntime(store, row.id) ?? row
    return { runtime: { ...(await view(now)), lifecycle_phase: 'teardown' }, payload }
  }

  async function extend(requester: string, command: CommandOf<'extend_lease'>, claimed: Claimed): Promise<ControlResult> {
    const row = own(requester, command.runtime_id)
    if (row.state !== 'ready' && row.state !== 'unreachable') throw fail('runtime_not_ready', `the runtime is ${row.state}`)
    const last = leasesOf(store, row.id).findLast((lease) => lease.state === 'active')
    if (last === undefined) throw fail('unsupported_operation', 'the runtime is not leased: nothing is to be extended', undefined)
    const entry = classes().find((candidate) => candidate.name === row.runtimeClass)
    if (entry === undefined || entry.price_msats_per_hour === 0)
      throw fail('runtime_class_unavailable', `the class ${row.runtimeClass} is not offered any more`)
    const id = leaseIdOf(claimed)
    if (getLease(store, id) === undefined) {
      const seconds = leases.terms(entry, command.lease_seconds)
      const open = leases.open({ id, runtimeId: row.id, tenant: requester, entry, seconds, extendsId: last.id })
      await persist(deps, open, bindRequest({ requester, idempotencyKey: claimed.idempotencyKey, runtimeId: row.id }))
    }
    return await finishExtension(row.id, id, claimed.emit, command.lease_token)
  }

  async function finishExtension(runtimeId: string, leaseId: string, emit: Emit, token: string | undefined): Promise<ControlResult> {
    await leases.awaitPayment(leaseId, { token, emit, signal: closing.signal })
    await registry.inOrder(runtimeId, async () => {
      const row = getRuntime(store, runtimeId)
      // Paid for what went meanwhile: it goes back.
      const isThere = row?.state === 'ready' || row?.state === 'unreachable'
      const commands = isThere ? leases.activate(runtimeId, clock.now()) : leases.end(runtimeId, 'node', clock.now())
      if (commands.length > 0) await persist(deps, ...commands)
      if (!isThere) {
        leases.wake()
        throw fail('lease_expired', 'the runtime went before the payment came; it goes back')
      }
    })
    const row = getRuntime(store, runtimeId)
    if (row === undefined) throw runtimeNotFound(runtimeId)
    return { runtime: await view(row), payload: { operation: 'extend_lease', lease_id: leaseId } }
  }

  async function list(requester: string, command: CommandOf<'list_runtimes'>): Promise<ControlResult> {
    const rows = runtimesOf(store, requester).filter(
      (row) =>
        (command.provider === undefined || row.provider === command.provider) &&
        (command.protocol === undefined || row.protocols.includes(command.protocol)) &&
        (command.lifecycle_phase === undefined || phaseOf(row.state) === command.lifecycle_phase) &&
        (command.runtime_class === undefined || row.runtimeClass === command.runtime_class),
    )
    const runtimes: Json[] = []
    let bytes = 0
    for (const row of rows.slice(0, command.limit ?? rows.length)) {
      const entry = asJson(await view(row))
      bytes += Buffer.byteLength(JSON.stringify(entry))
      if (bytes > MAX_LIST_BYTES) break
      runtimes.push(entry)
    }
    const [first] = rows
    const payload = { operation: 'list_runtimes', count: runtimes.length, total: rows.length, runtimes }
    return { runtime: first === undefined || runtimes.length === 0 ? summary('runtime-list-summary') : viewNow(first), payload }
  }

  function requestView(requester: string, command: CommandOf<'get_request'>): ControlResult {
    const row = getRequest(store, requester, command.key)
    if (row === undefined) throw fail('request_not_found', 'no command with this key is kept', 'send the command again')
    const runtime = row.runtimeId === null ? undefined : getRuntime(store, row.runtimeId)
    const payload: Record<string, Json> = {
      operation: 'get_request',
      key: row.idempotencyKey,
      command: row.command,
      state: row.state,
      request_id: row.requestId,
      statuses: [...row.statuses].slice(-16),
    }
    if (row.state === 'failed') payload['error'] = row.terminal
    if (row.state === 'succeeded') payload['result'] = asRecord(row.terminal)['payload'] ?? null
    return { runtime: runtime === undefined ? summary('request-summary') : viewNow(runtime), payload }
  }

  /** An answer needs a runtime, also where it is about none. */
  const summary = (id: string): ControlResult['runtime'] => ({
    ...{ runtime_id: id, provider: 'fly', lifecycle_phase: 'ready', protocol_compatibility: [], metadata: { summary: true } },
  })

  async function read(requester: string, command: ControlCommand): Promise<ControlResult> {
    switch (command.command) {
      case 'get_runtime':
        return { runtime: await view(own(requester, command.runtime_id), true), payload: { operation: 'get_runtime' } }
      case 'list_runtimes':
        return await list(requester, command)
      case 'get_request':
        return requestView(requester, command)
      case 'logs':
        return await answer(own(requester, command.runtime_id), (row) => operations.logs(keeper, row, command))
      case 'collect':
        return await answer(own(requester, command.runtime_id), async (row) => operations.collect(keeper, row, command))
      case 'list_snapshots':
        return await answer(own(requester, command.runtime_id), (row) => operations.listSnapshots(keeper, row))
      default:
        throw fail('invalid_command', `${command.command} changes things`)
    }
  }

  async function answer(row: RuntimeRow, work: (row: RuntimeRow) => Promise<Json>): Promise<ControlResult> {
    const payload = await work(row)
    return { runtime: viewNow(row), payload }
  }

  /** One of their own runtimes, in order of what was asked of it. */
  async function onRuntime(requester: string, id: string, work: (row: RuntimeRow) => Promise<Json>): Promise<ControlResult> {
    own(requester, id)
    return await registry.inOrder(id, () => answer(own(requester, id), work))
  }

  async function change(requester: string, command: ControlCommand, claimed: Claimed, admitted: () => void): Promise<ControlResult> {
    const { emit } = claimed
    if (command.command === 'provision' || command.command === 'run') {
      const id = await create(requester, command, claimed)
      admitted()
      return await finish(id, command.command, emit, command.lease_token)
    }
    // From here on the queue of the runtime keeps the order.
    queueMicrotask(admitted)
    switch (command.command) {
      case 'teardown':
        return await tearDown(requester, command, emit)
      case 'recover': {
        own(requester, command.runtime_id)
        const row = await registry.recover(command.runtime_id, emit)
        emit({ phase: 'ready', runtime_id: row.id, provider: row.provider, message: 'recovered' })
        return { runtime: await view(row), payload: { operation: 'recover' } }
      }
      case 'extend_lease':
        return await extend(requester, command, claimed)
      case 'process_welcome':
        return await onRuntime(requester, command.runtime_id, async (row) => {
          emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'processing welcome' })
          const payload = await operations.welcome(keeper, row, command)
          emit({ phase: 'ready', runtime_id: row.id, provider: row.provider, message: 'welcome processed' })
          return { operation: 'process_welcome', ...asRecord(payload) }
        })
      case 'exec':
        return await onRuntime(requester, command.runtime_id, (row) => operations.exec(keeper, row, command))
      case 'prompt':
        return await onRuntime(requester, command.runtime_id, (row) =>
          operations.prompt(keeper, row, command, claimed.idempotencyKey, closing.signal),
        )
      case 'snapshot':
        return await onRuntime(requester, command.runtime_id, (row) => operations.snapshot(keeper, row, command.snapshot))
      case 'restore':
        return await onRuntime(requester, command.runtime_id, (row) =>
          operations.restore(keeper, row, command.snapshot, emit, closing.signal),
        )
      default:
        throw fail('invalid_command', `${command.command} is not known here`)
    }
  }

  /** What ran before, as things are now. */
  function replay(row: ControlRequestRow): { statuses: readonly ControlStatus[]; result: ControlResult } {
    const kept = asRecord(row.terminal) as { runtime?: ControlResult['runtime']; payload?: Json }
    const runtime = row.runtimeId === null ? undefined : getRuntime(store, row.runtimeId)
    const fresh = runtime === undefined ? kept.runtime : viewNow(runtime)
    if (fresh === undefined) throw fail('internal', 'the kept answer has no runtime')
    const about = { runtime_id: fresh.runtime_id, provider: fresh.provider }
    return {
      statuses: [
        { phase: 'queued', message: 'request queued' },
        { phase: 'ready', ...about, message: 'idempotent replay' },
      ],
      result: { runtime: fresh, ...(kept.payload === undefined ? {} : { payload: kept.payload }) },
    }
  }

  /** A token that came with the repeat of a command that waits for payment. */
  function onJoin(command: ControlCommand, row: ControlRequestRow): void {
    const token = 'lease_token' in command ? command.lease_token : undefined
    if (token === undefined || row.runtimeId === null) return
    const waiting = leasesOf(store, row.runtimeId).find((lease) => lease.state === 'quoted')
    if (waiting === undefined) return
    leases
      .redeem(waiting.id, token)
      .catch((error: unknown) => logger.info({ lease_id: waiting.id, error: messageOf(error) }, 'a token for a lease was refused'))
  }

  async function handle(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<ControlResult> {
    if (state !== 'on') throw fail('shutting_down', 'the machines of this node are not running')
    const { command } = envelope
    try {
      if (READING_COMMANDS.includes(command.command)) {
        // After what the same requester sent before has been taken in.
        await turns.run(requester, async () => undefined)
        return await read(requester, command)
      }
      return await inTurn(requester, (admitted) =>
        requests.once(requester, envelope, emit, {
          work: (claimed) => change(requester, command, claimed, admitted),
          replay,
          onJoin(row) {
            admitted()
            if (row !== undefined) onJoin(command, row)
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
          ? finishExtension(id, leaseIdOf(claimed), claimed.emit, undefined)
          : finish(id, name === 'run' ? 'run' : 'provision', claimed.emit, undefined),
      )
    }
    registry.resume(new Set(goesOn.filter((row) => row.command !== 'extend_lease').map((row) => row.runtimeId ?? '')))
  }

  async function refresh(): Promise<void> {
    if (state !== 'on') return
    try {
      await substrates.look()
      await offers.publish(
        classes()
          .filter((entry) => sellable(entry).ok)
          .map(offerOf),
      )
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
      offers: classes().map(offerStatus),
      leases: leasesIn(store, ['quoted', 'paid', 'active', 'refunding']).map(
        ({ id, runtimeId, tenantPubkey, state, priceMsats, endsAt }) => ({
          ...{ id, runtimeId, tenant: tenantPubkey, state, amountMsats: priceMsats, endsAt },
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

  function offerStatus(entry: RuntimeClass): OfferStatus {
    const verdict = sellable(entry)
    return {
      runtimeClass: entry.name,
      provider: entry.provider,
      region: entry.region,
      protocols: entry.protocols,
      priceMsatsPerHour: BigInt(entry.price_msats_per_hour),
      free: free(entry),
      total: entry.capacity,
      published: state === 'on' && verdict.ok,
      ...(verdict.ok ? {} : { reason: verdict.reason }),
    }
  }

  // -- jobs of kind 5930

  function jobClassOf(): { entry: RuntimeClass } | { reason: string } {
    const wanted = config().job_class
    const fitting = classes().filter((entry) =>
      wanted === '' ? entry.provider === 'incus' || entry.provider === 'local' : entry.name === wanted,
    )
    const entry = fitting.find((candidate) => {
      const probe = substrates.probe(candidate.provider)
      return probe.usable && (probe.isolated || mayUnisolated())
    })
    return entry === undefined ? { reason: 'no substrate here isolates runtimes; pylon doctor says how to get one' } : { entry }
  }

  async function runScript(run: ScriptRun, signal: AbortSignal): Promise<ScriptResult> {
    const found = jobClassOf()
    if ('reason' in found) throw fail('provider_temporarily_disabled', found.reason)
    const { entry } = found
    if (free(entry) < 1) throw fail('capacity_exhausted', 'no place for the script is free now')
    const runtimeId = `${entry.provider}-${randomBytes(8).toString('hex')}`
    const owner = nostr.keyring.node().pubkey
    const image = run.image === undefined ? {} : { image: run.image }
    const command: CommandOf<'run'> = {
      command: 'run',
      entry_command: run.script,
      timeout_s: run.timeoutS,
      keep: false,
      artifact_globs: [],
      ...image,
    }
    const order = orderRun(command, entry, { runtimeId, owner, botPubkey: null, requireIsolation: !mayUnisolated() })
    await persist(
      deps,
      insertRuntime({
        ...{ id: runtimeId, provider: entry.provider, ownerPubkey: owner, runtimeClass: entry.name, protocol: null },
        ...{ spec: asJson(order.spec), input: asJson(order.input), region: null, botPubkey: null, keepVolume: false, expiresAt: null },
        ...{ reason: 'a job', at: clock.now() },
      }),
    )
    try {
      const row = await registry.drive(runtimeId, { emit: () => undefined, signal })
      const text = (name: string) => operations.outputText(keeper, row.id, name)
      const exitCode = (asRecord(row.result)['exit_code'] as number | undefined) ?? null
      return { exitCode, stdout: text('stdout'), stderr: text('stderr') }
    } catch (error) {
      if (!closing.signal.aborted) {
        await registry.tearDown(runtimeId, 'the job was given up', 'node').catch(() => undefined)
      }
      throw error
    }
  }

  return {
    async start() {
      nostr.keyring.node()
      await substrates.look()
      state = 'on'
      await resume()
      await registry.sweep()
      upkeep.start()
      await refresh()
    },

    async close() {
      if (state === 'on') await withdrawAll().catch(() => undefined)
      state = 'closing'
      cancelRefresh()
      closing.abort(fail('shutting_down', 'the node is shutting down'))
      await upkeep.close()
      const ended = registry.close()
      await Promise.allSettled([requests.close(), ended, leases.close(), refreshing])
      await substrates.close()
    },

    status,
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
      const found = jobClassOf()
      if (state !== 'on') return { reason: 'the machines of this node are not running' }
      return 'entry' in found ? { runtimeClass: found.entry.name } : found
    },

    runScript,
  }

  async function withdrawAll(): Promise<void> {
    await offers.publish([])
  }
}

/** The same for the same try of the same command, so that a restart finds the lease again. */
function leaseIdOf(claimed: Claimed): string {
  const name = [claimed.requester, claimed.idempotencyKey, claimed.attemptId].join('\n')
  return createHash('sha256').update(`pylon lease\n${name}`).digest('hex').slice(0, 32)
}

/** @throws ControlError invalid_command */
function botKey(secretHex: string): string {
  try {
    return createSigner(Buffer.from(secretHex, 'hex')).pubkey
  } catch {
    throw fail('invalid_command', 'bot_secret_key_hex: is no secret key')
  }
}

function asJson(value: unknown): Json {
  return JSON.parse(JSON.stringify(value)) as Json
}

function asRecord(value: Json | null): Record<string, Json> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
}
