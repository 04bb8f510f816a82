/** What the parts of the registry share: dependencies, legal steps, and the collecting of outputs. */
import type { Clock } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import type { CollectedOutputs } from '../../runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../runtime/contract/spec.ts'
import type { Command } from '../../store/commands.ts'
import { persist } from '../../store/persist.ts'
import { getRuntime, moveRuntime, putOutputs, type RuntimePatch, type RuntimeRow, type RuntimeState } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { runtimeNotFound, toControlError } from './failures.ts'
import type { LeaseDesk } from './lease-desk.ts'
import type { Lookout } from './lookout.ts'
import { canStep } from './states.ts'
import type { Substrates } from './substrates.ts'

export interface KeeperDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => RuntimesConfig
  readonly substrates: () => Substrates
  /** How many more of a class there may be now. */
  readonly placesOf: (runtimeClass: string) => number
  readonly leases: LeaseDesk
  readonly lookout: Lookout
  readonly notify: (tenant: string, runtimeId: string, status: ControlStatus) => readonly Command<unknown>[]
  readonly nudge: () => void
  /** Capacity or runtimes changed: offers want another look. */
  readonly onChange: () => void
}

export type Emit = (status: ControlStatus) => void

/** A legal step as a command. @throws Error for an illegal one, which is a fault of ours */
export function step(id: string, from: RuntimeState, to: RuntimeState, reason: string, at: number, patch?: RuntimePatch): Command<void> {
  if (!canStep(from, to)) throw new Error(`A runtime cannot go from ${from} to ${to}.`)
  return moveRuntime({ id, from, to, reason: reason.slice(0, 500), at, ...(patch === undefined ? {} : { patch }) })
}

/** Writes what a provision needs to go on. @throws ControlError state_persist_failed, shutting_down; conflict */
export async function mustPersist(deps: KeeperDeps, ...commands: readonly Command<unknown>[]): Promise<void> {
  await persist(deps, ...commands).catch((error: unknown) => {
    throw isPylonError(error, 'conflict') ? error : toControlError(error, 'state_persist_failed')
  })
}

/** @throws ControlError runtime_not_found */
export function mustGet(store: Store, id: string): RuntimeRow {
  const row = getRuntime(store, id)
  if (row === undefined) throw runtimeNotFound(id)
  return row
}

/** Asks the substrate for what the runtime leaves; undefined where it can't be had. Never rejects. */
export async function collectFrom(deps: KeeperDeps, row: RuntimeRow): Promise<CollectedOutputs | undefined> {
  if (row.handle === null) return undefined
  try {
    return await deps.substrates().get(row.provider).collect?.(row.handle, decodeRuntimeSpec(row.spec))
  } catch (error) {
    deps.logger.warn({ runtime_id: row.id, error: messageOf(error) }, 'the outputs of a runtime could not be collected')
    return undefined
  }
}

export function keepOutputs(deps: KeeperDeps, row: RuntimeRow, outputs: CollectedOutputs | undefined): readonly Command<unknown>[] {
  if (outputs === undefined) return []
  const entry = (name: string, text: string) => (text === '' ? [] : [{ name, data: Buffer.from(text) }])
  const files = [
    ...entry('stdout', outputs.stdout),
    ...entry('stderr', outputs.stderr),
    ...entry('log', outputs.log),
    ...entry('events', outputs.events.map((event) => JSON.stringify(event)).join('\n')),
    ...(outputs.status === undefined ? [] : entry('status', JSON.stringify(outputs.status))),
    ...(outputs.result === undefined ? [] : entry('result', JSON.stringify(outputs.result))),
    ...(outputs.problems.length === 0 ? [] : entry('problems', outputs.problems.join('\n'))),
    ...outputs.artifacts.map((artifact) => ({ name: `artifact:${artifact.path}`, data: artifact.data })),
  ]
  return files.length === 0 ? [] : [putOutputs({ runtimeId: row.id, outputs: files, keepBytes: deps.config().outputs_kept_mib * 2 ** 20 })]
}

export function resultOf(outputs: CollectedOutputs | undefined): Json | null {
  return outputs?.result === undefined ? null : (JSON.parse(JSON.stringify(outputs.result)) as Json)
}
