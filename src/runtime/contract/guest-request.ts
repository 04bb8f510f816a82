/** guest-request.json: the one command that a one-shot guest is to run. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { shapeError } from './spec.ts'

export const GUEST_REQUEST_SCHEMA_VERSION = 2

const guestRequest = z.strictObject({
  schema_version: z.literal(GUEST_REQUEST_SCHEMA_VERSION, {
    error: (issue) => `is ${JSON.stringify(issue.input)}, expected ${GUEST_REQUEST_SCHEMA_VERSION}`,
  }),
  command: z
    .string()
    .max(65_536)
    .refine((command) => command.trim() !== '' && !command.includes('\0'), 'must not be empty and must not contain NUL'),
  timeout_secs: z
    .int()
    .min(1)
    .max(7 * 86_400),
  run_as_root: z.boolean(),
})

export type GuestRequest = Readonly<z.output<typeof guestRequest>>

/** @throws guest_request_invalid, with the source and the field */
export function decodeGuestRequest(text: string, source: string): GuestRequest {
  const value = parseJson(text)
  if (value === undefined) throw new PylonError('guest_request_invalid', `${source}: is no JSON.`)
  const parsed = guestRequest.safeParse(value)
  if (!parsed.success) throw shapeError(source, 'guest_request_invalid', parsed.error)
  return parsed.data
}
