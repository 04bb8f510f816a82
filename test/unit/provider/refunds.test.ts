/** From where a refund is paid. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { createRefunds } from '../../../src/provider/refunds.ts'
import { defineCommand } from '../../../src/store/commands.ts'
import { postEntry } from '../../../src/store/money/ledger.ts'
import { Store } from '../../../src/store/store.ts'
import type { SendRequest, Wallet } from '../../../src/wallet/types.ts'
import { tempDir } from '../../support/temp.ts'

const nothing = defineCommand('nothing', () => undefined)

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
  const refunds = createRefunds(
    { store, clock: new ManualClock(), logger: silentLogger, wallet: () => wallet as Wallet, nudge: () => undefined },
    {
      due: () => ['1'],
      owed: () => ({
        idempotencyKey: 'job:1:refund',
        cause,
        amountSats: sats(5),
        mintUrl: null,
        causedByPayer: false,
        pubkey: 'ab'.repeat(32),
        debitAccount: 'node/deposit/job:1' as const,
        sends: 0,
      }),
      deliver: () => [],
      deferred: () => [],
      note: () => nothing(undefined),
      forgo: () => [],
      onClaimed: async () => {},
    },
  )
  await refunds.run()
  await refunds.close()
  expect(asked.map((request) => request.mintUrl)).toEqual(['https://paid.test/x'])
})
