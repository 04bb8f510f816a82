/**
 * One runtime at work. What is asked of it comes by its mailbox: in order, one at a time; what only looks needs no mail.
 *
 *     command --> mailbox --> inside the instance (exec, prompt, snapshot, restore, welcome), or recover, or teardown
 *     bring   --> from its state to ready, a run past its end (runtime-life.ts says what is due in each)
 *     clock   --> looks whether it is well, starts a session's guest again, ends it when its time is up, retries a teardown, makes snapshots
 *
 * What ends it (its time, the node) does not wait for what runs inside: that is cut off. All of it runs under its scope.
 */
import { doublingMs } from '../../base/backoff.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import { asRecord, type Json } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import type { RuntimeState } from '../../base/states.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { noteSnapshot, patchRuntime, type RuntimeRow } from '../../store/selling/runtimes.ts'
import { scheduledName, surplusSnapshots } from './backups.ts'
import type { Claimed } from './claims.ts'
import { fail, toControlError } from './failures.ts'
import { exec, openInstance, processWelcome, prompt, restore, snapshot, snapshotAnswer } from './instance-commands.ts'
import type { EndedBy } from './lease-end.ts'
import type { Away } from './lookout.ts'
import type { Emit } from './machines.ts'
import { sessionOf } from './order.ts'
import { RuntimeBringing } from './runtime-bringing.ts'
import { isKept, isServing, step, verdictOf } from './runtime-life.ts'
import { type RuntimeDeps, RuntimeRecord } from './runtime-record.ts'
import { RuntimeTeardown, type TeardownOutcome } from './runtime-teardown.ts'

/** How often it is looked whether its time is up; and how soon after a start it is looked at for the first time. */
const TICK_MS = 1000
const RETRY_TEARDOWN_MS = 15_000
/** Between two starts of a guest that goes down by itself. */
const REVIVE = { minMs: 5000, maxMs: 300_000 }

type InsideCommand = CommandOf<'process_welcome'> | CommandOf<'exec'> | CommandOf<'prompt'> | CommandOf<'snapshot'> | CommandOf<'restore'>

export interface Bringing {
  /** A token that came with the command that made it. */
  readonly token?: string | undefined
  readonly emit?: Emit
  /** Whoever asked may give up; then the runtime stays as it is. */
  readonly signal?: AbortSignal
}

export class RuntimeActor {
  readonly id: string
  readonly #record: RuntimeRecord
  readonly #teardown: RuntimeTeardown
  readonly #bringer: RuntimeBringing
  /** Ends when all mail that came by now is done. */
  #lastMail: Promise<unknown> = Promise.resolve()
  #mails = 0
  #bringing: { readonly outcome: Promise<RuntimeRow>; readonly stop: AbortController } | undefined
  /** Cuts off what runs inside now. */
  #inside: AbortController | undefined
  /** By how many it is being ended whatever runs inside. */
  #endings = 0
  #retryTeardownAtMs = 0
  #reviveAtMs = 0
  #revivals = 0

