/** RuntimeDescriptor: one runtime as its owner sees it, in wire names. */
import { z } from 'zod'
import { CONTROL_PHASES, CONTROL_PROTOCOLS, CONTROL_PROVIDERS } from './vocabulary.ts'

const MAX_ID = 128

export const runtimeDescriptor = z.object({
  runtime_id: z.string().min(1).max(MAX_ID),
  provider: z.enum(CONTROL_PROVIDERS),
  lifecycle_phase: z.enum(CONTROL_PHASES),
  runtime_class: z.string().max(MAX_ID).optional().catch(undefined),
  region: z.string().max(MAX_ID).optional().catch(undefined),
  /** Any JSON; left out when there is none. */
  capacity: z.json().optional(),
  policy_constraints: z.json().optional(),
  protocol_compatibility: z.array(z.enum(CONTROL_PROTOCOLS)).max(16).default([]).catch([]),
  bot_pubkey: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional()
    .catch(undefined),
  /** Any JSON. Ours: `state`, `state_reason`, `created_at`, `updated_at`, `lease`, `backup`, beside what the substrate adds. */
  metadata: z.json().optional(),
})

export type RuntimeDescriptor = Readonly<z.output<typeof runtimeDescriptor>>
