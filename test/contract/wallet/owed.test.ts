/** What customers paid for and have not had yet is not spent by others: it may have to go back. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

/** A node with `own` sats of its owner, and `deposit` that a customer paid for a job or lease. */
async function home(own: number, deposit: number, type: 'job' | 'lease' = 'job'): Promise<TestHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  onTestFinished(() => opened.close())
  await fund(opened, opened.node, sandbox.mintUrl, own)
  const invoice = await opened.node.createInvoice({
    idempotencyKey: `${type}:1:invoice`,
    cause: { type, id: '1' },
    amountSats: sats(deposit),
    creditAccount: `node/deposit/${type}:1` as const,
  })
  await faucet(sandbox.mintUrl, invoice.request)
  await expect.poll(() => opened.node.balance(), { timeout: 15_000 }).toMatchObject({ balanceSats: BigInt(own + deposit) })
  return opened
}

const withdrawal = () => ({ idempotencyKey: randomUUID(), cause: ownerCause(), debitAccount: 'node/equity/withdrawal' as const })

it.each(['job', 'lease'] as const)('is shown, and left alone by tokens, transfers and payments: a %s', async (type) => {
  const h = await home(100, 400, type)
  const other = await home(10, 10)
  expect(h.node.balance()).toMatchObject({ balanceSats: 500n, owedSats: 400n })
  const refused = { code: 'funds_owed', details: { owed_sats: 400, free_sats: 100 } }
  await expect(h.node.sendToken({ ...withdrawal(), amountSats: sats(101) })).rejects.toMatchObject(refused)
  await expect(h.node.sendToken({ ...withdrawal(), amountSats: sats(101), mintUrl: sandbox.mintUrl })).rejects.toMatchObject(refused)
  await expect(h.wallets.transfer(h.node.owner, h.agent.owner, sats(101), randomUUID())).rejects.toMatchObject(refused)
  const { request } = await other.node.createInvoice({
    idempotencyKey: randomUUID(),
    cause: ownerCause(),
    amountSats: sats(101),
    creditAccount: 'node/equity/funding' as const,
  })
  await expect(h.node.pay({ ...withdrawal(), request })).rejects.toMatchObject(refused)
  expect(h.node.balance()).toMatchObject({ balanceSats: 500n, atRiskSats: 0n })
  await expect(h.node.sendToken({ ...withdrawal(), amountSats: sats(90) })).resolves.toMatchObject({ amountSats: 90n })
  await expectSound(h, sandbox.mintUrl)
})

it('is spent by its refund, and by an owner who insists', async () => {
  const h = await home(1, 400)
  const insisting = { ...withdrawal(), amountSats: sats(10) }
  await expect(h.node.sendToken(insisting)).rejects.toMatchObject({ code: 'funds_owed' })
  await expect(h.node.sendToken({ ...insisting, includeOwed: true })).resolves.toMatchObject({ amountSats: 10n })
  const refund = { idempotencyKey: 'job:1:refund', cause: { type: 'job' as const, id: '1' }, debitAccount: 'node/deposit/job:1' as const }
  await expect(h.node.sendToken({ ...refund, amountSats: sats(380), lockTo: h.customer.lockPubkey })).resolves.toMatchObject({
    amountSats: 380n,
  })
  expect(h.node.balance().owedSats).toBe(20n)
  await expectSound(h, sandbox.mintUrl)
})
