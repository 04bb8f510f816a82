/** From where a refund is paid. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { msats, sats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { seededRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'
import { Sales } from '../../../src/provider/sale/sales.ts'
import { postEntry } from '../../../src/store/money/ledger.ts'
import type { SendRequest, Wallet } from '../../../src/wallet/types.ts'
import { RefundingProduct } from '../../support/refunding-product.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

const payerPubkey = 'ab'.repeat(32)

/** The refund of 5 sats of job 1, run once. @returns the words that its payer was told */
async function runRefund(wallet: Partial<Wallet>, isPayersDoing = false): Promise<string[]> {
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const cause = { type: 'job', id: '1' } as const
  const deposit = { account: 'node/deposit/job:1' as const, amountMsats: -5000n }
  const came = { account: 'node/wallet/https://paid.test/x' as const, amountMsats: 5000n }
  await store.write(postEntry({ id: 'op:1:done', cause, at: 1, postings: [came, deposit] }))
  const scope = Scope.root('refunds', { clock: new ManualClock(), random: seededRandom(1) }, ({ error }) => {
    throw error
  })
  const product = new RefundingProduct({ id: '1', paidMsats: msats(5000), mintUrl: null, isPayersDoing, payerPubkey })
  const deps = { store, scope, logger: silentLogger, wallet: () => wallet as Wallet, nudge: () => undefined }
  const { refunds } = new Sales(deps, product)
  await refunds.run()
  await scope.close()
  return product.told.map((word) => word.type)
}

/** Keeps what it is asked for, and cannot do it. */
const failing = (asked: SendRequest[]): Partial<Wallet> => ({
  sentToken: () => undefined,
  sendToken: async (request) => {
    asked.push(request)
    throw new PylonError('mint_unreachable', 'no answer')
  },
})

it('of a payment that became known late comes from the mint that holds it, which is one that the payer knows', async () => {
  const asked: SendRequest[] = []
  await runRefund(failing(asked))
  expect(asked.map((request) => request.mintUrl)).toEqual(['https://paid.test/x'])
})

it('is whole where the node failed, and less the fees of the mint where the payer brought it about', async () => {
  const asked: SendRequest[] = []
  await runRefund(failing(asked))
  await runRefund(failing(asked), true)
  expect(asked.map(({ lessFee, coverReceiverFee }) => ({ lessFee, coverReceiverFee }))).toEqual([
    { coverReceiverFee: true },
    { lessFee: true },
  ])
})

it('is not sent again once it is spent', async () => {
  const sent = { operationId: 'o', token: 't', amountSats: sats(5), feeSats: sats(0), mintUrl: 'https://paid.test/x' }
  expect(await runRefund({ sentToken: () => ({ ...sent, state: 'pending' }) })).toEqual(['token'])
  expect(await runRefund({ sentToken: () => ({ ...sent, state: 'claimed' }) })).toEqual([])
})
