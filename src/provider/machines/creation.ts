/** Makes runtimes: admits, orders, records, and follows them to the answer; for commands and for jobs. */
import { isPylonError } from '../../base/errors.ts'
import { asJson, asRecord } from '../../base/json.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ControlResult } from '../../nostr/control/envelopes.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import { decodeRuntimeSpec, type RuntimeSpec } from '../../runtime/contract/spec.ts'
import type { Command } from '../../store/commands.ts'
import { persist } from '../../store/persist.ts'
import { bindRequest } from '../../store/selling/control-requests.ts'
import { getRuntime, insertRuntime, type NewRuntime, type RuntimeRow, runtimesOf } from '../../store/selling/runtimes.ts'
import type { Terms } from './authorisation.ts'
import { type Claimed, leaseIdOf } from './claims.ts'
import type { RuntimeClass } from './classes.ts'
import type { MachineDeps } from './deps.ts'
import { fail, toControlError } from './failures.ts'
import type { Emit } from './machines.ts'
import type { Market } from './market.ts'
import { adapterInput, type MachineCommand, type Order, orderProvision, orderRun, volumesIn } from './order.ts'
import { outputText, runAnswer } from './outputs.ts'

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

export type CreationDeps = Pick<MachineDeps, 'store' | 'config' | 'keyring' | 'substrates' | 'market' | 'leases' | 'runtimes' | 'views'>

export class Creation {
  readonly #scope: Scope
  readonly #deps: CreationDeps

  constructor(scope: Scope, deps: CreationDeps) {
    this.#scope = scope
    this.#deps = deps
  }

  /** @returns its id @throws ControlError */
  async create(command: MachineCommand, claimed: Claimed): Promise<string> {
    const { requester, emit } = claimed
    emit({ phase: 'queued', message: 'request queued', ...(command.provider === undefined ? {} : { provider: command.provider }) })
    const { entry, terms } = await this.#admit(requester, command, emit)
    try {
      return await this.#record(command, entry, terms, claimed)
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      emit({ phase: 'failed', message: failure.message })
      throw failure
    }
  }

  /** From a runtime in whatever state to the answer of the command that made it. @throws ControlError */
  async finish(id: string, name: 'provision' | 'run', emit: Emit, token?: string): Promise<ControlResult> {
    const { store, runtimes, views } = this.#deps
    let row: RuntimeRow
    try {
      row = await runtimes.of(id).bring({ token, emit })
    } catch (error) {
      const failure = toControlError(error, 'provision_failed')
      const known = getRuntime(store, id)
      const provider = known === undefined ? {} : { provider: known.provider }
      if (failure.code !== 'shutting_down')
        emit({ phase: 'failed', runtime_id: id, message: failure.detail ?? failure.message, ...provider })
      throw failure
    }
    if (name === 'provision' && row.state !== 'ready' && row.state !== 'unreachable')
      throw fail('operation_failed', `the runtime is ${row.state}: ${row.stateReason}`)
    const message = name === 'provision' ? 'runtime ready' : 'the run is over'
    emit({ phase: 'ready', runtime_id: id, provider: row.provider, message })
    const payload = name === 'provision' ? { operation: 'provision' } : runAnswer(store, row)
    return { runtime: await views.view(row), payload }
  }

  /** Whether the class of jobs takes this script. @throws ControlError provider_temporarily_disabled, invalid_command */
  checkScript(run: ScriptRun): void {
    this.#orderScript(run)
  }

