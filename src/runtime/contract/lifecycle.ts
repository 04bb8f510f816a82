/**
 * The lifecycle vocabulary of a runtime and the files that carry it, pure. Two tiers:
 *
 *   host-observed   requested -> provisioning -> booted ... unreachable | stopped -> destroyed
 *   guest-emitted                                 starting -> ready -> completed | failed
 *                                                    |  ^       |
 *                                                    |  +-------+   (the supervised process is started again)
 *                                                    +-> completed | failed
 */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { type Json, parseJson } from '../../base/json.ts'

export const LIFECYCLE_SCHEMA_VERSION = 1
export const HOST_STATES = ['requested', 'provisioning', 'booted', 'unreachable', 'stopped', 'destroyed'] as const
export const GUEST_STATES = ['starting', 'ready', 'failed', 'completed'] as const
export const LIFECYCLE_STATES = [...HOST_STATES, ...GUEST_STATES] as const

export type GuestState = (typeof GUEST_STATES)[number]
export type LifecycleState = (typeof LIFECYCLE_STATES)[number]

/** Legal moves of a guest; a guest also says `booted` of itself before its first. */
const GUEST_MOVES: Readonly<Record<GuestState, readonly GuestState[]>> = {
  starting: ['starting', 'ready', 'failed', 'completed'],
  ready: ['starting', 'failed', 'completed'],
  failed: [],
  completed: [],
}

export function mayFollow(from: GuestState, to: GuestState): boolean {
  return GUEST_MOVES[from].includes(to)
}

const version = z.literal(LIFECYCLE_SCHEMA_VERSION, {
  error: (issue) => `is ${JSON.stringify(issue.input)}, expected ${LIFECYCLE_SCHEMA_VERSION}`,
})
const timestamp = z.iso.datetime({ offset: true })
const details = z.record(z.string(), z.json()).optional()
const bootId = z.string().max(128).optional()
/** A guest's words, as far as a status or an answer has room for them. */
const MAX_MESSAGE_CHARS = 2000
const message = z.string().transform((words) => words.slice(0, MAX_MESSAGE_CHARS))

// Unknown fields are ignored here: a guest may be newer than its host within one schema version.
const statusSnapshot = z.object({
  schema_version: version,
  state: z.enum(LIFECYCLE_STATES),
  updated_at: timestamp,
  message,
  boot_id: bootId,
  details,
})

const lifecycleEvent = z.object({
  schema_version: version,
  seq: z.int().min(0),
  timestamp,
  kind: z.enum(LIFECYCLE_STATES),
  message,
  boot_id: bootId,
  details,
})

const terminalResult = z.object({
  schema_version: version,
  status: z.enum(['completed', 'failed']),
  finished_at: timestamp,
  message,
  exit_code: z
    .int()
    .min(-(2 ** 31))
    .max(2 ** 31 - 1)
    .optional(),
  details,
})

export type LifecycleDetails = Readonly<Record<string, Json>>
/** status.json */
export type RuntimeStatusSnapshot = Readonly<z.output<typeof statusSnapshot>>
/** A line of events.jsonl */
export type RuntimeEvent = Readonly<z.output<typeof lifecycleEvent>>
/** result.json */
export type RuntimeTerminalResult = Readonly<z.output<typeof terminalResult>>

/** @param source what to name in an error, as a rule the path. @throws lifecycle_invalid */
export function decodeStatus(text: string, source: string): RuntimeStatusSnapshot {
  return decode(statusSnapshot, text, source)
}

/** @throws lifecycle_invalid */
export function decodeResult(text: string, source: string): RuntimeTerminalResult {
  return decode(terminalResult, text, source)
}

/**
 * The lines of events.jsonl; blank ones are skipped.
 * @param options.partial the text may end within a line (a capped read, a writer killed while it wrote): that line is left out
 * @throws lifecycle_invalid with the 1-based line
 */
export function decodeEvents(text: string, source: string, options: { partial?: boolean } = {}): RuntimeEvent[] {
  const lines = text.split('\n')
  if (options.partial === true) lines.pop()
  return lines.flatMap((line, i) => (line.trim() === '' ? [] : [decode(lifecycleEvent, line, source, i + 1)]))
}

function decode<T>(schema: z.ZodType<T>, text: string, source: string, line?: number): T {
  const where = line === undefined ? source : `${source}, line ${line}`
  const value = parseJson(text)
  if (value === undefined) throw new PylonError('lifecycle_invalid', `${where}: is no JSON.`, { details: { source, line } })
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const field = (issue?.path ?? []).map(String).join('.')
  throw new PylonError('lifecycle_invalid', `${where}: ${field === '' ? '' : `${field}: `}${issue?.message ?? 'is malformed'}.`, {
    details: { source, line, field },
  })
}

/** The terminal state that an exit code means. */
export function stateOfExit(exitCode: number): 'completed' | 'failed' {
  return exitCode === 0 ? 'completed' : 'failed'
}
