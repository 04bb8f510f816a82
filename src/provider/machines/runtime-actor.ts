/**
 * One runtime at work. What is asked of it comes by its mailbox: in order, one at a time; what only looks needs no mail.
 *
 *     command --> mailbox --> inside the instance (exec, prompt, snapshot, restore, welcome), or recover, or teardown
 *     bring   --> from its state to ready, a run past its end (runtime-life.ts says what is due in each)
 *     clock   --> looks whether it is well, ends it when its time is up, retries a teardown, makes snapshots
 *
 * What ends it (its time, the node) does not wait for what runs inside: that is cut off. All of it runs under its scope.
 */
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import { asRecord, type Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import type { CollectedOutputs, Readiness, RuntimeAdapter, RuntimeHandle } from '../../runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import type { Command } from '../../store/commands.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, noteSnapshot, patchRuntime, type RuntimeRow } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { scheduledName, surplusSnapshots } from './backups.ts'
import { fail, runtimeNotFound, toControlError } from './failures.ts'
import { exec, openInstance, processWelcome, prompt, restore, snapshot, snapshotAnswer } from './instance-commands.ts'
import type { LeaseDesk } from './lease-desk.ts'
import { type EndedBy, endingOf } from './lease-end.ts'
import { type Away, awayBy, awayOf, causeOf, patchOfAway, type Sight, WELL } from './lookout.ts'
import type { Emit } from './machines.ts'
import type { Market } from './market.ts'
import type { Notices } from './notices.ts'
import type { Offers } from './offers.ts'
import { broughtCommand, provisionInputOf } from './order.ts'
import { keepOutputs, resultOf } from './outputs.ts'
import { assertAsAsked, patchOfProvisioned, patchOfReady, startupPhaseOf } from './provisioned.ts'
import { isKept, isServing, step, taskOf, verdictOf } from './runtime-life.ts'
import type { Substrates } from './substrates.ts'

/** How often readiness is asked for while somebody waits for it. */
const POLL = { minMs: 100, maxMs: 1000 }
/** How often it is looked whether its time is up; and how soon after a start it is looked at for the first time. */
const TICK_MS = 1000
/** A substrate that does not answer for so long is not reached. */
const LOOK_MS = 15_000
const RETRY_TEARDOWN_MS = 15_000

/** What a runtime works with. */
export interface RuntimeDeps {
  readonly store: Store
  readonly logger: Logger
  readonly config: () => RuntimesConfig
  readonly substrates: Substrates
  readonly market: Market
  readonly offers: Offers
  readonly leases: LeaseDesk
  readonly notices: Notices
  /** How often one that serves is asked whether it is well. */
  readonly healthEveryMs: number
}

export interface Bringing {
  /** A token that came with the command that made it. */
  readonly token?: string | undefined
  readonly emit?: Emit
  /** Whoever asked may give up; then the runtime stays as it is. */
  readonly signal?: AbortSignal
}

/** One that is under way, with what it was given. */
interface Brought {
  readonly token: string | undefined
  readonly emit: Emit
  /** Aborts with its reason: by a teardown, by whoever asked, or at shutdown. */
  readonly signal: AbortSignal
}

export interface TeardownOutcome {
  readonly payload: Json
  /** Why the state could not be written, though the instance is gone. */
  readonly persistError?: string
}

export class RuntimeActor {
  readonly id: string
  readonly #scope: Scope
  readonly #deps: RuntimeDeps
  /** Ends when all mail that came by now is done. */
  #lastMail: Promise<unknown> = Promise.resolve()
  #mails = 0
  #bringing: { readonly outcome: Promise<RuntimeRow>; readonly stop: AbortController } | undefined
  /** Cuts off what runs inside now. */
  #inside: AbortController | undefined
  /** By how many it is being ended whatever runs inside. */
  #endings = 0
  #wellAtMs: number | undefined
  #retryTeardownAtMs = 0

