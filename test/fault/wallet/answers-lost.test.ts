/** A mint that does the work but whose answer is lost, that is down, slow or failing: nothing is lost, nothing is done twice. */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { raiseCounter } from '../../../src/store/money/mints.ts'
import { operationByKey } from '../../../src/store/money/operations.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from '../../contract/wallet/home.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'

let sandbox: TestSandbox
let home: TestHome

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

beforeEach(async () => {
  await sandbox.faults({ mint_down: false }).catch(() => undefined)
  home = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  const opened = home
  onTestFinished(() => opened.close())
  await fund(home, home.node, sandbox.mintUrl, 300)
})

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })

describe('an answer that is lost after the mint did it', () => {
  it('of a swap: the stored outputs are restored', async () => {
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/swap' } })
    const sent = await home.node.sendToken({ ...operation(), amountSats: sats(21), debitAccount: 'node/equity/withdrawal' as const })
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/swap' } })
    const received = await home.agent.receiveToken({
      ...operation(),
      token: sent.token,
      creditAccount: `agent:${home.agent.owner.pubkey}/equity/funding` as const,
    })
    expect(received.amountSats).toBe(20n)
    await expectSound(home, sandbox.mintUrl)
  })

  it('of a melt: the quote tells, the change comes back', async () => {
    const invoice = await home.customer.createInvoice({
      ...operation(),
      amountSats: sats(50),
      creditAccount: 'customer/equity/funding' as const,
    })
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/melt/bolt11' } })
    const paid = await home.node.pay({ ...operation(), request: invoice.request, debitAccount: 'node/expense/job' as const })
    expect(paid).toMatchObject({ state: 'paid', preimage: expect.stringMatching(/^[0-9a-f]{64}$/) })
    expect(home.node.balance().balanceSats).toBeGreaterThan(245n)
    await expectSound(home, sandbox.mintUrl)
  })

  it('of a mint: the ecash is restored and credited once', async () => {
    const key = operation()
    const invoice = await home.customer.createInvoice({ ...key, amountSats: sats(50), creditAccount: 'customer/equity/funding' as const })
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/mint/bolt11' } })
    await faucet(sandbox.mintUrl, invoice.request)
    await expect.poll(() => home.customer.invoice(key.idempotencyKey)?.state, { timeout: 30_000 }).toBe('settled')
    expect(accountBalance(home.store, 'customer/equity/funding')).toBe(-50_000n)
    await expectSound(home, sandbox.mintUrl)
  })
})

describe('an outcome that nobody knows yet', () => {
  it('holds the value, answers unknown, and is settled once the mint is back', async () => {
    const invoice = await home.customer.createInvoice({
      ...operation(),
      amountSats: sats(50),
      creditAccount: 'customer/equity/funding' as const,
    })
    const pay = { ...operation(), request: invoice.request, debitAccount: 'node/expense/job' as const }
    await sandbox.faults({ fail: { path: '/v1/melt/quote', status: 502, body: 'bad gateway', count: 1 } })
    await expect(home.node.pay(pay)).rejects.toMatchObject({ code: 'mint_unreachable' })
    await sandbox.faults({ hold_melts: 1 })
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/melt/bolt11' } })
    expect(await home.node.pay(pay)).toMatchObject({ state: 'unknown' })
    expect(home.node.balance().atRiskSats).toBeGreaterThan(50n)
    await sandbox.faults({ release_melts: 'paid' })
    await expect.poll(() => home.node.payment(pay.idempotencyKey)?.state, { timeout: 15_000 }).toBe('paid')
    expect(home.node.balance().atRiskSats).toBe(0n)
    expect(accountBalance(home.store, 'node/expense/job')).toBe(50_000n)
    await expect.poll(() => home.events.filter((event) => event.type === 'payment_settled').length).toBe(1)
    await expectSound(home, sandbox.mintUrl)
  })

  it('a receive through a failing mint is unknown, then told by an event', async () => {
    const sent = await home.node.sendToken({ ...operation(), amountSats: sats(30), debitAccount: 'node/equity/withdrawal' as const })
    await sandbox.faults({ fail: { path: '/v1/swap', status: 503, body: { detail: 'busy' }, count: 2 } })
    const receive = { ...operation(), token: sent.token, creditAccount: 'customer/equity/funding' as const }
    await expect(home.customer.receiveToken(receive)).rejects.toMatchObject({ code: 'payment_unknown', retryable: true })
    await expect.poll(() => home.events.map((event) => event.type), { timeout: 15_000 }).toContain('token_received')
    expect(await home.customer.receiveToken(receive)).toMatchObject({ amountSats: 29n })
    await expectSound(home, sandbox.mintUrl)
  })
})

