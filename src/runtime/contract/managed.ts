/** What host and guest of a managed agent share beyond its lifecycle files: probe details, provision parameters. */
import { z } from 'zod'
import type { LifecycleDetails } from './lifecycle.ts'
import { PROTOCOLS } from './prompt.ts'
import { shapeError } from './spec.ts'

const guestDetails = z.object({
  agent_kind: z.enum(PROTOCOLS),
  service_kind: z.literal('prompt_endpoint'),
  /** What was probed: ready needs one. */
  probe: z.string().min(1).optional(),
  service_probe_satisfied: z.boolean().default(false),
  failure_reason: z.string().optional(),
})

/** `details` of status.json as a managed guest writes it. */
export type GuestDetails = Readonly<z.output<typeof guestDetails>>

/** Undefined where the details are not those of a managed guest. */
export function readGuestDetails(details: LifecycleDetails | undefined): GuestDetails | undefined {
  const parsed = guestDetails.safeParse(details)
  return parsed.success ? parsed.data : undefined
}

const optionalText = z.string().max(4096).optional()

const provisionRequest = z.strictObject({
  guest_role: z.enum(['managed-openclaw', 'pikaci-runner']).optional(),
  endpoint: optionalText,
  project: optionalText,
  profile: optionalText,
  storage_pool: optionalText,
  image_alias: optionalText,
  insecure_tls: z.boolean().optional(),
  openclaw_guest_ipv4_cidr: optionalText,
  openclaw_proxy_host: optionalText,
})

/** The `incus` parameters of a provision command, and an AgentProvisionRequest: the same fields at the top level, no others. */
export type AgentProvisionRequest = Readonly<z.output<typeof provisionRequest>>

/** @throws invalid_request naming a field that was removed from the wire (such as `microvm`) or never was in it */
export function decodeAgentProvisionRequest(value: unknown): AgentProvisionRequest {
  const parsed = provisionRequest.safeParse(value)
  if (!parsed.success) throw shapeError('The provision parameters', 'invalid_request', parsed.error)
  return parsed.data
}
