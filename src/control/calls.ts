/** What the server keeps about calls, behind interfaces: claimed idempotency keys and long-running tasks. */

import type { z } from 'zod'
import type { task } from './contract/node.ts'

export interface Claims {
  /**
   * Claims a key for a request before anything is done. `new` also for a key claimed before a crash and never answered.
   * @throws idempotency_conflict
   */
  claim(
    key: string,
    route: string,
    digest: string,
  ): Promise<{ readonly state: 'new' } | { readonly state: 'answered'; readonly status: number; readonly body: string }>
  /** What the key answers from now on. @param body without `network`, JSON text. */
  answer(key: string, status: number, body: string): Promise<void>
}

/** A task on the wire, as `GET /v1/tasks/:id` shows it. */
export type TaskView = Readonly<z.output<typeof task>>

export interface Tasks {
  /** Starts the work under this id and resolves once that is stored; while it runs a second call joins it. The work gives its answer as it goes on the wire. */
  run(id: string, route: string, work: () => Promise<unknown>): Promise<void>
  find(id: string): TaskView | undefined
  /** The task as it is now, or as soon as it ends within `waitMs`. @throws task_not_found */
  get(id: string, waitMs: number, signal: AbortSignal): Promise<TaskView>
}
