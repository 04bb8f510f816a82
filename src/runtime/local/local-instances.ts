/** The runtimes that the local substrate holds: their folders and records, which of them live; work on one goes in order. */
import { existsSync, readdirSync } from 'node:fs'
import { PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { isSameProcess } from '../../base/process-identity.ts'
import type { Scope } from '../../base/scope.ts'
import type { RuntimeHandle } from '../adapter.ts'
import { findMarked } from './marked-processes.ts'
import { handleOf, type LocalLayout, type LocalRecord, layoutOf, RUNTIME_ID, readRecord, writeRecord } from './record.ts'

export class LocalInstances {
  readonly #dir: string
  readonly #scope: Scope
  readonly #queue = new KeyedQueue()

  /** @param dir holds `<runtime id>/` @param scope owns the work on them */
  constructor(dir: string, scope: Scope) {
    this.#dir = dir
    this.#scope = scope
  }

  /** Ids of all that has a folder, be its record whole or not. */
  ids(): string[] {
    return existsSync(this.#dir) ? readdirSync(this.#dir).filter((name) => RUNTIME_ID.test(name)) : []
  }

  /** Undefined where there is none, or a damaged one. */
  recordOf(runtimeId: string): LocalRecord | undefined {
    try {
      return readRecord(layoutOf(this.#dir, runtimeId))
    } catch {
      return undefined
    }
  }

  records(): LocalRecord[] {
    return this.ids().flatMap((runtimeId) => this.recordOf(runtimeId) ?? [])
  }

  /** @throws runtime_gone */
  open(handle: RuntimeHandle): { layout: LocalLayout; record: LocalRecord } {
    const layout = layoutOf(this.#dir, handleOf(handle).runtime_id)
    const record = readRecord(layout)
    if (record === undefined) throw new PylonError('runtime_gone', 'The runtime is no more; provision a new one.')
    return { layout, record }
  }

  /** Those whose known process runs: for counting, without a look through the whole system. */
  living(): LocalRecord[] {
    return this.records().filter(({ process }) => process !== null && isSameProcess(process))
  }

  /** Whether its outermost process runs; finds it by its mark where a crash forgot it. */
  isAlive(record: LocalRecord): boolean {
    if (record.process !== null && isSameProcess(record.process)) return true
    const [oldest] = findMarked(record.mark).sort((a, b) => Number(a.start_time) - Number(b.start_time) || a.pid - b.pid)
    if (oldest === undefined) return false
    record.process = oldest
    writeRecord(layoutOf(this.#dir, record.runtime_id), record)
    return true
  }

  /** @throws shutting_down, and as the work does */
  inOrder<T>(name: string, runtimeId: string, work: () => Promise<T>): Promise<T> {
    return this.#scope.run(`${name} ${runtimeId}`, () => this.#queue.run(runtimeId, work))
  }
}
