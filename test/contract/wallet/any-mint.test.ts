/** The suite that the mints of others pass in `live`, at the sandbox's. */
import { describe } from 'vitest'
import { mintSuite } from '../../support/mint-suite.ts'
import { startSandbox } from '../../support/sandbox.ts'
import { faucet } from './home.ts'

describe('the mint of the sandbox', () => {
  mintSuite(async (dir) => {
    const sandbox = await startSandbox({ dir, faults: { input_fee_ppk: 100 } })
    return {
      mintUrl: sandbox.mintUrl,
      stop: () => sandbox.stop({ keep: true }),
      rotate: (inputFeePpk) => sandbox.faults({ rotate_keyset: true, input_fee_ppk: inputFeePpk }),
      async outsideInvoice(amount) {
        const asked = { method: 'POST', body: JSON.stringify({ amount, unit: 'sat' }) }
        const answer = await fetch(`${sandbox.mintUrl}/v1/mint/quote/bolt11`, asked)
        return ((await answer.json()) as { request: string }).request
      },
      payInvoice: (request) => faucet(sandbox.mintUrl, request),
    }
  })
})
