/** The commands of the control plane, each to what does it. */
import { asRecord, type Json } from '../../base/json.ts'
import type { CommandOf, ControlCommand } from '../../nostr/control/commands.ts'
import type { ControlResult } from '../../nostr/control/envelopes.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import { persist } from '../../store/persist.ts'
import { bindRequest } from '../../store/selling/control-requests.ts'
import { getLease, leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, type RuntimeRow } from '../../store/selling/runtimes.ts'
import type { Creation } from './creation.ts'
import { fail, runtimeNotFound } from './failures.ts'
import type { Emit, KeeperDeps } from './keeper.ts'
import type { Market } from './market.ts'
import * as operations from './operations.ts'
import type { Registry } from './registry.ts'
import { type Claimed, leaseIdOf } from './requests.ts'
import type { Views } from './views.ts'
import type { Volumes } from './volumes.ts'

export function createCommands(deps: {
  readonly keeper: KeeperDeps
  readonly market: Market
  readonly registry: Registry
  readonly views: Views
  readonly volumes: Volumes
  readonly creation: Creation
  /** Aborted when the node ends. */
  readonly signal: AbortSignal
}) {
  const { keeper, market, registry, creation, signal } = deps
  const { own, view, viewNow, summary } = deps.views
  const { store, clock, leases } = keeper

  async function tearDown(requester: string, command: CommandOf<'teardown'>, emit: Emit): Promise<ControlResult> {
    const row = own(requester, command.runtime_id)
    if (command.keep_volume === true && leasesOf(store, row.id).length > 0)
      throw fail('invalid_command', 'keep_volume: a lease leaves no volume behind')
    emit({ phase: 'teardown', runtime_id: row.id, provider: row.provider, message: 'teardown in progress' })
    const options = command.keep_volume === undefined ? {} : { keepVolume: command.keep_volume }
    const done = await registry.tearDown(row.id, 'asked for by its owner', 'tenant', options)
    const told =
      typeof done.payload === 'object' && done.payload !== null && !Array.isArray(done.payload)
        ? done.payload
        : { provider_payload: done.payload }
    const payload: Record<string, Json> = { operation: 'teardown', ...told }
    if (done.persistError !== undefined) {
      emit({
        phase: 'teardown',
        runtime_id: row.id,
        provider: row.provider,
        message: 'the instance is gone, the record could not be written',
      })
      Object.assign(payload, { state_persist: 'failed', state_persist_error: done.persistError })
    }
    const now = getRuntime(store, row.id) ?? row
    return { runtime: { ...(await view(now)), lifecycle_phase: 'teardown' }, payload }
  }

  async function extend(requester: string, command: CommandOf<'extend_lease'>, claimed: Claimed): Promise<ControlResult> {
    const row = own(requester, command.runtime_id)
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
      await persist(keeper, open, bindRequest({ requester, idempotencyKey: claimed.idempotencyKey, runtimeId: row.id }))
    }
    return await finishExtension(row.id, id, claimed.emit, command.lease_token)
  }

  async function finishExtension(runtimeId: string, leaseId: string, emit: Emit, token: string | undefined): Promise<ControlResult> {
    const wentBefore = () => fail('lease_expired', 'the runtime went before the payment came; what was paid goes back')
    const isLeased = () => leasesOf(store, runtimeId).some((lease) => lease.state === 'active')
    await leases.awaitPayment(leaseId, { token, emit, signal }).catch((error: unknown) => {
      throw error instanceof ControlError && error.code === 'payment_required' && !isLeased() ? wentBefore() : error
    })
    await registry.inOrder(runtimeId, async () => {
      // What runs is prolonged, in whatever state; this one alone goes back where nothing does.
      const isThere = isLeased()
      const commands = isThere ? leases.activate(runtimeId, clock.now()) : leases.giveBack(leaseId, clock.now())
      if (commands.length > 0) await persist(keeper, ...commands)
      leases.wake()
      if (!isThere) throw wentBefore()
    })
    const row = getRuntime(store, runtimeId)
    if (row === undefined) throw runtimeNotFound(runtimeId)
    return { runtime: await view(row), payload: { operation: 'extend_lease', lease_id: leaseId } }
  }

  async function read(requester: string, command: ControlCommand): Promise<ControlResult> {
    switch (command.command) {
      case 'get_runtime':
        return { runtime: await view(own(requester, command.runtime_id), true), payload: { operation: 'get_runtime' } }
      case 'list_runtimes':
        return await deps.views.list(requester, command)
      case 'get_request':
        return deps.views.requestView(requester, command)
      case 'logs':
        return await answer(own(requester, command.runtime_id), (row) => operations.logs(keeper, row, command))
      case 'collect':
        return await answer(own(requester, command.runtime_id), async (row) => operations.collect(keeper, row, command))
      case 'list_volumes':
        return { runtime: summary('volume-list-summary'), payload: await deps.volumes.list(requester, command) }
      case 'list_snapshots':
        return await answer(own(requester, command.runtime_id), (row) => operations.listSnapshots(keeper, row))
      default:
        throw fail('invalid_command', `${command.command} changes things`)
    }
  }

  async function answer(row: RuntimeRow, work: (row: RuntimeRow) => Promise<Json>): Promise<ControlResult> {
    const payload = await work(row)
    return { runtime: viewNow(row), payload }
  }

  /** One of their own runtimes, in order of what was asked of it. */
  async function onRuntime(requester: string, id: string, work: (row: RuntimeRow) => Promise<Json>): Promise<ControlResult> {
    own(requester, id)
    return await registry.inside(id, () => answer(own(requester, id), work))
  }

  async function change(requester: string, command: ControlCommand, claimed: Claimed, admitted: () => void): Promise<ControlResult> {
    const { emit } = claimed
    if (command.command === 'provision' || command.command === 'run') {
      const id = await creation.create(requester, command, claimed)
      admitted()
      return await creation.finish(id, command.command, emit, command.lease_token)
    }
    // From here on the queue of the runtime keeps the order.
    queueMicrotask(admitted)
    switch (command.command) {
      case 'teardown':
        return await tearDown(requester, command, emit)
      case 'recover': {
        own(requester, command.runtime_id)
        const row = await registry.recover(command.runtime_id, emit)
        emit({ phase: 'ready', runtime_id: row.id, provider: row.provider, message: 'recovered' })
        return { runtime: await view(row), payload: { operation: 'recover' } }
      }
      case 'extend_lease':
        return await extend(requester, command, claimed)
      case 'delete_volume':
        return { runtime: summary('volume-list-summary'), payload: await deps.volumes.remove(requester, command) }
      case 'process_welcome':
        return await onRuntime(requester, command.runtime_id, async (row) => {
          emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'processing welcome' })
          const payload = await operations.welcome(keeper, row, command)
          emit({ phase: 'ready', runtime_id: row.id, provider: row.provider, message: 'welcome processed' })
          return { operation: 'process_welcome', ...asRecord(payload) }
        })
      case 'exec':
        return await onRuntime(requester, command.runtime_id, (row) => operations.exec(keeper, row, command))
      case 'prompt':
        return await onRuntime(requester, command.runtime_id, (row) =>
          operations.prompt(keeper, row, command, claimed.idempotencyKey, signal),
        )
      case 'snapshot':
        return await onRuntime(requester, command.runtime_id, (row) => operations.snapshot(keeper, row, command.snapshot))
      case 'restore':
        return await onRuntime(requester, command.runtime_id, (row) => operations.restore(keeper, row, command.snapshot, emit, signal))
      default:
        throw fail('invalid_command', `${command.command} is not known here`)
    }
  }

  return { read, change, finishExtension }
}
