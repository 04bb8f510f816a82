/** The commands of the control plane, each to what does it. */

import type { Json } from '../../base/json.ts'
import type { CommandOf, ControlCommand } from '../../nostr/control/commands.ts'
import type { ControlResult } from '../../nostr/control/envelopes.ts'
import { persist } from '../../store/persist.ts'
import { bindRequest, type ControlRequestRow } from '../../store/selling/control-requests.ts'
import { getLease, leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, type RuntimeRow } from '../../store/selling/runtimes.ts'
import { type Begun, type Claimed, leaseIdOf } from './claims.ts'
import type { MachineDeps } from './deps.ts'
import { fail } from './failures.ts'
import { listSnapshots, logs, openInstance } from './instance-commands.ts'
import type { Emit } from './machines.ts'
import { collect } from './outputs.ts'
import type { RuntimeActor } from './runtime-actor.ts'
import { summaryView } from './views.ts'

export type CommandsDeps = Pick<
  MachineDeps,
  'store' | 'clock' | 'substrates' | 'market' | 'leases' | 'runtimes' | 'creation' | 'views' | 'volumes'
>

export class Commands {
  readonly #deps: CommandsDeps

  constructor(deps: CommandsDeps) {
    this.#deps = deps
  }

  /** One that changes nothing. @throws ControlError */
  async read(requester: string, command: ControlCommand): Promise<ControlResult> {
    const { store, substrates, views, volumes } = this.#deps
    switch (command.command) {
      case 'get_runtime':
        return { runtime: await views.view(views.own(requester, command.runtime_id), true), payload: { operation: 'get_runtime' } }
      case 'list_runtimes':
        return await views.list(requester, command)
      case 'get_request':
        return views.requestView(requester, command)
      case 'list_volumes':
        return { runtime: summaryView('volume-list-summary'), payload: await volumes.list(requester, command) }
      case 'logs': {
        const row = views.own(requester, command.runtime_id)
        return await this.#answer(row, logs(store, substrates, row, command))
      }
      case 'collect': {
        const row = views.own(requester, command.runtime_id)
        return { runtime: views.viewNow(row), payload: collect(store, row, command) }
      }
      case 'list_snapshots': {
        const row = views.own(requester, command.runtime_id)
        return await this.#answer(row, listSnapshots(openInstance(substrates, row)))
      }
      default:
        throw fail('invalid_command', `${command.command} changes things`)
    }
  }

