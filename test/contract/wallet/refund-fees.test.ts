/** Whose the fees of a refund are: the node's where it failed, the payer's where the payer brought it about. */
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { createRefunds } from '../../../src/provider/refunds.ts'
import { defineCommand } from '../../../src/store/commands.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
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

const nothing = defineCommand('nothing', () => undefined)

/** A customer pays for a job whose refund is tried now and at each `again`. */
async function paidJob(node: TestHome, customer: TestHome, id: string, paid: number, causedByPayer: boolean) {
  const account = `node/deposit/job:${id}` as const
  const cause = { type: 'job', id } as const
  const request = { idempotencyKey: `job:${id}:invoice`, cause, amountSats: sats(paid), creditAccount: account }
  const invoice = await node.node.createInvoice(request)
  await faucet(sandbox.mintUrl, invoice.request)
  await expect.poll(() => accountBalance(node.store, account), { timeout: 15_000 }).toBe(BigInt(-paid * 1000))
  const sent: string[] = []
  const ended: string[] = []
  const refunds = createRefunds(
    { store: node.store, clock: systemClock, logger: silentLogger, wallet: () => node.node, nudge: () => undefined },
    {
      due: () => [id],
      owed: () => ({
        ...{ idempotencyKey: `job:${id}:refund`, cause, amountSats: sats(paid), mintUrl: sandbox.mintUrl, causedByPayer },
        ...{ pubkey: customer.customer.owner.pubkey, debitAccount: account, sends: 0 },
      }),
      deliver: (_, token) => {
        sent.push(token)
        return []
      },
      note: () => nothing(undefined),
      deferred: () => [],
      forgo: (_, reason) => {
        ended.push(reason)
        return []
      },
      onClaimed: async () => {},
    },
  )
  onTestFinished(() => refunds.close())
  await refunds.run()
  return {
    again: () => refunds.run(),
    owedMsats: () => -accountBalance(node.store, account),
    /** What the customer has of it in the end, undefined where nothing came. */
    async redeemed(): Promise<bigint | undefined> {
      expect(accountBalance(node.store, account)).toBe(0n)
      expect(sent.length + ended.length).toBe(1)
      const [token] = sent
      if (token === undefined) return undefined
      const receive = { idempotencyKey: id, cause: ownerCause(), token, creditAccount: 'customer/equity/funding' as const }
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
