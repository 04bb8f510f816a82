/**
 * Machines for rent, as a substrate has them: in memory, slow by the clock, there for whatever process of its node comes next. It
 * refuses to make some, loses what it has, and is away.
 */
import type { Clock } from '../../src/base/clock.ts'
import { PylonError } from '../../src/base/errors.ts'
import { asRecord, type Json } from '../../src/base/json.ts'
import { type Random, randomBelow } from '../../src/base/random.ts'
import type { ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle } from '../../src/runtime/adapter.ts'

interface Instance {
  readonly handle: { readonly instance: string }
  readonly readyAtMs: number
}

/** Whoever asks: a process that died hears no answer. */
interface Asker {
  readonly isAlive: boolean
}

const PLACES = 3
const MAX_WORK_MS = 2000
const MAX_BOOT_MS = 4000

export class Substrate {
  readonly instances = new Map<string, Instance>()
  /** Of all that were ever made. */
  readonly made = new Set<string>()
  /** So many of the next are not made. */
  failures = 0
  isAway = false
  readonly #clock: Clock
  readonly #random: Random

  constructor(clock: Clock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  /** All that it has is gone. */
  lose(): void {
    this.instances.clear()
  }

  adapterOf(asker: Asker): RuntimeAdapter {
    const { instances } = this
    return {
      provider: 'workers',
      probe: async () => ({ usable: true, isolated: true, network: 'none' }),
      capacity: async () => {
        const free = { instances: Math.max(0, PLACES - instances.size), vcpus: PLACES, memoryMib: 1024 }
        return { instances: PLACES, vcpus: PLACES, memoryMib: 1024, free }
      },
      assertPossible: async (input) => assertPossible(input),
      provision: (input, signal) =>
        this.#work(asker, signal, () => {
          assertPossible(input)
          if (this.failures > 0) {
            this.failures--
            throw new PylonError('runtime_failed', 'There is no machine.')
          }
          const { runtimeId } = input
          const readyAtMs = this.#clock.now() + randomBelow(this.#random, MAX_BOOT_MS)
          const instance = instances.get(runtimeId) ?? { handle: { instance: runtimeId }, readyAtMs }
          instances.set(runtimeId, instance)
          this.made.add(runtimeId)
          return { handle: instance.handle, protocols: ['pi'], metadata: {} }
        }),
      readiness: async (handle) => this.#readinessOf(this.#instanceOf(handle)),
      processWelcome: async () => ({ processed: false }),
      teardown: (handle) =>
        this.#work(asker, undefined, (): Json => {
          instances.delete(idOf(handle))
          return { teardown: 'deleted' }
        }),
      listOwned: () =>
        this.#work(asker, undefined, () => [...instances].map(([runtimeId, instance]) => ({ runtimeId, handle: instance.handle }))),
    }
  }

  /** Takes its time, and is done whether or not the one who asked lives to hear of it. */
  async #work<T>(asker: Asker, signal: AbortSignal | undefined, work: () => T): Promise<T> {
    if (!asker.isAlive) return await new Promise(() => undefined)
    await this.#clock.sleep(randomBelow(this.#random, MAX_WORK_MS), signal)
    if (this.isAway) throw new PylonError('runtime_unreachable', 'The substrate is away.')
    const done = work()
    return asker.isAlive ? done : await new Promise(() => undefined)
  }

  #readinessOf({ readyAtMs }: Instance): Readiness {
    if (this.isAway) return { state: 'unreachable', message: 'the substrate is away' }
    return readyAtMs <= this.#clock.now() ? { state: 'ready', message: 'it runs' } : { state: 'starting', message: 'it boots' }
  }

  #instanceOf(handle: RuntimeHandle): Instance {
    const found = this.instances.get(idOf(handle))
    if (found === undefined) throw new PylonError('runtime_gone', 'The machine is no more.')
    return found
  }
}

const idOf = (handle: RuntimeHandle): string => String(asRecord(handle)['instance'])

/** It has one kind of machine, for agents that speak pi. */
function assertPossible({ protocol, target, params = {}, spec }: ProvisionInput): void {
  if (target !== undefined || Object.keys(params).length > 0) throw new PylonError('invalid_request', 'There is nothing to choose.')
  if (protocol !== 'pi') throw new PylonError('runtime_unsupported', 'It serves agents over pi alone.')
  if (spec.mounts.length > 0) throw new PylonError('spec_mount_refused', 'It has no place for volumes.')
}