  constructor(id: string, scope: Scope, deps: RuntimeDeps) {
    this.id = id
    this.#scope = scope
    this.#deps = deps
    scope.every('end', TICK_MS, () => this.#endWhatIsOver())
    scope.every('look', this.#soonThen(deps.healthEveryMs), () => this.#look())
    scope.every('snapshot', this.#soonThen(deps.healthEveryMs), () => this.#snapshotIfDue())
  }

  /** @throws ControlError runtime_not_found */
  row(): RuntimeRow {
    const row = getRuntime(this.#deps.store, this.id)
    if (row === undefined) throw runtimeNotFound(this.id)
    return row
  }

  /** Somebody brings it from state to state. */
  get isBrought(): boolean {
    return this.#bringing !== undefined
  }

  /** It is gone, and nothing is asked of it. */
  get isOver(): boolean {
    return this.#mails === 0 && !this.isBrought && (getRuntime(this.#deps.store, this.id)?.state ?? 'gone') === 'gone'
  }

  async close(drainMs = 0): Promise<readonly { readonly path: string }[]> {
    return await this.#scope.close(drainMs)
  }

  // -- commands

  /**
   * From whatever state it is in to `ready` for a managed runtime, past its end for a one-shot run. Who asks while it is
   * under way gets the same outcome.
   * @throws ControlError; the runtime is torn down then, unless a signal ended it
   */
  bring({ token, emit = () => undefined, signal }: Bringing = {}): Promise<RuntimeRow> {
    if (this.#bringing !== undefined) return this.#bringing.outcome
    const stop = new AbortController()
    const signals = [stop.signal, this.#scope.closing, ...(signal === undefined ? [] : [signal])]
    const brought = { token, emit, signal: AbortSignal.any(signals) }
    const outcome = this.#scope
      .run('bring', () => this.#bring(brought))
      .finally(() => {
        this.#bringing = undefined
        this.#deps.offers.changed()
      })
    this.#bringing = { outcome, stop }
    return outcome
  }

  /** @throws ControlError teardown_failed; it is tried again by itself */
  async tearDown(reason: string, by: EndedBy, keepVolume?: boolean): Promise<TeardownOutcome> {
    const mail = () => this.#scope.run('teardown', () => this.#takeDown(reason, by, keepVolume))
    await this.#stopBringing()
    try {
      // A tenant's own comes after what they asked for before.
      return await (by === 'tenant' ? this.#post(mail) : this.#cutAndPost(mail))
    } catch (error) {
      throw toControlError(error, 'teardown_failed')
    }
  }

  /** The instance is not there any more. */
  async lose(reason: string): Promise<void> {
    const takeDown = async () => {
      const row = this.row()
      if (row.state !== 'ready' && row.state !== 'unreachable') return
      await this.#persist(step(row, 'failed', reason, this.#now()))
      await this.#takeDown(reason, 'node')
    }
    await this.#post(() => this.#scope.run('loss', takeDown))
  }

  /** What a restart left of it goes on its way out, in turn. */
  async goOnTearingDown(): Promise<void> {
    await this.#post(() => this.#scope.run('teardown', () => this.#takeDown(this.row().stateReason, 'node')))
  }

  /** Restarts the instance with its volume, or makes it anew where it is gone. @throws ControlError */
  recover(emit: Emit): Promise<RuntimeRow> {
    return this.#inTurn('recover', (signal) => this.#recover(emit, signal))
  }

  exec(command: CommandOf<'exec'>): Promise<Json> {
    return this.#inTurn('exec', () => exec(this.#open(), command))
  }

  prompt(command: CommandOf<'prompt'>, idempotencyKey: string): Promise<Json> {
    // What is said to an agent is not waited for when the node ends.
    return this.#inTurn('prompt', () => prompt(this.#open(), command, idempotencyKey, this.#scope.closing))
  }

  processWelcome(command: CommandOf<'process_welcome'>, emit: Emit): Promise<Json> {
    return this.#inTurn('welcome', async () => {
      const { row } = this.#open()
      emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'processing welcome' })
      const payload = await processWelcome(this.#open(), command)
      emit({ phase: 'ready', runtime_id: row.id, provider: row.provider, message: 'welcome processed' })
      return { operation: 'process_welcome', ...asRecord(payload) }
    })
  }

  snapshot(name: string | undefined): Promise<Json> {
    return this.#inTurn('snapshot', async () => {
      const { store } = this.#deps
      const instance = this.#open()
      const made = await snapshot(instance, name, leasesOf(store, this.id).length > 0)
      await store.write(noteSnapshot({ id: this.id, at: this.#now() }))
      return snapshotAnswer(instance.row, made, this.#now())
    })
  }

  restore(name: string | undefined, emit: Emit): Promise<Json> {
    return this.#inTurn('restore', async () => {
      const instance = openInstance(this.#deps.substrates, this.row(), ['ready', 'unreachable'])
      const { id, provider } = instance.row
      emit({ phase: 'provisioning', runtime_id: id, provider, message: 'restoring' })
      return await restore(instance, name, this.#scope.closing)
    })
  }

  /** Once a lease is paid it gets its time, or what was paid for it goes back where nothing is rented any more. @throws ControlError payment_failed, payment_required, lease_expired */
  async extend(leaseId: string, token: string | undefined, emit: Emit): Promise<void> {
    const { leases } = this.#deps
    try {
      await this.#scope.run('payment', () => leases.awaitPayment(leaseId, { token, emit, signal: this.#scope.closing }))
    } catch (error) {
      throw error instanceof ControlError && error.code === 'payment_required' && !this.#isLeased ? wentBefore() : error
    }
    const giveTime = async () => {
      // What runs is prolonged, in whatever state; this one alone goes back where nothing does.
      const isThere = this.#isLeased
      const commands = isThere ? leases.activate(this.id, this.#now()) : leases.giveBack(leaseId, this.#now())
      if (commands.length > 0) await this.#persist(...commands)
      leases.wake()
      if (!isThere) throw wentBefore()
    }
    await this.#post(() => this.#scope.run('extension', giveTime))
  }

  // -- the mailbox

  /** After all that was asked for before. */
  #post<T>(mail: () => Promise<T>): Promise<T> {
    const outcome = this.#lastMail.then(mail)
    this.#mails++
    const done = () => {
      this.#mails--
    }
    this.#lastMail = outcome.then(done, done)
    return outcome
  }

  /**
   * Work inside it, which may take as long as its tenant likes: the end of the lease does not wait for it.
   * @throws ControlError operation_failed when the runtime was ended meanwhile
   */
  #inTurn<T>(name: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#post(async () => {
      if (this.#endings > 0) throw tornDown()
      const inside = new AbortController()
      this.#inside = inside
      try {
        return await this.#scope.until(name, inside.signal, work)
      } finally {
        this.#inside = undefined
      }
    })
  }

  /** What ends a runtime, in its turn; but nothing inside it is waited for. */
  async #cutAndPost<T>(mail: () => Promise<T>): Promise<T> {
    this.#endings++
    this.#inside?.abort(tornDown())
    try {
      return await this.#post(mail)
    } finally {
      this.#endings--
    }
  }

  /** Its own teardown must not wait for itself: that goes by `#takeDown`. */
  async #stopBringing(): Promise<void> {
    if (this.#bringing === undefined) return
    this.#bringing.stop.abort(tornDown())
    // Its failure is told to whoever asked for it.
    await Promise.allSettled([this.#bringing.outcome])
  }

  // -- from state to state

  async #bring(brought: Brought): Promise<RuntimeRow> {
    for (;;) {
      brought.signal.throwIfAborted()
      const row = this.row()
      switch (taskOf(row)) {
        case 'take a place':
          await this.#takePlace(row, brought)
          break
        case 'provision':
          await this.#provision(row, brought)
          break
        case 'watch the run':
          await this.#watchRun(row, brought.signal)
          break
        case 'clean up':
          await this.#tryTakeDown('the run is over', 'completed')
          return this.row()
        case 'give up':
          await this.#tryTakeDown(row.stateReason, 'node')
          throw fail('operation_failed', row.stateReason, 'provision again')
        case 'rest':
          return row
      }
    }
  }

  async #takePlace(row: RuntimeRow, { token, emit, signal }: Brought): Promise<void> {
    const { store, leases, substrates, market } = this.#deps
    const [lease] = leasesOf(store, this.id)
    try {
      if (lease !== undefined) await leases.awaitPayment(lease.id, { token, emit, signal })
      const { free } = await substrates.lookAtCapacity(row.provider)
      substrates.assertSpeaks(row.provider)
      if (free.instances < 1) throw fail('capacity_exhausted', `no place is free on ${row.provider} now`)
      // Others may have come first while this one was paid for.
      await market.takePlace(row.runtimeClass, async () => {
        signal.throwIfAborted()
        await this.#mustPersist(step(row, 'provisioning', 'the substrate is asked for it', this.#now()))
      })
    } catch (error) {
      if (!signal.aborted) await this.#tryTakeDown(messageOf(error), 'node')
      throw error
    }
  }

  async #provision(row: RuntimeRow, { emit, signal }: Brought): Promise<void> {
    const { substrates, leases } = this.#deps
    const progress = { provider: row.provider, protocol: row.protocol, startup_phase: startupPhaseOf(undefined) }
    emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'provisioning', progress })
    const limit = this.#provisionLimit(signal)
    try {
      const provisioned = await substrates.get(row.provider).provision(provisionInputOf(row), limit.signal)
      // Known from here on, whatever comes.
      await this.#mustPersist(patchRuntime({ id: row.id, patch: patchOfProvisioned(row, provisioned), at: this.#now() }))
      assertAsAsked(row, provisioned)
      // What the tenant brought may take as long as it likes to get ready, on their time.
      if (broughtCommand(row)) await this.#mustPersist(...leases.activate(row.id, this.#now()))
      if (row.protocol !== null) await this.#untilReady(row, provisioned.handle, limit.signal, emit)
      limit.signal.throwIfAborted()
      await this.#begin(row)
    } catch (error) {
      if (signal.aborted && !limit.isOver()) throw signal.reason
      await this.#giveUp(row, error)
      throw toControlError(error, 'provision_failed')
    } finally {
      limit.cancel()
    }
  }

  /** Its time begins: leases run, secrets are forgotten. */
  async #begin(row: RuntimeRow): Promise<void> {
    const at = this.#now()
    const patch = patchOfReady(row, at, this.#deps.config().watchdog_grace_s * 1000)
    // A run that takes all of its time is answered: the host's grace is not paid for.
    const leased = this.#deps.leases.activate(row.id, at, patch.deadline ?? 0)
    await this.#mustPersist(step({ id: row.id, state: 'provisioning' }, 'ready', 'runtime ready', at, patch), ...leased)
    this.#wellAtMs = this.#now()
    this.#deps.offers.changed()
  }

  /** Nothing is left behind, what was paid goes back. */
  async #giveUp(row: RuntimeRow, error: unknown): Promise<void> {
    const { logger } = this.#deps
    logger.warn({ runtime_id: row.id, error: messageOf(error) }, 'a runtime could not be provisioned')
    try {
      const outputs = await this.#collect(this.row())
      const failed = step({ id: row.id, state: 'provisioning' }, 'failed', messageOf(error), this.#now())
      await this.#persist(...this.#kept(outputs), failed)
      await this.#takeDown(messageOf(error), 'node')
    } catch (second) {
      const words = 'what was left of a runtime could not be removed yet; it is tried again'
      logger.error({ runtime_id: row.id, error: messageOf(second) }, words)
    }
  }

  /** @throws ControlError provision_failed; the signal's reason */
  async #untilReady(row: RuntimeRow, handle: RuntimeHandle, signal: AbortSignal, emit: Emit): Promise<void> {
    const adapter = this.#adapter(row)
    const backoff = this.#scope.backoff(POLL)
    let said = ''
    for (;;) {
      const readiness = await adapter.readiness(handle, signal)
      const { state, message } = readiness
      if (state === 'ready') return
      if (state === 'failed' || state === 'completed' || state === 'stopped') {
        throw fail('provision_failed', `the runtime ${state}: ${message}`)
      }
      if (message !== said) {
        said = message
        const progress = { startup_phase: startupPhaseOf(readiness) }
        emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message, progress })
      }
      await this.#scope.clock.sleep(backoff.nextMs(), signal)
    }
  }

  /** Watches a one-shot run to its end, collects what it left, and ends it when the guest does not in time. */
  async #watchRun(row: RuntimeRow, signal: AbortSignal): Promise<void> {
    const adapter = this.#adapter(row)
    const backoff = this.#scope.backoff(POLL)
    for (;;) {
      const readiness = await readinessOfRun(adapter, row.handle, signal)
      const away = readiness.state === 'completed' ? null : this.#judge(row, readiness).away
      const patch = patchOfAway(away)
      const isLate = row.deadline !== null && this.#now() > row.deadline
      if (readiness.state === 'completed' || readiness.state === 'failed' || isLate) {
        const outputs = await this.#collect(row)
        const reason = isLate ? lateReason(readiness) : readiness.message
        const end = step(row, 'ended', reason, this.#now(), { ...patch, result: resultOf(outputs) })
        return await this.#persist(...this.#kept(outputs), end)
      }
      if (readiness.state === 'stopped') {
        return await this.#persist(step(row, 'failed', `the run was lost: ${readiness.message}`, this.#now(), patch))
      }
      // Who ends it meanwhile has to know.
      const state = away === null ? 'ready' : 'unreachable'
      if (state !== row.state) return await this.#persist(step(row, state, readiness.message, this.#now(), patch))
      await this.#scope.clock.sleep(backoff.nextMs(), signal)
    }
  }

  async #recover(emit: Emit, cut: AbortSignal): Promise<RuntimeRow> {
    const row = this.row()
    if (row.protocol === null) throw fail('unsupported_operation', 'a one-shot run is not recovered: run it again')
    if (row.state !== 'ready' && row.state !== 'unreachable') throw fail('runtime_not_ready', `the runtime is ${row.state}`)
    const adapter = this.#adapter(row)
    if (adapter.recover === undefined || row.handle === null) throw fail('unsupported_operation', `${row.provider} cannot recover`)
    emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'recovering' })
    const limit = this.#provisionLimit(AbortSignal.any([this.#scope.closing, cut]))
    try {
      await adapter.recover(row.handle, limit.signal)
      await this.#untilReady(row, row.handle, limit.signal, emit)
    } catch (error) {
      if (!isPylonError(error, 'runtime_gone')) throw toControlError(error, 'operation_failed')
      cut.throwIfAborted()
      const away = awayOf(row) ?? { cause: 'host', since: this.#now() }
      await this.#persist(step(row, 'provisioning', 'the instance is gone and is made anew', this.#now(), patchOfAway(away)))
      return await this.bring({ emit })
    } finally {
      limit.cancel()
    }
    if (row.state === 'unreachable') await this.#persist(step(row, 'ready', 'recovered', this.#now(), WELL))
    return this.row()
  }

  /** Ends as `until` does, or after the time that a provision may take. */
  #provisionLimit(until: AbortSignal): { signal: AbortSignal; isOver: () => boolean; cancel: () => void } {
    const timer = new AbortController()
    const seconds = this.#deps.config().provision_timeout_s
    const late = fail('timeout', `the runtime was not ready after ${seconds} s`, 'look at its logs, or ask the owner of the node')
    const cancel = this.#scope.after('provision limit', seconds * 1000, () => timer.abort(late))
    return { signal: AbortSignal.any([until, timer.signal]), isOver: () => timer.signal.aborted, cancel }
  }

  // -- out

  async #takeDown(reason: string, by: EndedBy, keep?: boolean): Promise<TeardownOutcome> {
    const { leases } = this.#deps
    const away = await this.#awayAtEnd(this.row(), by)
    const row = this.row()
    const at = this.#now()
    if (row.state === 'gone') return { payload: { teardown: 'deleted', runtime_id: row.id, already: true } }
    if (row.state === 'requested') {
      await this.#persist(step(row, 'gone', reason, at, { input: null }), ...leases.end(row.id, by, at))
      leases.wake()
      return { payload: { teardown: 'deleted', runtime_id: row.id } }
    }
    const keepVolume = keep ?? row.keepVolume
    const isUncollected = row.protocol === null && row.result === null && row.state !== 'teardown'
    const collected = isUncollected ? await this.#collect(row) : undefined
    const patch = { keepVolume, ...patchOfAway(away), ...(collected === undefined ? {} : { result: resultOf(collected) }) }
    const toTeardown = (from: RuntimeRow, when: number) => {
      const end = endingOf(away, by, when)
      return [step(from, 'teardown', reason, when, patch), ...leases.end(row.id, end.by, end.at)]
    }
    let persistError = await this.#writeOnTheWayOut(...this.#kept(collected), ...toTeardown(row, at))
    leases.wake()
    const payload = await this.#remove(row, keepVolume)
    const now = getRuntime(this.#deps.store, row.id)
    if (now !== undefined && now.state !== 'gone') {
      const end = this.#now()
      const missed = now.state === 'teardown' ? [] : toTeardown(now, end)
      const gone = step({ id: row.id, state: 'teardown' }, 'gone', reason, end, { input: null, handle: null })
      persistError = await this.#writeOnTheWayOut(...missed, gone)
      leases.wake()
    }
    this.#wellAtMs = undefined
    this.#deps.offers.changed()
    return persistError === undefined ? { payload } : { payload, persistError }
  }

  /** A failure to clean up is not that of what came before: it is tried again. */
  async #tryTakeDown(reason: string, by: EndedBy): Promise<void> {
    try {
      await this.#takeDown(reason, by)
    } catch (error) {
      this.#deps.logger.warn({ runtime_id: this.id, error: messageOf(error) }, 'a teardown failed; it is tried again')
    }
  }

  /** A fault of the disk does not keep the instance. @returns it, or undefined. @throws shutting_down */
  async #writeOnTheWayOut(...commands: readonly Command<unknown>[]): Promise<string | undefined> {
    try {
      await this.#persist(...commands)
      return undefined
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
      const words = 'the teardown of a runtime could not be written; it goes on'
      this.#deps.logger.error({ runtime_id: this.id, error: messageOf(error) }, words)
      return messageOf(error)
    }
  }

  async #remove(row: RuntimeRow, keepVolume: boolean): Promise<Json> {
    const adapter = this.#adapter(row)
    // A crash may have come between the instance and the note of its handle.
    const known = getRuntime(this.#deps.store, row.id)?.handle ?? null
    const found = known === null ? (await adapter.listOwned?.())?.find((owned) => owned.runtimeId === row.id) : { handle: known }
    if (found === undefined) return { teardown: 'deleted', runtime_id: row.id }
    const { handle } = found
    if (handle === null) throw fail('runtime_unreachable', 'the instance is there and cannot be reached now')
    return await adapter.teardown(handle, { keepVolume })
  }

  /** A last look where money depends on it: one that died a moment ago was not had to its end. */
  async #awayAtEnd(row: RuntimeRow, by: EndedBy): Promise<Away | null> {
    const isRunning = row.state === 'ready' || row.state === 'unreachable'
    if (!isRunning || !this.#isLeased || (by !== 'time' && by !== 'tenant') || row.handle === null) return awayOf(row)
    return (await this.#sightOf(row)).away
  }

  // -- by the clock

  async #endWhatIsOver(): Promise<void> {
    const row = getRuntime(this.#deps.store, this.id)
    if (row === undefined || row.state === 'gone') return
    const now = this.#now()
    const hasTime = row.state !== 'requested' && row.state !== 'failed' && row.state !== 'teardown'
    if (hasTime && (row.expiresAt ?? now + 1) <= now) return await this.#expire()
    // One that nobody brings further: torn down in vain, or left when a write failed; what was paid for it goes back.
    const isLeft = !isKept(row) && !this.isBrought && now - row.updatedAt > RETRY_TEARDOWN_MS
    if (!isLeft || now < this.#retryTeardownAtMs) return
    this.#retryTeardownAtMs = now + RETRY_TEARDOWN_MS
    await this.tearDown(row.stateReason, row.state === 'ended' ? 'completed' : 'node')
  }

  /** Whatever runs inside; but not one that was prolonged meanwhile. */
  async #expire(): Promise<void> {
    await this.#cutAndPost(async () => {
      if ((getRuntime(this.#deps.store, this.id)?.expiresAt ?? Number.POSITIVE_INFINITY) > this.#now()) return
      await this.#stopBringing()
      await this.#takeDown('its time is up', 'time')
    })
  }

  async #look(): Promise<void> {
    const row = getRuntime(this.#deps.store, this.id)
    if (row === undefined || row.handle === null || !isServing(row) || this.isBrought) return
    const sight = await this.#sightOf(row)
    if (this.#scope.isClosing) return
    const { away, message } = sight
    const at = this.#now()
    switch (verdictOf(row, sight, at, this.#deps.config().unreachable_after_s * 1000)) {
      case 'lost':
        return await this.#failServing(row, sight.isGone ? message : `unreachable for too long: ${message}`, away)
      case 'back':
        await persistIfUnmoved(this.#db(), step(row, 'ready', 'reachable again', at, WELL), ...this.#tell(row, 'ready', 'reachable again'))
        return this.#deps.notices.nudge()
      case 'away': {
        const toAway = step(row, 'unreachable', message, at, patchOfAway(away))
        await persistIfUnmoved(this.#db(), toAway, ...this.#tell(row, 'ready', `unreachable: ${message}`))
        return this.#deps.notices.nudge()
      }
      case 'away for another reason':
        return await this.#persist(patchRuntime({ id: row.id, patch: patchOfAway(away), at }))
      case 'as before':
    }
  }

  /** The node could not keep it: what was not had is paid back. */
  async #failServing(row: RuntimeRow, reason: string, away: Away | null): Promise<void> {
    const failed = step(row, 'failed', reason, this.#now(), patchOfAway(away))
    if (!(await persistIfUnmoved(this.#db(), failed, ...this.#tell(row, 'failed', reason)))) return
    this.#deps.notices.nudge()
    await this.tearDown(reason, 'node')
  }

  async #snapshotIfDue(): Promise<void> {
    const { store, config } = this.#deps
    const everyMs = config().snapshot_every_s * 1000
    const row = getRuntime(store, this.id)
    if (everyMs === 0 || row === undefined || row.state !== 'ready' || row.protocol === null) return
    // Those of a lease take of its own quota, so its tenant says when.
    if (leasesOf(store, row.id).length > 0 || this.#now() - (row.lastSnapshotAt ?? row.createdAt) < everyMs) return
    await this.#inTurn('scheduled snapshot', () => this.#snapshotBySchedule(row))
  }

  async #snapshotBySchedule(row: RuntimeRow): Promise<void> {
    const adapter = this.#adapter(row)
    const at = this.#now()
    // Noted first: one that can't be made is tried at the next turn, not every second.
    await this.#persist(noteSnapshot({ id: row.id, at }))
    if (row.handle === null || adapter.snapshot === undefined) return
    try {
      await adapter.snapshot(row.handle, scheduledName(at))
    } catch (error) {
      if (isPylonError(error, 'runtime_unsupported')) return
      throw error
    }
    const snapshots = (await adapter.listSnapshots?.(row.handle)) ?? []
    for (const name of surplusSnapshots(snapshots, this.#deps.config().snapshot_keep)) await adapter.deleteSnapshot?.(row.handle, name)
  }

  // -- what all of them use

  get #isLeased(): boolean {
    return leasesOf(this.#deps.store, this.id).some((lease) => lease.state === 'active')
  }

  #now(): number {
    return this.#scope.clock.now()
  }

  /** Soon the first time, for a restart may have come late. */
  #soonThen(everyMs: number): () => number {
    let next = Math.min(TICK_MS, everyMs)
    return () => {
      const ms = next
      next = everyMs
      return ms
    }
  }

  #adapter(row: RuntimeRow): RuntimeAdapter {
    return this.#deps.substrates.get(row.provider)
  }

  #open() {
    return openInstance(this.#deps.substrates, this.row())
  }

  #db() {
    return { store: this.#deps.store, clock: this.#scope.clock }
  }

  async #persist(...commands: readonly Command<unknown>[]): Promise<void> {
    await persist(this.#db(), ...commands)
  }

  /** Writes what a provision needs to go on. @throws ControlError state_persist_failed, shutting_down; conflict */
  async #mustPersist(...commands: readonly Command<unknown>[]): Promise<void> {
    try {
      await this.#persist(...commands)
    } catch (error) {
      throw isPylonError(error, 'conflict') ? error : toControlError(error, 'state_persist_failed')
    }
  }

  #tell(row: RuntimeRow, phase: 'ready' | 'failed', message: string): readonly Command<unknown>[] {
    return this.#deps.notices.tell(row.ownerPubkey, row.id, { phase, runtime_id: row.id, provider: row.provider, message })
  }

  /** What the runtime leaves; undefined where it can't be had. */
  async #collect(row: RuntimeRow): Promise<CollectedOutputs | undefined> {
    if (row.handle === null) return undefined
    try {
      return await this.#adapter(row).collect?.(row.handle, decodeRuntimeSpec(row.spec))
    } catch (error) {
      this.#deps.logger.warn({ runtime_id: row.id, error: messageOf(error) }, 'the outputs of a runtime could not be collected')
      return undefined
    }
  }

  #kept(outputs: CollectedOutputs | undefined): readonly Command<unknown>[] {
    return keepOutputs(this.id, outputs, this.#deps.config().outputs_kept_mib * 2 ** 20)
  }

  /** Takes no longer than LOOK_MS. @throws shutting_down */
  async #sightOf(row: RuntimeRow): Promise<Sight> {
    try {
      const seen = await this.#scope.within('the substrate', LOOK_MS, (signal) => this.#adapter(row).readiness(row.handle, signal))
      return this.#judge(row, seen)
    } catch (error) {
      // Not asked is not unreachable: money may depend on it.
      if (isPylonError(error, 'shutting_down')) throw error
      const isGone = isPylonError(error, 'runtime_gone')
      const away = awayBy(isGone ? 'host' : 'network', awayOf(row), this.#wellAtMs ?? this.#now())
      return { away, isGone, message: isGone ? 'the instance is gone' : `unreachable: ${messageOf(error)}` }
    }
  }

  #judge(row: RuntimeRow, seen: Readiness): Sight {
    const cause = causeOf(seen)
    if (cause === null) this.#wellAtMs = this.#now()
    const away = cause === null ? null : awayBy(cause, awayOf(row), this.#wellAtMs ?? this.#now())
    return { away, isGone: false, message: `${seen.state}: ${seen.message}` }
  }
}

const tornDown = (): ControlError => fail('operation_failed', 'the runtime was torn down meanwhile', undefined)
const wentBefore = (): ControlError => fail('lease_expired', 'the runtime went before the payment came; what was paid goes back')

/** A substrate that does not answer for a moment says nothing about the run. @throws the signal's reason */
async function readinessOfRun(adapter: RuntimeAdapter, handle: RuntimeHandle, signal: AbortSignal): Promise<Readiness> {
  try {
    return await adapter.readiness(handle, signal)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof ControlError) throw error
    return { state: isPylonError(error, 'runtime_gone') ? 'stopped' : 'unreachable', message: messageOf(error) }
  }
}

function lateReason({ state, message }: Readiness): string {
  return state === 'unreachable'
    ? `nobody reached the run until its time was over: ${message}`
    : 'the run took longer than it may and was ended by the host'
}
