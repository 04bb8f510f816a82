/** Whose the fees of a refund are: the node's where it failed, the payer's where the payer brought it about. */
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { msats, sats } from '../../../src/base/amounts.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { Sales } from '../../../src/provider/sale/sales.ts'
import { saleInvoiceKey } from '../../../src/store/keys.ts'
import { accountBalance, depositOf } from '../../../src/store/money/ledger.ts'
import { RefundingProduct } from '../../support/refunding-product.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

async function home(): Promise<TestHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  onTestFinished(() => opened.close())
  return opened
}

/** A customer pays for a job whose refund is tried now and at each `again`. */
async function paidJob(node: TestHome, customer: TestHome, id: string, paid: number, causedByPayer: boolean) {
  const cause = { type: 'job', id } as const
  const account = depositOf(cause)
  const request = { idempotencyKey: saleInvoiceKey(cause), cause, amountSats: sats(paid), creditAccount: account }
  const invoice = await node.node.createInvoice(request)
  await faucet(sandbox.mintUrl, invoice.request)
  await expect.poll(() => accountBalance(node.store, account), { timeout: 15_000 }).toBe(BigInt(-paid * 1000))
  const product = new RefundingProduct({
    ...{ id, paidMsats: msats(paid * 1000), mintUrl: sandbox.mintUrl, isPayersDoing: causedByPayer },
    payerPubkey: customer.customer.owner.pubkey,
  })
  const scope = testScope()
  onTestFinished(async () => void (await scope.close()))
  const deps = { store: node.store, scope, logger: silentLogger, wallet: () => node.node, nudge: () => undefined }
  const { refunds } = new Sales(deps, product)
  await refunds.run()
  return {
    again: () => refunds.run(),
    owedMsats: () => -accountBalance(node.store, account),
    /** What the customer has of it in the end, undefined where nothing came. */
    async redeemed(): Promise<bigint | undefined> {
      expect(accountBalance(node.store, account)).toBe(0n)
      const ended = product.told.filter((word) => word.type !== 'deferred')
      expect(ended).toHaveLength(1)
      if (ended[0]?.type !== 'token') return undefined
      const receive = { idempotencyKey: id, cause: ownerCause(), token: ended[0].token, creditAccount: 'customer/equity/funding' as const }
      return (await customer.customer.receiveToken(receive)).amountSats
    },
  }
}

const refunded = async (...job: Parameters<typeof paidJob>): Promise<bigint | undefined> => (await paidJob(...job)).redeemed()

it('a refund that the payer brought about costs the node nothing, however often', async () => {
  const [node, customer] = [await home(), await home()]
  await fund(node, node.node, sandbox.mintUrl, 100)
  for (const id of ['a', 'b', 'c']) expect(await refunded(node, customer, id, 10, true)).toBe(8n)
  expect(node.node.balance().balanceSats).toBeGreaterThanOrEqual(100n)
  expect(await refunded(node, customer, 'd', 2, true), 'it is worth nothing once the mint has had its fees').toBeUndefined()
  expect(node.node.balance().balanceSats).toBeGreaterThanOrEqual(100n)
  await expectSound(node, sandbox.mintUrl)
})

it('one that the payer brought about comes back from a node that holds nothing but what was paid', async () => {
  const [node, customer] = [await home(), await home()]
  expect(await refunded(node, customer, 'a', 10, true)).toBe(8n)
  expect(node.node.balance().balanceSats).toBe(0n)
  await expectSound(node, sandbox.mintUrl)
})

it('one that the node brought about brings back all that was paid, a single sat too', async () => {
  const [node, customer] = [await home(), await home()]
  await fund(node, node.node, sandbox.mintUrl, 100)
  expect(await refunded(node, customer, 'a', 10, false)).toBe(10n)
  expect(await refunded(node, customer, 'b', 1, false)).toBe(1n)
  await expectSound(node, sandbox.mintUrl)
})

it('one that the node brought about stays owed while the node holds too little to cover what its mint takes', async () => {
  const [node, customer] = [await home(), await home()]
  const job = await paidJob(node, customer, 'a', 2, false)
  expect(job.owedMsats()).toBe(2000n)
  await fund(node, node.node, sandbox.mintUrl, 100)
  await job.again()
  expect(await job.redeemed()).toBe(2n)
  await expectSound(node, sandbox.mintUrl)
})