  /** Runs a script of a paying stranger in an ephemeral runtime. @throws ControlError, the signal's reason */
  async runScript(run: ScriptRun, signal: AbortSignal): Promise<ScriptResult> {
    const { store, market, runtimes } = this.#deps
    const { entry, runtimeId, owner, order } = this.#orderScript(run)
    if (market.free(entry) < 1) throw fail('capacity_exhausted', 'no place for the script is free now')
    await persist(
      { store, clock: this.#scope.clock },
      this.#insert({ id: runtimeId, provider: entry.provider, ownerPubkey: owner, runtimeClass: entry.name, reason: 'a job' }, order),
    )
    const actor = runtimes.of(runtimeId)
    try {
      const row = await actor.bring({ signal })
      const exitCode = (asRecord(row.result)['exit_code'] as number | undefined) ?? null
      return { exitCode, stdout: outputText(store, row.id, 'stdout'), stderr: outputText(store, row.id, 'stderr') }
    } catch (error) {
      // What can't be torn down now is tried again by itself.
      if (!this.#scope.isClosing) await Promise.allSettled([actor.tearDown('the job was given up', 'node')])
      throw error
    }
  }

  async #admit(requester: string, command: MachineCommand, emit: Emit): Promise<ReturnType<Market['admit']>> {
    const { substrates, market } = this.#deps
    try {
      const provider = command.provider ?? market.classes()[0]?.provider ?? 'local'
      if (substrates.providers.includes(provider)) await substrates.lookAtCapacity(provider)
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

  /** The runtime and, for who pays, its lease, in one commit. @returns its id */
  async #record(command: MachineCommand, entry: RuntimeClass, terms: Terms, claimed: Claimed): Promise<string> {
    const { store, substrates, market, leases } = this.#deps
    const { requester, idempotencyKey } = claimed
    const runtimeId = this.#newId(entry)
    const isLeased = terms === 'lease'
    const botPubkey =
      command.command === 'provision' && command.bot_secret_key_hex !== undefined ? botKey(command.bot_secret_key_hex) : null
    const context = { runtimeId, owner: requester, botPubkey, requireIsolation: isLeased && !market.mayUnisolated, isLeased }
    const order = command.command === 'provision' ? orderProvision(command, entry, context) : orderRun(command, entry, context)
    this.#assertVolumesFree(requester, order.spec)
    const asked = { runtimeId, ownerPubkey: requester, spec: order.spec, protocol: order.protocol }
    await substrates.assertPossible(entry.provider, adapterInput(asked, order.input))
    const about = { id: runtimeId, provider: entry.provider, ownerPubkey: requester, runtimeClass: entry.name, reason: 'asked for' }
    const region = entry.region === '' ? null : entry.region
    const commands = [
      this.#insert({ ...about, region, botPubkey }, order),
      bindRequest({ requester, idempotencyKey, runtimeId }),
      ...(isLeased
        ? [
            leases.open({
              id: leaseIdOf(claimed),
              runtimeId,
              tenant: requester,
              entry,
              seconds: leases.terms(entry, leaseSeconds(entry, command)),
              extendsId: null,
              byToken: command.lease_token !== undefined,
            }),
          ]
        : []),
    ]
    try {
      await persist({ store, clock: this.#scope.clock }, ...commands)
    } catch (error) {
      throw isPylonError(error, 'conflict') ? error : toControlError(error, 'state_persist_failed')
    }
    return runtimeId
  }

  #insert(
    about: Pick<NewRuntime, 'id' | 'provider' | 'ownerPubkey' | 'runtimeClass' | 'reason'> &
      Partial<Pick<NewRuntime, 'region' | 'botPubkey'>>,
    { protocol, spec, input, keepVolume }: Order,
  ): Command<unknown> {
    const given = { protocol, keepVolume, spec: asJson(spec), input: asJson(input) }
    return insertRuntime({ region: null, botPubkey: null, ...about, ...given, expiresAt: null, at: this.#scope.clock.now() })
  }

  #newId(entry: RuntimeClass): string {
    return `${entry.provider}-${randomHex(this.#scope.random, 8)}`
  }

  #assertVolumesFree(owner: string, spec: RuntimeSpec): void {
    const wanted = volumesIn(spec)
    const taken = runtimesOf(this.#deps.store, owner).find(
      (row) => row.state !== 'gone' && volumesIn(decodeRuntimeSpec(row.spec)).some((volume) => wanted.includes(volume)),
    )
    if (taken !== undefined)
      throw fail(
        'invalid_command',
        `name: the runtime ${taken.id} has the volume of this name`,
        'tear it down first, or choose another name',
      )
  }

  /** @throws ControlError provider_temporarily_disabled, invalid_command */
  #orderScript(run: ScriptRun) {
    const { market, config, keyring } = this.#deps
    const found = market.jobClass()
    if ('reason' in found) throw fail('provider_temporarily_disabled', found.reason)
    const { entry } = found
    const runtimeId = this.#newId(entry)
    const owner = keyring.node().pubkey
    const { incus } = config()
    const images = [entry.image, incus.image, incus.run_image, ...incus.images]
    if (run.image !== undefined && entry.provider === 'incus' && !images.includes(run.image))
      throw fail('invalid_command', `image: this node has no image ${run.image}`)
    const command: CommandOf<'run'> = {
      command: 'run',
      entry_command: run.script,
      timeout_s: run.timeoutS,
      keep: false,
      artifact_globs: [],
      ...(run.image === undefined ? {} : { image: run.image }),
    }
    const context = { runtimeId, owner, botPubkey: null, requireIsolation: !market.mayUnisolated, isLeased: true }
    return { entry, runtimeId, owner, order: orderRun(command, entry, context) }
  }
}

/** A run is rented for its time at least. */
function leaseSeconds(entry: RuntimeClass, command: MachineCommand): number | undefined {
  if (command.command === 'provision') return command.lease_seconds
  return Math.max(entry.min_lease_s, command.lease_seconds ?? 0, command.timeout_s)
}

/** @throws ControlError invalid_command */
function botKey(secretHex: string): string {
  try {
    return createSigner(Buffer.from(secretHex, 'hex')).pubkey
  } catch {
    throw fail('invalid_command', 'bot_secret_key_hex: is no secret key')
  }
}
