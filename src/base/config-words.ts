/** What is wrong with a configuration, in the words of who edits it. Pure. */
import { z } from 'zod'
import { nearest } from './nearest.ts'

const SHAPES: Readonly<Record<string, string>> = {
  string: 'must be text, as "words"',
  number: 'must be a number',
  int: 'must be a whole number',
  boolean: 'must be true or false',
  array: 'must be a list, as ["a", "b"]',
  object: 'must be a table, as { name = "value" }',
  record: 'must be a table, as { name = "value" }',
}

/** @param keys all that there are, dotted; @param raw what was read */
export function wordsForIssue(issue: z.core.$ZodIssue, keys: readonly string[], raw: unknown): string {
  const path = issue.path.map(String)
  const where = path.join('.') || '(top)'
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => unknownKey([...path, key].join('.'), keys)).join('; ')
    case 'invalid_type': {
      if (valueAt(raw, path) === undefined) return `${where} is missing`
      // A price that is no table.
      if (issue.expected === 'object' && /^provider\.prices\.\d+$/.test(where)) {
        return `${where} must say millisats, as { amount_msats = 2000 }, or be 0 for free`
      }
      return `${where} ${SHAPES[issue.expected] ?? `must be of type ${issue.expected}`}`
    }
    case 'invalid_value': {
      const allowed = issue.values.map(String)
      const meant = nearest(String(valueAt(raw, path) ?? ''), allowed)
      return `${where} is one of ${allowed.join(', ')}${meant === undefined ? '' : `; did you mean ${meant}?`}`
    }
    case 'too_small':
      return `${where} ${issue.origin === 'string' || issue.origin === 'array' ? 'must not be empty' : `must be at least ${issue.minimum}`}`
    case 'too_big':
      return `${where} ${issue.origin === 'string' || issue.origin === 'array' ? `is longer than ${issue.maximum}` : `must be at most ${issue.maximum}`}`
    case 'invalid_key':
      return `${where}: the key must be ${issue.issues.map((inner) => inner.message).join(', ')}`
    case 'invalid_union':
      return `${where} ${
        issue.errors
          .flat()
          .map((inner) => inner.message)
          .at(-1) ?? 'is not allowed'
      }`
    default:
      return `${where} ${issue.message.charAt(0).toLowerCase()}${issue.message.slice(1)}`
  }
}

/** Of a key that is none: what was probably meant. */
export function unknownKey(key: string, keys: readonly string[]): string {
  const last = key.slice(key.lastIndexOf('.') + 1)
  const meant = nearest(key, keys) ?? keys.find((one) => one.endsWith(`.${last}`)) ?? nearestIn(key, keys)
  return `there is no configuration key ${key}${meant === undefined ? '' : `; did you mean ${meant}?`}`
}

/** The nearest name within the table that was named. */
function nearestIn(key: string, keys: readonly string[]): string | undefined {
  const [table, name] = [key.slice(0, key.lastIndexOf('.')), key.slice(key.lastIndexOf('.') + 1)]
  const names = keys.filter((one) => one.startsWith(`${table}.`)).map((one) => one.slice(table.length + 1))
  const meant = nearest(name, names)
  return meant === undefined ? undefined : `${table}.${meant}`
}

function valueAt(raw: unknown, path: readonly string[]): unknown {
  let value = raw
  for (const part of path) value = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[part] : undefined
  return value
}

/** Every key of a schema, dotted, tables and what is in them; entries of lists and named tables stay out. */
export function keysOf(schema: z.ZodType): string[] {
  const walk = (node: JsonSchema, at: string): string[] =>
    Object.entries(node.properties ?? {}).flatMap(([name, child]) => {
      const key = at === '' ? name : `${at}.${name}`
      return [key, ...walk(child, key)]
    })
  return walk(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema, '')
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>
}
