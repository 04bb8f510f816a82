/** Routes about zaps that the owner sends. */
import { z } from 'zod'
import { defineRoutes, satsField } from '../route.ts'

const wallet = z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent')

const part = z.strictObject({
  npub: z.string(),
  amount_sats: satsField,
  state: z.enum(['paid', 'unknown', 'failed']),
  reason: z.string().nullable().describe('Of a share that failed: nothing of it was spent.'),
})

export const zapsRoutes = defineRoutes({
  sendZap: {
    method: 'POST',
    path: '/v1/wallets/:wallet/zaps',
    summary:
      'Zaps a key or an event: to its Lightning address (NIP-57) or as a nutzap (NIP-61). An event that names who is to share it is shared by weight, each share a payment of its own.',
    request: z.strictObject({
      wallet,
      to: z
        .string()
        .min(1)
        .max(2000)
        .describe('npub, nprofile, key in hex or the name of an agent of this node; note or nevent for an event.'),
      amount_sats: z.int().min(1).max(9_007_199_254_740),
      comment: z.string().max(280).optional(),
      by: z.enum(['lightning', 'nutzap', 'auto']).optional().describe('wallet.zap_by by default.'),
    }),
    response: z.strictObject({
      state: z.enum(['paid', 'unknown']),
      amount_sats: satsField.describe('What was paid, or may have been, in all; fees are beside it.'),
      operation_id: z.string(),
      fee_sats: satsField.nullable(),
      parts: z.array(part).describe('Where it was shared; else empty.'),
    }),
    spends: true,
    isOpen: (paid) => paid['state'] === 'unknown',
    errors: [
      'wallet_not_found',
      'pubkey_invalid',
      'event_invalid',
      'not_found',
      'insufficient_funds',
      'funds_owed',
      'nutzap_unavailable',
      'relay_unreachable',
      'lnurl_invalid',
      'fetch_failed',
      'address_refused',
      'payment_failed',
      'payment_in_progress',
      'spend_refused',
      'budget_exceeded',
      'idempotency_conflict',
    ],
  },
})
