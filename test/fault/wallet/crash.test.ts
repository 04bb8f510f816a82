/** Money through crashes: each flow dies after every single step in turn, comes back, and ends with the same books as if it had not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { openOperations } from '../../../src/store/money/operations.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from '../../contract/wallet/home.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { Crash } from './crash.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

interface Flow {
  readonly funds?: 'customer'
  /** Done before the crash is armed; its result goes to `act` and `check`. */
  prepare(home: TestHome): Promise<string>
  /** The call that a caller repeats under the same key until it has an answer. */
  act(home: TestHome, prepared: string, crash: Crash): Promise<unknown>
  check(home: TestHome, prepared: string): void
}

const FUNDS = 500
const cause = ownerCause('crash')

const flows: Record<string, Flow> = {
  'a paid invoice': {
    prepare: async () => '',
    act: async (home, _, crash) => {
      const request = { idempotencyKey: 'invoice', cause, amountSats: sats(77), creditAccount: 'node/deposit/job:a' as const }
      const invoice = await home.node.createInvoice(request)
      if (invoice.state === 'unpaid')
        await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: invoice.request }) })
      await expect.poll(() => crash.diedAt ?? home.node.invoice('invoice')?.state, { timeout: 30_000 }).toMatch(/settled|commit|GET|POST/)
    },
    check: (home) => {
      expect(accountBalance(home.store, 'node/deposit/job:a')).toBe(-77_000n)
      expect(home.node.balance().balanceSats).toBe(577n)
    },
  },
  'a received token': {
    funds: 'customer',
    prepare: async (home) =>
      (await home.customer.sendToken({ ...key('gift'), amountSats: sats(50), debitAccount: 'customer/expense/job' as const })).token,
    act: (home, token) =>
      home.agent.receiveToken({ ...key('receive'), token, creditAccount: `agent:${home.agent.owner.pubkey}/income/internal` as const }),
    check: (home) => expect(home.agent.balance().balanceSats).toBe(49n),
  },
  'a sent token': {
    prepare: async () => '',
    act: (home) =>
      home.node.sendToken({
        ...key('send'),
        amountSats: sats(33),
        debitAccount: 'node/deposit/job:b' as const,
        lockTo: home.customer.lockPubkey,
      }),
    check: (home) => {
      expect(accountBalance(home.store, 'node/deposit/job:b')).toBe(33_000n)
      expect(home.node.sentToken('send')?.state).toBe('pending')
    },
  },
  'a payment': {
    prepare: async (home) =>
      (await home.customer.createInvoice({ ...key('theirs'), amountSats: sats(120), creditAccount: 'customer/equity/funding' as const }))
        .request,
    act: (home, request) => home.node.pay({ ...key('pay'), request, debitAccount: 'node/expense/job' as const }),
    check: (home) => {
      expect(accountBalance(home.store, 'node/expense/job')).toBe(120_000n)
      expect(home.node.payment('pay')).toMatchObject({ state: 'paid', preimage: expect.stringMatching(/^[0-9a-f]{64}$/) })
    },
  },
  'a transfer': {
    prepare: async () => '',
    act: (home) => home.wallets.transfer(home.node.owner, home.agent.owner, sats(99), 'transfer'),
    check: (home) => expect(home.agent.balance().balanceSats).toBe(99n),
  },
  'a token taken back': {
    prepare: async (home) =>
      (await home.node.sendToken({ ...key('lost'), amountSats: sats(64), debitAccount: 'node/deposit/job:c' as const })).token,
    act: (home) => home.node.reclaim('lost'),
    check: (home) => {
      expect(home.node.sentToken('lost')?.state).toBe('reclaimed')
      expect(accountBalance(home.store, 'node/deposit/job:c')).toBe(0n)
    },
  },
}

function key(name: string) {
  return { idempotencyKey: name, cause }
}

const MOST_STEPS = 60
/** Most of a run is waiting for answers. */
const AT_ONCE = 4

/** Runs a flow that dies at `step`, then again with the same database. Returns where it died, or undefined when it did not. */
async function crashAt(flow: Flow, step: number): Promise<string | undefined> {
  const dir = tempDir()
  const crash = new Crash()
  const options = { dir, mintUrls: [sandbox.mintUrl], words: testWords() }
  const first = await openHome({ ...options, hook: crash.hook, dialer: crash.dialer })
  await fund(first, flow.funds === 'customer' ? first.customer : first.node, sandbox.mintUrl, FUNDS)
  const prepared = await flow.prepare(first)
  crash.arm(step)
  await flow.act(first, prepared, crash).catch(() => undefined)
  await first.close().catch(() => undefined)

  const second = await openHome(options)
  await expect.poll(() => openOperations(second.store).length, { timeout: 30_000 }).toBe(0)
  await flow.act(second, prepared, new Crash())
  await expectSound(second, sandbox.mintUrl)
  flow.check(second, prepared)
  const accounts = balancesByPrefix(second.store, '')
  for (const [account, balance] of accounts) {
    expect(account, `after dying ${crash.diedAt}`).not.toMatch(/\/(?:held|expense\/lost)/)
    if (account.endsWith('/expense/fee')) expect(balance, account).toBeLessThanOrEqual(4000n)
  }
  await second.close()
  return crash.diedAt
}

describe.each(Object.keys(flows))('%s', (name) => {
  it('ends the same whatever step it dies at', async () => {
    const flow = flows[name] as Flow
    const deaths: string[] = []
    let survived = false
    for (let step = 1; step <= MOST_STEPS && !survived; step += AT_ONCE) {
      const steps = Array.from({ length: AT_ONCE }, (_, i) => step + i)
      const died = await Promise.all(steps.map((one) => crashAt(flow, one)))
      deaths.push(...died.filter((where) => where !== undefined))
      survived = died.includes(undefined)
    }
    expect(survived).toBe(true)
    expect(deaths.length).toBeGreaterThan(2)
  }, 120_000)
})

it('counts a faucet payment once even when nobody listens', async () => {
  const dir = tempDir()
  const options = { dir, mintUrls: [sandbox.mintUrl], words: testWords() }
  const first = await openHome(options)
  const invoice = await first.node.createInvoice({ ...key('late'), amountSats: sats(5), creditAccount: 'node/equity/funding' as const })
  await first.close()
  await faucet(sandbox.mintUrl, invoice.request)
  const second = await openHome(options)
  await expect.poll(() => second.node.invoice('late')?.state, { timeout: 30_000 }).toBe('settled')
  expect(second.node.balance().balanceSats).toBe(5n)
  await second.close()
})