  constructor(id: string, scope: Scope, deps: RuntimeDeps) {
    this.id = id
    this.#record = new RuntimeRecord(id, scope, deps)
    this.#teardown = new RuntimeTeardown(this.#record)
    this.#bringer = new RuntimeBringing(this.#record, this.#teardown)
    scope.every('end', TICK_MS, () => this.#endWhatIsOver())
    scope.every('look', this.#soonThen(deps.healthEveryMs), () => this.#look())
    scope.every('revive', TICK_MS, () => this.#reviveIfDue())
    scope.every('snapshot', this.#soonThen(deps.healthEveryMs), () => this.#snapshotIfDue())
  }

  /** @throws ControlError runtime_not_found */
  row(): RuntimeRow {
    return this.#record.row()
  }

  /** Somebody brings it from state to state. */
  get isBrought(): boolean {
    return this.#bringing !== undefined
  }

  /** It is gone, and nothing is asked of it. */
  get isOver(): boolean {
    return this.#mails === 0 && !this.isBrought && (this.#record.find()?.state ?? 'gone') === 'gone'
  }

  /** Of one that serves since before a restart. @throws runtime_failed */
  async openDoor(): Promise<void> {
    await this.#record.openDoor(this.row())
  }

  async close(drainMs = 0): Promise<readonly { readonly path: string }[]> {
    return await this.#record.scope.close(drainMs)
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
    const signals = [stop.signal, this.#record.scope.closing, ...(signal === undefined ? [] : [signal])]
    const brought = { token, emit, signal: AbortSignal.any(signals) }
    const outcome = this.#record.scope
      .run('bring', () => this.#bringer.run(brought))
      .finally(() => {
        this.#bringing = undefined
        this.#record.deps.offers.changed()
      })
    this.#bringing = { outcome, stop }
    return outcome
  }

  /** @throws ControlError teardown_failed; it is tried again by itself */
  async tearDown(reason: string, by: EndedBy, keepVolume?: boolean): Promise<TeardownOutcome> {
    const mail = () => this.#record.scope.run('teardown', () => this.#teardown.run(reason, by, keepVolume))
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
      const row = this.#record.row()
      if (row.state !== 'ready' && row.state !== 'unreachable') return
      await this.#record.persist(step(row, 'failed', reason, this.#record.now()))
      await this.#teardown.run(reason, 'node')
    }
    await this.#post(() => this.#record.scope.run('loss', takeDown))
  }

  /** What a restart left of it goes on its way out, in turn. */
  async goOnTearingDown(): Promise<void> {
    await this.#post(() => this.#record.scope.run('teardown', () => this.#teardown.run(this.#record.row().stateReason, 'node')))
  }

  /** Restarts the instance with its volume, or makes it anew where it is gone. @throws ControlError */
  recover(emit: Emit): Promise<RuntimeRow> {
    return this.#inTurn('recover', async (signal) =>
      (await this.#bringer.recover(emit, signal)) ? this.#record.row() : await this.bring({ emit }),
    )
  }

  /** What is done inside, in turn. @throws ControlError */
  inside(command: InsideCommand, { idempotencyKey, emit }: Pick<Claimed, 'idempotencyKey' | 'emit'>): Promise<Json> {
    return this.#inTurn(command.command, async () => {
      const { store } = this.#record.deps
      const { closing } = this.#record.scope
      const instance = this.#open(command.command === 'restore' ? ['ready', 'unreachable'] : undefined)
      const { row } = instance
      const about = { runtime_id: row.id, provider: row.provider }
      switch (command.command) {
        case 'exec':
          return await exec(instance, command)
        case 'prompt':
          // What is said to an agent is not waited for when the node ends.
          return await prompt(instance, command, idempotencyKey, closing)
        case 'process_welcome': {
          emit({ phase: 'provisioning', ...about, message: 'processing welcome' })
          const payload = await processWelcome(instance, command)
          emit({ phase: 'ready', ...about, message: 'welcome processed' })
          return { operation: 'process_welcome', ...asRecord(payload) }
        }
        case 'snapshot': {
          const made = await snapshot(instance, command.snapshot, leasesOf(store, row.id).length > 0)
          await store.write(noteSnapshot({ id: row.id, at: this.#record.now() }))
          return snapshotAnswer(row, made, this.#record.now())
        }
        case 'restore':
          emit({ phase: 'provisioning', ...about, message: 'restoring' })
          return await restore(instance, command.snapshot, closing)
      }
    })
  }

  /** Once a lease is paid it gets its time, or what was paid for it goes back where nothing is rented any more. @throws ControlError payment_failed, payment_required, lease_expired */
  async extend(leaseId: string, token: string | undefined, emit: Emit): Promise<void> {
    const { leases } = this.#record.deps
    try {
      await this.#record.scope.run('payment', () => leases.awaitPayment(leaseId, { token, emit, signal: this.#record.scope.closing }))
    } catch (error) {
      throw error instanceof ControlError && error.code === 'payment_required' && !this.#record.isLeased ? wentBefore() : error
    }
    const giveTime = async () => {
      // What runs is prolonged, in whatever state; this one alone goes back where nothing does.
      const isThere = this.#record.isLeased
      const commands = isThere ? leases.activate(this.#record.id, this.#record.now()) : leases.giveBack(leaseId, this.#record.now())
      if (commands.length > 0) await this.#record.persist(...commands)
      leases.wake()
      if (!isThere) throw wentBefore()
    }
    await this.#post(() => this.#record.scope.run('extension', giveTime))
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
        return await this.#record.scope.until(name, inside.signal, work)
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

  /** Its own teardown must not wait for itself: that is asked of `#teardown`. */
  async #stopBringing(): Promise<void> {
    if (this.#bringing === undefined) return
    this.#bringing.stop.abort(tornDown())
    // Its failure is told to whoever asked for it.
    await Promise.allSettled([this.#bringing.outcome])
  }

  // -- by the clock

  async #endWhatIsOver(): Promise<void> {
    const row = this.#record.find()
    if (row === undefined || row.state === 'gone') return
    const now = this.#record.now()
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
      if ((this.#record.find()?.expiresAt ?? Number.POSITIVE_INFINITY) > this.#record.now()) return
      await this.#stopBringing()
      await this.#teardown.run('its time is up', 'time')
    })
  }

  async #look(): Promise<void> {
    const row = this.#record.find()
    if (row === undefined || row.handle === null || !isServing(row) || this.isBrought) return
    const sight = await this.#record.look(row)
    if (this.#record.scope.isClosing) return
    const { away, message } = sight
    const at = this.#record.now()
    switch (verdictOf(row, sight, at, this.#record.deps.config().unreachable_after_s * 1000)) {
      case 'lost':
        return await this.#failServing(row, sight.isGone ? message : `unreachable for too long: ${message}`, away)
      case 'back':
        await this.#record.persistIfUnmoved(
          step(row, 'ready', 'reachable again', at, { away: null }),
          ...(await this.#record.tell(row, 'ready', 'reachable again')),
        )
        return this.#record.deps.notices.nudge()
      case 'away': {
        const toAway = step(row, 'unreachable', message, at, { away })
        await this.#record.persistIfUnmoved(toAway, ...(await this.#record.tell(row, 'ready', `unreachable: ${message}`)))
        return this.#record.deps.notices.nudge()
      }
      case 'away for another reason':
        return await this.#record.persist(patchRuntime({ id: row.id, patch: { away }, at }))
      case 'as before':
    }
  }

  /** A guest that went down under a session is started again: whoever talks to its agent need not be there to ask for it. */
  async #reviveIfDue(): Promise<void> {
    const row = this.#record.find()
    if (row?.state !== 'unreachable' || row.away === null || row.away.cause === 'network' || sessionOf(row) === undefined) return
    const now = this.#record.now()
    if (now < this.#reviveAtMs || this.isBrought) return
    // One that keeps going down is started less and less often.
    this.#revivals = now - this.#reviveAtMs > 2 * REVIVE.maxMs ? 1 : this.#revivals + 1
    this.#reviveAtMs = now + doublingMs(REVIVE, this.#revivals)
    try {
      await this.recover(() => undefined)
    } catch (error) {
      if (!this.#record.scope.isClosing)
        this.#record.deps.logger.warn(
          { runtime_id: row.id, error: messageOf(error) },
          'a runtime that went down could not be started again yet',
        )
    }
  }

  /** The node could not keep it: what was not had is paid back. */
  async #failServing(row: RuntimeRow, reason: string, away: Away | null): Promise<void> {
    const failed = step(row, 'failed', reason, this.#record.now(), { away })
    if (!(await this.#record.persistIfUnmoved(failed, ...(await this.#record.tell(row, 'failed', reason))))) return
    this.#record.deps.notices.nudge()
    await this.tearDown(reason, 'node')
  }

  async #snapshotIfDue(): Promise<void> {
    const { store, config } = this.#record.deps
    const everyMs = config().snapshot_every_s * 1000
    const row = this.#record.find()
    if (everyMs === 0 || row === undefined || row.state !== 'ready' || row.protocol === null) return
    // Those of a lease take of its own quota, so its tenant says when.
    if (leasesOf(store, row.id).length > 0 || this.#record.now() - (row.lastSnapshotAt ?? row.createdAt) < everyMs) return
    await this.#inTurn('scheduled snapshot', () => this.#snapshotBySchedule(row))
  }

  async #snapshotBySchedule(row: RuntimeRow): Promise<void> {
    const adapter = this.#record.adapter(row)
    const at = this.#record.now()
    // Noted first: one that can't be made is tried at the next turn, not every second.
    await this.#record.persist(noteSnapshot({ id: row.id, at }))
    if (row.handle === null || adapter.snapshot === undefined) return
    try {
      await adapter.snapshot(row.handle, scheduledName(at))
    } catch (error) {
      if (isPylonError(error, 'runtime_unsupported')) return
      throw error
    }
    const snapshots = (await adapter.listSnapshots?.(row.handle)) ?? []
    for (const name of surplusSnapshots(snapshots, this.#record.deps.config().snapshot_keep))
      await adapter.deleteSnapshot?.(row.handle, name)
  }

  // -- what they use

  /** Soon the first time, for a restart may have come late. */
  #soonThen(everyMs: number): () => number {
    let next = Math.min(TICK_MS, everyMs)
    return () => {
      const ms = next
      next = everyMs
      return ms
    }
  }

  #open(states?: readonly RuntimeState[]) {
    return openInstance(this.#record.deps.substrates, this.#record.row(), states)
  }
}

const tornDown = (): ControlError => fail('operation_failed', 'the runtime was torn down meanwhile', undefined)
const wentBefore = (): ControlError => fail('lease_expired', 'the runtime went before the payment came; what was paid goes back')
