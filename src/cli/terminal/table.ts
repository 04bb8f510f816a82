/** How answers are laid out for people: aligned columns, key and value lists, short ids, times as they are read. */
import { formatSats, type Sats, satsToMsats } from '../../base/amounts.ts'
import { plain } from './output.ts'

/** A title, over text to the left unless it says otherwise. */
export type Column = string | { readonly title: string; readonly align?: 'left' | 'right' }

/** A column of numbers. */
export const right = (title: string): Column => ({ title, align: 'right' })

/** Columns as wide as their widest cell, numbers to the right where the column says so. Cells become one safe line each. */
export function drawTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const titles = columns.map((column) => (typeof column === 'string' ? column : column.title))
  const aligns = columns.map((column) => (typeof column === 'string' ? undefined : column.align))
  return drawRows([titles, ...rows.map((row) => row.map(oneLine))], aligns)
}

/** A table with a line for each; words where there is none. */
export function drawList<T>(all: readonly T[], none: string, columns: readonly Column[], cellsOf: (one: T) => readonly string[]): string {
  return all.length === 0 ? none : drawTable(columns, all.map(cellsOf))
}

/** Cells under each other, as they are. */
export function drawRows(rows: readonly (readonly string[])[], aligns: readonly ('left' | 'right' | undefined)[] = []): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, lengthOf(cell))
  const lines = rows.map((row) => row.map((cell, i) => pad(cell, widths[i] ?? 0, aligns[i])))
  return lines.map((cells) => cells.join('  ').trimEnd()).join('\n')
}

/** `name  value` lines with the values under each other. */
export function drawFields(fields: readonly (readonly [string, string])[]): string {
  const width = Math.max(0, ...fields.map(([name]) => lengthOf(name)))
  return fields.map(([name, value]) => `${pad(name, width)}  ${indent(plain(value), width + 2)}`.trimEnd()).join('\n')
}

/** Later lines moved right, so that they stand under the first. */
export function indent(text: string, by: number): string {
  return text.split('\n').join(`\n${' '.repeat(by)}`)
}

/** At most `max` characters of one line, the last one an ellipsis where more was there. */
export function shorten(text: string, max: number): string {
  const characters = [...oneLine(text)]
  return characters.length <= max ? characters.join('') : `${characters.slice(0, max - 1).join('')}…`
}

/** The beginning of a hex id or npub: enough to tell, and enough for `show`. */
export function shortId(id: string): string {
  return id.startsWith('npub1') ? `${id.slice(0, 13)}…` : id.slice(0, 12)
}

export function sats(amount: Sats): string {
  return formatSats(satsToMsats(amount))
}

/** `in 3 min`; what is due is `now`, however late. */
export function timeUntil(time: string, nowMs: number): string {
  return Date.parse(time) <= nowMs ? 'now' : relativeTime(time, nowMs)
}

/** `12 s ago`, `in 3 min`, or `never`. */
export function relativeTime(time: string | null, nowMs: number): string {
  if (time === null) return 'never'
  const seconds = Math.round((nowMs - Date.parse(time)) / 1000)
  const words = duration(Math.abs(seconds))
  return seconds >= 0 ? `${words} ago` : `in ${words}`
}

function duration(seconds: number): string {
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`
  return `${Math.floor(seconds / 86_400)} days`
}

/** `2026-03-01 12:00:05`, UTC. */
export function clockTime(time: string): string {
  return time.slice(0, 19).replace('T', ' ')
}

function oneLine(text: string): string {
  return plain(text.replace(/\s+/g, ' '))
}

function lengthOf(text: string): number {
  return [...text].length
}

function pad(text: string, width: number, align?: 'left' | 'right'): string {
  const space = ' '.repeat(Math.max(0, width - lengthOf(text)))
  return align === 'right' ? space + text : text + space
}
