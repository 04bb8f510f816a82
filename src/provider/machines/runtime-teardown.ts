/** The way out of one runtime: what it left is collected, its leases end, its instance goes, and each step is written. */
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Command } from '../../store/commands.ts'
import type { RuntimeRow } from '../../store/selling/runtimes.ts'
import { fail } from './failures.ts'
import { type EndedBy, endingOf } from './lease-end.ts'
import type { Away } from './lookout.ts'
import { resultOf } from './outputs.ts'
import { step } from './runtime-life.ts'
import type { RuntimeRecord } from './runtime-record.ts'

export interface TeardownOutcome {
  readonly payload: Json
  /** Why the state could not be written, though the instance is gone. */
  readonly persistError?: string
}

export class RuntimeTeardown {
  readonly #record: RuntimeRecord

  constructor(record: RuntimeRecord) {
    this.#record = record
  }

  /** Its leases end, its instance goes, in whatever state it is. @throws as the substrate does; shutting_down */
  async run(reason: string, by: EndedBy, keep?: boolean): Promise<TeardownOutcome> {
    const { leases } = this.#record.deps
    const away = await this.#awayAtEnd(this.#record.row(), by)
    const row = this.#record.row()
    const at = this.#record.now()
    if (row.state === 'gone') return { payload: { teardown: 'deleted', runtime_id: row.id, already: true } }
    if (row.state === 'requested') {
      await this.#record.persist(step(row, 'gone', reason, at, { input: null }), ...leases.end(row.id, by, at))
      leases.wake()
      return { payload: { teardown: 'deleted', runtime_id: row.id } }
    }
    const keepVolume = keep ?? row.keepVolume
    const isUncollected = row.protocol === null && row.result === null && row.state !== 'teardown'
    const collected = isUncollected ? await this.#record.collect(row) : undefined
    const patch = { keepVolume, away, ...(collected === undefined ? {} : { result: resultOf(collected) }) }
    const toTeardown = (from: RuntimeRow, when: number) => {
      const end = endingOf(away, by, when)
      return [step(from, 'teardown', reason, when, patch), ...leases.end(row.id, end.by, end.at)]
    }
    let persistError = await this.#writeOnTheWayOut(...this.#record.kept(collected), ...toTeardown(row, at))
    leases.wake()
    const payload = await this.#remove(row, keepVolume)
    await this.#record.deps.doors?.close(row.id)
    const now = this.#record.find()
    if (now !== undefined && now.state !== 'gone') {
      const end = this.#record.now()
      const missed = now.state === 'teardown' ? [] : toTeardown(now, end)
      const gone = step({ id: row.id, state: 'teardown' }, 'gone', reason, end, { input: null, handle: null })
      persistError = await this.#writeOnTheWayOut(...missed, gone)
      leases.wake()
    }
    this.#record.deps.offers.changed()
    return persistError === undefined ? { payload } : { payload, persistError }
  }

  /** A failure to clean up is not that of what came before: it is tried again. */
  async attempt(reason: string, by: EndedBy): Promise<void> {
    try {
      await this.run(reason, by)
    } catch (error) {
      this.#record.deps.logger.warn({ runtime_id: this.#record.id, error: messageOf(error) }, 'a teardown failed; it is tried again')
    }
  }

  /** A fault of the disk does not keep the instance. @returns it, or undefined. @throws shutting_down */
  async #writeOnTheWayOut(...commands: readonly Command<unknown>[]): Promise<string | undefined> {
    try {
      await this.#record.persist(...commands)
      return undefined
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
      const words = 'the teardown of a runtime could not be written; it goes on'
      this.#record.deps.logger.error({ runtime_id: this.#record.id, error: messageOf(error) }, words)
      return messageOf(error)
    }
  }

  async #remove(row: RuntimeRow, keepVolume: boolean): Promise<Json> {
    const adapter = this.#record.adapter(row)
    // A crash may have come between the instance and the note of its handle.
    const known = this.#record.find()?.handle ?? null
    const found = known === null ? (await adapter.listOwned?.())?.find((owned) => owned.runtimeId === row.id) : { handle: known }
    if (found === undefined) return { teardown: 'deleted', runtime_id: row.id }
    const { handle } = found
    if (handle === null) throw fail('runtime_unreachable', 'the instance is there and cannot be reached now')
    return await adapter.teardown(handle, { keepVolume })
  }

  /** A last look where money depends on it: one that died a moment ago was not had to its end. */
  async #awayAtEnd(row: RuntimeRow, by: EndedBy): Promise<Away | null> {
    const isRunning = row.state === 'ready' || row.state === 'unreachable'
    if (!isRunning || !this.#record.isLeased || (by !== 'time' && by !== 'tenant') || row.handle === null) return row.away
    return (await this.#record.look(row)).away
  }
}
