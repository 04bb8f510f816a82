/** Drives one runtime through its life: payment, provisioning, checks, readiness, and for a one-shot run its end. */
import { messageOf } from '../../base/errors.ts'
import type { KeyedQueue } from '../../base/keyed-queue.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import type { Provisioned, Readiness, RuntimeHandle } from '../../runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import { destroysItself } from '../../runtime/retention.ts'
import { persist } from '../../store/persist.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, patchRuntime, type RuntimePatch, type RuntimeRow } from '../../store/selling/runtimes.ts'
import { fail, toControlError } from './failures.ts'
import { collectFrom, type Emit, type KeeperDeps, keepOutputs, mustGet, mustPersist, resultOf, step } from './keeper.ts'
import { patchOfAway, WELL } from './lookout.ts'
import { broughtCommand, provisionInputOf } from './order.ts'
import type { EndedBy } from './settlement.ts'

const FIRST_POLL_MS = 100
const MAX_POLL_MS = 1000

export interface DriverDeps extends KeeperDeps {
  /** Places are counted and taken one after the other. */
  readonly placing: KeyedQueue
  readonly tearDown: (id: string, reason: string, by: EndedBy) => Promise<unknown>
}

export interface DriveOptions {
  /** A token that came with the command. */
  readonly token: string | undefined
  readonly emit: Emit
  /** Aborted with its reason: at shutdown (the runtime stays as it is) or by a teardown. */
  readonly signal: AbortSignal
}

/**
 * On from whatever state it is in, to `ready` for a managed runtime, past its end for a one-shot run.
 * @throws ControlError; the runtime is torn down then, unless the signal ended it
 */
export async function drive(deps: DriverDeps, id: string, options: DriveOptions): Promise<RuntimeRow> {
  for (;;) {
    options.signal.throwIfAborted()
    const row = mustGet(deps.store, id)
    switch (row.state) {
      case 'requested':
        await begin(deps, row, options)
        break
      case 'provisioning':
        await provision(deps, row, options)
        break
      case 'ready':
      case 'unreachable':
        if (row.protocol !== null) return row
        await untilEnded(deps, row, options.signal)
        break
      case 'ended':
        // A failure to clean up is not the run's: it is tried again.
        if (destroysItself(decodeRuntimeSpec(row.spec).policies))
          await deps.tearDown(id, 'the run is over', 'completed').catch(() => undefined)
        return mustGet(deps.store, id)
      case 'failed':
        await deps.tearDown(id, row.stateReason, 'node').catch(() => undefined)
        throw fail('operation_failed', row.stateReason, 'provision again')
      case 'teardown':
      case 'gone':
        return row
    }
  }
}

async function begin(deps: DriverDeps, row: RuntimeRow, options: DriveOptions): Promise<void> {
  const { store, clock } = deps
  const [lease] = leasesOf(store, row.id)
  try {
    if (lease !== undefined) await deps.leases.awaitPayment(lease.id, { token: options.token, emit: options.emit, signal: options.signal })
    const { free } = await deps.substrates().lookAtCapacity(row.provider)
    deps.substrates().assertSpeaks(row.provider)
    if (free.instances < 1) throw fail('capacity_exhausted', `no place is free on ${row.provider} now`)
    // Others may have come first while this one was paid for.
    await deps.placing.run('', async () => {
      if (deps.placesOf(row.runtimeClass) < 1) throw fail('capacity_exhausted', `no place of the class ${row.runtimeClass} is free now`)
      options.signal.throwIfAborted()
      await mustPersist(deps, step(row.id, 'requested', 'provisioning', 'the substrate is asked for it', clock.now()))
    })
  } catch (error) {
    if (!options.signal.aborted) await deps.tearDown(row.id, messageOf(error), 'node').catch(() => undefined)
    throw error
  }
}

/** With a time limit of its own. */
function limited(deps: DriverDeps, signal: AbortSignal): { signal: AbortSignal; late: () => boolean; done: () => void } {
  const timer = new AbortController()
  const seconds = deps.config().provision_timeout_s
  let late = false
  const cancel = deps.clock.after(seconds * 1000, () => {
    late = true
    timer.abort(fail('timeout', `the runtime was not ready after ${seconds} s`, 'look at its logs, or ask the owner of the node'))
  })
  return { signal: AbortSignal.any([signal, timer.signal]), late: () => late, done: cancel }
}

