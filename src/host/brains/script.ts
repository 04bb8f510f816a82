/**
 * Rules files, pure: trigger, conditions, action templates over what was observed. No code is ever evaluated: a template
 * puts a known field in place of `{{field}}`, a condition compares a known field with a value.
 */
import { parse as parseToml } from 'smol-toml'
import { z } from 'zod'
import { messageOf, PylonError } from '../../base/errors.ts'
import { noteOf } from '../../nostr/nips/nip19.ts'
import { ACTION_FIELDS, ACTION_TYPES, type ActionType, NEEDED_FIELDS } from '../actions/action.ts'
import { cleanText, type Observation, type Quote } from '../observation.ts'
import type { RawAction } from './grammar.ts'

const OCCASIONS = ['tick', 'first', 'mention', 'dm', 'zap', 'note'] as const
type Occasion = (typeof OCCASIONS)[number]

const scalar = z.union([z.string().max(2000), z.number(), z.boolean()])
type Scalar = z.infer<typeof scalar>
type Test = (actual: Scalar, expected: Scalar | readonly Scalar[]) => boolean

const numbers = (test: (actual: number, expected: number) => boolean): Test => {
  return (actual, expected) => typeof actual === 'number' && typeof expected === 'number' && test(actual, expected)
}
const texts = (test: (actual: string, expected: string) => boolean): Test => {
  return (actual, expected) => test(String(actual).toLowerCase(), String(expected).toLowerCase())
}

const OPS = {
  eq: (actual, expected) => actual === expected,
  ne: (actual, expected) => actual !== expected,
  lt: numbers((actual, expected) => actual < expected),
  lte: numbers((actual, expected) => actual <= expected),
  gt: numbers((actual, expected) => actual > expected),
  gte: numbers((actual, expected) => actual >= expected),
  contains: texts((actual, expected) => actual.includes(expected)),
  not_contains: texts((actual, expected) => !actual.includes(expected)),
  starts_with: texts((actual, expected) => actual.startsWith(expected)),
  in: (actual, expected) => Array.isArray(expected) && expected.includes(actual),
} satisfies Record<string, Test>
type Op = keyof typeof OPS

const condition = z.strictObject({
  field: z.string(),
  op: z.enum(Object.keys(OPS) as [Op, ...Op[]]),
  value: z.union([scalar, z.array(scalar).max(100)]),
})
const template = z.looseObject({ type: z.enum(ACTION_TYPES as [ActionType, ...ActionType[]]) })
const rule = z.strictObject({
  name: z.string().min(1).max(64).optional(),
  /** `tick`: each tick; `first`: the agent's first; the others: once for each such thing observed. */
  on: z.enum(OCCASIONS),
  /** All must hold. */
  when: z.array(condition).max(20).default([]),
  do: z.array(template).min(1).max(10),
  /** Only at ticks whose number is a multiple of this. */
  every: z.int().min(1).max(10_000).default(1),
  /** How often it applies in one tick at most. */
  max: z.int().min(1).max(20).default(3),
})
const schema = z.strictObject({ version: z.literal(1).default(1), rules: z.array(rule).min(1).max(100) })

export type Script = z.infer<typeof schema>
type Rule = Script['rules'][number]

const COMMON: Readonly<Record<string, (o: Observation) => Scalar>> = {
  'agent.name': (o) => o.agent.name,
  'agent.npub': (o) => o.agent.npub,
  'agent.about': (o) => o.agent.about,
  'tick.number': (o) => o.tick.number,
  'tick.trigger': (o) => o.tick.trigger,
  balance_sats: (o) => o.balance_sats,
  state: (o) => o.state,
  'seen.notes': (o) => o.seen.notes,
  'seen.authors': (o) => o.seen.authors,
  'seen.topics': (o) => o.seen.topics.join(', '),
  'seen.relays_up': (o) => o.seen.relays_up,
  'seen.zapped_sats': (o) => o.seen.zapped_sats,
  'seen.summary': (o) => o.seen.summary,
  'mentions.count': (o) => o.mentions.length,
  'dms.count': (o) => o.dms.length,
  'zaps.count': (o) => o.zaps.length,
  goal: (o) => o.goals.find((goal) => goal.status === 'active')?.description ?? '',
}
/** `note` is the id as `note1...`: what a zap takes, since 64 hex digits are a key there. */
const QUOTE_FIELDS = ['id', 'note', 'npub', 'pubkey', 'text', 'own_home', 'old', 'spoken_recently', 'spoken_total', 'zapped_today']
const ITEM_FIELDS: Readonly<Record<Occasion, readonly string[]>> = {
  tick: [],
  first: [],
  mention: QUOTE_FIELDS,
  note: QUOTE_FIELDS,
  dm: [...QUOTE_FIELDS, 'scheme'],
  zap: [...QUOTE_FIELDS, 'sats', 'event_id'],
}

const fieldsOf = (on: Occasion): string[] => [...Object.keys(COMMON), ...ITEM_FIELDS[on].map((field) => `${on}.${field}`)]

const HOLE = /\{\{\s*([^{}]*?)\s*\}\}/g

function invalid(where: string, problem: string): PylonError {
  return new PylonError('script_invalid', `The rules file is wrong at ${where}: ${problem}.`, { details: { where } })
}

/** A rules file, TOML or JSON. @throws script_invalid naming rule and field */
export function parseScript(source: string): Script {
  if (source.length > 200_000) throw invalid('the top', 'it is longer than 200,000 characters')
  const parsed = schema.safeParse(readSource(source))
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    const path = (issue?.path ?? []).map(String)
    throw invalid(placeOf(path), issue?.message ?? 'it has a wrong shape')
  }
  parsed.data.rules.forEach((entry, index) => {
    checkRule(entry, ruleName(entry, index))
  })
  return parsed.data
}

