/** What an agent can do: the shape of each action as brains write it and as it is stored, with the limits that no brain may pass. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseEventPointer, parsePubkey, relayHints } from '../../nostr/nips/nip19.ts'

export const MAX_TEXT_CHARS = 2000
const MAX_DM_CHARS = 10_000
const MAX_MEMORY_CHARS = 1000
const MAX_SATS = 21_000_000 * 100_000_000

const text = (max: number) => z.string().trim().min(1).max(max)
const pubkey = z.string().max(400).transform(via(parsePubkey))
const note = z
  .string()
  .max(2000)
  .transform(via((value) => parseEventPointer(value).id))
/** Where to look besides, as an nprofile or nevent in `to` says. */
const hints = z.array(z.string().max(512)).max(3).optional()
const wholeSats = z.int().min(1).max(Math.min(MAX_SATS, Number.MAX_SAFE_INTEGER))

const schema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('post'), text: text(MAX_TEXT_CHARS) }),
  z.strictObject({ type: z.literal('reply'), to: note, text: text(MAX_TEXT_CHARS), relays: hints }),
  z.strictObject({ type: z.literal('react'), to: note, content: text(40).default('+'), relays: hints }),
  z.strictObject({ type: z.literal('dm'), to: pubkey, text: text(MAX_DM_CHARS), relays: hints }),
  z.strictObject({ type: z.literal('channel'), channel: note, text: text(MAX_TEXT_CHARS) }),
  /** `to` is a key, or the note that is zapped. */
  z.strictObject({
    type: z.literal('zap'),
    to: z.string().max(2000).transform(via(decodeTarget)),
    sats: wholeSats,
    comment: z.string().max(280).default(''),
  }),
  z.strictObject({ type: z.literal('pay_invoice'), invoice: z.string().trim().min(10).max(8000) }),
  z.strictObject({ type: z.literal('request_payment'), to: pubkey, sats: wholeSats, memo: z.string().max(280).default(''), relays: hints }),
  z.strictObject({
    type: z.literal('set_goal'),
    description: text(500),
    priority: z.int().min(1).max(5).default(3),
    progress: z.int().min(0).max(100).default(0),
    status: z.enum(['active', 'paused', 'completed', 'cancelled']).default('active'),
  }),
  z.strictObject({ type: z.literal('remember'), text: text(MAX_MEMORY_CHARS) }),
  z.strictObject({ type: z.literal('nothing') }),
])

const HINTED = new Set(['reply', 'react', 'dm', 'request_payment'])

export type Action = z.infer<typeof schema>
export type ActionType = Action['type']

/** A key, or an event with its author where the pointer names one: stored as `<pubkey>` or `event:<id>[:<author>]`. */
export type ZapTarget = { readonly pubkey: string; readonly eventId?: string } | { readonly pubkey?: string; readonly eventId: string }

export const ACTION_TYPES: readonly ActionType[] = schema.options.map((option) => option.shape.type.value)

/** The fields of each type besides `type` and the hints. */
function fieldsOf(isMeant: (field: z.ZodType) => boolean): Readonly<Record<string, readonly string[]>> {
  const named = schema.options.map(({ shape }) => {
    const fields = Object.entries<z.ZodType>(shape).filter(([name, field]) => name !== 'type' && name !== 'relays' && isMeant(field))
    return [shape.type.value, fields.map(([name]) => name)] as const
  })
  return Object.fromEntries(named)
}

export const ACTION_FIELDS = fieldsOf(() => true)
/** Those that have no default. */
export const NEEDED_FIELDS = fieldsOf((field) => !field.isOptional())

function via(decode: (value: string) => string): (value: string, context: z.core.$RefinementCtx<string>) => string {
  return (value, context) => {
    try {
      return decode(value)
    } catch {
      context.addIssue({ code: 'custom', message: `is not understood: ${JSON.stringify(value.slice(0, 80))}` })
      return z.NEVER
    }
  }
}

function decodeTarget(value: string): string {
  if (value.startsWith('event:')) {
    const { eventId, pubkey: author } = readZapTarget(value)
    return `event:${parseEventPointer(eventId ?? '').id}${author === undefined ? '' : `:${parsePubkey(author)}`}`
  }
  const bare = value.trim().replace(/^nostr:/i, '')
  if (/^(note1|nevent1)/i.test(bare)) {
    const pointer = parseEventPointer(bare)
    return `event:${pointer.id}${pointer.author === undefined ? '' : `:${pointer.author}`}`
  }
  return parsePubkey(bare)
}

export function readZapTarget(to: string): ZapTarget {
  if (!to.startsWith('event:')) return { pubkey: to }
  const [, eventId = '', author] = to.split(':')
  return author === undefined ? { eventId } : { eventId, pubkey: author }
}

/** What is kept of a pointer is its key or id; the relays that it names go along. */
function withHints(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || 'relays' in value) return value
  const { type, to } = value as { type?: unknown; to?: unknown }
  if (typeof to !== 'string' || typeof type !== 'string' || !HINTED.has(type)) return value
  const relays = relayHints(to)
  return relays.length === 0 ? value : { ...value, relays }
}

/** One action as a brain wrote it. @throws action_invalid naming the field. */
export function parseAction(value: unknown): Action {
  const parsed = schema.safeParse(withHints(value))
  if (parsed.success) return parsed.data
  const type = typeof value === 'object' && value !== null ? String((value as { type?: unknown }).type) : typeof value
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'type'} ${issue.message}`)
  throw new PylonError('action_invalid', `The action ${JSON.stringify(type.slice(0, 40))} is malformed: ${problems.join('; ')}.`)
}
