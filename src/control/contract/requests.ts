/** Routes about ecash that is asked for and given away: payment requests (NUT-18, 26), what was paid on them, and tokens taken back. */
import { z } from 'zod'
import { defineRoutes, queryInt, satsField, timeField } from '../route.ts'

const wallet = z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent')

const amountSats = z.int().min(1).max(9_007_199_254_740)

const madeRequest = z.strictObject({
  id: z.string(),
  wallet: z.string().describe('node, or the npub of an agent'),
  request: z.string().describe('creqA... (NUT-18).'),
  request_bech32: z.string().describe('The same as CREQB1... (NUT-26), which makes a smaller QR code; fewer wallets read it.'),
  amount_sats: satsField.nullable().describe('null: whoever pays says how much.'),
  description: z.string().nullable(),
  mints: z.array(z.string()),
  single_use: z.boolean(),
  transport: z.enum(['nostr', 'none']).describe('none: the token is handed over by hand.'),
  state: z.enum(['open', 'paid', 'expired', 'cancelled']),
  received_sats: satsField.describe('After the fees of mints; what came in late, twice or too much is among it.'),
  created_at: timeField,
  expires_at: timeField.nullable(),
})

const receivedPayment = z.strictObject({
  id: z.string(),
  state: z.enum(['claimed', 'received', 'refused']).describe('claimed: its mint has not swapped it yet.'),
  face_sats: satsField,
  received_sats: satsField.nullable(),
  mint_url: z.string(),
  sender: z.string().nullable().describe('The npub that wrote; often a throwaway.'),
  memo: z.string().nullable(),
  notes: z
    .array(z.enum(['short', 'over', 'late', 'cancelled', 'again']))
    .describe('again: on a request for single use that was paid before.'),
  reason: z.string().nullable(),
  at: timeField,
})

/** Of a payment on a request of others. */
export const requestPayment = z.strictObject({
  id: z.string(),
  state: z
    .enum(['claimed', 'sending', 'delivered', 'undelivered'])
    .describe('claimed: its token is not there yet; sending: it goes out again until it has arrived; undelivered: it can be taken back.'),
  transport: z.enum(['nostr', 'post', 'none']),
  to: z.string().nullable().describe('The npub or URL.'),
  amount_sats: satsField,
  mint_url: z.string().nullable(),
  operation_id: z.string().nullable().describe('Of its token, for reclaims.'),
  token_state: z.enum(['pending', 'claimed', 'reclaimed']).nullable(),
  token: z.string().nullable().describe('Where it is handed over by hand: whoever has it can spend it.'),
  reason: z.string().nullable(),
  at: timeField,
})

export const requestsRoutes = defineRoutes({
  createRequest: {
    method: 'POST',
    path: '/v1/wallets/:wallet/requests',
    summary:
      'Makes a Cashu payment request; what is paid on it is credited to the wallet as funding by its owner. One key makes one request.',
    request: z.strictObject({
      wallet,
      amount_sats: amountSats.optional(),
      description: z.string().trim().min(1).max(200).optional(),
      mints: z.array(z.string().min(1).max(2048)).max(20).optional().describe('Of the list; all of them when left out.'),
      single_use: z.boolean().optional(),
      expires_at: timeField.optional().describe('What is paid later is kept, and marked late.'),
      transport: z.enum(['nostr', 'none']).optional().describe('nostr, by letters (NIP-17) to the key of the node or the agent.'),
    }),
    response: madeRequest,
    status: 201,
    errors: ['wallet_not_found', 'no_mint', 'mint_not_allowed', 'idempotency_conflict'],
  },
  listRequests: {
    method: 'GET',
    path: '/v1/requests',
    summary: 'Payment requests of this home, newest first.',
    request: z.strictObject({ wallet: wallet.optional(), limit: queryInt(1, 1000).optional() }),
    response: z.strictObject({ requests: z.array(madeRequest) }),
    offline: true,
    errors: ['wallet_not_found'],
  },
  getRequest: {
    method: 'GET',
    path: '/v1/requests/:id',
    summary: 'One of them, with what was paid on it.',
    request: z.strictObject({ id: z.string().min(1).max(64) }),
    response: z.strictObject({ request: madeRequest, payments: z.array(receivedPayment) }),
    offline: true,
    errors: ['not_found'],
  },
  cancelRequest: {
    method: 'POST',
    path: '/v1/requests/:id/cancel',
    summary: 'Closes a request for you; what somebody pays on it all the same is kept, and marked.',
    request: z.strictObject({ id: z.string().min(1).max(64) }),
    response: madeRequest,
    errors: ['not_found', 'conflict'],
  },
  listRequestPayments: {
    method: 'GET',
    path: '/v1/request-payments',
    summary: 'What this home paid on the requests of others, newest first.',
    request: z.strictObject({ wallet: wallet.optional(), limit: queryInt(1, 1000).optional() }),
    response: z.strictObject({ payments: z.array(requestPayment) }),
    offline: true,
    errors: ['wallet_not_found'],
  },
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
