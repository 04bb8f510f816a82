/** The wallet against the sandbox's mint over real sockets: everything as it should go. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

async function home(words?: string): Promise<TestHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: words ?? testWords() })
  onTestFinished(() => opened.close())
  return opened
}

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })

describe('invoices', () => {
  it('mints a paid invoice once, credits the account and tells', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 1000)
    expect(h.node.balance()).toMatchObject({
      balanceSats: 1000n,
      atRiskSats: 0n,
      mints: [{ url: sandbox.mintUrl, balanceSats: 1000n, state: 'ok' }],
    })
    expect(accountBalance(h.store, 'node/equity/funding')).toBe(-1_000_000n)
    await expect.poll(() => h.events).toMatchObject([{ type: 'invoice_settled', amountSats: 1000n, owner: { kind: 'node' } }])
    await expectSound(h, sandbox.mintUrl)
  })

  it('gives the same invoice for the same key, and refuses another request under it', async () => {
    const h = await home()
    const request = { ...operation(), amountSats: sats(21), creditAccount: 'node/equity/funding' as const }
    const [first, second] = await Promise.all([h.node.createInvoice(request), h.node.createInvoice(request)])
    expect(second).toEqual(first)
    await expect(h.node.createInvoice({ ...request, amountSats: sats(22) })).rejects.toMatchObject({ code: 'idempotency_conflict' })
  })

  it('tells a mint that has not answered yet from no mint', async () => {
    for (const [expectedMints, code] of [
      [['http://127.0.0.1:9'], 'mint_unreachable'],
      [[], 'no_mint'],
    ] as const) {
      const h = await openHome({ dir: tempDir(), mintUrls: [], words: testWords(), expectedMints })
      onTestFinished(() => h.close())
      const request = { ...operation(), amountSats: sats(5), creditAccount: 'node/equity/funding' as const }
      const refused = expect(h.node.createInvoice(request)).rejects.toMatchObject({ code })
      for (const url of expectedMints) await expect(h.wallets.addMint(url)).rejects.toMatchObject({ code: 'mint_unreachable' })
      await refused
    }
  })

  it('waits for a mint named at the start that is looked at for the first time', async () => {
    const giver = await home()
    await fund(giver, giver.node, sandbox.mintUrl, 100)
    const { token } = await giver.node.sendToken({ ...operation(), amountSats: sats(20), debitAccount: 'node/expense/job' as const })
    const h = await openHome({ dir: tempDir(), mintUrls: [], words: testWords(), expectedMints: [sandbox.mintUrl] })
    onTestFinished(() => h.close())
    const request = { ...operation(), amountSats: sats(5), creditAccount: 'node/equity/funding' as const }
    const invoices = [request, { ...request, ...operation(), mintUrl: sandbox.mintUrl }].map((one) => h.node.createInvoice(one))
    const received = h.node.receiveToken({ ...operation(), token, creditAccount: 'node/equity/funding' as const })
    await h.wallets.addMint(sandbox.mintUrl)
    for (const invoice of await Promise.all(invoices)) expect(invoice).toMatchObject({ state: 'unpaid', amountSats: 5n })
    await received
    expect(h.node.balance().balanceSats).toBeGreaterThan(0n)
  })
})

describe('tokens', () => {
  it('sends and receives exact amounts between two homes', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.customer, sandbox.mintUrl, 500)
    const sent = await alice.customer.sendToken({
      ...operation(),
      amountSats: sats(100),
      debitAccount: 'customer/expense/job' as const,
      coverReceiverFee: true,
      lockTo: bob.node.lockPubkey,
    })
    expect(sent.state).toBe('pending')
    expect(await bob.node.inspectToken(sent.token)).toMatchObject({ mintUrl: sandbox.mintUrl, unit: 'sat', netSats: 100n, lock: 'ours' })
    expect(await alice.customer.inspectToken(sent.token)).toMatchObject({ lock: 'other' })
    const receive = {
      ...operation(),
      token: sent.token,
      creditAccount: 'node/deposit/job:x' as const,
      minNetSats: sats(100),
      requireLock: true,
    }
    expect(await bob.node.receiveToken(receive)).toEqual({ amountSats: 100n, mintUrl: sandbox.mintUrl })
    expect(await bob.node.receiveToken(receive)).toEqual({ amountSats: 100n, mintUrl: sandbox.mintUrl })
    expect(bob.node.balance().balanceSats).toBe(100n)
    expect(accountBalance(bob.store, 'node/deposit/job:x')).toBe(-100_000n)
    expect(accountBalance(alice.store, 'customer/expense/job')).toBe(100_000n)
    const fees = accountBalance(alice.store, 'customer/expense/fee')
    expect(alice.customer.balance().balanceSats * 1000n).toBe(400_000n - fees)
    await expect.poll(() => alice.events.filter((event) => event.type === 'sent_claimed').length, { timeout: 15_000 }).toBe(1)
    expect(alice.customer.sentToken(receive.idempotencyKey)).toBeUndefined()
    await expectSound(alice, sandbox.mintUrl)
    await expectSound(bob, sandbox.mintUrl)
  })

  it('takes back a token that nobody claimed, not one that somebody did', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.node, sandbox.mintUrl, 200)
    const one = { ...operation(), amountSats: sats(40), debitAccount: 'node/equity/withdrawal' as const }
    const two = { ...operation(), amountSats: sats(8), debitAccount: 'node/equity/withdrawal' as const }
    await alice.node.sendToken(one)
    const claimed = await alice.node.sendToken(two)
    await bob.node.receiveToken({ ...operation(), token: claimed.token, creditAccount: 'node/equity/funding' as const })
    expect(await alice.node.reclaim(one.idempotencyKey)).toMatchObject({ state: 'reclaimed' })
    expect(await alice.node.reclaim(two.idempotencyKey)).toMatchObject({ state: 'claimed' })
    const fees = accountBalance(alice.store, 'node/expense/fee')
    expect(alice.node.balance().balanceSats * 1000n).toBe(192_000n - fees)
    expect(accountBalance(alice.store, 'node/equity/withdrawal')).toBe(8000n)
    await expectSound(alice, sandbox.mintUrl)
  })

  it('opens a refund that is locked to the Nostr key', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.node, sandbox.mintUrl, 64)
    const lockTo = `02${bob.customer.owner.pubkey}`
    const sent = await alice.node.sendToken({ ...operation(), amountSats: sats(20), debitAccount: 'node/deposit/job:x' as const, lockTo })
    const got = await bob.customer.receiveToken({
      ...operation(),
      token: sent.token,
      creditAccount: 'customer/equity/refund' as const,
      requireLock: true,
    })
    expect(got.amountSats).toBe(19n)
  })
})

describe('a token with a refund time', () => {
  it("stays its receiver's until then, and comes back after", async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.node, sandbox.mintUrl, 100)
    const send = { ...operation(), amountSats: sats(32), debitAccount: 'node/equity/withdrawal' as const, lockTo: bob.node.lockPubkey }
    await alice.node.sendToken({ ...send, refundAfter: Date.now() + 2000 })
    await expect(alice.node.reclaim(send.idempotencyKey)).rejects.toMatchObject({ code: 'conflict' })
    await expect
      .poll(() => alice.node.reclaim(send.idempotencyKey).catch(() => undefined), { timeout: 15_000, interval: 500 })
      .toMatchObject({ state: 'reclaimed' })
    expect(accountBalance(alice.store, 'node/equity/withdrawal')).toBe(0n)
    await expectSound(alice, sandbox.mintUrl)
  })
})

describe('payments', () => {
  it('break a large coin first, so that a payment that hangs holds little', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.node, sandbox.mintUrl, 1024)
    const invoice = await bob.node.createInvoice({ ...operation(), amountSats: sats(5), creditAccount: 'node/deposit/job:z' as const })
    await sandbox.faults({ hold_melts: 1 })
    const pay = { ...operation(), request: invoice.request, debitAccount: 'node/expense/job' as const }
    expect(await alice.node.pay(pay)).toMatchObject({ state: 'unknown' })
    const reserved = alice.store.sql(`SELECT sum(amount_sats) AS total FROM proofs WHERE state = 'reserved'`).get()
    expect(reserved?.['total']).toBeLessThanOrEqual(14n)
    await alice.node.sendToken({ ...operation(), amountSats: sats(512), debitAccount: 'node/equity/withdrawal' as const })
    await sandbox.faults({ release_melts: 'paid' })
    await expect.poll(() => alice.node.payment(pay.idempotencyKey)?.state, { timeout: 15_000 }).toBe('paid')
    await expectSound(alice, sandbox.mintUrl)
  })

  it('pays an invoice, brings the change back and books the fee', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.customer, sandbox.mintUrl, 1000)
    const invoice = await bob.node.createInvoice({ ...operation(), amountSats: sats(300), creditAccount: 'node/deposit/job:y' as const })
    const request = { ...operation(), request: invoice.request, amountMsats: 300_000n, debitAccount: 'customer/expense/job' as const }
    const paid = await alice.customer.pay(request)
    expect(paid).toMatchObject({ state: 'paid', preimage: expect.stringMatching(/^[0-9a-f]{64}$/) })
    expect(await alice.customer.pay(request)).toEqual(paid)
    expect(alice.customer.payment(request.idempotencyKey)).toEqual(paid)
    const fees = accountBalance(alice.store, 'customer/expense/fee')
    expect(accountBalance(alice.store, 'customer/expense/job')).toBe(300_000n)
    expect(alice.customer.balance()).toMatchObject({ balanceSats: (700_000n - fees) / 1000n, atRiskSats: 0n })
    await expect.poll(() => bob.node.balance().balanceSats, { timeout: 15_000 }).toBe(300n)
    await expect.poll(() => alice.events.map((event) => event.type)).toContain('payment_settled')
    await expectSound(alice, sandbox.mintUrl)
    await expectSound(bob, sandbox.mintUrl)
  })

  it('refuses an invoice over another amount, pays one once whatever the key, and spends nothing more', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.node, sandbox.mintUrl, 100)
    const invoice = await bob.node.createInvoice({ ...operation(), amountSats: sats(10), creditAccount: 'node/equity/funding' as const })
    const pay = { request: invoice.request, debitAccount: 'node/expense/job' as const }
    await expect(alice.node.pay({ ...operation(), ...pay, amountMsats: 9000n })).rejects.toMatchObject({ code: 'invoice_invalid' })
    const first = await alice.node.pay({ ...operation(), ...pay })
    const before = alice.node.balance()
    expect(await alice.node.pay({ ...operation(), ...pay })).toEqual(first)
    expect(alice.node.balance()).toEqual(before)
    await expect(
      alice.node.pay({ ...operation(), request: 'lnbcrt1junk', debitAccount: 'node/expense/job' as const }),
    ).rejects.toMatchObject({
      code: 'invoice_invalid',
    })
    await expectSound(alice, sandbox.mintUrl)
  })
})

describe('transfers', () => {
  it('moves sats between two own wallets as one operation', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 300)
    await h.wallets.transfer(h.node.owner, h.agent.owner, sats(123), 'fund-1')
    await h.wallets.transfer(h.node.owner, h.agent.owner, sats(123), 'fund-1')
    expect(h.agent.balance().balanceSats).toBe(123n)
    const fees = accountBalance(h.store, 'node/expense/fee')
    expect(h.node.balance().balanceSats * 1000n).toBe(177_000n - fees)
    await expect(h.wallets.transfer(h.node.owner, h.agent.owner, sats(999), 'fund-2')).rejects.toMatchObject({ code: 'insufficient_funds' })
    await expectSound(h, sandbox.mintUrl)
  })
})

describe('many moves at once', () => {
  it('never take the same coins twice', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 500)
    const moves = Array.from({ length: 10 }, (_, i) =>
      i % 2 === 0
        ? h.node.sendToken({ ...operation(), amountSats: sats(60), debitAccount: 'node/equity/withdrawal' as const })
        : h.wallets.transfer(h.node.owner, h.agent.owner, sats(60), randomUUID()),
    )
    const ended = await Promise.allSettled(moves)
    const done = ended.filter((one) => one.status === 'fulfilled')
    expect(done.length).toBeGreaterThanOrEqual(7)
    expect(done.length).toBeLessThanOrEqual(8)
    for (const one of ended) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'insufficient_funds' })
    const fees = accountBalance(h.store, 'node/expense/fee')
    expect(h.node.balance().balanceSats * 1000n).toBe(500_000n - BigInt(done.length) * 60_000n - fees)
    await expectSound(h, sandbox.mintUrl)
  })
})