  /** One that changes things; from here on the mailbox of its runtime keeps the order. @throws ControlError */
  async begin(command: ControlCommand, claimed: Claimed): Promise<Begun> {
    if (command.command !== 'provision' && command.command !== 'run') return { answer: this.#change(command, claimed) }
    const { creation } = this.#deps
    const id = await creation.create(command, claimed)
    return { answer: creation.finish(id, command.command, claimed.emit, command.lease_token) }
  }

  /** What goes on with a command that a restart found under way; undefined: it has to be sent again. */
  resumed({ command, runtimeId }: ControlRequestRow): ((claimed: Claimed) => Promise<Begun>) | undefined {
    if (runtimeId === null) return undefined
    if (command === 'extend_lease')
      return async (claimed) => ({ answer: this.#finishExtension(this.#deps.runtimes.of(runtimeId), leaseIdOf(claimed), claimed.emit) })
    if (command !== 'provision' && command !== 'run') return undefined
    return async ({ emit }) => ({ answer: this.#deps.creation.finish(runtimeId, command, emit) })
  }

  async #change(command: ControlCommand, claimed: Claimed): Promise<ControlResult> {
    const { requester, emit } = claimed
    switch (command.command) {
      case 'teardown':
        return await this.#tearDown(command, claimed)
      case 'extend_lease':
        return await this.#extend(command, claimed)
      case 'delete_volume':
        return { runtime: summaryView('volume-list-summary'), payload: await this.#deps.volumes.remove(requester, command) }
      case 'recover': {
        const { views } = this.#deps
        const row = await this.#actor(views.own(requester, command.runtime_id)).recover(emit)
        emit({ phase: 'ready', runtime_id: row.id, provider: row.provider, message: 'recovered' })
        return { runtime: await views.view(row), payload: { operation: 'recover' } }
      }
      case 'process_welcome':
      case 'exec':
      case 'prompt':
      case 'snapshot':
      case 'restore': {
        const row = this.#deps.views.own(requester, command.runtime_id)
        return await this.#answer(row, this.#actor(row).inside(command, claimed))
      }
      default:
        throw fail('invalid_command', `${command.command} is not known here`)
    }
  }

  async #tearDown(command: CommandOf<'teardown'>, { requester, emit }: Claimed): Promise<ControlResult> {
    const { store, views } = this.#deps
    const row = views.own(requester, command.runtime_id)
    if (command.keep_volume === true && leasesOf(store, row.id).length > 0)
      throw fail('invalid_command', 'keep_volume: a lease leaves no volume behind')
    const about = { phase: 'teardown', runtime_id: row.id, provider: row.provider } as const
    emit({ ...about, message: 'teardown in progress' })
    const done = await this.#actor(row).tearDown('asked for by its owner', 'tenant', command.keep_volume)
    const isObject = typeof done.payload === 'object' && done.payload !== null && !Array.isArray(done.payload)
    const payload: Record<string, Json> = { operation: 'teardown', ...(isObject ? done.payload : { provider_payload: done.payload }) }
    if (done.persistError !== undefined) {
      emit({ ...about, message: 'the instance is gone, the record could not be written' })
      Object.assign(payload, { state_persist: 'failed', state_persist_error: done.persistError })
    }
    return { runtime: { ...(await views.view(getRuntime(store, row.id) ?? row)), lifecycle_phase: 'teardown' }, payload }
  }

  async #extend(command: CommandOf<'extend_lease'>, claimed: Claimed): Promise<ControlResult> {
    const { store, market, leases, views } = this.#deps
    const { requester, idempotencyKey, emit } = claimed
    const row = views.own(requester, command.runtime_id)
    if (row.state !== 'ready' && row.state !== 'unreachable') throw fail('runtime_not_ready', `the runtime is ${row.state}`)
    const last = leasesOf(store, row.id).findLast((lease) => lease.state === 'active')
    if (last === undefined) throw fail('unsupported_operation', 'the runtime is not leased: nothing is to be extended', undefined)
    const entry = market.classes().find((candidate) => candidate.name === row.runtimeClass)
    if (entry === undefined || entry.price_msats_per_hour === 0)
      throw fail('runtime_class_unavailable', `the class ${row.runtimeClass} is not offered any more`)
    const id = leaseIdOf(claimed)
    if (getLease(store, id) === undefined) {
      market.assertMayOwe(requester, command.lease_token)
      const seconds = leases.terms(entry, command.lease_seconds)
      const byToken = command.lease_token !== undefined
      const open = leases.open({ id, runtimeId: row.id, tenant: requester, entry, seconds, extendsId: last.id, byToken })
      await persist(this.#deps, open, bindRequest({ requester, idempotencyKey, runtimeId: row.id }))
    }
    return await this.#finishExtension(this.#actor(row), id, emit, command.lease_token)
  }

  async #finishExtension(actor: RuntimeActor, leaseId: string, emit: Emit, token?: string): Promise<ControlResult> {
    await actor.extend(leaseId, token, emit)
    return { runtime: await this.#deps.views.view(actor.row()), payload: { operation: 'extend_lease', lease_id: leaseId } }
  }

  async #answer(row: RuntimeRow, work: Promise<Json>): Promise<ControlResult> {
    const payload = await work
    return { runtime: this.#deps.views.viewNow(row), payload }
  }

  #actor(row: RuntimeRow): RuntimeActor {
    return this.#deps.runtimes.of(row.id)
  }
}
