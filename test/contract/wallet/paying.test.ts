/** Payments against a mint that lets them hang and takes fees: each invoice once in the whole home, and not a sat beside what is shown. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { walletReadHandlers } from '../../../src/daemon/routes/wallet-invoices.ts'
import { heldValue } from '../../../src/store/money/held-value.ts'
import type { PayRequest, Spend, Wallet } from '../../../src/wallet/types.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox
let payee: TestHome

beforeAll(async () => {
  sandbox = await startSandbox()
  payee = await openHome({ dir: sandbox.dir, mintUrls: [sandbox.mintUrl], words: testWords() })
})

afterAll(async () => {
  await payee.close()
  await sandbox.stop()
})

async function home(options: { dir?: string; words?: string; mintUrls?: string[] } = {}): Promise<TestHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords(), ...options })
  onTestFinished(() => opened.close().catch(() => undefined))
  return opened
}

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })

const invoiceOf = async (amount: number): Promise<string> =>
  (await payee.node.createInvoice({ ...operation(), amountSats: sats(amount), creditAccount: 'node/equity/funding' as const })).request

const asked = (request: string, more: Partial<PayRequest> = {}): PayRequest => ({
  ...operation(),
  request,
  debitAccount: 'node/equity/withdrawal' as const,
  ...more,
})

/** What an agent's action asks. */
const byAgent = (h: TestHome, request: string): PayRequest =>
  asked(request, { cause: { type: 'action', id: randomUUID() }, debitAccount: `agent:${h.agent.owner.pubkey}/expense/invoice` as const })

const unlimited = (h: TestHome): Spend => ({ subject: h.agent.owner.pubkey, limits: {} })

const byCustomer = (request: string): PayRequest => asked(request, { debitAccount: 'customer/equity/withdrawal' as const })

const held = (wallet: Wallet): bigint => wallet.balance().balanceSats + wallet.balance().atRiskSats

describe('one payment hash', () => {
  it('is one payment while it hangs, for any key, wallet and mint, and after a restart', async () => {
    const other = await startSandbox()
    onTestFinished(() => other.stop())
    const place = { dir: tempDir(), words: testWords(), mintUrls: [sandbox.mintUrl, other.mintUrl] }
    const first = await home(place)
    await fund(first, first.node, sandbox.mintUrl, 100)
    await fund(first, first.customer, other.mintUrl, 100)
    const request = await invoiceOf(10)
    await sandbox.faults({ hold_melts: 1 })
    const one = await first.node.pay(asked(request))
    expect(one).toMatchObject({ state: 'unknown' })
    expect(await first.node.pay(asked(request.toUpperCase()))).toEqual(one)
    const inProgress = { code: 'payment_in_progress', details: { operation_id: one.operationId } }
    await expect(first.customer.pay(byCustomer(request))).rejects.toMatchObject(inProgress)
    await expect(first.agent.pay(byAgent(first, request), unlimited(first))).rejects.toMatchObject(inProgress)
    await first.close()

    const again = await home(place)
    await expect(again.customer.pay(byCustomer(request))).rejects.toMatchObject(inProgress)
    await sandbox.faults({ release_melts: 'paid' })
    const paid = { state: 'paid', operationId: one.operationId }
    await expect.poll(() => again.node.pay(asked(request)), { timeout: 15_000 }).toMatchObject(paid)
    await expect(again.customer.pay(byCustomer(request))).rejects.toMatchObject({ ...inProgress, code: 'invoice_paid' })
    expect(again.customer.balance().balanceSats).toBe(100n)
    await expectSound(again, sandbox.mintUrl)
  })

  it('asked by two wallets at once is paid by one of them', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 200)
    await fund(h, h.agent, sandbox.mintUrl, 200)
    const request = await invoiceOf(20)
    const outcomes = await Promise.allSettled([h.node.pay(asked(request)), h.agent.pay(byAgent(h, request), unlimited(h))])
    expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(400n - held(h.node) - held(h.agent)).toBeLessThan(25n)
    await expectSound(h, sandbox.mintUrl)
  })

  it('may be paid again when the payment that hung has failed', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 100)
    const request = await invoiceOf(10)
    await sandbox.faults({ hold_melts: 1 })
    const first = asked(request)
    expect(await h.node.pay(first)).toMatchObject({ state: 'unknown' })
    await sandbox.faults({ release_melts: 'failed' })
    await expect.poll(() => h.node.payment(first.idempotencyKey), { timeout: 15_000 }).toMatchObject({ state: 'failed' })
    expect(held(h.node)).toBe(100n)
    expect(await h.node.pay(asked(request))).toMatchObject({ state: 'paid' })
    await expectSound(h, sandbox.mintUrl)
  })
})

it('a payment that hangs while the keyset of its mint rotates goes through in the end, and its change comes', async () => {
  const h = await home()
  await fund(h, h.node, sandbox.mintUrl, 100)
  await sandbox.faults({ hold_melts: 1 })
  const order = asked(await invoiceOf(10))
  expect(await h.node.pay(order)).toMatchObject({ state: 'unknown' })
  await sandbox.faults({ rotate_keyset: true })
  await sandbox.faults({ release_melts: 'paid' })
  await expect.poll(() => h.node.payment(order.idempotencyKey), { timeout: 15_000 }).toMatchObject({ state: 'paid' })
  // Less the fees of its inputs, and of moving what is left to the new keyset.
  await expect.poll(() => held(h.node), { timeout: 15_000 }).toBeGreaterThanOrEqual(88n)
  await expectSound(h, sandbox.mintUrl)
})

