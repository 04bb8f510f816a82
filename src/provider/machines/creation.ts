/** Makes runtimes: admits, orders, records, and follows them to the answer; for commands and for jobs. */
import { asJson, asRecord } from '../../base/json.ts'
import { randomHex, systemRandom } from '../../base/random.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ControlResult } from '../../nostr/control/envelopes.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import type { Keyring } from '../../nostr/types.ts'
import { decodeRuntimeSpec, type RuntimeSpec } from '../../runtime/contract/spec.ts'
import { persist } from '../../store/persist.ts'
import { bindRequest } from '../../store/selling/control-requests.ts'
import { getRuntime, insertRuntime, type RuntimeRow, runtimesOf } from '../../store/selling/runtimes.ts'
import type { RuntimeClass } from './classes.ts'
import { fail, toControlError } from './failures.ts'
import { type Emit, type KeeperDeps, mustPersist } from './keeper.ts'
import type { Market } from './market.ts'
import { outputText, runAnswer } from './operations.ts'
import { adapterInput, type MachineCommand, orderProvision, orderRun, volumesIn } from './order.ts'
import type { Registry } from './registry.ts'
import { type Claimed, leaseIdOf } from './requests.ts'
import type { Views } from './views.ts'

export interface ScriptRun {
  readonly script: string
  readonly timeoutS: number
  readonly image?: string
}

export interface ScriptResult {
  readonly exitCode: number | null
  readonly stdout: string
  readonly stderr: string
}

export type Creation = ReturnType<typeof createCreation>

