/** What host and guest of a managed agent share beyond its lifecycle files: probe details. */
import { z } from 'zod'
import type { LifecycleDetails } from './lifecycle.ts'
import { PROTOCOLS } from './prompt.ts'

const guestDetails = z.object({
  agent_kind: z.enum(PROTOCOLS),
  service_kind: z.literal('prompt_endpoint'),
  /** What was probed: ready needs one. */
  probe: z.string().min(1).optional(),
  service_probe_satisfied: z.boolean().default(false),
  failure_reason: z.string().optional(),
  /** Of one that is talked to in a session: the key that it made. */
  bot_pubkey: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
})

/** `details` of status.json as a managed guest writes it. */
export type GuestDetails = Readonly<z.output<typeof guestDetails>>

/** Undefined where the details are not those of a managed guest. */
export function readGuestDetails(details: LifecycleDetails | undefined): GuestDetails | undefined {
  const parsed = guestDetails.safeParse(details)
  return parsed.success ? parsed.data : undefined
}