describe('a dead mint', () => {
  it('is reported and does not hold up the other one', async () => {
    const other = await startSandbox()
    onTestFinished(() => other.stop())
    await home.wallets.addMint(other.mintUrl)
    await sandbox.faults({ mint_down: true })
    onTestFinished(
      async () =>
        void (await fetch(`${sandbox.mintUrl}/sandbox/faults`, { method: 'POST', body: '{"mint_down":false}' }).catch(() => undefined)),
    )
    await expect(
      home.node.createInvoice({
        ...operation(),
        amountSats: sats(5),
        mintUrl: sandbox.mintUrl,
        creditAccount: 'node/equity/funding' as const,
      }),
    ).rejects.toMatchObject({ code: 'mint_unreachable' })
    expect(home.node.balance().mints.find((mint) => mint.url === sandbox.mintUrl)).toMatchObject({
      state: 'down',
      reason: expect.any(String),
    })
    const invoice = await home.node.createInvoice({ ...operation(), amountSats: sats(5), creditAccount: 'node/equity/funding' as const })
    expect(invoice.mintUrl).toBe(other.mintUrl)
    await fund(home, home.customer, other.mintUrl, 40)
    const sent = await home.customer.sendToken({
      ...operation(),
      amountSats: sats(10),
      debitAccount: 'customer/equity/withdrawal' as const,
    })
    expect(sent.mintUrl).toBe(other.mintUrl)
  })
})

describe('an old keyset', () => {
  it('is replaced and the same operation goes on', async () => {
    await sandbox.faults({ fail: { path: '/v1/swap', status: 400, body: { detail: 'keyset is inactive', code: 12_002 }, count: 1 } })
    const sent = await home.node.sendToken({
      ...operation(),
      amountSats: sats(21),
      debitAccount: 'node/equity/withdrawal' as const,
      lockTo: home.customer.lockPubkey,
    })
    expect(
      (await home.customer.receiveToken({ ...operation(), token: sent.token, creditAccount: 'customer/equity/funding' as const }))
        .amountSats,
    ).toBe(20n)
    await expectSound(home, sandbox.mintUrl)
  })
})

describe('a seed whose database was lost', () => {
  it('is restored, and goes on without the used outputs', async () => {
    const words = testWords()
    const first = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words })
    await fund(first, first.node, sandbox.mintUrl, 111)
    await first.node.sendToken({
      ...operation(),
      amountSats: sats(11),
      debitAccount: 'node/equity/withdrawal' as const,
      lockTo: home.customer.lockPubkey,
    })
    const left = first.node.balance().balanceSats
    await first.close()
    const second = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words })
    onTestFinished(() => second.close())
    expect(await second.wallets.restore(second.node.owner)).toBe(left)
    expect(await second.wallets.restore(second.node.owner)).toBe(0n)
    expect(accountBalance(second.store, 'node/equity/restore')).toBe(-left * 1000n)
    await expectSound(second, sandbox.mintUrl)
    await fund(second, second.node, sandbox.mintUrl, 20)
    expect(second.node.balance().balanceSats).toBe(left + 20n)
  })

  it('is restored across the gaps that refused requests left', async () => {
    const words = testWords()
    const [dir, backup] = [tempDir(), tempDir()]
    const first = await openHome({ dir, mintUrls: [sandbox.mintUrl], words })
    const skip = async (next: number) => {
      const { owner_pubkey, keyset_id } = first.store.sql('SELECT * FROM wallet_counters').get() ?? {}
      await first.store.write(raiseCounter({ ownerPubkey: String(owner_pubkey), keysetId: String(keyset_id), next }))
    }
    await fund(first, first.node, sandbox.mintUrl, 3)
    await skip(900)
    await fund(first, first.node, sandbox.mintUrl, 5)
    const fromSeed = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words })
    onTestFinished(() => fromSeed.close())
    expect(await fromSeed.wallets.restore(fromSeed.node.owner)).toBe(8n)
    await skip(2500)
    await first.store.backup(join(backup, 'pylon.db'))
    await fund(first, first.node, sandbox.mintUrl, 7)
    await first.close()
    const fromBackup = await openHome({ dir: backup, mintUrls: [sandbox.mintUrl], words })
    onTestFinished(() => fromBackup.close())
    expect(await fromBackup.wallets.restore(fromBackup.node.owner)).toBe(7n)
  })

  it('used without restoring first, it restores by itself when the mint refuses its outputs', async () => {
    const words = testWords()
    const first = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words })
    await fund(first, first.node, sandbox.mintUrl, 111)
    await first.close()
    const second = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words })
    onTestFinished(() => second.close())
    await fund(second, second.node, sandbox.mintUrl, 111)
    expect(second.node.balance().balanceSats).toBe(222n)
    await expectSound(second, sandbox.mintUrl)
  })
})

describe('a request that was refused and is done later all the same', () => {
  it('of a swap: when the coins turn out to be spent, what became of them is found by the seed', async () => {
    await sandbox.faults({ fail: { path: '/v1/swap', status: 400, body: { detail: 'try another time', code: 20001 } } })
    const first = { ...operation(), amountSats: sats(21), debitAccount: 'node/equity/withdrawal' as const }
    await expect(home.node.sendToken(first)).rejects.toMatchObject({ code: 'mint_rejected' })
    const { path, body } = (operationByKey(home.store, first.idempotencyKey)?.plan ?? {}) as { path?: string; body?: string }
    const late = await fetch(`${sandbox.mintUrl}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: body ?? '',
    })
    expect(late.status).toBe(200)
    await expect(home.node.sendToken({ ...first, ...operation(), amountSats: sats(290) })).rejects.toMatchObject({
      code: expect.any(String),
    })
    await expect.poll(() => home.node.balance().balanceSats, { timeout: 15_000 }).toBeGreaterThan(290n)
    await expectSound(home, sandbox.mintUrl)
  })
})
