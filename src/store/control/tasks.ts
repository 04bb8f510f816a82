/** Long-running calls of the control socket, so that their outcome outlives the connection and the process. */
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const tasks = table('tasks', {
  id: column.text(),
  route: column.text(),
  state: column.text<'running' | 'done' | 'failed'>(),
  /** The answer, or the error object. */
  outcome: column.orNull(column.json<unknown>()),
  createdAt: column.int(),
  finishedAt: column.orNull(column.int()),
})
export type TaskRow = RowOfTable<typeof tasks>

/** Puts a task to running; one that ended before (a repeated call) runs again. */
export const startTask = defineCommand('start_task', (sql, p: { id: string; route: string; at: number }) => {
  sql(
    "INSERT INTO tasks (id, route, state, created_at) VALUES (?, ?, 'running', ?) ON CONFLICT (id) DO UPDATE SET state = 'running', outcome = NULL, finished_at = NULL",
  ).run(p.id, p.route, BigInt(p.at))
})

/** @param p.outcome JSON text. */
export const finishTask = defineCommand('finish_task', (sql, p: { id: string; state: 'done' | 'failed'; outcome: string; at: number }) => {
  sql('UPDATE tasks SET state = ?, outcome = ?, finished_at = ? WHERE id = ?').run(p.state, p.outcome, BigInt(p.at), p.id)
})

/** Ends what a former process left running. @param p.outcome the error object as JSON text. */
export const failLostTasks = defineCommand('fail_lost_tasks', (sql, p: { outcome: string; at: number }) => {
  sql("UPDATE tasks SET state = 'failed', outcome = ?, finished_at = ? WHERE state = 'running'").run(p.outcome, BigInt(p.at))
})

export const findTask = (store: Store, id: string): TaskRow | undefined => tasks.get(store.sql, { id })
