/** Routes about standing payouts: what a wallet holds above a limit leaves by itself. */
import { z } from 'zod'
import { defineRoutes, queryInt, satsField, timeField } from '../route.ts'

const wallet = z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent')
const amount = z.int().min(0).max(9_007_199_254_740)
const failure = z.strictObject({ code: z.string(), message: z.string() }).nullable()

const rule = z.strictObject({
  wallet: z.string(),
  target_type: z.enum(['address', 'token']),
  target: z.string().describe('The address as it was given, or the key that tokens are locked to.'),
  above_sats: satsField.describe("A sweep begins above so many sats of the owner's own."),
  keep_sats: satsField.describe('It goes down to these.'),
  state: z.enum(['on', 'stopped']).describe('stopped: nothing is sent until it is set again.'),
  failures: z.int().describe('In a row.'),
  failure: failure.describe('Of the last payout, where it failed.'),
  failed_at: timeField.nullable().describe('Since when none went through.'),
  next_try_at: timeField.nullable().describe('After a failure.'),
  set_at: timeField,
})

const payout = z.strictObject({
  id: z.string(),
  wallet: z.string(),
  target_type: z.enum(['address', 'token']),
  target: z.string(),
  amount_sats: satsField.describe('What the payee is sent.'),
  limit_sats: satsField.describe('The most that may leave, fees included.'),
  fee_sats: satsField.nullable(),
  state: z.enum(['begun', 'unknown', 'paid', 'failed']).describe('unknown: nobody can say yet; no other begins meanwhile.'),
  file: z.string().nullable().describe('Where a token was written.'),
  failure,
  created_at: timeField,
})

const next = z
  .strictObject({ mint_url: z.string(), amount_sats: satsField, limit_sats: satsField })
  .nullable()
  .describe('The payout that would be made now; null: none.')
const reason = z.string().nullable().describe('Why none is made, or no more.')

export const payoutRoutes = defineRoutes({
  listPayouts: {
    method: 'GET',
    path: '/v1/payouts',
    summary: 'The standing payouts of all wallets, and what went out by them, the newest first.',
    request: z.strictObject({ limit: queryInt(1, 1000).optional() }),
    response: z.strictObject({ rules: z.array(rule), payouts: z.array(payout) }),
    offline: true,
  },
  getPayout: {
    method: 'GET',
    path: '/v1/payouts/:wallet',
    summary: 'The standing payout of a wallet, what it would send now, and what it sent last.',
    request: z.strictObject({ wallet }),
    response: z.strictObject({ rule, next, reason, payouts: z.array(payout) }),
    errors: ['wallet_not_found', 'payout_missing', 'locked'],
  },
  setPayout: {
    method: 'PUT',
    path: '/v1/payouts/:wallet',
    summary:
      'Has what a wallet holds above a limit leave by itself, to a Lightning address or as locked tokens. What the address answers now is fixed.',
    request: z.strictObject({
      wallet,
      address: z.string().min(1).max(2000).optional().describe('name@host or an LNURL; else lock_to.'),
      lock_to: z.string().min(1).max(200).optional().describe('An npub or 02.. key: tokens locked to it are written into the home.'),
      above_sats: amount,
      keep_sats: amount,
    }),
    response: rule,
    errors: [
      ...(['wallet_not_found', 'destination_invalid', 'lnurl_invalid', 'fetch_failed', 'address_refused'] as const),
      ...(['amount_invalid', 'pubkey_invalid', 'locked'] as const),
    ],
  },
  dropPayout: {
    method: 'DELETE',
    path: '/v1/payouts/:wallet',
    summary: 'Nothing more leaves by itself; what is under way ends as it does.',
    request: z.strictObject({ wallet }),
    response: z.strictObject({ wallet: z.string() }),
    errors: ['wallet_not_found', 'payout_missing', 'locked'],
  },
  payOutNow: {
    method: 'POST',
    path: '/v1/payouts/:wallet/now',
    summary: 'Sweeps a wallet down to what stays at once, whatever its upper limit; with dry_run it only says what would go.',
    request: z.strictObject({ wallet, dry_run: z.boolean().optional() }),
    response: z.strictObject({ next, reason, payouts: z.array(payout) }),
    spends: true,
    errors: ['wallet_not_found', 'payout_missing', 'payout_address_changed', 'locked'],
  },
})
