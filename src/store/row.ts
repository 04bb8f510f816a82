/** Decoders from SQLite's values (bigint, string, null, bytes) to ours; a wrong type is a fault, never a guess. */
import { type Msats, msats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'
import type { Row } from './commands.ts'

function wrong(row: Row, column: string, expected: string): PylonError {
  return new PylonError('internal', `Column ${column} is ${typeof row[column]}, expected ${expected}.`)
}

export function text(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw wrong(row, column, 'text')
  return value
}

export function textOrNull(row: Row, column: string): string | null {
  return row[column] === null ? null : text(row, column)
}

/** A number that is no amount: a time, a count, a kind. */
export function int(row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'bigint') throw wrong(row, column, 'integer')
  const number = Number(value)
  if (!Number.isSafeInteger(number)) throw wrong(row, column, 'safe integer')
  return number
}

export function intOrNull(row: Row, column: string): number | null {
  return row[column] === null ? null : int(row, column)
}

export function amount(row: Row, column: string): Msats {
  const value = row[column]
  if (typeof value !== 'bigint') throw wrong(row, column, 'integer')
  return msats(value)
}

export function amountOrNull(row: Row, column: string): Msats | null {
  return row[column] === null ? null : amount(row, column)
}

export function json<T>(row: Row, column: string): T {
  return JSON.parse(text(row, column)) as T
}

export function jsonOrNull<T>(row: Row, column: string): T | null {
  return row[column] === null ? null : json<T>(row, column)
}

/** The count in the one row of an aggregate. */
export const countIn = (row: Row | undefined, column: string): number => (row === undefined ? 0 : int(row, column))

/** The sum in the one row of an aggregate. */
export const sumIn = (row: Row | undefined, column: string): bigint => (row === undefined ? 0n : amount(row, column))
