/** From state to state: a runtime gets its place, is provisioned and waited for, a run is watched to its end; one that is lost is recovered. */
import { isPylonError, messageOf } from '../../base/errors.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import type { ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle } from '../../runtime/adapter.ts'
import { readGuestDetails } from '../../runtime/contract/managed.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { bindBot, patchRuntime, type RuntimeRow } from '../../store/selling/runtimes.ts'
import type { OpenDoor } from './doors.ts'
import { fail, toControlError } from './failures.ts'
import type { Emit } from './machines.ts'
import { broughtCommand, provisionInputOf } from './order.ts'
import { resultOf } from './outputs.ts'
import { assertAsAsked, patchOfProvisioned, patchOfReady, startupPhaseOf } from './provisioned.ts'
import { step, taskOf } from './runtime-life.ts'
import type { RuntimeRecord } from './runtime-record.ts'
import type { RuntimeTeardown } from './runtime-teardown.ts'

/** How often readiness is asked for while somebody waits for it. */
const POLL = { minMs: 100, maxMs: 1000 }

export interface Brought {
  readonly token: string | undefined
  readonly emit: Emit
  /** Aborts with its reason: by a teardown, by whoever asked, or at shutdown. */
  readonly signal: AbortSignal
}

export class RuntimeBringing {
  readonly #record: RuntimeRecord
  readonly #teardown: RuntimeTeardown

  constructor(record: RuntimeRecord, teardown: RuntimeTeardown) {
    this.#record = record
    this.#teardown = teardown
  }

  /** @throws ControlError; the runtime is torn down then, unless the signal ended it */
  async run(brought: Brought): Promise<RuntimeRow> {
    for (;;) {
      brought.signal.throwIfAborted()
      const row = this.#record.row()
      switch (taskOf(row)) {
        case 'take a place':
          await this.#takePlace(row, brought)
          break
        case 'provision':
          await this.#provision(row, brought)
          break
        case 'watch the run':
          await this.#watchRun(row, brought.signal)
          break
        case 'clean up':
          await this.#teardown.attempt('the run is over', 'completed')
          return this.#record.row()
        case 'give up':
          await this.#teardown.attempt(row.stateReason, 'node')
          throw fail('operation_failed', row.stateReason, 'provision again')
        case 'rest':
          return row
      }
    }
  }

  async #takePlace(row: RuntimeRow, { token, emit, signal }: Brought): Promise<void> {
    const { store, leases, substrates, market } = this.#record.deps
    const [lease] = leasesOf(store, this.#record.id)
    try {
      if (lease !== undefined) await leases.awaitPayment(lease.id, { token, emit, signal })
      const { free } = await substrates.lookAtCapacity(row.provider)
      substrates.assertSpeaks(row.provider)
      if (free.instances < 1) throw fail('capacity_exhausted', `no place is free on ${row.provider} now`)
      // Others may have come first while this one was paid for.
      await market.takePlace(row.runtimeClass, async () => {
        signal.throwIfAborted()
        await this.#record.mustPersist(step(row, 'provisioning', 'the substrate is asked for it', this.#record.now()))
      })
    } catch (error) {
      if (!signal.aborted) await this.#teardown.attempt(messageOf(error), 'node')
      throw error
    }
  }

