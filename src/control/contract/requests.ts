/** Routes about ecash that is asked for and given away: payment requests (NUT-18, 26), what was paid on them, and tokens taken back. */
import { z } from 'zod'
import { defineRoutes, satsField } from '../route.ts'

const wallet = z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent')

export const requestsRoutes = defineRoutes({
  reclaimToken: {
    method: 'POST',
    path: '/v1/wallets/:wallet/reclaims',
    summary: 'Takes back a token that this wallet gave away and nobody has spent; the same again answers the same.',
    request: z.strictObject({
      wallet,
      key: z.string().min(1).max(300).describe('The operation_id of the token, or the Idempotency-Key that it was sent under.'),
    }),
    response: z.strictObject({
      wallet: z.string(),
      operation_id: z.string(),
      state: z.enum(['pending', 'claimed', 'reclaimed']).describe('claimed: its receiver was first, nothing came back.'),
      amount_sats: satsField.describe('What the token was sent for; taking it back cost the fee of the mint.'),
      mint_url: z.string(),
    }),
    errors: ['wallet_not_found', 'not_found', 'conflict', 'token_amount', 'payment_unknown', 'mint_unreachable'],
  },
})
