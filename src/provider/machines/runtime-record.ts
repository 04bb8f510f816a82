/** One runtime as it is stored and as its substrate shows it: what its actor, its bringing and its teardown share. */
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import type { CollectedOutputs, Readiness, RuntimeAdapter } from '../../runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import type { Command } from '../../store/commands.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, type RuntimeRow } from '../../store/selling/runtimes.ts'
import type { MachineDeps } from './deps.ts'
import type { OpenDoor } from './doors.ts'
import { runtimeNotFound, toControlError } from './failures.ts'
import { awayBy, causeOf, type Sight } from './lookout.ts'
import { keepOutputs } from './outputs.ts'

/** A substrate that does not answer for so long is not reached. */
const LOOK_MS = 15_000

/** What a runtime works with. */
export type RuntimeDeps = Pick<
  MachineDeps,
  'store' | 'logger' | 'config' | 'substrates' | 'market' | 'offers' | 'leases' | 'notices' | 'doors' | 'healthEveryMs'
>

export class RuntimeRecord {
  readonly id: string
  /** Of its actor: all that is done for it runs here. */
  readonly scope: Scope
  readonly deps: RuntimeDeps
  #wellAtMs: number | undefined

  constructor(id: string, scope: Scope, deps: RuntimeDeps) {
    this.id = id
    this.scope = scope
    this.deps = deps
  }

  find(): RuntimeRow | undefined {
    return getRuntime(this.deps.store, this.id)
  }

  /** @throws ControlError runtime_not_found */
  row(): RuntimeRow {
    const row = this.find()
    if (row === undefined) throw runtimeNotFound(this.id)
    return row
  }

  get isLeased(): boolean {
    return leasesOf(this.deps.store, this.id).some((lease) => lease.state === 'active')
  }

  now(): number {
    return this.scope.clock.now()
  }

  /** @throws runtime_unreachable */
  adapter(row: RuntimeRow): RuntimeAdapter {
    return this.deps.substrates.get(row.provider)
  }

  /** Where its guest reaches relays, if it does so through this node. @throws runtime_failed */
  async openDoor(row: RuntimeRow): Promise<OpenDoor | undefined> {
    if (this.adapter(row).carriesDoor !== true) return undefined
    try {
      return await this.deps.doors?.open(row)
    } catch (error) {
      throw new PylonError('runtime_failed', `The door to relays could not be opened: ${messageOf(error)}.`, { cause: error })
    }
  }

  async persist(...commands: readonly Command<unknown>[]): Promise<void> {
    await persist({ store: this.deps.store, clock: this.scope.clock }, ...commands)
  }

  /** @returns false when it has moved on meanwhile: then nothing was written */
  async persistIfUnmoved(...commands: readonly Command<unknown>[]): Promise<boolean> {
    return await persistIfUnmoved({ store: this.deps.store, clock: this.scope.clock }, ...commands)
  }

  /** Writes what a provision needs to go on. @throws ControlError state_persist_failed, shutting_down; conflict */
  async mustPersist(...commands: readonly Command<unknown>[]): Promise<void> {
    try {
      await this.persist(...commands)
    } catch (error) {
      throw isPylonError(error, 'conflict') ? error : toControlError(error, 'state_persist_failed')
    }
  }

  /** Its tenant, as part of a commit. */
  tell(row: RuntimeRow, phase: 'ready' | 'failed', message: string): Promise<readonly Command<unknown>[]> {
    return this.deps.notices.tell(row.ownerPubkey, row.id, { phase, runtime_id: row.id, provider: row.provider, message })
  }

  /** What the runtime leaves; undefined where it can't be had. */
  async collect(row: RuntimeRow): Promise<CollectedOutputs | undefined> {
    if (row.handle === null) return undefined
    try {
      return await this.adapter(row).collect?.(row.handle, decodeRuntimeSpec(row.spec))
    } catch (error) {
      this.deps.logger.warn({ runtime_id: row.id, error: messageOf(error) }, 'the outputs of a runtime could not be collected')
      return undefined
    }
  }

  kept(outputs: CollectedOutputs | undefined): readonly Command<unknown>[] {
    return keepOutputs(this.id, outputs, this.deps.config().outputs_kept_mib * 2 ** 20)
  }

  /** Asks its substrate whether it is well; takes no longer than LOOK_MS. @throws shutting_down */
  async look(row: RuntimeRow): Promise<Sight> {
    try {
      const seen = await this.scope.within('the substrate', LOOK_MS, (signal) => this.adapter(row).readiness(row.handle, signal))
      return this.judge(row, seen)
    } catch (error) {
      // Not asked is not unreachable: money may depend on it.
      if (isPylonError(error, 'shutting_down')) throw error
      const isGone = isPylonError(error, 'runtime_gone')
      const away = awayBy(isGone ? 'host' : 'network', row.away, this.#wellAtMs ?? this.now())
      return { away, isGone, message: isGone ? 'the instance is gone' : `unreachable: ${messageOf(error)}` }
    }
  }

  /** What a readiness that was asked for elsewhere means. */
  judge(row: RuntimeRow, seen: Readiness): Sight {
    const cause = causeOf(seen)
    if (cause === null) this.seenWell()
    const away = cause === null ? null : awayBy(cause, row.away, this.#wellAtMs ?? this.now())
    return { away, isGone: false, message: `${seen.state}: ${seen.message}` }
  }

  seenWell(): void {
    this.#wellAtMs = this.now()
  }
}
