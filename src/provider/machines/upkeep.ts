/** What is due by the clock for all runtimes together: leases, sweeps of substrates, forgetting. What is due for one its actor knows. */
import { messageOf } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import { pruneRequests } from '../../store/selling/control-requests.ts'
import { getRuntime, pruneRuntimes, type RuntimeRow, runtimesIn } from '../../store/selling/runtimes.ts'
import type { MachineDeps } from './deps.ts'
import { mayHaveInstance } from './runtime-life.ts'

const LEASES_EVERY_MS = 1000
const SWEEP_EVERY_MS = 600_000
const PRUNE_EVERY_MS = 600_000
const DAY_MS = 86_400_000

export type UpkeepDeps = Pick<MachineDeps, 'store' | 'logger' | 'config' | 'substrates' | 'leases' | 'runtimes'>

export class Upkeep {
  readonly #scope: Scope
  readonly #deps: UpkeepDeps

  constructor(scope: Scope, deps: UpkeepDeps) {
    this.#scope = scope
    this.#deps = deps
  }

  /** Sweeps, then keeps up until its scope ends. */
  async start(): Promise<void> {
    await this.sweep()
    this.#scope.spawn('prune', () => this.#prune())
    this.#scope.every('leases', LEASES_EVERY_MS, () => this.#deps.leases.tick())
    this.#scope.every('sweep', SWEEP_EVERY_MS, () => this.sweep())
    this.#scope.every('prune', PRUNE_EVERY_MS, () => this.#prune())
  }

  /** Removes instances of ours that no record wants, and ends records whose instance is gone. */
  async sweep(): Promise<void> {
    for (const provider of this.#deps.substrates.providers) {
      try {
        await this.#sweepSubstrate(provider)
      } catch (error) {
        if (!this.#scope.isClosing) this.#deps.logger.warn({ provider, error: messageOf(error) }, 'a substrate could not be swept')
      }
    }
  }

  async #sweepSubstrate(provider: RuntimeRow['provider']): Promise<void> {
    const { store, logger, substrates, runtimes } = this.#deps
    const adapter = substrates.get(provider)
    if (adapter.listOwned === undefined || !substrates.probe(provider).usable) return
    const before = runtimesIn(store, ['ready', 'unreachable']).filter((row) => row.provider === provider)
    const owned = await adapter.listOwned()
    for (const { runtimeId, handle } of owned) {
      const row = getRuntime(store, runtimeId)
      if ((row !== undefined && mayHaveInstance(row.state)) || runtimes.isBrought(runtimeId) || handle === null) continue
      logger.warn({ runtime_id: runtimeId, provider }, 'an instance without a record is removed')
      await adapter.teardown(handle, { keepVolume: row?.keepVolume ?? false })
    }
    const ids = new Set(owned.map((entry) => entry.runtimeId))
    for (const row of before) {
      if (ids.has(row.id) || getRuntime(store, row.id)?.state !== row.state || row.protocol === null) continue
      await runtimes.of(row.id).lose('the instance is gone')
    }
  }

  async #prune(): Promise<void> {
    const { store, config } = this.#deps
    const { gone_days: days, requests_kept: keep } = config()
    const before = this.#scope.clock.now() - days * DAY_MS
    await store.write(pruneRuntimes({ before, limit: 500 }))
    await store.write(pruneRequests({ before, keep }))
  }
}