async function provision(deps: DriverDeps, row: RuntimeRow, options: DriveOptions): Promise<void> {
  const progress = { provider: row.provider, protocol: row.protocol, startup_phase: 'provisioning_vm' satisfies StartupPhase }
  options.emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'provisioning', progress })
  const limit = limited(deps, options.signal)
  try {
    const adapter = deps.substrates().get(row.provider)
    const provisioned = await adapter.provision(provisionInputOf(row), limit.signal)
    // Known from here on, whatever comes.
    await mustPersist(deps, patchRuntime({ id: row.id, patch: patchOf(row, provisioned), at: deps.clock.now() }))
    check(row, provisioned)
    // What the tenant brought may take as long as it likes to get ready, on their time.
    if (broughtCommand(row)) await mustPersist(deps, ...deps.leases.activate(row.id, deps.clock.now()))
    if (row.protocol !== null) await untilReady(deps, row, provisioned.handle, limit.signal, options.emit)
    limit.signal.throwIfAborted()
    await settleIn(deps, row)
  } catch (error) {
    if (options.signal.aborted && !limit.late()) throw options.signal.reason
    await giveUp(deps, row, error)
    throw toControlError(error, 'provision_failed')
  } finally {
    limit.done()
  }
}

function patchOf(row: RuntimeRow, provisioned: Provisioned): RuntimePatch {
  return {
    handle: provisioned.handle,
    // What its agent speaks, not all that the substrate could have served.
    protocols: provisioned.protocols.filter((protocol) => protocol === row.protocol),
    metadata: provisioned.metadata,
    region: row.region === null || row.region === '' ? (provisioned.region ?? null) : row.region,
  }
}

/** What was provisioned is what was asked for. @throws ControlError unsupported_protocol, runtime_class_unavailable */
function check(row: RuntimeRow, provisioned: Provisioned): void {
  if (row.protocol !== null && !provisioned.protocols.includes(row.protocol)) {
    throw fail(
      'unsupported_protocol',
      `the runtime speaks ${provisioned.protocols.join(', ') || 'nothing'}, not ${row.protocol}`,
      'choose another protocol',
    )
  }
  const got = provisioned.runtimeClass
  if (got !== undefined && got !== row.runtimeClass && got !== row.provider) {
    throw fail('runtime_class_unavailable', `the substrate gave the class ${got}, not ${row.runtimeClass}`, 'choose another class')
  }
}

/** Its time begins: leases run, secrets are forgotten. */
async function settleIn(deps: DriverDeps, row: RuntimeRow): Promise<void> {
  const at = deps.clock.now()
  const { env: _secrets, ...input } = provisionInputOf(row)
  const kept = {
    ...(input.target === undefined ? {} : { target: input.target }),
    ...(input.params === undefined ? {} : { params: { ...input.params } }),
  }
  const timeoutS = input.timeoutSecs
  const patch: RuntimePatch = {
    ...WELL,
    input: timeoutS === undefined ? kept : { ...kept, timeoutSecs: timeoutS },
    ...(row.protocol === null && timeoutS !== undefined ? { deadline: at + (timeoutS + deps.config().watchdog_grace_s) * 1000 } : {}),
  }
  // A run that takes all of its time is answered: the host's grace is not paid for.
  const notBefore = patch.deadline ?? 0
  await mustPersist(deps, step(row.id, 'provisioning', 'ready', 'runtime ready', at, patch), ...deps.leases.activate(row.id, at, notBefore))
  deps.lookout.seenWell(row.id)
  deps.onChange()
}

