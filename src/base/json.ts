/** JSON with integers that may be bigint: written as JSON integers, refused past 2^53-1. */
import { wire } from './amounts.ts'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

export function stringify(value: unknown, space?: number): string {
  return JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? wire(v) : v), space)
}

/** Nothing that we read is nested deeper; what is would end whoever walks it. */
const MAX_DEPTH = 500

/** Whether brackets outside of strings are nested deeper than anything that we read. Linear, whatever the text. */
function isTooDeep(text: string): boolean {
  if (text.length <= MAX_DEPTH) return false
  let depth = 0
  let isString = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (isString) {
      if (code === BACKSLASH) i++
      else if (code === QUOTE) isString = false
    } else if (code === QUOTE) isString = true
    else if (code === OPEN_LIST || code === OPEN_OBJECT) {
      if (++depth > MAX_DEPTH) return true
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--
  }
  return false
}

const [QUOTE, BACKSLASH, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [34, 92, 91, 93, 123, 125]

/** The value, or undefined when the text is no JSON, or nested without end. */
export function parseJson(text: string): unknown {
  if (isTooDeep(text)) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A value as JSON has it: undefined members left out. */
export function asJson(value: unknown): Json {
  return JSON.parse(JSON.stringify(value)) as Json
}

/** Whether it is an object with members: no list, not null. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Its members where it is an object, else none. */
export const asRecord = (value: Json | null | undefined): Record<string, Json> => (isRecord(value) ? value : {})
