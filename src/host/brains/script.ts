/**
 * Rules files, pure: trigger, conditions, action templates over what was observed. No code is ever evaluated: a template
 * puts a known field in place of `{{field}}`, a condition compares a known field with a value.
 */
import { parse as parseToml } from 'smol-toml'
import { z } from 'zod'
import { messageOf, PylonError } from '../../base/errors.ts'
import { noteOf } from '../../nostr/nips/nip19.ts'
import { ACTION_FIELDS, ACTION_TYPES, type ActionType } from '../actions/action.ts'
import { cleanText, type Observation, type Quote } from '../observation.ts'
import type { RawAction } from './grammar.ts'

const OCCASIONS = ['tick', 'first', 'mention', 'dm', 'zap', 'note'] as const
type Occasion = (typeof OCCASIONS)[number]

const OPS = ['eq', 'ne', 'lt', 'lte', 'gt', 'gte', 'contains', 'not_contains', 'starts_with', 'in'] as const
type Op = (typeof OPS)[number]

const scalar = z.union([z.string().max(2000), z.number(), z.boolean()])
type Scalar = z.infer<typeof scalar>

const condition = z.strictObject({ field: z.string(), op: z.enum(OPS), value: z.union([scalar, z.array(scalar).max(100)]) })
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

const COMMON_FIELDS = [
  ...['agent.name', 'agent.npub', 'agent.about', 'tick.number', 'tick.trigger', 'balance_sats', 'state'],
  ...['seen.notes', 'seen.authors', 'seen.topics', 'seen.relays_up', 'seen.zapped_sats', 'seen.summary'],
  ...['mentions.count', 'dms.count', 'zaps.count', 'goal'],
]
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

const fieldsOf = (on: Occasion): string[] => [...COMMON_FIELDS, ...ITEM_FIELDS[on].map((field) => `${on}.${field}`)]

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
    for (const field of REQUIRED[action.type] ?? []) {
      if (action[field] === undefined) throw invalid(`${name}, do.${index}.${field}`, `${action.type} needs it`)
    }
  })
}

const REQUIRED: Partial<Record<ActionType, readonly string[]>> = {
  post: ['text'],
  reply: ['to', 'text'],
  react: ['to'],
  dm: ['to', 'text'],
  channel: ['channel', 'text'],
  zap: ['to', 'sats'],
  pay_invoice: ['invoice'],
  request_payment: ['to', 'sats'],
  set_goal: ['description'],
  remember: ['text'],
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
    for (const item of itemsOf(entry.on, observation)) {
      const values = valuesOf(observation, entry.on, item)
      if (!entry.when.every((check) => holds(check.op, values.get(check.field), check.value))) continue
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

function itemsOf(on: Occasion, observation: Observation): readonly (Quote | undefined)[] {
  switch (on) {
    case 'tick':
      return [undefined]
    case 'first':
      return observation.tick.number === 1 ? [undefined] : []
    case 'mention':
      return observation.mentions
    case 'dm':
      return observation.dms
    case 'zap':
      return observation.zaps
    case 'note':
      return observation.notes
  }
}

function valuesOf(o: Observation, on: Occasion, item: Quote | undefined): Map<string, Scalar> {
  const values = new Map<string, Scalar>([
    ['agent.name', o.agent.name],
    ['agent.npub', o.agent.npub],
    ['agent.about', o.agent.about],
    ['tick.number', o.tick.number],
    ['tick.trigger', o.tick.trigger],
    ['balance_sats', o.balance_sats],
    ['state', o.state],
    ['seen.notes', o.seen.notes],
    ['seen.authors', o.seen.authors],
    ['seen.topics', o.seen.topics.join(', ')],
    ['seen.relays_up', o.seen.relays_up],
    ['seen.zapped_sats', o.seen.zapped_sats],
    ['seen.summary', o.seen.summary],
    ['mentions.count', o.mentions.length],
    ['dms.count', o.dms.length],
    ['zaps.count', o.zaps.length],
    ['goal', o.goals.find((goal) => goal.status === 'active')?.description ?? ''],
  ])
  if (item === undefined) return values
  const fields: Readonly<Record<string, unknown>> = { ...item, note: noteOf(item.id) }
  for (const field of ITEM_FIELDS[on]) {
    const value = fields[field]
    if (typeof value === 'number' || typeof value === 'boolean') values.set(`${on}.${field}`, value)
    else values.set(`${on}.${field}`, cleanText(String(value ?? '')))
  }
  return values
}

function holds(op: Op, actual: Scalar | undefined, expected: Scalar | readonly Scalar[]): boolean {
  if (actual === undefined) return false
  switch (op) {
    case 'eq':
      return actual === expected
    case 'ne':
      return actual !== expected
    case 'lt':
      return typeof actual === 'number' && typeof expected === 'number' && actual < expected
    case 'lte':
      return typeof actual === 'number' && typeof expected === 'number' && actual <= expected
    case 'gt':
      return typeof actual === 'number' && typeof expected === 'number' && actual > expected
    case 'gte':
      return typeof actual === 'number' && typeof expected === 'number' && actual >= expected
    case 'contains':
      return String(actual).toLowerCase().includes(String(expected).toLowerCase())
    case 'not_contains':
      return !String(actual).toLowerCase().includes(String(expected).toLowerCase())
    case 'starts_with':
      return String(actual).toLowerCase().startsWith(String(expected).toLowerCase())
    case 'in':
      return Array.isArray(expected) && expected.includes(actual)
  }
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
