/** The runtimes of this node: drives each through its life, tears down, recovers, and knows what is under way. */
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import { destroysItself } from '../../runtime/retention.ts'
import type { Command } from '../../store/commands.ts'
import { persist } from '../../store/persist.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, type RuntimeRow, type RuntimeState, runtimesIn } from '../../store/selling/runtimes.ts'
import { type DriveOptions, type DriverDeps, drive, untilReady } from './driver.ts'
import { fail, toControlError } from './failures.ts'
import { collectFrom, type Emit, type KeeperDeps, keepOutputs, mustGet, resultOf, step } from './keeper.ts'
import { type Away, awayOf, patchOfAway, WELL } from './lookout.ts'
import { type EndedBy, endingOf } from './settlement.ts'
import { mayHaveInstance } from './states.ts'

export interface TeardownOutcome {
  readonly payload: Json
  /** Why the state could not be written, though the instance is gone. */
  readonly persistError?: string
}

export interface Registry {
  /** Goes on with a runtime from where it is. One at a time for each: a second caller gets the first one's outcome. */
  drive(id: string, options: { token?: string | undefined; emit: Emit; signal?: AbortSignal }): Promise<RuntimeRow>
  /** @throws ControlError teardown_failed; it is tried again by itself */
  tearDown(id: string, reason: string, by: EndedBy, options?: { keepVolume?: boolean }): Promise<TeardownOutcome>
  /** Restarts the instance with its volume, or makes it anew where it is gone. @throws ControlError */
  recover(id: string, emit: Emit): Promise<RuntimeRow>
  /** Ends a runtime whose time is up, whatever runs inside; not one that was prolonged meanwhile. */
  expire(id: string): Promise<void>
  /** Runs short work on one runtime after what was asked for before. */
  inOrder<T>(id: string, work: () => Promise<T>): Promise<T>
  /**
   * The same for work inside it, which may take as long as its tenant likes: the end of the lease does not wait for it.
   * @throws ControlError operation_failed when the runtime was ended meanwhile
   */
  inside<T>(id: string, work: () => Promise<T>): Promise<T>
  isDriven(id: string): boolean
  /** Removes instances of ours that no record wants, and ends records whose instance is gone. */
  sweep(): Promise<void>
  /** Takes up what a restart left. @param wanted ids of runtimes whose command goes on by itself */
  resume(wanted: ReadonlySet<string>): void
  close(): Promise<void>
}

