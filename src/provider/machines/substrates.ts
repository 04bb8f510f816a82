/** The adapters of this node, whether each is usable and isolates, and what is free on it; looked at now and then. */
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import type { ControlProvider } from '../../nostr/control/vocabulary.ts'
import type { AdapterProbe, Capacity, PersistentVolume, ProvisionInput, RuntimeAdapter } from '../../runtime/adapter.ts'

const NO_CAPACITY: Capacity = { instances: 0, vcpus: 0, memoryMib: 0, free: { instances: 0, vcpus: 0, memoryMib: 0 } }
/** A substrate that does not answer holds nobody up for longer. */
const LOOK_MS = 10_000
/** What those that were replaced have under way gets so long to end. */
const REPLACE_MS = 10_000
/** What trying its sizes may take. */
const PROOF_MS = 45_000

export class Substrates {
  readonly #adapters = new Map<ControlProvider, RuntimeAdapter>()
  readonly #probes = new Map<ControlProvider, AdapterProbe>()
  readonly #capacities = new Map<ControlProvider, Capacity>()
  /** What did not hold its sizes when it was tried. */
  readonly #loose = new Map<ControlProvider, { readonly reason: string; readonly nextStep: string }>()
  /** Those that did not say what they have free, and why. */
  readonly #silent = new Map<ControlProvider, unknown>()
  readonly #scope: Scope

  readonly #make: (scope: Scope) => readonly RuntimeAdapter[]
  /** Of the adapters as they are now. */
  #adapterScope: Scope

  /** @param make those that config names now, each with what it waits for under the scope */
  constructor(scope: Scope, make: (scope: Scope) => readonly RuntimeAdapter[]) {
    this.#scope = scope
    this.#make = make
    this.#adapterScope = this.#open()
  }

  /** Those that config names now take the place of those before, which end what they have under way. */
  replace(): void {
    for (const seen of [this.#adapters, this.#probes, this.#capacities, this.#loose, this.#silent]) seen.clear()
    this.#adapterScope.end(REPLACE_MS)
    this.#adapterScope = this.#open()
  }

  #open(): Scope {
    const scope = this.#scope.child('adapters')
    for (const adapter of this.#make(scope)) this.#adapters.set(adapter.provider, adapter)
    return scope
  }

  get providers(): ControlProvider[] {
    return [...this.#adapters.keys()]
  }

  get adapters(): readonly RuntimeAdapter[] {
    return [...this.#adapters.values()]
  }

  /** @throws runtime_unreachable when this node has no such substrate (any more) */
  get(provider: ControlProvider): RuntimeAdapter {
    const adapter = this.#adapters.get(provider)
    if (adapter === undefined) throw new PylonError('runtime_unreachable', `The substrate ${provider} is not configured on this node.`)
    return adapter
  }

  /** As seen at the last look. */
  probe(provider: ControlProvider): AdapterProbe {
    const seen = this.#probes.get(provider) ?? { usable: false, isolated: false, reason: 'not looked at yet' }
    const loose = this.#loose.get(provider)
    return loose === undefined || !seen.usable ? seen : { ...seen, isolated: false, ...loose }
  }

  capacity(provider: ControlProvider): Capacity {
    return this.#capacities.get(provider) ?? NO_CAPACITY
  }

  /** Once each as it is now was looked at: those that config named a moment ago were not yet. Never rejects. */
  async seen(): Promise<void> {
    if (this.providers.some((provider) => !this.#probes.has(provider))) await this.look()
  }

  /** Looks at all of them. Never rejects. */
  async look(): Promise<void> {
    await Promise.all(
      this.adapters.map(async (adapter) => {
        const probe = await this.#withinTime(() => adapter.probe()).catch((error: unknown) => ({
          usable: false,
          isolated: false,
          reason: messageOf(error),
        }))
        // Its place may have been taken meanwhile.
        if (this.#adapters.get(adapter.provider) !== adapter) return
        this.#probes.set(adapter.provider, probe)
        await this.lookAtCapacity(adapter.provider)
      }),
    )
  }

  /** Why it could not say what it has free at the last look: not knowing is not being full. @throws as it did then */
  assertSpeaks(provider: ControlProvider): void {
    const error = this.#silent.get(provider)
    if (error !== undefined) throw error
  }

  async lookAtCapacity(provider: ControlProvider): Promise<Capacity> {
    const usable = this.probe(provider).usable
    let problem: unknown
    const capacity = usable
      ? await this.#withinTime(() => this.get(provider).capacity()).catch((error: unknown) => {
          problem = error
          return NO_CAPACITY
        })
      : NO_CAPACITY
    if (problem === undefined) this.#silent.delete(provider)
    else this.#silent.set(provider, problem)
    this.#capacities.set(provider, capacity)
    return capacity
  }

  /** Whether it would make this, as it says itself. @throws as its provision does; runtime_unreachable */
  async assertPossible(provider: ControlProvider, input: ProvisionInput): Promise<void> {
    await this.#withinTime(() => this.get(provider).assertPossible(input))
  }

  /** Undefined where it has none that outlive runtimes. @throws runtime_unreachable */
  async volumes(provider: ControlProvider): Promise<readonly PersistentVolume[] | undefined> {
    const adapter = this.get(provider)
    return await this.#withinTime(async () => adapter.listVolumes?.())
  }

  /** Tries each whether its sizes hold; one that fails sells nothing until it is tried again. */
  async proveSizes(): Promise<void> {
    for (const adapter of this.adapters) {
      const { usable, lacks } = this.probe(adapter.provider)
      if (adapter.proveSizes === undefined || !usable || lacks === 'runs') continue
      const problem = await this.#withinTime(async () => adapter.proveSizes?.(), PROOF_MS).catch((error: unknown) => ({
        reason: `Whether sizes hold could not be tried: ${messageOf(error)}`,
        nextStep: 'docs/incus.md says how to make a pool that holds sizes.',
      }))
      if (problem === undefined) this.#loose.delete(adapter.provider)
      else this.#loose.set(adapter.provider, problem)
    }
  }

  status() {
    return this.providers.map((provider) => ({ provider, ...this.probe(provider) }))
  }

  async #withinTime<T>(work: () => Promise<T>, ms = LOOK_MS): Promise<T> {
    try {
      return await this.#scope.within('substrate', ms, work)
    } catch (error) {
      throw isPylonError(error, 'timeout') ? new PylonError('runtime_unreachable', 'The substrate does not answer.') : error
    }
  }
}
