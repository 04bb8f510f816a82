/** What a `queued` status says has to be paid for a lease, read from its progress. Pure. */

import { z } from 'zod'
import { type Msats, msats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import { readInvoice } from '../../wallet/lightning/bolt11.ts'

const MAX_MINTS = 50

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

// What can't be read and need not be there is as if it were absent; the terms are judged by what is left.
const shape = z.object({
  payment_required: z.literal(true),
  amount_msats: z.int().min(1).optional().catch(undefined),
  lease_seconds: z.int().min(1).optional().catch(undefined),
  invoice: z.string().trim().min(1).max(8192).optional().catch(undefined),
  mints: z
    .array(z.unknown())
    .catch([])
    .transform((mints) => mints.filter((mint) => typeof mint === 'string' && mint.length <= 512).slice(0, MAX_MINTS) as string[]),
  lock_pubkey: z
    .string()
    .regex(/^0[23][0-9a-f]{64}$/)
    .optional()
    .catch(undefined),
  /** Unix seconds. */
  expires_at: z.int().min(1).optional().catch(undefined),
})

/** Undefined for progress that asks for no payment, or that names no amount, not even in its invoice. */
export function parseLeaseQuote(progress: unknown): LeaseQuote | undefined {
  const parsed = shape.safeParse(progress)
  if (!parsed.success) return undefined
  const { amount_msats, lease_seconds, invoice, mints, lock_pubkey, expires_at } = parsed.data
  const asked = amount_msats ?? amountIn(invoice)
  if (asked === undefined) return undefined
  return {
    amountMsats: msats(asked),
    mints,
    ...given({ leaseSeconds: lease_seconds, invoice, lockPubkey: lock_pubkey }),
    ...(expires_at === undefined ? {} : { expiresAt: expires_at * 1000 }),
  }
}

function amountIn(invoice: string | undefined): bigint | undefined {
  const amount = invoice === undefined ? undefined : readInvoice(invoice)?.amountMsats
  return amount === 0n ? undefined : amount
}
