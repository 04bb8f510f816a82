/** What is due for runtimes by the clock: the health of managed ones, ends of leases, snapshots with retention, sweeps, forgetting. */
import { isPylonError, messageOf } from '../../base/errors.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import { destroysItself } from '../../runtime/retention.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import { pruneRequests } from '../../store/selling/control-requests.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { noteSnapshot, patchRuntime, pruneRuntimes, type RuntimeRow, runtimesIn } from '../../store/selling/runtimes.ts'
import { scheduledName, surplusSnapshots } from './backups.ts'
import { type KeeperDeps, step } from './keeper.ts'
import { type Away, patchOfAway, WELL } from './lookout.ts'
import type { Registry } from './registry.ts'

const TICK_MS = 1000
const HEALTH_EVERY_MS = 10_000
const SWEEP_EVERY_MS = 600_000
const RETRY_TEARDOWN_MS = 15_000
const PRUNE_EVERY_MS = 600_000
const DAY_MS = 86_400_000

export interface Upkeep {
  start(): void
  close(): Promise<void>
}

/** @param healthEveryMs shorter in tests */
export function createUpkeep(deps: KeeperDeps, registry: Registry, healthEveryMs = HEALTH_EVERY_MS): Upkeep {
  const { store, clock, logger } = deps
  const due = { health: 0, sweep: clock.now() + SWEEP_EVERY_MS, teardown: 0, prune: 0, snapshots: 0 }
  let cancel: () => void = () => undefined
  let current: Promise<void> = Promise.resolve()
  let closed = false
  /** What goes on beside the ticks: no runtime holds up the rest. */
  const beside = new Set<string>()

  /** One at a time for each runtime and kind of work. */
  function alongside(what: string, row: RuntimeRow, failure: string, work: () => Promise<unknown>): void {
    const name = `${what} ${row.id}`
    if (beside.has(name)) return
    beside.add(name)
    void guarded(failure, work).finally(() => beside.delete(name))
  }

  function isDue(what: keyof typeof due, everyMs: number): boolean {
    if (clock.now() < due[what]) return false
    due[what] = clock.now() + everyMs
    return true
  }

  async function guarded(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!closed) logger.warn({ error: messageOf(error) }, `${what}; it is tried again`)
    }
  }

  async function tick(): Promise<void> {
    await guarded('leases could not be looked at', () => deps.leases.tick())
    endExpired()
    if (isDue('health', healthEveryMs)) lookAtAll()
    if (isDue('teardown', RETRY_TEARDOWN_MS)) retryTeardowns()
    if (isDue('snapshots', healthEveryMs)) snapshotAll()
    if (isDue('sweep', SWEEP_EVERY_MS)) await guarded('orphans could not be looked for', () => registry.sweep())
    if (isDue('prune', PRUNE_EVERY_MS)) await guarded('old records could not be forgotten', prune)
  }

  function endExpired(): void {
    const now = clock.now()
    const over = runtimesIn(store, ['provisioning', 'ready', 'unreachable', 'ended']).filter((row) => (row.expiresAt ?? now + 1) <= now)
    for (const row of over) alongside('end', row, 'a runtime whose time is up could not be ended', () => registry.expire(row.id))
  }

  function lookAtAll(): void {
    const rows = runtimesIn(store, ['ready', 'unreachable']).filter((row) => row.protocol !== null && !registry.isDriven(row.id))
    for (const row of rows) alongside('look', row, 'a runtime could not be looked at', () => lookAt(row))
  }

  async function lookAt(row: RuntimeRow): Promise<void> {
    if (row.handle === null) return
    const { away, isGone, message } = await deps.lookout.look(row)
    if (closed) return
    if (isGone) return await lose(row, message, away)
    if (away === null) {
      if (row.state === 'ready') return
      const well = step(row.id, 'unreachable', 'ready', 'reachable again', clock.now(), WELL)
      await persistIfUnmoved(deps, well, ...tell(row, 'ready', 'reachable again'))
      deps.nudge()
    } else if (row.state === 'ready') {
      const toAway = step(row.id, 'ready', 'unreachable', message, clock.now(), patchOfAway(away))
      await persistIfUnmoved(deps, toAway, ...tell(row, 'ready', `unreachable: ${message}`))
      deps.nudge()
    } else if (isTooLong(away) && row.expiresAt !== null) {
      await lose(row, `unreachable for too long: ${message}`, away)
    } else if (away.cause !== row.awayCause) {
      await persist(deps, patchRuntime({ id: row.id, patch: patchOfAway(away), at: clock.now() }))
    }
  }

  /** One that ended by itself waits for its tenant as long as its lease runs. */
  const isTooLong = ({ cause, since }: Away) => cause !== 'guest' && clock.now() - since > deps.config().unreachable_after_s * 1000

  const tell = (row: RuntimeRow, phase: 'ready' | 'failed', message: string) =>
    deps.notify(row.ownerPubkey, row.id, { phase, runtime_id: row.id, provider: row.provider, message })

  /** The node could not keep it: what was not had is paid back. */
  async function lose(row: RuntimeRow, reason: string, away: Away | null): Promise<void> {
    const toFailed = step(row.id, row.state, 'failed', reason, clock.now(), patchOfAway(away))
    if (!(await persistIfUnmoved(deps, toFailed, ...tell(row, 'failed', reason)))) return
    deps.nudge()
    await registry.tearDown(row.id, reason, 'node')
  }

  /** Those that nobody brings further: torn down in vain, or left when a write failed; what was paid for them goes back. */
  function retryTeardowns(): void {
    for (const row of runtimesIn(store, ['requested', 'provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown'])) {
      if (isKept(row) || registry.isDriven(row.id) || clock.now() - row.updatedAt <= RETRY_TEARDOWN_MS) continue
      const by = row.state === 'ended' ? 'completed' : 'node'
      alongside('end', row, 'a teardown failed', () => registry.tearDown(row.id, row.stateReason, by))
    }
  }

  /** Nobody has to drive it: a managed one that runs, or a run that is kept for a look. */
  function isKept(row: RuntimeRow): boolean {
    if (row.state === 'ended') return !destroysItself(decodeRuntimeSpec(row.spec).policies)
    return row.protocol !== null && (row.state === 'ready' || row.state === 'unreachable')
  }

  function snapshotAll(): void {
    const everyMs = deps.config().snapshot_every_s * 1000
    if (everyMs === 0) return
    for (const row of runtimesIn(store, ['ready'])) {
      const last = row.lastSnapshotAt ?? row.createdAt
      // Those of a lease take of its own quota, so its tenant says when.
      if (leasesOf(store, row.id).length > 0) continue
      if (row.protocol === null || clock.now() - last < everyMs) continue
      alongside('snapshot', row, 'a scheduled snapshot failed', () => registry.inside(row.id, () => snapshotOne(row)))
    }
  }

  async function snapshotOne(row: RuntimeRow): Promise<void> {
    const adapter = deps.substrates().get(row.provider)
    const at = clock.now()
    // Noted first: one that can't be made is tried at the next turn, not every second.
    await persist(deps, noteSnapshot({ id: row.id, at }))
    if (row.handle === null || adapter.snapshot === undefined) return
    try {
      await adapter.snapshot(row.handle, scheduledName(at))
    } catch (error) {
      if (isPylonError(error, 'runtime_unsupported')) return
      throw error
    }
    const snapshots = (await adapter.listSnapshots?.(row.handle)) ?? []
    for (const name of surplusSnapshots(snapshots, deps.config().snapshot_keep)) await adapter.deleteSnapshot?.(row.handle, name)
  }

  async function prune(): Promise<void> {
    const now = clock.now()
    const { gone_days: days, requests_kept: keep } = deps.config()
    await store.write(pruneRuntimes({ before: now - days * DAY_MS, limit: 500 }))
    await store.write(pruneRequests({ before: now - days * DAY_MS, keep }))
  }

  function schedule(): void {
    if (closed) return
    cancel = clock.after(TICK_MS, () => {
      current = tick().finally(schedule)
    })
  }

  return {
    start: schedule,
    async close() {
      closed = true
      cancel()
      await current.catch(() => undefined)
    },
  }
}
