/**
 * What runtimes behind somebody else's HTTP control plane have in common: one provision at a time for each, adopted where an
 * earlier try or a lost answer left it; agents of the owner's images alone; all that is under way owned by a scope of its own.
 * A substrate gives its requests (`look`, `make`, `see`, `remove`) and its reading of the answers (`judge`, `where`).
 */
import type { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import type {
  AdapterProbe,
  Capacity,
  ProviderKind,
  Provisioned,
  ProvisionInput,
  Readiness,
  RuntimeAdapter,
  RuntimeHandle,
  Welcome,
} from '../adapter.ts'
import { PROTOCOLS, type Protocol } from '../contract/prompt.ts'
import { shapeError } from '../contract/spec.ts'
import { assertAgentRequest } from './agent-request.ts'
import type { Journal } from './journal.ts'

export interface RemoteDeps {
  readonly dialer: Dialer
  readonly journal: Journal
  /** Of this adapter alone. */
  readonly scope: Scope
}

type Fields = Record<string, Json>
export type RemoteHandle = Fields & { readonly runtime_id: string; readonly protocol: Protocol | null }

/** What a control plane is like, whatever it is asked. */
export interface RemoteKind<Handle, Params> {
  readonly provider: ProviderKind
  readonly handle: z.ZodType<Handle>
  readonly params: z.ZodType<Params>
  /** Runtimes at most where it does not tell, and what each gets that names no size. */
  readonly size: { readonly instances: number; readonly vcpus: number; readonly memoryMib: number }
  /** What the owner does where it cannot be used. */
  readonly nextStep: string
  /** Why it takes no welcome. */
  readonly noWelcome: string
}

/** A runtime that is there. */
export interface Made<Handle> {
  readonly handle: Handle
  readonly region?: string
  /** Beside `where`. */
  readonly metadata?: Fields
}

export abstract class RemoteAdapter<Handle extends RemoteHandle, Params, Seen> implements RuntimeAdapter {
  readonly provider: ProviderKind
  protected readonly scope: Scope
  /** Where a control plane keeps no labels: which of its things are whose is remembered here. */
  protected readonly journal: Journal
  readonly #kind: RemoteKind<Handle, Params>

  constructor(kind: RemoteKind<Handle, Params>, { scope, journal }: Pick<RemoteDeps, 'scope' | 'journal'>) {
    this.provider = kind.provider
    this.scope = scope
    this.journal = journal
    this.#kind = kind
  }

  /** What the owner should know of one that answers. @throws what is wrong with one that does not */
  protected abstract look(): Promise<Pick<AdapterProbe, 'reason' | 'nextStep'>>
  /** What an earlier try made is adopted, also where its answer was lost. On failure nothing is left behind, or the journal knows of it. */
  protected abstract make(input: ProvisionInput, params: Params, signal: AbortSignal): Promise<Made<Handle>>
  /** Undefined where it is no more. */
  protected abstract see(handle: Handle, signal: AbortSignal): Promise<Seen | undefined>
  protected abstract judge(seen: Seen): Readiness
  /** Names of what it consists of, for people: no secrets. */
  protected abstract where(handle: Handle): Fields
  /** Gone is fine. @returns what the payload says beside `where`; another `teardown` than deleted where it was not */
  protected abstract remove(handle: Handle, keepVolume: boolean): Promise<Fields>

  async probe(): Promise<AdapterProbe> {
    try {
      return { usable: true, isolated: true, ...(await this.look()) }
    } catch (error) {
      return { usable: false, isolated: true, reason: messageOf(error), nextStep: this.#kind.nextStep }
    }
  }

  async capacity(): Promise<Capacity> {
    const { instances, vcpus, memoryMib } = this.#kind.size
    const times = (count: number) => ({ instances: count, vcpus: count * vcpus, memoryMib: count * memoryMib })
    return { ...times(instances), free: times(Math.max(0, instances - (await this.used()))) }
  }

  /** How many of this node's there are. */
  protected async used(): Promise<number> {
    return this.journal.entries().length
  }

  /** What can be said of a request without asking. @throws runtime_unsupported, spec_mount_refused, invalid_request */
  protected decode(input: ProvisionInput): Params {
    assertAgentRequest(this.provider, input)
    const parsed = this.#kind.params.safeParse(input.params ?? {})
    if (parsed.success) return parsed.data
    throw shapeError(`The ${this.provider} parameters`, 'invalid_request', parsed.error)
  }

  async assertPossible(input: ProvisionInput): Promise<void> {
    this.decode(input)
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    const params = this.decode(input)
    // The same one asked for again waits for the first.
    return await this.scope.once(`provision ${input.runtimeId}`, async () => {
      const { metadata, ...made } = await this.make(input, params, signal)
      return { ...made, protocols: [...PROTOCOLS], metadata: { ...this.where(made.handle), ...metadata } }
    })
  }

  async readiness(raw: RuntimeHandle, signal: AbortSignal): Promise<Readiness> {
    const handle = this.handleOf(raw)
    try {
      return this.judge(this.present(handle, await this.see(handle, signal)))
    } catch (error) {
      if (isPylonError(error, 'runtime_unreachable')) return { state: 'unreachable', message: error.message }
      throw error
    }
  }

  async processWelcome(_raw: RuntimeHandle, _welcome: Welcome): Promise<Json> {
    return { processed: false, reason: this.#kind.noWelcome }
  }

  async teardown(raw: RuntimeHandle, { keepVolume }: { readonly keepVolume: boolean }): Promise<Json> {
    const handle = this.handleOf(raw)
    return await this.scope.run(`teardown ${handle.runtime_id}`, async () => {
      const removed = await this.remove(handle, keepVolume)
      if (removed['teardown'] !== 'skipped') this.journal.delete(handle.runtime_id)
      return { teardown: 'deleted', ...this.where(handle), ...removed }
    })
  }

  async listOwned(): Promise<readonly { readonly runtimeId: string; readonly handle: RuntimeHandle }[]> {
    return this.journal.entries().map(({ runtimeId, note }) => ({ runtimeId, handle: note }))
  }

  /** @throws internal for what this adapter did not make */
  protected handleOf(raw: RuntimeHandle): Handle {
    const parsed = this.#kind.handle.safeParse(raw)
    if (parsed.success) return parsed.data
    throw new PylonError('internal', `This is no handle of a ${this.provider} runtime.`)
  }

  /** @throws runtime_gone where what was looked for is not there */
  protected present<T>(handle: Handle, found: T | undefined): T {
    if (found !== undefined) return found
    const where = Object.values(this.where(handle)).join(', ')
    throw new PylonError('runtime_gone', `The ${this.provider} runtime ${handle.runtime_id} (${where}) is no more: provision a new one.`)
  }
}
