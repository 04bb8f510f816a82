/** What a guest may say and ask through its door to relays: events of its own key for its owner, and no others. Pure. */
import { z } from 'zod'
import { GROUP_EVENT_KIND, KEY_PACKAGE_KINDS, KEY_PACKAGE_RELAYS_KIND } from '../../nostr/nips/marmot-kinds.ts'
import { isHex64, tagValue, tagValues } from '../../nostr/nips/nip01.ts'
import type { Filter, NostrEvent } from '../../nostr/types.ts'

export const MAX_EVENT_BYTES = 64 * 1024
export const MAX_FILTERS = 4
export const MAX_LIMIT = 500
const MAX_GROUPS = 50
const MAX_IDS = 50
const MAX_TAGS = 100
/** As gift wraps are dated into the past, and as long as a message may have waited. */
const MAX_AGE_S = 7 * 86_400
const MAX_FUTURE_S = 900

const DELETION_KIND = 5
const GIFT_WRAP_KIND = 1059
/** What a key says of itself. */
const OWN_KINDS: readonly number[] = [...KEY_PACKAGE_KINDS, KEY_PACKAGE_RELAYS_KIND]

export interface DoorKeys {
  /** Of the guest. */
  readonly own: string
  readonly owner: string
}

/** Why an event may not go out, in the words of an OK; undefined where it may. Its signature is another's to check. */
export function faultOfEvent(event: NostrEvent, keys: DoorKeys, nowS: number): string | undefined {
  const { kind, pubkey, tags, created_at } = event
  if (Buffer.byteLength(JSON.stringify(event)) > MAX_EVENT_BYTES) return `invalid: an event may have ${MAX_EVENT_BYTES} bytes`
  if (tags.length > MAX_TAGS) return `invalid: an event may have ${MAX_TAGS} tags`
  if (created_at > nowS + MAX_FUTURE_S || created_at < nowS - MAX_AGE_S) return 'invalid: the event is dated too far from now'
  if (OWN_KINDS.includes(kind)) return pubkey === keys.own ? undefined : 'restricted: only for the key of this runtime'
  if (kind === DELETION_KIND) return faultOfDeletion(event, keys)
  if (kind !== GROUP_EVENT_KIND && kind !== GIFT_WRAP_KIND) return `restricted: kind ${kind} does not go through this door`
  // What is encrypted is signed by a key of its own, and says of nobody that they spoke.
  if (pubkey === keys.own || pubkey === keys.owner) return `invalid: kind ${kind} is signed by a key made for it`
  const [name, wanted] = kind === GROUP_EVENT_KIND ? (['h', 'one group'] as const) : (['p', 'the owner of this runtime'] as const)
  const values = tagValues(event, name)
  const isRight = values.length === 1 && (name === 'h' ? isHex64(values[0]) : values[0] === keys.owner)
  return isRight ? undefined : `restricted: kind ${kind} is for ${wanted}`
}

/** Of key packages alone: nothing else here is the guest's to take back. */
function faultOfDeletion(event: NostrEvent, { own }: DoorKeys): string | undefined {
  if (event.pubkey !== own) return 'restricted: only for the key of this runtime'
  const isKeyPackage = (kind: string | undefined) => KEY_PACKAGE_KINDS.includes(Number(kind))
  if (!tagValues(event, 'k').every(isKeyPackage)) return 'restricted: only key packages are taken back'
  if (!tagValues(event, 'a').every((address) => isKeyPackage(address.split(':')[0]) && address.split(':')[1] === own))
    return 'restricted: only key packages are taken back'
  return tagValue(event, 'e') === undefined && tagValue(event, 'a') === undefined ? 'invalid: nothing is named' : undefined
}

const hex = z.string().regex(/^[0-9a-f]{64}$/)
const seconds = z.int().min(0)
const filterShape = z.strictObject({
  kinds: z.array(z.int()).min(1).max(8),
  ids: z.array(hex).min(1).max(MAX_IDS).optional(),
  authors: z.array(hex).min(1).max(2).optional(),
  '#h': z.array(hex).min(1).max(MAX_GROUPS).optional(),
  '#p': z.array(hex).min(1).max(1).optional(),
  since: seconds.optional(),
  until: seconds.optional(),
  limit: z.int().min(0).optional(),
})

/** What may be asked, with a limit at most; a string says why it may not, in the words of a CLOSED. */
export function readFilters(values: readonly unknown[], keys: DoorKeys): Filter[] | string {
  if (values.length === 0 || values.length > MAX_FILTERS) return `invalid: a request has one to ${MAX_FILTERS} filters`
  const filters: Filter[] = []
  for (const value of values) {
    const parsed = filterShape.safeParse(value)
    if (!parsed.success)
      return `restricted: a filter names kinds, and of ids, authors, #h, #p, since, until and limit what it needs (${parsed.error.issues[0]?.message ?? 'malformed'})`
    const { limit = MAX_LIMIT, ...asked } = parsed.data
    const fault = asked.kinds.map((kind) => faultOfAsking(kind, asked, keys)).find((words) => words !== undefined)
    if (fault !== undefined) return fault
    filters.push({ ...(asked as Filter), limit: Math.min(limit, MAX_LIMIT) })
  }
  return filters
}

function faultOfAsking(kind: number, asked: Omit<z.output<typeof filterShape>, 'limit'>, { own, owner }: DoorKeys): string | undefined {
  if (OWN_KINDS.includes(kind)) {
    const isOurs = asked.authors?.every((author) => author === own || author === owner) === true
    return isOurs ? undefined : `restricted: kind ${kind} is asked of this runtime and its owner`
  }
  if (kind === GIFT_WRAP_KIND) return asked['#p']?.[0] === own ? undefined : 'restricted: only gift wraps to the key of this runtime'
  if (kind === GROUP_EVENT_KIND) return asked['#h'] === undefined ? 'restricted: kind 445 is asked by #h' : undefined
  return `restricted: kind ${kind} does not come through this door`
}
