/** Routes about the Lightning addresses at which wallets of this home are paid. */
import { z } from 'zod'
import { defineRoutes } from '../route.ts'

const address = z.strictObject({
  wallet: z.string().describe('node, or the name of an agent'),
  npub: z.string(),
  address: z.string().nullable().describe('name@host, where there is one.'),
  lnurl: z.string().nullable().describe('The same for phones, as a QR code.'),
  source: z
    .enum(['set', 'service', 'none'])
    .describe(
      'set: the owner named it (lud16 of the profile), and nothing of it comes here by itself. service: the node fetches what is paid.',
    ),
  mint_url: z.string().nullable().describe('Of service: the mint that holds what is paid.'),
  reason: z.string().nullable().describe('Why there is none, or why the node does not fetch what is paid to it.'),
})

export const addressRoutes = defineRoutes({
  listAddresses: {
    method: 'GET',
    path: '/v1/addresses',
    summary: 'At which Lightning address the node and each agent is paid.',
    request: z.strictObject({}),
    response: z.strictObject({
      service: z.string().nullable().describe('wallet.address_service, or the LNURL server of the sandbox.'),
      reason: z.string().nullable().describe('Of none: why.'),
      addresses: z.array(address),
    }),
    errors: ['locked'],
  },
  getAddress: {
    method: 'GET',
    path: '/v1/wallets/:wallet/address',
    summary: 'At which Lightning address one wallet is paid.',
    request: z.strictObject({ wallet: z.string().min(1).max(100).describe('node, or the name or npub of an agent') }),
    response: address,
    errors: ['wallet_not_found', 'locked'],
  },
  makeAddress: {
    method: 'POST',
    path: '/v1/wallets/:wallet/address',
    summary: 'Gets a wallet its address at the service; what has one keeps it. Agents get theirs by themselves.',
    request: z.strictObject({ wallet: z.string().min(1).max(100).describe('node, or the name or npub of an agent') }),
    response: address,
    errors: ['wallet_not_found', 'no_mint', 'fetch_failed', 'lnurl_invalid', 'address_refused', 'locked'],
  },
})