export function createRegistry(deps: KeeperDeps): Registry {
  const { store, clock, logger } = deps
  const drives = new Map<string, { promise: Promise<RuntimeRow>; abort: AbortController }>()
  const queues = new KeyedQueue()
  /** What runs inside a runtime now, and by how many a runtime is being ended whatever runs inside. */
  const cuts = new Map<string, AbortController>()
  const ending = new Map<string, number>()
  const closing = new AbortController()
  const driver: DriverDeps = { ...deps, placing: new KeyedQueue(), tearDown: (id, reason, by) => takeDown(id, reason, by, {}) }

  function start(id: string, options: Parameters<Registry['drive']>[1]): Promise<RuntimeRow> {
    const known = drives.get(id)
    if (known !== undefined) return known.promise
    const abort = new AbortController()
    const signals = [abort.signal, closing.signal, ...(options.signal === undefined ? [] : [options.signal])]
    const full: DriveOptions = { token: options.token, emit: options.emit, signal: AbortSignal.any(signals) }
    const promise = drive(driver, id, full).finally(() => {
      if (drives.get(id)?.promise === promise) drives.delete(id)
      deps.onChange()
    })
    drives.set(id, { promise, abort })
    return promise
  }

  /** Ends a drive, and waits until it has let go. Its own teardown must not wait for itself: that goes by `takeDown`. */
  async function stopDriving(id: string): Promise<void> {
    const driven = drives.get(id)
    if (driven === undefined) return
    driven.abort.abort(tornDown())
    await driven.promise.catch(() => undefined)
  }

  /** Runs work inside a runtime until it is cut off. One at a time for each runtime, since its queue calls it. */
  async function untilCut<T>(id: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (ending.has(id)) throw tornDown()
    const cut = new AbortController()
    cuts.set(id, cut)
    const cutOff = new Promise<never>((_resolve, reject) => cut.signal.addEventListener('abort', () => reject(cut.signal.reason)))
    try {
      return await Promise.race([work(cut.signal), cutOff])
    } finally {
      cuts.delete(id)
    }
  }

  /** Runs what ends a runtime in its turn, but waits for nothing inside it: that is cut off. */
  async function cutAndRun<T>(id: string, work: () => Promise<T>): Promise<T> {
    ending.set(id, (ending.get(id) ?? 0) + 1)
    cuts.get(id)?.abort(tornDown())
    try {
      return await queues.run(id, work)
    } finally {
      const others = (ending.get(id) ?? 1) - 1
      if (others === 0) ending.delete(id)
      else ending.set(id, others)
    }
  }

  async function takeDown(id: string, reason: string, by: EndedBy, options: { keepVolume?: boolean }): Promise<TeardownOutcome> {
    const away = await awayAtEnd(mustGet(store, id), by)
    const row = mustGet(store, id)
    const at = clock.now()
    if (row.state === 'gone') return { payload: { teardown: 'deleted', runtime_id: id, already: true } }
    if (row.state === 'requested') {
      await persist(deps, step(id, 'requested', 'gone', reason, at, { input: null }), ...deps.leases.end(id, by, at))
      deps.leases.wake()
      return { payload: { teardown: 'deleted', runtime_id: id } }
    }
    const keepVolume = options.keepVolume ?? row.keepVolume
    const collected = row.protocol === null && row.result === null && row.state !== 'teardown' ? await collectFrom(deps, row) : undefined
    const kept = keepOutputs(deps, row, collected)
    const patch = { keepVolume, ...patchOfAway(away), ...(collected === undefined ? {} : { result: resultOf(collected) }) }
    const toTeardown = (from: RuntimeState, when: number) => {
      const end = endingOf(away, by, when)
      return [step(id, from, 'teardown', reason, when, patch), ...deps.leases.end(id, end.by, end.at)]
    }
    let persistError: string | undefined
    const write = async (...commands: readonly Command<unknown>[]) => {
      try {
        await persist(deps, ...commands)
        persistError = undefined
      } catch (error) {
        if (isPylonError(error, 'shutting_down')) throw error
        persistError = messageOf(error)
        logger.error({ runtime_id: id, error: persistError }, 'the teardown of a runtime could not be written; it goes on')
      }
    }
    await write(...kept, ...toTeardown(row.state, at))
    deps.leases.wake()
    const payload = await remove(row, keepVolume)
    const from = getRuntime(store, id)?.state ?? 'gone'
    if (from !== 'gone') {
      const end = clock.now()
      await write(
        ...(from === 'teardown' ? [] : toTeardown(from, end)),
        step(id, 'teardown', 'gone', reason, end, { input: null, handle: null }),
      )
      deps.leases.wake()
    }
    deps.lookout.forget(id)
    deps.onChange()
    return persistError === undefined ? { payload } : { payload, persistError }
  }

  /** A last look where money depends on it: one that died a moment ago was not had to its end. */
  async function awayAtEnd(row: RuntimeRow, by: EndedBy): Promise<Away | null> {
    const isRunning = row.state === 'ready' || row.state === 'unreachable'
    const isPaid = leasesOf(store, row.id).some((lease) => lease.state === 'active')
    if (!isRunning || !isPaid || (by !== 'time' && by !== 'tenant') || row.handle === null) return awayOf(row)
    return (await deps.lookout.look(row)).away
  }

  async function remove(row: RuntimeRow, keepVolume: boolean): Promise<Json> {
    const adapter = deps.substrates().get(row.provider)
    // A crash may have come between the instance and the note of its handle.
    const known = getRuntime(store, row.id)?.handle ?? null
    const found = known === null ? (await adapter.listOwned?.())?.find((owned) => owned.runtimeId === row.id) : { handle: known }
    if (found === undefined) return { teardown: 'deleted', runtime_id: row.id }
    const { handle } = found
    if (handle === null) throw fail('runtime_unreachable', 'the instance is there and cannot be reached now')
    return await adapter.teardown(handle, { keepVolume })
  }

  async function recover(id: string, emit: Emit, cut: AbortSignal): Promise<RuntimeRow> {
    const row = mustGet(store, id)
    if (row.protocol === null) throw fail('unsupported_operation', 'a one-shot run is not recovered: run it again')
    if (row.state !== 'ready' && row.state !== 'unreachable') throw fail('runtime_not_ready', `the runtime is ${row.state}`)
    const adapter = deps.substrates().get(row.provider)
    if (adapter.recover === undefined || row.handle === null) throw fail('unsupported_operation', `${row.provider} cannot recover`)
    emit({ phase: 'provisioning', runtime_id: id, provider: row.provider, message: 'recovering' })
    const signal = AbortSignal.any([closing.signal, cut, AbortSignal.timeout(deps.config().provision_timeout_s * 1000)])
    try {
      await adapter.recover(row.handle, signal)
      await untilReady(deps, row, row.handle, signal, emit)
    } catch (error) {
      if (!isPylonError(error, 'runtime_gone')) throw toControlError(error, 'operation_failed')
      cut.throwIfAborted()
      const away = awayOf(row) ?? { cause: 'host', since: clock.now() }
      await persist(deps, step(id, row.state, 'provisioning', 'the instance is gone and is made anew', clock.now(), patchOfAway(away)))
      return await start(id, { emit })
    }
    if (row.state === 'unreachable') await persist(deps, step(id, 'unreachable', 'ready', 'recovered', clock.now(), WELL))
    return mustGet(store, id)
  }

  async function sweepSubstrate(provider: RuntimeRow['provider']): Promise<void> {
    const adapter = deps.substrates().get(provider)
    if (adapter.listOwned === undefined || !deps.substrates().probe(provider).usable) return
    const before = runtimesIn(store, ['ready', 'unreachable']).filter((row) => row.provider === provider)
    const owned = await adapter.listOwned()
    for (const { runtimeId, handle } of owned) {
      const row = getRuntime(store, runtimeId)
      if ((row !== undefined && mayHaveInstance(row.state)) || drives.has(runtimeId) || handle === null) continue
      logger.warn({ runtime_id: runtimeId, provider }, 'an instance without a record is removed')
      await adapter.teardown(handle, { keepVolume: row?.keepVolume ?? false })
    }
    const ids = new Set(owned.map((entry) => entry.runtimeId))
    for (const row of before) {
      if (ids.has(row.id) || getRuntime(store, row.id)?.state !== row.state || row.protocol === null) continue
      await queues.run(row.id, async () => {
        const now = getRuntime(store, row.id)
        if (now?.state !== 'ready' && now?.state !== 'unreachable') return
        await persist(deps, step(row.id, now.state, 'failed', 'the instance is gone', clock.now()))
        await takeDown(row.id, 'the instance is gone', 'node', {})
      })
    }
  }

  /** Nobody waits for the answer: failures are tried again by the next look. */
  function background(id: string, work: () => Promise<unknown>): void {
    void work().catch((error: unknown) => {
      if (!closing.signal.aborted && !(error instanceof ControlError)) {
        logger.warn({ runtime_id: id, error: messageOf(error) }, 'a runtime could not be brought further yet')
      }
    })
  }

  return {
    drive: start,

    async tearDown(id, reason, by, options = {}) {
      const work = async () => {
        try {
          return await takeDown(id, reason, by, options)
        } catch (error) {
          throw toControlError(error, 'teardown_failed')
        }
      }
      await stopDriving(id)
      // A tenant's own comes after what they asked for before.
      return by === 'tenant' ? await queues.run(id, work) : await cutAndRun(id, work)
    },

    async expire(id) {
      await cutAndRun(id, async () => {
        if ((getRuntime(store, id)?.expiresAt ?? Number.POSITIVE_INFINITY) > clock.now()) return
        await stopDriving(id)
        await takeDown(id, 'its time is up', 'time', {})
      })
    },

    recover: (id, emit) => queues.run(id, () => untilCut(id, (signal) => recover(id, emit, signal))),
    inOrder: (id, work) => queues.run(id, work),
    inside: (id, work) => queues.run(id, () => untilCut(id, work)),
    isDriven: (id) => drives.has(id),

    async sweep() {
      for (const provider of deps.substrates().providers) {
        await sweepSubstrate(provider).catch((error: unknown) => {
          if (!closing.signal.aborted) logger.warn({ provider, error: messageOf(error) }, 'a substrate could not be swept')
        })
      }
    },

    resume(wanted) {
      for (const row of runtimesIn(store, ['requested', 'provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown'])) {
        if ((wanted.has(row.id) && row.state !== 'teardown') || drives.has(row.id)) continue
        const ends = row.state === 'teardown' || row.state === 'failed' || row.state === 'requested'
        const isOver = row.state === 'ended' && destroysItself(decodeRuntimeSpec(row.spec).policies)
        // A run whose command nobody waits for any more, or a managed runtime that was being made anew.
        const isLeft = row.protocol === null && row.state !== 'ended'
        if (ends || isOver || isLeft) background(row.id, () => queues.run(row.id, () => takeDown(row.id, row.stateReason, 'node', {})))
        else if (row.state === 'provisioning') background(row.id, () => start(row.id, { emit: () => undefined }))
      }
    },

    async close() {
      closing.abort(new PylonError('shutting_down', 'The node is shutting down.'))
      await Promise.allSettled([...drives.values()].map((driven) => driven.promise))
      await queues.idle()
    },
  }
}

const tornDown = (): ControlError => fail('operation_failed', 'the runtime was torn down meanwhile', undefined)
