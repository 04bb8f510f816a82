/** JSON with integers that may be bigint: written as JSON integers, refused past 2^53-1. */
import { wire } from './amounts.ts'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

export function stringify(value: unknown, space?: number): string {
  return JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? wire(v) : v), space)
}

/** The value, or undefined when the text is no JSON. */
export function parseJson(text: string): unknown {
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

/** Its members where it is an object, else none. */
export function asRecord(value: Json | null | undefined): Record<string, Json> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
}
