/** Routes about several mints as one purse: sats moved between them, tokens of foreign mints, caps. */
import { z } from 'zod'
import { defineRoutes, satsField } from '../route.ts'

const wallet = z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent')
const mintUrl = z.string().min(1).max(2048)
const maxFee = z
  .int()
  .min(0)
  .optional()
  .describe('The most that it may cost; by default what wallet.max_fee_percent allows, and 10 sats at least.')
const dryRun = z.boolean().optional().describe('Only tell what it would cost.')
const state = z
  .enum(['quoted', 'arrived', 'moving', 'failed'])
  .describe('quoted: nothing was done. moving: the node goes on by itself. failed: the sats are where they were.')

export const purseRoutes = defineRoutes({
  moveSats: {
    method: 'POST',
    path: '/v1/wallets/:wallet/moves',
    summary: 'Moves sats of a wallet from one mint to another: an invoice of the one, paid by the other.',
    request: z.strictObject({
      wallet,
      amount_sats: z.int().min(1).max(9_007_199_254_740).describe('What is to arrive.'),
      from_url: mintUrl,
      to_url: mintUrl,
      max_fee_sats: maxFee,
      dry_run: dryRun,
    }),
    response: z.strictObject({
      state,
      amount_sats: satsField,
      fee_sats: satsField.describe('What it has cost; of quoted: the most that it may cost.'),
      from_url: z.string(),
      to_url: z.string(),
      reason: z.string().nullable(),
    }),
    spends: true,
    isOpen: (move) => move['state'] === 'moving',
    errors: [
      'wallet_not_found',
      'insufficient_funds',
      'price_too_high',
      'mint_not_allowed',
      'mint_cap_exceeded',
      'mint_unreachable',
      'idempotency_conflict',
    ],
  },
  receiveForeign: {
    method: 'POST',
    path: '/v1/wallets/:wallet/foreign',
    summary: 'Takes a Cashu token of a mint that is not on the list: swaps it there and moves the sats to a mint that is.',
    request: z.strictObject({ wallet, token: z.string().min(1).max(500_000), max_fee_sats: maxFee, dry_run: dryRun }),
    response: z.strictObject({
      state,
      face_sats: satsField,
      fee_sats: satsField.describe('All that it has cost; of quoted: the most that it may cost.'),
      net_sats: satsField.describe('What has arrived or is to arrive.'),
      from_url: z.string(),
      to_url: z.string(),
      reason: z
        .string()
        .nullable()
        .describe('Of moving and failed: what stands in the way. What was swapped stays in the wallet, at the foreign mint.'),
    }),
    spends: true,
    isOpen: (taken) => taken['state'] === 'moving',
    errors: [
      'wallet_not_found',
      'token_invalid',
      'token_spent',
      'token_locked',
      'token_amount',
      'no_mint',
      'mint_incompatible',
      'mint_unreachable',
      'address_refused',
      'payment_unknown',
    ],
  },
  setMint: {
    method: 'POST',
    path: '/v1/mints/set',
    summary: 'Changes how much a mint of the list may hold for one wallet.',
    request: z.strictObject({ url: mintUrl, cap_sats: z.int().min(0).max(9_007_199_254_740) }),
    response: z.strictObject({ url: z.string(), cap_sats: satsField }),
    errors: ['mint_not_allowed'],
  },
})
