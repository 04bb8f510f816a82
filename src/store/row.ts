/** Decoders from SQLite's values (bigint, string, null, bytes) to ours; a wrong type is a fault, never a guess. */
import { type Msats, msats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'
import type { Row, Sql } from './commands.ts'

const wrong = (row: Row, column: string, expected: string): PylonError =>
  new PylonError('internal', `Column ${column} is ${typeof row[column]}, expected ${expected}.`)

export function text(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw wrong(row, column, 'text')
  return value
}

export const textOrNull = (row: Row, column: string): string | null => (row[column] === null ? null : text(row, column))

/** A number that is no amount: a time, a count, a kind. */
export function int(row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'bigint') throw wrong(row, column, 'integer')
  const number = Number(value)
  if (!Number.isSafeInteger(number)) throw wrong(row, column, 'safe integer')
  return number
}

export const intOrNull = (row: Row, column: string): number | null => (row[column] === null ? null : int(row, column))

export function amount(row: Row, column: string): Msats {
  const value = row[column]
  if (typeof value !== 'bigint') throw wrong(row, column, 'integer')
  return msats(value)
}

export function json<T>(row: Row, column: string): T {
  return JSON.parse(text(row, column)) as T
}

/** What a statement is given for its `?` or `@names`. */
export type Params = readonly (string | bigint | Buffer | null | Readonly<Record<string, string | bigint | null>>)[]

/** The one value of the first row that a statement gives; undefined without a row. */
function onlyValue(sql: Sql, text: string, params: Params): { readonly value: unknown } | undefined {
  const row = sql(text).get(...params)
  return row === undefined ? undefined : { value: Object.values(row)[0] }
}

/** What a statement counts in its one column; 0 where there is no row. */
export function countOf(sql: Sql, text: string, ...params: Params): number {
  const found = onlyValue(sql, text, params)
  return found === undefined ? 0 : int(found, 'value')
}

/** What a statement sums in its one column; 0 where there is no row. */
export function sumOf(sql: Sql, text: string, ...params: Params): bigint {
  const found = onlyValue(sql, text, params)
  return found === undefined ? 0n : amount(found, 'value')
}

/** Whether a statement gives a row. */
export const isThere = (sql: Sql, text: string, ...params: Params): boolean => sql(text).get(...params) !== undefined

/** The one column that a statement gives, of all its rows. */
export const textsOf = (sql: Sql, statement: string, ...params: Params): string[] =>
  sql(statement)
    .all(...params)
    .map((row) => text({ value: Object.values(row)[0] }, 'value'))

export function bytes(row: Row, column: string): Uint8Array {
  const value = row[column]
  if (!(value instanceof Uint8Array)) throw wrong(row, column, 'bytes')
  return value
}