export function createCreation(deps: {
  readonly keeper: KeeperDeps
  readonly keyring: Keyring
  readonly market: Market
  readonly registry: Registry
  readonly views: Views
  readonly isClosing: () => boolean
}) {
  const { keeper, keyring, market, registry, views } = deps
  const { store, clock, leases } = keeper

  async function admit(requester: string, command: MachineCommand, emit: Emit): Promise<ReturnType<Market['admit']>> {
    try {
      await keeper
        .substrates()
        .lookAtCapacity(command.provider ?? market.classes()[0]?.provider ?? 'local')
        .catch(() => undefined)
      return market.admit(requester, command)
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      const classes = {
        requested_runtime_class: command.runtime_class ?? null,
        available_runtime_class: market.classes().map((entry) => entry.name),
      }
      const progress = failure.code === 'runtime_class_unavailable' ? { progress: classes } : {}
      emit({ phase: 'failed', message: failure.message, ...progress })
      throw failure
    }
  }

  async function create(requester: string, command: MachineCommand, claimed: Claimed): Promise<string> {
    claimed.emit({ phase: 'queued', message: 'request queued', ...(command.provider === undefined ? {} : { provider: command.provider }) })
    const admitted = await admit(requester, command, claimed.emit)
    const { entry } = admitted
    const runtimeId = `${entry.provider}-${randomHex(systemRandom, 8)}`
    const botPubkey =
      command.command === 'provision' && command.bot_secret_key_hex !== undefined ? botKey(command.bot_secret_key_hex) : null
    const requireIsolation = admitted.terms === 'lease' && !market.mayUnisolated()
    const context = { runtimeId, owner: requester, botPubkey, requireIsolation, isLeased: admitted.terms === 'lease' }
    try {
      const order = command.command === 'provision' ? orderProvision(command, entry, context) : orderRun(command, entry, context)
      assertVolumesFree(requester, order.spec)
      const asked = { runtimeId, ownerPubkey: requester, spec: order.spec, protocol: order.protocol }
      await keeper.substrates().assertPossible(entry.provider, adapterInput(asked, order.input))
      const leaseId = leaseIdOf(claimed)
      const seconds = leaseSeconds(entry, command)
      await mustPersist(
        keeper,
        insertRuntime({
          id: runtimeId,
          provider: entry.provider,
          ownerPubkey: requester,
          runtimeClass: entry.name,
          protocol: order.protocol,
          spec: asJson(order.spec),
          input: asJson(order.input),
          region: entry.region === '' ? null : entry.region,
          botPubkey,
          keepVolume: order.keepVolume,
          expiresAt: null,
          reason: 'asked for',
          at: clock.now(),
        }),
        bindRequest({ requester, idempotencyKey: claimed.idempotencyKey, runtimeId }),
        ...(admitted.terms === 'free'
          ? []
          : [
              leases.open({
                id: leaseId,
                runtimeId,
                tenant: requester,
                entry,
                seconds: leases.terms(entry, seconds),
                extendsId: null,
                byToken: command.lease_token !== undefined,
              }),
            ]),
      )
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      claimed.emit({ phase: 'failed', message: failure.message })
      throw failure
    }
    return runtimeId
  }

  /** A run is rented for its time at least. */
  function leaseSeconds(entry: RuntimeClass, command: MachineCommand): number | undefined {
    if (command.command === 'provision') return command.lease_seconds
    return Math.max(entry.min_lease_s, command.lease_seconds ?? 0, command.timeout_s)
  }

  function assertVolumesFree(owner: string, spec: RuntimeSpec): void {
    const wanted = volumesIn(spec)
    const taken = runtimesOf(store, owner).find(
      (row) => row.state !== 'gone' && volumesIn(decodeRuntimeSpec(row.spec)).some((volume) => wanted.includes(volume)),
    )
    if (taken !== undefined)
      throw fail(
        'invalid_command',
        `name: the runtime ${taken.id} has the volume of this name`,
        'tear it down first, or choose another name',
      )
  }

  /** From a runtime in whatever state to the answer of the command that made it. */
  async function finish(id: string, name: 'provision' | 'run', emit: Emit, token: string | undefined): Promise<ControlResult> {
    let row: RuntimeRow
    try {
      row = await registry.drive(id, { token, emit })
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      if (failure.code !== 'shutting_down') {
        emit({ phase: 'failed', runtime_id: id, message: failure.detail ?? failure.message, ...providerOf(id) })
      }
      throw failure
    }
    if (name === 'provision' && row.state !== 'ready' && row.state !== 'unreachable')
      throw fail('operation_failed', `the runtime is ${row.state}: ${row.stateReason}`)
    const message = name === 'provision' ? 'runtime ready' : 'the run is over'
    emit({ phase: 'ready', runtime_id: id, provider: row.provider, message })
    const payload = name === 'provision' ? { operation: 'provision' } : runAnswer(keeper, row)
    return { runtime: await views.view(row), payload }
  }

  const providerOf = (id: string) => {
    const row = getRuntime(store, id)
    return row === undefined ? {} : { provider: row.provider }
  }

  /** @throws ControlError provider_temporarily_disabled, invalid_command */
  function orderScript(run: ScriptRun) {
    const found = market.jobClass()
    if ('reason' in found) throw fail('provider_temporarily_disabled', found.reason)
    const { entry } = found
    const runtimeId = `${entry.provider}-${randomHex(systemRandom, 8)}`
    const owner = keyring.node().pubkey
    const { incus } = keeper.config()
    const images = [entry.image, incus.image, incus.run_image, ...incus.images]
    if (run.image !== undefined && entry.provider === 'incus' && !images.includes(run.image))
      throw fail('invalid_command', `image: this node has no image ${run.image}`)
    const image = run.image === undefined ? {} : { image: run.image }
    const command: CommandOf<'run'> = {
      command: 'run',
      entry_command: run.script,
      timeout_s: run.timeoutS,
      keep: false,
      artifact_globs: [],
      ...image,
    }
    const context = { runtimeId, owner, botPubkey: null, requireIsolation: !market.mayUnisolated(), isLeased: true }
    return { entry, runtimeId, owner, order: orderRun(command, entry, context) }
  }

  async function runScript(run: ScriptRun, signal: AbortSignal): Promise<ScriptResult> {
    const { entry, runtimeId, owner, order } = orderScript(run)
    if (market.free(entry) < 1) throw fail('capacity_exhausted', 'no place for the script is free now')
    await persist(
      keeper,
      insertRuntime({
        ...{ id: runtimeId, provider: entry.provider, ownerPubkey: owner, runtimeClass: entry.name, protocol: null },
        ...{ spec: asJson(order.spec), input: asJson(order.input), region: null, botPubkey: null, keepVolume: false, expiresAt: null },
        ...{ reason: 'a job', at: clock.now() },
      }),
    )
    try {
      const row = await registry.drive(runtimeId, { emit: () => undefined, signal })
      const text = (name: string) => outputText(keeper, row.id, name)
      const exitCode = (asRecord(row.result)['exit_code'] as number | undefined) ?? null
      return { exitCode, stdout: text('stdout'), stderr: text('stderr') }
    } catch (error) {
      if (!deps.isClosing()) {
        await registry.tearDown(runtimeId, 'the job was given up', 'node').catch(() => undefined)
      }
      throw error
    }
  }

  /** Before a price is named. @throws ControlError */
  const checkScript = (run: ScriptRun): void => void orderScript(run)

  return { create, finish, checkScript, runScript }
}

/** @throws ControlError invalid_command */
function botKey(secretHex: string): string {
  try {
    return createSigner(Buffer.from(secretHex, 'hex')).pubkey
  } catch {
    throw fail('invalid_command', 'bot_secret_key_hex: is no secret key')
  }
}
