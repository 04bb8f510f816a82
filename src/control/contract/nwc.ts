/** Routes about NIP-47: connections by which programs elsewhere use a wallet of this home. */
import { z } from 'zod'
import { defineRoutes, queryFlag, satsField, timeField } from '../route.ts'

const period = z.enum(['hour', 'day', 'week', 'month', 'total']).describe('By the calendar in UTC; total is never renewed.')
const budget = z.strictObject({ sats: satsField, per: period }).nullable().describe('null: no limit of its own.')
const connectionId = z.string().min(1).max(64)

const connection = z.strictObject({
  id: z.string(),
  name: z.string(),
  wallet: z.string().describe('node, customer or the name of an agent'),
  methods: z.array(z.string()),
  relays: z.array(z.string()),
  budget,
  spent_sats: satsField.describe('Held or spent in the period of the budget now, fees included; in all where there is none.'),
  spent_in_all_sats: satsField,
  state: z.enum(['active', 'expired', 'revoked']),
  created_at: timeField,
  expires_at: timeField.nullable(),
  last_used_at: timeField.nullable(),
  revoked_at: timeField.nullable(),
})

const request = z.strictObject({
  event_id: z.string(),
  method: z.string(),
  at: timeField,
  state: z
    .enum(['open', 'done', 'refused'])
    .describe('open: claimed and not answered yet, as while nobody can say what became of its payment.'),
  refusal: z.string().nullable(),
  spent_sats: satsField.nullable(),
  payment_hash: z.string().nullable(),
})

export const lightningWallet = z.strictObject({
  id: z.string().describe('Its rail is nwc:<id>, as is its account in the ledger.'),
  relays: z.array(z.string()),
  methods: z.array(z.string()).describe('What it says that it does.'),
  lud16: z.string().nullable(),
  balance_sats: satsField.nullable().describe('As the wallet said last; null when it does not say.'),
  balance_at: timeField.nullable(),
  state: z.enum(['ok', 'down']),
  reason: z.string().nullable(),
  receives: z.boolean().describe('Whether invoices of jobs and leases are made there (wallet.receive_by).'),
  open_payments: z.int().describe('Payments whose outcome the wallet has not told yet.'),
  unpaid_invoices: z.int(),
})

export const nwcRoutes = defineRoutes({
  connectLightningWallet: {
    method: 'POST',
    path: '/v1/nwc/wallet',
    summary: "Connects the owner's own Lightning wallet (NIP-47) as a rail beside the mints.",
    request: z.strictObject({ url: z.string().min(1).max(4096).describe('nostr+walletconnect://..., which holds a secret.') }),
    response: lightningWallet,
    status: 201,
    errors: ['nwc_invalid', 'nwc_unreachable', 'nwc_refused', 'conflict', 'locked'],
  },
  getLightningWallet: {
    method: 'GET',
    path: '/v1/nwc/wallet',
    summary: "The owner's own Lightning wallet, asked what it holds now.",
    request: z.strictObject({}),
    response: lightningWallet,
    errors: ['nwc_missing'],
  },
  disconnectLightningWallet: {
    method: 'DELETE',
    path: '/v1/nwc/wallet',
    summary: "Lets go of the owner's Lightning wallet and forgets its secret; refused while payments are open.",
    request: z.strictObject({ force: queryFlag.optional().describe('Also while invoices made there may still be paid.') }),
    response: z.strictObject({ id: z.string() }),
    errors: ['nwc_missing', 'conflict'],
  },
  createNwcConnection: {
    method: 'POST',
    path: '/v1/nwc/connections',
    summary: 'Makes a connection to a wallet for a program elsewhere (NIP-47). The url holds its secret and is not shown again.',
    request: z.strictObject({
      wallet: z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent'),
      name: z.string().min(1).max(64).optional(),
      budget: z
        .strictObject({ sats: z.int().min(1).max(9_007_199_254_740), per: period })
        .nullable()
        .describe('null: no limit of its own.'),
      methods: z.array(z.string().max(60)).min(1).max(20).optional().describe('All that there are by default.'),
      relays: z.array(z.string().max(512)).min(1).max(10).optional().describe('The relays of the node by default.'),
      expires_at: timeField.optional(),
    }),
    response: z.strictObject({ id: z.string(), url: z.string(), budget, connection }),
    status: 201,
    errors: ['wallet_not_found', 'locked', 'relay_invalid', 'conflict'],
  },
  listNwcConnections: {
    method: 'GET',
    path: '/v1/nwc/connections',
    summary: 'Connections to the wallets of this home, the newest first.',
    request: z.strictObject({}),
    response: z.strictObject({ connections: z.array(connection) }),
  },
  getNwcConnection: {
    method: 'GET',
    path: '/v1/nwc/connections/:id',
    summary: 'A connection, what it spent, and what it asked last.',
    request: z.strictObject({ id: connectionId }),
    response: z.strictObject({ connection, requests: z.array(request) }),
    errors: ['not_found'],
  },
  revokeNwcConnection: {
    method: 'DELETE',
    path: '/v1/nwc/connections/:id',
    summary: 'Ends a connection: every further request is refused as UNAUTHORIZED.',
    request: z.strictObject({ id: connectionId }),
    response: z.strictObject({ connection }),
    errors: ['not_found'],
  },
})
