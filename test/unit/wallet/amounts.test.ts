/** The amounts that the control API takes are those that the ledger can hold in msats. */
import { expect, it } from 'vitest'
import { sats, satsToMsats } from '../../../src/base/amounts.ts'
import { agentsRoutes } from '../../../src/control/contract/agents.ts'
import { walletRoutes } from '../../../src/control/contract/wallet.ts'

const MOST = 9_007_199_254_740

it.each([
  ['an invoice', (amount_sats: number) => walletRoutes.createInvoice.request.safeParse({ wallet: 'node', amount_sats })],
  ['a token', (amount_sats: number) => walletRoutes.sendToken.request.safeParse({ wallet: 'node', amount_sats })],
  ['the cap of a mint', (cap_sats: number) => walletRoutes.addMint.request.safeParse({ url: 'https://mint.test', cap_sats })],
  ['funds of an agent', (amount_sats: number) => agentsRoutes.fundAgent.request.safeParse({ name: 'ada', amount_sats })],
])('%s', (_what, parse) => {
  expect(parse(MOST).success).toBe(true)
  expect(parse(MOST + 1).success).toBe(false)
  expect(satsToMsats(sats(MOST))).toBe(9_007_199_254_740_000n)
  expect(() => satsToMsats(sats(MOST + 1))).toThrow('past 2^53-1')
})