/** Nothing is left behind, what was paid goes back. */
async function giveUp(deps: DriverDeps, row: RuntimeRow, error: unknown): Promise<void> {
  const now = getRuntime(deps.store, row.id) ?? row
  deps.logger.warn({ runtime_id: row.id, error: messageOf(error) }, 'a runtime could not be provisioned')
  try {
    const outputs = await collectFrom(deps, now)
    const at = deps.clock.now()
    await persist(deps, ...keepOutputs(deps, now, outputs), step(row.id, 'provisioning', 'failed', messageOf(error), at))
    await deps.tearDown(row.id, messageOf(error), 'node')
  } catch (second) {
    deps.logger.error(
      { runtime_id: row.id, error: messageOf(second) },
      'what was left of a runtime could not be removed yet; it is tried again',
    )
  }
}

/** AgentStartupPhase, as far as the phase of a status does not say it: `requested`, `ready` and `failed` are phases themselves. */
type StartupPhase = 'provisioning_vm' | 'booting_guest' | 'waiting_for_service_ready'

/** A guest whose status is believed has booted. */
function startupPhaseOf({ status }: Pick<Readiness, 'status'>): StartupPhase {
  return status === undefined ? 'booting_guest' : 'waiting_for_service_ready'
}

/** @throws ControlError provision_failed; the signal's reason */
export async function untilReady(deps: KeeperDeps, row: RuntimeRow, handle: RuntimeHandle, signal: AbortSignal, emit: Emit): Promise<void> {
  const adapter = deps.substrates().get(row.provider)
  let said = ''
  for (let waitMs = FIRST_POLL_MS; ; waitMs = Math.min(waitMs * 2, MAX_POLL_MS)) {
    const readiness = await adapter.readiness(handle, signal)
    if (readiness.state === 'ready') return
    if (readiness.state === 'failed' || readiness.state === 'completed' || readiness.state === 'stopped') {
      throw fail('provision_failed', `the runtime ${readiness.state}: ${readiness.message}`)
    }
    if (readiness.message !== said) {
      said = readiness.message
      const progress = { startup_phase: startupPhaseOf(readiness) }
      emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: said, progress })
    }
    await deps.clock.sleep(waitMs, signal)
  }
}

/** Watches a one-shot run to its end, collects what it left, and ends it itself when the guest does not in time. */
async function untilEnded(deps: DriverDeps, row: RuntimeRow, signal: AbortSignal): Promise<void> {
  const { clock } = deps
  const adapter = deps.substrates().get(row.provider)
  const handle = row.handle
  for (let waitMs = FIRST_POLL_MS; ; waitMs = Math.min(waitMs * 2, MAX_POLL_MS)) {
    const readiness = await look(() => adapter.readiness(handle, signal), signal)
    const { away } = readiness.state === 'completed' ? { away: null } : deps.lookout.judge(row, readiness)
    const patch = patchOfAway(away)
    const isLate = row.deadline !== null && clock.now() > row.deadline
    if (readiness.state === 'completed' || readiness.state === 'failed' || isLate) {
      const outputs = await collectFrom(deps, row)
      const reason = isLate ? lateReason(readiness) : readiness.message
      const end = step(row.id, row.state, 'ended', reason, clock.now(), { ...patch, result: resultOf(outputs) })
      await persist(deps, ...keepOutputs(deps, row, outputs), end)
      return
    }
    if (readiness.state === 'stopped') {
      await persist(deps, step(row.id, row.state, 'failed', `the run was lost: ${readiness.message}`, clock.now(), patch))
      return
    }
    // Who ends it meanwhile has to know.
    const state = away === null ? 'ready' : 'unreachable'
    if (state !== row.state) return await persist(deps, step(row.id, row.state, state, readiness.message, clock.now(), patch))
    await clock.sleep(waitMs, signal)
  }
}

function lateReason({ state, message }: Readiness): string {
  return state === 'unreachable'
    ? `nobody reached the run until its time was over: ${message}`
    : 'the run took longer than it may and was ended by the host'
}

/** A substrate that does not answer for a moment says nothing about the run. */
async function look(ask: () => Promise<Readiness>, signal: AbortSignal): Promise<Readiness> {
  try {
    return await ask()
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof ControlError) throw error
    const isGone = (error as { code?: unknown }).code === 'runtime_gone'
    return { state: isGone ? 'stopped' : 'unreachable', message: messageOf(error) }
  }
}
