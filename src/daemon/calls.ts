/** The control server's memory in the database: idempotency keys, and tasks with those that wait for them. */
import type { Clock } from '../base/clock.ts'
import { rfc3339 } from '../base/clock.ts'
import { messageOf, PylonError, toPylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import { News } from '../base/news.ts'
import type { Scope } from '../base/scope.ts'
import type { Claims, Tasks, TaskView } from '../control/calls.ts'
import { answerKey, claimKey, pruneCalls } from '../store/control/idempotency.ts'
import { failLostTasks, findTask, finishTask, startTask } from '../store/control/tasks.ts'
import type { Store } from '../store/store.ts'

const KEEP_MS = 30 * 24 * 3600 * 1000

interface Deps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

export function storedClaims({ store, clock }: Deps): Claims {
  return {
    claim: (key, route, digest) => store.write(claimKey({ key, route, digest, at: clock.now() })),
    answer: async (key, status, body) => {
      await store.write(answerKey({ key, status, body }))
    },
  }
}

/** Ends what a former process left running and forgets what is old. Call once, before the server listens. */
export async function reconcileCalls({ store, clock }: Deps): Promise<void> {
  const lost = new PylonError('shutting_down', 'The node ended before this was done; repeat the call with the same Idempotency-Key.')
  await store.write(failLostTasks({ outcome: stringify(lost.toJSON().error), at: clock.now() }))
  await store.write(pruneCalls({ before: clock.now() - KEEP_MS }))
}

export class StoredTasks implements Tasks {
  readonly #deps: Deps
  readonly #scope: Scope
  readonly #running = new Set<string>()
  readonly #ends: News

  /** @param scope owns the tasks that run */
  constructor(deps: Deps, scope: Scope) {
    this.#deps = deps
    this.#scope = scope
    this.#ends = new News(scope)
  }

  async run(id: string, route: string, work: () => Promise<unknown>): Promise<void> {
    if (this.#running.has(id)) return
    // Before anything is awaited, so that a second call at the same moment joins.
    this.#running.add(id)
    try {
      await this.#deps.store.write(startTask({ id, route, at: this.#deps.clock.now() }))
      this.#scope.spawn(route, () => this.#work(id, work))
    } catch (error) {
      this.#running.delete(id)
      throw error
    }
  }

  find(id: string): TaskView | undefined {
    const row = findTask(this.#deps.store, id)
    if (row === undefined) return undefined
    return {
      task_id: row.id,
      route: row.route,
      state: row.state,
      created_at: rfc3339(row.createdAt),
      finished_at: row.finishedAt === null ? null : rfc3339(row.finishedAt),
      result: row.state === 'done' ? row.outcome : null,
      error: row.state === 'failed' ? row.outcome : null,
    }
  }

  async get(id: string, waitMs: number, signal: AbortSignal): Promise<TaskView> {
    if (this.#running.has(id) && waitMs > 0) await this.#ends.next(id, waitMs, signal)
    const view = this.find(id)
    if (view === undefined) throw new PylonError('task_not_found', `There is no task ${id}.`)
    return view
  }

  async #work(id: string, work: () => Promise<unknown>): Promise<void> {
    const { store, clock, logger } = this.#deps
    let ended: { state: 'done' | 'failed'; outcome: string }
    try {
      ended = { state: 'done', outcome: stringify(await work()) }
    } catch (error) {
      const known = toPylonError(error)
      if (known.code === 'internal') logger.error({ err: known, task: id }, 'a task failed')
      ended = { state: 'failed', outcome: stringify(known.toJSON().error) }
    }
    try {
      await store.write(finishTask({ id, ...ended, at: clock.now() }))
    } catch (error) {
      logger.error({ task: id, reason: messageOf(error) }, 'the outcome of a task could not be stored')
    } finally {
      this.#running.delete(id)
      this.#ends.tell(id)
    }
  }
}