  async #provision(row: RuntimeRow, { emit, signal }: Brought): Promise<void> {
    const { substrates, leases } = this.#record.deps
    const progress = { provider: row.provider, protocol: row.protocol, startup_phase: startupPhaseOf(undefined) }
    emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'provisioning', progress })
    const limit = this.#provisionLimit(signal)
    try {
      const input = withDoor(provisionInputOf(row), await this.#record.openDoor(row))
      const provisioned = await substrates.get(row.provider).provision(input, limit.signal)
      // Known from here on, whatever comes.
      await this.#record.mustPersist(patchRuntime({ id: row.id, patch: patchOfProvisioned(row, provisioned), at: this.#record.now() }))
      assertAsAsked(row, provisioned)
      // What the tenant brought may take as long as it likes to get ready, on their time.
      if (broughtCommand(row)) await this.#record.mustPersist(...leases.activate(row.id, this.#record.now()))
      if (row.protocol !== null) await this.#untilReady(row, provisioned.handle, limit.signal, emit)
      limit.signal.throwIfAborted()
      await this.#begin(row)
    } catch (error) {
      if (signal.aborted && !limit.isOver()) throw signal.reason
      await this.#giveUp(row, error)
      throw toControlError(error, 'provision_failed')
    } finally {
      limit.cancel()
    }
  }

  /** Its time begins: leases run, secrets are forgotten. */
  async #begin(row: RuntimeRow): Promise<void> {
    const at = this.#record.now()
    const patch = patchOfReady(row, at, this.#record.deps.config().watchdog_grace_s * 1000)
    // A run that takes all of its time is answered: the host's grace is not paid for.
    const leased = this.#record.deps.leases.activate(row.id, at, patch.deadline ?? 0)
    await this.#record.mustPersist(step({ id: row.id, state: 'provisioning' }, 'ready', 'runtime ready', at, patch), ...leased)
    this.#record.seenWell()
    this.#record.deps.offers.changed()
  }

  /** Nothing is left behind, what was paid goes back. */
  async #giveUp(row: RuntimeRow, error: unknown): Promise<void> {
    const { logger } = this.#record.deps
    logger.warn({ runtime_id: row.id, error: messageOf(error) }, 'a runtime could not be provisioned')
    try {
      const outputs = await this.#record.collect(this.#record.row())
      const failed = step({ id: row.id, state: 'provisioning' }, 'failed', messageOf(error), this.#record.now())
      await this.#record.persist(...this.#record.kept(outputs), failed)
      await this.#teardown.run(messageOf(error), 'node')
    } catch (second) {
      const words = 'what was left of a runtime could not be removed yet; it is tried again'
      logger.error({ runtime_id: row.id, error: messageOf(second) }, words)
    }
  }

  /** @throws ControlError provision_failed; the signal's reason */
  async #untilReady(row: RuntimeRow, handle: RuntimeHandle, signal: AbortSignal, emit: Emit): Promise<void> {
    const adapter = this.#record.adapter(row)
    const backoff = this.#record.scope.backoff(POLL)
    let said = ''
    for (;;) {
      const readiness = await adapter.readiness(handle, signal)
      const { state, message } = readiness
      if (state === 'ready') return await this.#bindBot(row, readiness)
      if (state === 'failed' || state === 'completed' || state === 'stopped') {
        throw fail('provision_failed', `the runtime ${state}: ${message}`)
      }
      if (message !== said) {
        said = message
        const progress = { startup_phase: startupPhaseOf(readiness) }
        emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message, progress })
      }
      await this.#record.scope.clock.sleep(backoff.nextMs(), signal)
    }
  }

  /** The key that its guest made, where it says so; the first is for good. */
  async #bindBot({ id, botPubkey }: RuntimeRow, { status }: Readiness): Promise<void> {
    const pubkey = readGuestDetails(status?.details)?.bot_pubkey
    if (pubkey !== undefined && botPubkey === null) await this.#record.persist(bindBot({ id, pubkey, at: this.#record.now() }))
  }

  /** Watches a one-shot run to its end, collects what it left, and ends it when the guest does not in time. */
  async #watchRun(row: RuntimeRow, signal: AbortSignal): Promise<void> {
    const adapter = this.#record.adapter(row)
    const backoff = this.#record.scope.backoff(POLL)
    for (;;) {
      const readiness = await readinessOfRun(adapter, row.handle, signal)
      const away = readiness.state === 'completed' ? null : this.#record.judge(row, readiness).away
      const patch = { away }
      const isLate = row.deadline !== null && this.#record.now() > row.deadline
      if (readiness.state === 'completed' || readiness.state === 'failed' || isLate) {
        const outputs = await this.#record.collect(row)
        const reason = isLate ? lateReason(readiness) : readiness.message
        const end = step(row, 'ended', reason, this.#record.now(), { ...patch, result: resultOf(outputs) })
        return await this.#record.persist(...this.#record.kept(outputs), end)
      }
      if (readiness.state === 'stopped') {
        return await this.#record.persist(step(row, 'failed', `the run was lost: ${readiness.message}`, this.#record.now(), patch))
      }
      // Who ends it meanwhile has to know.
      const state = away === null ? 'ready' : 'unreachable'
      if (state !== row.state) return await this.#record.persist(step(row, state, readiness.message, this.#record.now(), patch))
      await this.#record.scope.clock.sleep(backoff.nextMs(), signal)
    }
  }

  /** Restarts the instance with its volume. @returns false where it is gone and has to be made anew @throws ControlError */
  async recover(emit: Emit, cut: AbortSignal): Promise<boolean> {
    const row = this.#record.row()
    if (row.protocol === null) throw fail('unsupported_operation', 'a one-shot run is not recovered: run it again')
    if (row.state !== 'ready' && row.state !== 'unreachable') throw fail('runtime_not_ready', `the runtime is ${row.state}`)
    const adapter = this.#record.adapter(row)
    if (adapter.recover === undefined || row.handle === null) throw fail('unsupported_operation', `${row.provider} cannot recover`)
    emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'recovering' })
    const limit = this.#provisionLimit(AbortSignal.any([this.#record.scope.closing, cut]))
    try {
      await adapter.recover(row.handle, limit.signal)
      await this.#untilReady(row, row.handle, limit.signal, emit)
    } catch (error) {
      if (!isPylonError(error, 'runtime_gone')) throw toControlError(error, 'operation_failed')
      cut.throwIfAborted()
      const away = row.away ?? { cause: 'host', since: this.#record.now() }
      await this.#record.persist(step(row, 'provisioning', 'the instance is gone and is made anew', this.#record.now(), { away }))
      return false
    } finally {
      limit.cancel()
    }
    if (row.state === 'unreachable') await this.#record.persist(step(row, 'ready', 'recovered', this.#record.now(), { away: null }))
    return true
  }

  /** Ends as `until` does, or after the time that a provision may take. */
  #provisionLimit(until: AbortSignal): { signal: AbortSignal; isOver: () => boolean; cancel: () => void } {
    const timer = new AbortController()
    const seconds = this.#record.deps.config().provision_timeout_s
    const late = fail('timeout', `the runtime was not ready after ${seconds} s`, 'look at its logs, or ask the owner of the node')
    const cancel = this.#record.scope.after('provision limit', seconds * 1000, () => timer.abort(late))
    return { signal: AbortSignal.any([until, timer.signal]), isOver: () => timer.signal.aborted, cancel }
  }
}

function withDoor(input: ProvisionInput, door: OpenDoor | undefined): ProvisionInput {
  if (input.session === undefined || door === undefined) return input
  return { ...input, session: { token: input.session.token, relays: door.relays, doorSocket: door.socketPath } }
}

/** A substrate that does not answer for a moment says nothing about the run. @throws the signal's reason */
async function readinessOfRun(adapter: RuntimeAdapter, handle: RuntimeHandle, signal: AbortSignal): Promise<Readiness> {
  try {
    return await adapter.readiness(handle, signal)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof ControlError) throw error
    return { state: isPylonError(error, 'runtime_gone') ? 'stopped' : 'unreachable', message: messageOf(error) }
  }
}

function lateReason({ state, message }: Readiness): string {
  return state === 'unreachable'
    ? `nobody reached the run until its time was over: ${message}`
    : 'the run took longer than it may and was ended by the host'
}