describe('what a payment costs', () => {
  it('is what is shown with it: over twelve payments, with the swaps that they needed', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 1000)
    let shown = 0n
    for (let i = 1; i <= 12; i++) {
      const paid = await h.node.pay(asked(await invoiceOf(i)))
      if (paid.state !== 'paid') throw new Error('not paid')
      shown += BigInt(i) + paid.feeSats
    }
    expect(1000n - h.node.balance().balanceSats).toBe(shown)
    // One swap makes the small coins that the others need.
    expect(Number(h.store.sql(`SELECT count(*) AS n FROM operations WHERE kind = 'transfer'`).get()?.['n'])).toBeLessThanOrEqual(2)
    await expectSound(h, sandbox.mintUrl)
  })

  it('stays within what is allowed beside the amount, or nothing leaves', async () => {
    const mint = await startSandbox()
    onTestFinished(() => mint.stop())
    await mint.faults({ input_fee_ppk: 1000 })
    const h = await home({ mintUrls: [mint.mintUrl] })
    await fund(h, h.node, mint.mintUrl, 500)
    const { request } = await h.customer.createInvoice({
      ...operation(),
      amountSats: sats(40),
      creditAccount: 'customer/equity/funding' as const,
    })
    await expect(h.node.pay(asked(request, { maxFeeSats: sats(1) }))).rejects.toMatchObject({ code: 'payment_failed' })
    expect(h.node.balance().balanceSats).toBe(500n)
    expect(await h.node.pay(asked(request, { maxFeeSats: sats(6) }))).toMatchObject({ state: 'paid' })
    expect(500n - 40n - h.node.balance().balanceSats).toBeLessThanOrEqual(6n)
    await expectSound(h, mint.mintUrl)
  })

  it('passes the budget to the last sat', async () => {
    const h = await home()
    await fund(h, h.agent, sandbox.mintUrl, 1024)
    const limits = { perTxSats: sats(12), perTickSats: sats(100), perDaySats: sats(30) }
    const spend: Spend = { subject: h.agent.owner.pubkey, tickId: 'tick', limits }
    const outcomes: string[] = []
    for (let i = 0; i < 5; i++) {
      const request = byAgent(h, await invoiceOf(8))
      const outcome = await h.agent.pay(request, spend).catch((error: { code: string }) => ({ state: error.code }))
      outcomes.push(outcome.state)
    }
    expect(outcomes).toContain('paid')
    expect(outcomes.at(-1)).toBe('budget_exceeded')
    const left = 1024n - h.agent.balance().balanceSats
    expect(left).toBeLessThanOrEqual(30n)
    expect(h.store.sql(`SELECT sum(amount_sats) AS n FROM spend_holds WHERE state = 'spent'`).get()?.['n']).toBe(left)
  })
})

it('refuses to send a token that is worth nothing to whoever redeems it, and says what is', async () => {
  const h = await home()
  await fund(h, h.node, sandbox.mintUrl, 64)
  const send = { debitAccount: 'node/equity/withdrawal' as const }
  await expect(h.node.sendToken({ ...operation(), ...send, amountSats: sats(1) })).rejects.toMatchObject({
    code: 'amount_invalid',
    details: { least_sats: 2 },
  })
  expect(h.node.balance().balanceSats).toBe(64n)
  const { token } = await h.node.sendToken({ ...operation(), ...send, amountSats: sats(2) })
  const redeemed = await payee.node.receiveToken({ ...operation(), token, creditAccount: 'node/equity/funding' as const })
  expect(redeemed.amountSats).toBe(1n)
})

it('shows what was paid for an invoice that its mint does not issue: at risk, with its quote and what to tell, until it is here', async () => {
  const mint = await startSandbox()
  onTestFinished(() => mint.stop())
  const h = await home({ mintUrls: [mint.mintUrl] })
  const body = { detail: 'the signer is on holiday', code: 10_000 }
  await mint.faults({ fail: { path: '/v1/mint/bolt11', status: 400, body, count: 2 } })
  const request = { ...operation(), amountSats: sats(77), creditAccount: 'node/equity/funding' as const }
  const invoice = await h.node.createInvoice(request)
  await faucet(mint.mintUrl, invoice.request)
  await expect.poll(() => h.node.balance().atRiskSats, { timeout: 15_000 }).toBe(77n)
  expect(h.node.balance().balanceSats).toBe(0n)
  expect(heldValue(h.store).atRiskSats).toBe(77n)
  const list = async (wallet?: string) => {
    const call = { idempotencyKey: '', signal: new AbortController().signal }
    return (await walletReadHandlers(h).listInvoices({ ...(wallet === undefined ? {} : { wallet }) }, call)).invoices
  }
  await expect.poll(async () => (await list('node'))[0]?.reason).toContain('on holiday')
  expect(await list()).toMatchObject([{ quote_id: invoice.quoteId, state: 'paid', amount_sats: 77n, wallet: 'node' }])
  expect((await list())[0]?.tell_operator).toMatch(`${invoice.quoteId} over 77 sats (payment hash ${invoice.paymentHash}) is paid`)
  expect(await list('customer')).toEqual([])
  await expect.poll(() => h.node.balance(), { timeout: 20_000 }).toMatchObject({ balanceSats: 77n, atRiskSats: 0n })
  expect(await list()).toMatchObject([{ state: 'settled', reason: null, tell_operator: null }])
  await expectSound(h, mint.mintUrl)
})