function readSource(source: string): unknown {
  const asJson = /^\s*[{[]\s*(?:"|\}|\{)/.test(source)
  try {
    return asJson ? (JSON.parse(source) as unknown) : parseToml(source)
  } catch (error) {
    throw invalid('the top', `it is no valid ${asJson ? 'JSON' : 'TOML'}: ${messageOf(error)}`)
  }
}

const ruleName = (entry: { name?: string | undefined }, index: number): string =>
  entry.name === undefined ? `rule ${index + 1}` : `rule ${index + 1} (${entry.name})`

function placeOf(path: readonly string[]): string {
  if (path[0] !== 'rules' || path[1] === undefined) return path.join('.') || 'the top'
  return [`rule ${Number(path[1]) + 1}`, ...(path.length > 2 ? [path.slice(2).join('.')] : [])].join(', ')
}

function checkRule(entry: Rule, name: string): void {
  const fields = fieldsOf(entry.on)
  entry.when.forEach((check, index) => {
    if (!fields.includes(check.field)) throw invalid(`${name}, when.${index}.field`, unknownField(check.field, fields))
    if ((check.op === 'in') !== Array.isArray(check.value))
      throw invalid(`${name}, when.${index}.value`, 'a list goes with the op in, and only with it')
  })
  entry.do.forEach((action, index) => {
    const allowed = ACTION_FIELDS[action.type] ?? []
    for (const [field, value] of Object.entries(action)) {
      if (field === 'type') continue
      const where = `${name}, do.${index}.${field}`
      if (!allowed.includes(field)) throw invalid(where, `${action.type} has no such field; it has ${allowed.join(', ') || 'none'}`)
      if (typeof value !== 'string' && typeof value !== 'number') throw invalid(where, 'expected a text or a number')
      for (const match of String(value).matchAll(HOLE)) {
        if (!fields.includes(match[1] ?? '')) throw invalid(where, unknownField(match[1] ?? '', fields))
      }
    }
    for (const field of NEEDED_FIELDS[action.type] ?? []) {
      if (action[field] === undefined) throw invalid(`${name}, do.${index}.${field}`, `${action.type} needs it`)
    }
  })
}

const unknownField = (field: string, fields: readonly string[]): string =>
  `there is no field ${JSON.stringify(field)} here; there are ${fields.join(', ')}`

/** Occasions that a tick takes up once: what no rule had room for waits for the next. */
const HEARD: ReadonlySet<Occasion> = new Set(['mention', 'dm', 'zap'])

/** What the rules want, in their order; what two of them want alike is wanted once. */
export function runScript(script: Script, observation: Observation): { actions: RawAction[]; applied: string[]; left: string[] } {
  const actions = new Map<string, RawAction>()
  const applied: string[] = []
  const taken = new Set<string>()
  const beyond = new Set<string>()
  script.rules.forEach((entry, index) => {
    if (observation.tick.number % entry.every !== 0) return
    let times = 0
    for (const item of ITEMS[entry.on](observation)) {
      const values = valuesOf(observation, entry.on, item)
      if (!entry.when.every((check) => holds(check, values.get(check.field)))) continue
      const heardId = HEARD.has(entry.on) ? item?.id : undefined
      if (times >= entry.max) {
        if (heardId !== undefined) beyond.add(heardId)
        continue
      }
      times++
      if (heardId !== undefined) taken.add(heardId)
      for (const action of entry.do) {
        const filled = fill(action, values)
        actions.set(JSON.stringify(filled), filled)
      }
    }
    if (times > 0) applied.push(`${ruleName(entry, index)}${times > 1 ? ` x${times}` : ''}`)
  })
  return { actions: [...actions.values()], applied, left: [...beyond].filter((id) => !taken.has(id)) }
}

const ITEMS: Readonly<Record<Occasion, (o: Observation) => readonly (Quote | undefined)[]>> = {
  tick: () => [undefined],
  first: (o) => (o.tick.number === 1 ? [undefined] : []),
  mention: (o) => o.mentions,
  dm: (o) => o.dms,
  zap: (o) => o.zaps,
  note: (o) => o.notes,
}

function valuesOf(o: Observation, on: Occasion, item: Quote | undefined): Map<string, Scalar> {
  const values = new Map(Object.entries(COMMON).map(([field, read]) => [field, read(o)]))
  if (item === undefined) return values
  const fields: Readonly<Record<string, unknown>> = { ...item, note: noteOf(item.id) }
  for (const field of ITEM_FIELDS[on]) {
    const value = fields[field]
    if (typeof value === 'number' || typeof value === 'boolean') values.set(`${on}.${field}`, value)
    else values.set(`${on}.${field}`, cleanText(String(value ?? '')))
  }
  return values
}

function holds({ op, value }: Rule['when'][number], actual: Scalar | undefined): boolean {
  const test: Test = OPS[op]
  return actual !== undefined && test(actual, value)
}

const NUMBERS = new Set(['sats', 'priority', 'progress'])

/** What is put in is never looked at again: a `{{field}}` in a stranger's text stays text. */
function fill(action: Rule['do'][number], values: ReadonlyMap<string, Scalar>): RawAction {
  const filled: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(action)) {
    if (field === 'type' || typeof value !== 'string') {
      filled[field] = value
      continue
    }
    const text = value.replace(HOLE, (_hole, name: string) => String(values.get(name) ?? ''))
    filled[field] = NUMBERS.has(field) && /^\d{1,15}$/.test(text.trim()) ? Number(text.trim()) : text
  }
  return { ...filled, type: action.type }
}
