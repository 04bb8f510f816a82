/** What Incus answers, and which of our error codes its words mean. */
import { z } from 'zod'
import { type ErrorCode, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'

const operation = z.looseObject({
  id: z.string(),
  status: z.string(),
  status_code: z.int(),
  err: z.string().default(''),
  metadata: z.record(z.string(), z.unknown()).nullish(),
})

/** An operation as Incus shows it; `status_code` under 200 is unfinished, 200 success, 400 failure, 401 cancelled. */
export type Operation = z.infer<typeof operation>

const envelope = z.discriminatedUnion('type', [
  z.looseObject({ type: z.literal('sync'), metadata: z.unknown() }),
  z.looseObject({ type: z.literal('async'), operation: z.string(), metadata: operation }),
  z.looseObject({ type: z.literal('error'), error: z.string(), error_code: z.int() }),
])

export type Envelope = z.infer<typeof envelope>

/** @param what the request, for the message. @throws incus_failed when the text is no answer of Incus. */
export function parseEnvelope(text: string, what: string): Envelope {
  const parsed = envelope.safeParse(parseJson(text))
  if (parsed.success) return parsed.data
  throw new PylonError('incus_failed', `${what}: the answer is not one of Incus: ${text.slice(0, 200)}`)
}

export function parseOperation(value: unknown): Operation | undefined {
  const parsed = operation.safeParse(value)
  return parsed.success ? parsed.data : undefined
}

export function isFinished(op: Operation): boolean {
  return op.status_code >= 200
}

/** By words first, since limits, rights and dead members all come as status 500; the first match counts. */
const BY_WORDS: readonly (readonly [RegExp, ErrorCode])[] = [
  [
    /server isn't ready yet|unable to connect to|missing event connection|cluster member is (?:offline|evacuated)|no heartbeat/i,
    'incus_unreachable',
  ],
  [/no space left|disk quota exceeded|not enough (?:free )?space/i, 'incus_no_space'],
  [/reached maximum/i, 'incus_limit_reached'],
  [/image(?: alias)? .*not found|no such image|image not provided/i, 'incus_image_missing'],
  [
    /does not have permissions?|certificate is restricted|not authorized|forbidden|permission denied|disk source path .* not allowed|not allowed/i,
    'incus_forbidden',
  ],
  [
    /already exists|UNIQUE constraint failed|already running|already stopped|is busy|still in use|in use by|doesn't match|address already in use|is running/i,
    'incus_conflict',
  ],
  [/not found|no such object/i, 'incus_not_found'],
]

const BY_STATUS: Readonly<Record<number, ErrorCode>> = {
  401: 'incus_untrusted',
  403: 'incus_forbidden',
  404: 'incus_not_found',
  409: 'incus_conflict',
  412: 'incus_conflict',
  503: 'incus_unreachable',
  507: 'incus_no_space',
}

/** The code for a refusal. A 404 and a 412 are what they say, whatever the words; all else goes by its words. */
export function codeOf(status: number, words: string): ErrorCode {
  if (status === 404) return /image|alias/i.test(words) ? 'incus_image_missing' : 'incus_not_found'
  if (status === 412) return 'incus_conflict'
  return BY_WORDS.find(([pattern]) => pattern.test(words))?.[1] ?? BY_STATUS[status] ?? 'incus_failed'
}

/** @param what the request, such as `POST /1.0/instances`. */
export function refusal(status: number, words: string, what: string): PylonError {
  return new PylonError(codeOf(status, words), `Incus refused ${what}: ${words.slice(0, 1000) || `status ${status}`}`, {
    details: { incus_status: status },
  })
}
