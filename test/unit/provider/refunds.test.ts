/** From where a refund is paid. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { seededRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'
import { Sales } from '../../../src/provider/sale/sales.ts'
import { postEntry } from '../../../src/store/money/ledger.ts'
import { Store } from '../../../src/store/store.ts'
import type { SendRequest, Wallet } from '../../../src/wallet/types.ts'
import { RefundingProduct } from '../../support/refunding-product.ts'
import { tempDir } from '../../support/temp.ts'

it('of a payment that became known late comes from the mint that holds it, which is one that the payer knows', async () => {
  const store = Store.open(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const cause = { type: 'job', id: '1' } as const
  const deposit = { account: 'node/deposit/job:1' as const, amountMsats: -5000n }
  await store.write(
    postEntry({
      id: 'op:1:done',
      cause,
      at: 1,
      postings: [{ account: 'node/wallet/https://paid.test/x' as const, amountMsats: 5000n }, deposit],
    }),
  )
  const asked: SendRequest[] = []
  const wallet: Partial<Wallet> = {
    sentToken: () => undefined,
    sendToken: async (request) => {
      asked.push(request)
      throw new PylonError('mint_unreachable', 'no answer')
    },
  }
  const scope = Scope.root('refunds', { clock: new ManualClock(), random: seededRandom(1) }, ({ error }) => {
    throw error
  })
  const payerPubkey = 'ab'.repeat(32)
  const product = new RefundingProduct({ id: '1', paidMsats: msats(5000), mintUrl: null, isPayersDoing: false, payerPubkey })
  const deps = { store, scope, logger: silentLogger, wallet: () => wallet as Wallet, nudge: () => undefined }
  const { refunds } = new Sales(deps, product)
  await refunds.run()
  await scope.close()
  expect(asked.map((request) => request.mintUrl)).toEqual(['https://paid.test/x'])
})
