/** A backup from before a refund, put back after it: the refund that went out is found again, no second one is made. */
import { randomUUID } from 'node:crypto'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

async function open(dir: string, words: string): Promise<TestHome> {
  const home = await openHome({ dir, mintUrls: [sandbox.mintUrl], words })
  onTestFinished(() => home.close())
  return home
}

/** A home that took 400 sats for a job, and a copy of it from before the job was refunded to `payer`. */
async function refundedAfterBackup(payer: TestHome) {
  const words = testWords()
  const [dir, backup] = [tempDir(), tempDir()]
  const before = await openHome({ dir, mintUrls: [sandbox.mintUrl], words })
  await fund(before, before.node, sandbox.mintUrl, 500)
  const job = { type: 'job', id: '1' } as const
  const invoice = await before.node.createInvoice({
    idempotencyKey: 'job:1:invoice',
    cause: job,
    amountSats: sats(400),
    creditAccount: 'node/deposit/job:1' as const,
  })
  await faucet(sandbox.mintUrl, invoice.request)
  await expect.poll(() => before.node.balance(), { timeout: 15_000 }).toMatchObject({ balanceSats: 900n, owedSats: 400n })
  await before.close()
  cpSync(join(dir, 'pylon.db'), join(backup, 'pylon.db'))
  const refund = {
    idempotencyKey: 'job:1:refund',
    cause: job,
    amountSats: sats(400),
    mintUrl: sandbox.mintUrl,
    lockTo: `02${payer.node.owner.pubkey}`,
    debitAccount: 'node/deposit/job:1' as const,
    lessFeeIfShort: true,
    retryFailed: true,
  }
  const spent = await open(dir, words)
  const { token } = await spent.node.sendToken(refund)
  const balanceSats = spent.node.balance().balanceSats
  await spent.close()
  return { words, backup, refund, token, balanceSats }
}

const redeem = (payer: TestHome, token: string) =>
  payer.node.receiveToken({ idempotencyKey: randomUUID(), cause: ownerCause(), token, creditAccount: 'node/equity/funding' as const })

it.each([
  ['after the mints were asked', true],
  ['before any mint was asked', false],
])('gives the same token again, %s', async (_when, ask) => {
  const payer = await open(tempDir(), testWords())
  const { words, backup, refund, token, balanceSats } = await refundedAfterBackup(payer)
  const restored = await open(backup, words)
  if (ask) await restored.wallets.restore(restored.node.owner)
  // What a refund does that failed: it is tried again.
  const again = await expect
    .poll(() => restored.node.sendToken(refund).catch((error: unknown) => error), { timeout: 15_000 })
    .toMatchObject({ state: 'pending' })
    .then(() => restored.node.sendToken(refund))
  await expect(redeem(payer, again.token)).resolves.toMatchObject({ amountSats: 399n })
  await expect(redeem(payer, token)).rejects.toMatchObject({ code: 'token_spent' })
  await restored.wallets.restore(restored.node.owner)
  expect(restored.node.balance()).toMatchObject({ balanceSats, owedSats: 0n, atRiskSats: 0n })
  expect(accountBalance(restored.store, 'node/deposit/job:1')).toBe(0n)
  await expectSound(restored, sandbox.mintUrl)
})

it('sees that the refund was redeemed', async () => {
  const payer = await open(tempDir(), testWords())
  const { words, backup, refund, token, balanceSats } = await refundedAfterBackup(payer)
  await redeem(payer, token)
  const restored = await open(backup, words)
  await restored.wallets.restore(restored.node.owner)
  await restored.node.sendToken(refund)
  await expect.poll(() => restored.node.sentToken(refund.idempotencyKey)?.state, { timeout: 15_000 }).toBe('claimed')
  await expect.poll(() => restored.events, { timeout: 15_000 }).toContainEqual(expect.objectContaining({ type: 'sent_claimed' }))
  expect(restored.node.balance()).toMatchObject({ balanceSats, owedSats: 0n })
  await expectSound(restored, sandbox.mintUrl)
})
