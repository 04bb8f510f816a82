/** What a `queued` status says has to be paid for a lease, read from its progress. Pure. */
import { z } from 'zod'
import { type Msats, msats } from '../../base/amounts.ts'

export interface LeaseQuote {
  readonly amountMsats: Msats
  readonly leaseSeconds?: number
  readonly invoice?: string
  /** URLs of mints whose tokens are taken. */
  readonly mints: readonly string[]
  /** Compressed public key that a token is to be locked to. */
  readonly lockPubkey?: string
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number
}

const shape = z.object({
  payment_required: z.literal(true),
  amount_msats: z.int().min(1),
  lease_seconds: z.int().min(1).optional(),
  invoice: z.string().max(8192).optional(),
  mints: z.array(z.string().max(512)).max(50).default([]),
  lock_pubkey: z
    .string()
    .regex(/^0[23][0-9a-f]{64}$/)
    .optional(),
  /** Unix seconds. */
  expires_at: z.int().min(0).optional(),
})

/** Undefined for progress that asks for no payment, or for one that can't be read. */
export function parseLeaseQuote(progress: unknown): LeaseQuote | undefined {
  const parsed = shape.safeParse(progress)
  if (!parsed.success) return undefined
  const { amount_msats, lease_seconds, invoice, mints, lock_pubkey, expires_at } = parsed.data
  return {
    amountMsats: msats(amount_msats),
    mints,
    ...(lease_seconds === undefined ? {} : { leaseSeconds: lease_seconds }),
    ...(invoice === undefined || invoice === '' ? {} : { invoice }),
    ...(lock_pubkey === undefined ? {} : { lockPubkey: lock_pubkey }),
    ...(expires_at === undefined || expires_at === 0 ? {} : { expiresAt: expires_at * 1000 }),
  }
}
