/** Writes as data: a command is a name and parameters, its handler runs inside the write queue's transaction. */
import type { Database, Statement } from 'better-sqlite3'
import { PylonError } from '../base/errors.ts'

/** A database seen by handlers and readers: prepared statements, cached by their text. Integers come back as bigint. */
export type Sql = (text: string) => Statement<unknown[], Row>

/** A row as SQLite gives it; decode it with the functions of row.ts. */
export type Row = Record<string, unknown>

export interface Command<R> {
  readonly name: string
  readonly params: unknown
  /** Carries the result type only; never set. */
  readonly result?: R
}

type Handler = (sql: Sql, params: never) => unknown

const handlers = new Map<string, { run: Handler; label: ((params: never) => string) | undefined }>()

/**
 * Names a write. The handler is synchronous, does only SQL and throws to undo all that its command did.
 * @param label names the command's instance for fault points and logs, e.g. `transition_job:ready`; the name by default.
 */
export function defineCommand<P, R>(
  name: string,
  run: (sql: Sql, params: P) => R,
  label?: (params: P) => string,
): (params: P) => Command<R> {
  if (handlers.has(name)) throw new PylonError('internal', `The command ${name} is defined twice.`)
  handlers.set(name, { run, label })
  return (params) => ({ name, params })
}

/** Forgets rows of a table from before a time (ms), at most `limit` a call, so that the loop is not held. Gives how many went. */
export const defineSweep = (name: string, from: string, key: string, at: string) =>
  defineCommand(name, (sql, p: { before: number; limit: number }): number => {
    const old = `SELECT ${key} FROM ${from} WHERE ${at} < ? LIMIT ?`
    return sql(`DELETE FROM ${from} WHERE (${key}) IN (${old})`).run(BigInt(p.before), BigInt(p.limit)).changes
  })

/** Several commands as one: all of them happen or none. */
export function all<const T extends readonly Command<unknown>[]>(
  ...commands: T
): Command<{ -readonly [K in keyof T]: T[K] extends Command<infer R> ? R : never }> {
  return { name: 'all', params: commands }
}

handlers.set('all', {
  run: (sql: Sql, commands: readonly Command<unknown>[]) => commands.map((command) => runCommand(sql, command)),
  label: undefined,
})

export function runCommand<R>(sql: Sql, command: Command<R>): R {
  const handler = handlers.get(command.name)
  if (handler === undefined) throw new PylonError('internal', `No handler for the command ${command.name}.`)
  return handler.run(sql, command.params as never) as R
}

/** The labels of a command and of all inside it, in order. */
export function labelsOf(command: Command<unknown>): string[] {
  if (command.name === 'all') return (command.params as readonly Command<unknown>[]).flatMap(labelsOf)
  return [handlers.get(command.name)?.label?.(command.params as never) ?? command.name]
}

/** A statement cache over one connection. */
export function sqlOver(db: Database): Sql {
  const cache = new Map<string, Statement<unknown[], Row>>()
  return (text) => {
    let statement = cache.get(text)
    if (statement === undefined) {
      statement = db.prepare<unknown[], Row>(text)
      cache.set(text, statement)
    }
    return statement
  }
}
