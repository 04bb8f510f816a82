/** Any script of moves between the wallets of a home, with answers lost on the way, neither makes nor loses a sat. */
import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { expect, it, onTestFinished, vi } from 'vitest'
import { accountOf, accountOwner } from '../../src/base/accounts.ts'
import { sats } from '../../src/base/amounts.ts'
import { isPylonError } from '../../src/base/errors.ts'
import { openOperations } from '../../src/store/money/operations.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from '../contract/wallet/home.ts'
import { balancesByPrefix } from '../support/ledger.ts'
import { startSandbox } from '../support/sandbox.ts'
import { tempDir } from '../support/temp.ts'

const NAMES = ['node', 'customer', 'agent'] as const
const PATHS = ['/v1/swap', '/v1/melt/bolt11', '/v1/mint/bolt11', '/v1/checkstate', '/v1/restore'] as const

const move = fc.record({
  type: fc.constantFrom('token', 'locked', 'transfer', 'payment', 'reclaim'),
  from: fc.constantFrom(...NAMES),
  to: fc.constantFrom(...NAMES),
  amount: fc.integer({ min: 2, max: 400 }),
  lost: fc.option(fc.constantFrom(...PATHS), { nil: undefined }),
})
type Move = typeof move extends fc.Arbitrary<infer T> ? T : never

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })

async function doMove(home: TestHome, { type, from, to, amount }: Move): Promise<void> {
  const [payer, payee] = [home[from], home[to]]
  const debitAccount = accountOf(accountOwner(payer.owner), 'equity', 'moved')
  const creditAccount = accountOf(accountOwner(payee.owner), 'equity', 'moved')
  if (type === 'transfer') {
    if (from !== to) await home.wallets.transfer(payer.owner, payee.owner, sats(amount), randomUUID())
  } else if (type === 'payment') {
    const invoice = await payee.createInvoice({ ...operation(), amountSats: sats(amount), creditAccount })
    await payer.pay({ ...operation(), request: invoice.request, debitAccount })
  } else {
    const lock = type === 'locked' ? { lockTo: payee.lockPubkey } : {}
    const send = { ...operation(), amountSats: sats(amount), debitAccount, ...lock }
    const { token } = await payer.sendToken(send)
    if (type === 'reclaim') await payer.reclaim(send.idempotencyKey)
    else await payee.receiveToken({ ...operation(), token, creditAccount })
  }
}

it('conserves value', async () => {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  await fc.assert(
    fc.asyncProperty(fc.array(move, { minLength: 3, maxLength: 10 }), async (script) => {
      const home = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
      try {
        for (const name of NAMES) await fund(home, home[name], sandbox.mintUrl, 500)
        for (const step of script) {
          if (step.lost !== undefined) await sandbox.faults({ drop_response_after_commit: { path: step.lost } })
          await doMove(home, step).catch((error: unknown) => {
            if (!isPylonError(error)) throw error
            expect(['insufficient_funds', 'payment_unknown', 'mint_unreachable', 'payment_failed', 'token_amount']).toContain(error.code)
          })
        }
        await vi.waitFor(() => expect(openOperations(home.store)).toEqual([]), { timeout: 20_000, interval: 50 })
        await vi.waitFor(() => expect(unsettled(home)).toEqual([]), { timeout: 20_000, interval: 50 })
        await expectSound(home, sandbox.mintUrl)
        const accounts = balancesByPrefix(home.store, '')
        expect([...accounts.keys()].filter((account) => /\/(?:held|expense\/lost)/.test(account))).toEqual([])
        expect([...accounts.values()].reduce((sum, amount) => sum + amount, 0n)).toBe(0n)
      } finally {
        await home.close()
      }
    }),
    { numRuns: 5, endOnFailure: true },
  )
}, 300_000)

/** Invoices that were paid and whose ecash is not there yet. */
function unsettled(home: TestHome): unknown[] {
  return home.store.sql(`SELECT id FROM mint_quotes WHERE state = 'paid'`).all()
}
