/** What the mint says about itself (NUT-06). */
import { VERSION } from '../../base/version.ts'
import { UNIT } from './keysets.ts'
import { MAX_AMOUNT } from './requests.ts'

/** How long an answer is kept for a repeated request (NUT-19). */
export const RESPONSE_TTL_SECONDS = 7 * 24 * 3_600
/** The requests whose answers are kept. */
export const CACHED_PATHS = ['/v1/mint/bolt11', '/v1/swap', '/v1/melt/bolt11']

export function mintInfo(options: { mintUrl: string; pubkey: string; nowSeconds: number }): Record<string, unknown> {
  const supported = { supported: true }
  const method = { method: 'bolt11', unit: UNIT, min_amount: 1, max_amount: MAX_AMOUNT }
  const commands = ['bolt11_mint_quote', 'bolt11_melt_quote', 'proof_state']
  return {
    name: 'Pylon sandbox mint',
    pubkey: options.pubkey,
    version: `PylonSandbox/${VERSION}`,
    description: 'Play money for trying and testing: worth nothing, loopback only.',
    urls: [options.mintUrl],
    time: options.nowSeconds,
    nuts: {
      4: { methods: [{ ...method, options: { description: true } }], disabled: false },
      5: { methods: [{ ...method, options: { amountless: true } }], disabled: false },
      7: supported,
      8: supported,
      9: supported,
      10: supported,
      11: supported,
      12: supported,
      14: supported,
      15: { methods: [{ method: 'bolt11', unit: UNIT }] },
      17: { supported: [{ method: 'bolt11', unit: UNIT, commands }] },
      19: { ttl: RESPONSE_TTL_SECONDS, cached_endpoints: CACHED_PATHS.map((path) => ({ method: 'POST', path })) },
      20: supported,
    },
  }
}
