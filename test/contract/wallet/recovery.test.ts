/** What must not stay stuck: refused refunds and reclaims, keysets that rotate under a request, refusals of what was done, own invoices. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { earningsSummary } from '../../../src/store/money/earnings.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { expectSound, faucet, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

const dir = mkdtempSync(join(tmpdir(), 'py-'))
let sandbox: TestSandbox
let home: TestHome
/** Changes the status of an answer after the mint did what it was asked. */
let lieStatus: ((path: string) => { status: number; text: string } | undefined) | undefined
let lieAnswer: ((path: string, text: string) => string) | undefined

const lyingDialer = (real: Dialer): Dialer => ({
  ...real,
  fetch: async (url, options) => {
    const response = await real.fetch(url, options)
    const path = new URL(url).pathname
    return { ...response, text: lieAnswer?.(path, response.text) ?? response.text, ...lieStatus?.(path) }
  },
})

beforeAll(async () => {
  sandbox = await startSandbox()
  home = await openHome({ dir, mintUrls: [sandbox.mintUrl], words: testWords(), dialer: lyingDialer })
  await fund(home, home.node, sandbox.mintUrl, 2000)
})

beforeEach(() => {
  lieStatus = undefined
  lieAnswer = undefined
})

afterAll(async () => {
  await expectSound(home, sandbox.mintUrl)
  await home.close()
  await sandbox.stop()
  rmSync(dir, { recursive: true, force: true })
})

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const refusal = { status: 400, body: { detail: 'closed for maintenance', code: 0 } }

describe('a token that the mint refused to make', () => {
  it('is made by another try under the same key only where that is asked for', async () => {
    const send = { ...operation(), amountSats: sats(21), lockTo: home.agent.lockPubkey, debitAccount: 'node/equity/refund' as const }
    await sandbox.faults({ fail: { path: '/v1/swap', ...refusal } })
    await expect(home.node.sendToken(send)).rejects.toMatchObject({ code: 'mint_rejected' })
    await expect(home.node.sendToken(send)).rejects.toMatchObject({ code: 'mint_rejected' })
    const sent = await home.node.sendToken({ ...send, retryFailed: true })
    expect(sent.amountSats).toBe(21n)
    expect(await home.node.sendToken({ ...send, retryFailed: true })).toEqual(sent)
    expect(home.node.sentToken(send.idempotencyKey)?.operationId).toBe(sent.operationId)
  })

  it('may be of another mint, amount or receiver then, as of a refund whose payer paid once more: nothing was given away', async () => {
    const send = { ...operation(), amountSats: sats(21), debitAccount: 'node/equity/refund' as const, retryFailed: true }
    await sandbox.faults({ fail: { path: '/v1/swap', ...refusal } })
    await expect(home.node.sendToken({ ...send, lockTo: home.agent.lockPubkey })).rejects.toMatchObject({ code: 'mint_rejected' })
    const changed = { ...send, amountSats: sats(20), lockTo: home.customer.lockPubkey, mintUrl: sandbox.mintUrl }
    const sent = await home.node.sendToken(changed)
    expect(sent.amountSats).toBe(20n)
    expect(await home.node.sendToken({ ...changed, amountSats: sats(19), mintUrl: 'https://elsewhere.test' })).toEqual(sent)
    await expect(home.node.sendToken({ ...changed, amountSats: sats(19), retryFailed: false })).rejects.toMatchObject({
      code: 'idempotency_conflict',
    })
  })
})

describe('a token that the mint refused to take', () => {
  it('may be taken under the same key as something else only where another try is asked for', async () => {
    const { token } = await home.node.sendToken({ ...operation(), amountSats: sats(8), debitAccount: 'node/equity/gift' as const })
    const receive = { ...operation(), token }
    await sandbox.faults({ fail: { path: '/v1/swap', ...refusal } })
    await expect(home.node.receiveToken({ ...receive, creditAccount: 'node/equity/funding' })).rejects.toMatchObject({
      code: 'mint_rejected',
    })
    const again = { ...receive, creditAccount: 'node/equity/gift' as const }
    await expect(home.node.receiveToken(again)).rejects.toMatchObject({ code: 'idempotency_conflict' })
    expect((await home.node.receiveToken({ ...again, retryFailed: true })).amountSats).toBeGreaterThan(0n)
  })
})

describe('a reclaim that the mint refused once', () => {
  it('succeeds later', async () => {
    const send = { ...operation(), amountSats: sats(34), debitAccount: 'node/equity/gift' as const }
    await home.node.sendToken(send)
    await sandbox.faults({ fail: { path: '/v1/swap', ...refusal } })
    await expect(home.node.reclaim(send.idempotencyKey)).rejects.toMatchObject({ code: 'mint_rejected' })
    expect((await home.node.reclaim(send.idempotencyKey)).state).toBe('reclaimed')
  })
})

describe('a keyset that rotates while the answer is missing', () => {
  it('does not keep a paid invoice from being minted', async () => {
    const key = randomUUID()
    await sandbox.faults({ fail: { path: '/v1/mint/bolt11', status: 500, body: {}, count: 2 } })
    const request = { idempotencyKey: key, cause: ownerCause(), amountSats: sats(55), creditAccount: 'node/equity/funding' as const }
    const invoice = await home.node.createInvoice(request)
    await faucet(sandbox.mintUrl, invoice.request)
    await vi.waitFor(
      () =>
        expect(home.store.sql(`SELECT attempts FROM operations WHERE kind = 'mint' AND state = 'unknown'`).get()?.['attempts']).toBe(2n),
      { timeout: 10_000, interval: 5 },
    )
    await sandbox.faults({ rotate_keyset: true })
    await vi.waitFor(() => expect(home.node.invoice(key)?.state).toBe('settled'), { timeout: 20_000, interval: 50 })
  })
})

describe('a paid invoice that cannot be minted yet', () => {
  it('is looked at again later, not at once', async () => {
    const key = randomUUID()
    const request = { idempotencyKey: key, cause: ownerCause(), amountSats: sats(7), creditAccount: 'node/equity/funding' as const }
    const invoice = await home.node.createInvoice(request)
    home.store.sql('UPDATE mint_keysets SET fetched_at = 0').run()
    let asked = 0
    lieStatus = (path) => {
      if (path !== '/v1/keysets') return undefined
      asked++
      return { status: 500, text: '{}' }
    }
    await faucet(sandbox.mintUrl, invoice.request)
    await vi.waitFor(
      () => {
        expect(asked).toBeGreaterThan(0)
        const quote = home.store.sql('SELECT next_check_at FROM mint_quotes WHERE id = ?').get(invoice.id)
        expect(Number(quote?.['next_check_at'])).toBeGreaterThan(Date.now() + 5000)
      },
      { timeout: 10_000, interval: 20 },
    )
    lieStatus = undefined
    home.store.sql('UPDATE mint_quotes SET next_check_at = 0 WHERE id = ?').run(invoice.id)
    await home.node.createInvoice({ ...request, idempotencyKey: randomUUID() })
    await vi.waitFor(() => expect(home.node.invoice(key)?.state).toBe('settled'), { timeout: 15_000, interval: 20 })
  })
})

describe('a payment that the mint made and called refused', () => {
  it('is looked into before anybody is told that nothing was spent', async () => {
    const invoice = await home.agent.createInvoice({
      ...operation(),
      amountSats: sats(13),
      creditAccount: `agent:${home.agent.owner.pubkey}/equity/moved` as const,
    })
    lieStatus = (path) =>
      path === '/v1/melt/bolt11' ? { status: 400, text: JSON.stringify({ detail: 'proxy error', code: 0 }) } : undefined
    const paid = await home.node.pay({ ...operation(), request: invoice.request, debitAccount: 'node/equity/moved' as const })
    expect(paid.state).toBe('paid')
  })
})

describe('a swap that the mint made and called refused', () => {
  it('is looked into before its coins are called unspent', async () => {
    const before = home.node.balance().balanceSats
    lieStatus = (path) => (path === '/v1/swap' ? { status: 400, text: JSON.stringify({ detail: 'proxy error', code: 0 }) } : undefined)
    const lockTo = home.customer.lockPubkey
    const sent = await home.node.sendToken({
      ...operation(),
      amountSats: sats(19),
      lockTo,
      debitAccount: 'node/equity/withdrawal' as const,
    })
    expect(sent.state).toBe('pending')
    expect(home.node.balance()).toMatchObject({ balanceSats: before - 20n, atRiskSats: 0n })
  })
})

describe('a payment whose answer lacks the change', () => {
  it('gets it from the mint', async () => {
    const invoice = await home.agent.createInvoice({
      ...operation(),
      amountSats: sats(14),
      creditAccount: `agent:${home.agent.owner.pubkey}/equity/moved` as const,
    })
    const before = home.node.balance().balanceSats
    lieAnswer = (path, text) => (path.startsWith('/v1/melt/bolt11') ? JSON.stringify({ ...JSON.parse(text), change: null }) : text)
    const paid = await home.node.pay({ ...operation(), request: invoice.request, debitAccount: 'node/equity/moved' as const })
    expect(paid).toMatchObject({ state: 'paid' })
    const fee = paid.state === 'paid' ? paid.feeSats : 0n
    expect(fee).toBeLessThanOrEqual(3n)
    expect(home.node.balance().balanceSats).toBeGreaterThanOrEqual(before - 14n - 5n)
  })
})

describe('an invoice of one key of this home that another one pays', () => {
  it('is no income', async () => {
    const key = randomUUID()
    const invoice = await home.agent.createInvoice({
      idempotencyKey: key,
      cause: { type: 'action', id: key },
      amountSats: sats(17),
      creditAccount: `agent:${home.agent.owner.pubkey}/income/other` as const,
    })
    const before = earningsSummary(home.store, { limit: 1 })
    await home.node.pay({ ...operation(), request: invoice.request, debitAccount: 'node/expense/invoice' as const })
    await vi.waitFor(() => expect(home.agent.invoice(key)?.state).toBe('settled'), { timeout: 15_000, interval: 20 })
    const after = earningsSummary(home.store, { limit: 1 })
    expect(after.totalMsats).toBe(before.totalMsats)
    expect(after.internalMsats).toBe(before.internalMsats + 17_000n)
  })
})

describe('a listener that takes long', () => {
  it('holds up the events of its own cause only', async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const heard: string[] = []
    home.wallets.onEvent('purchase', () => held)
    home.wallets.onEvent('job', async (event) => void heard.push(event.idempotencyKey))
    for (const type of ['purchase', 'job'] as const) {
      const request = {
        idempotencyKey: `${type}:slow`,
        cause: { type, id: 'slow' },
        amountSats: sats(3),
        creditAccount: 'node/equity/funding' as const,
      }
      await faucet(sandbox.mintUrl, (await home.node.createInvoice(request)).request)
      await vi.waitFor(() => expect(home.node.invoice(request.idempotencyKey)?.state).toBe('settled'), { timeout: 15_000, interval: 20 })
    }
    await vi.waitFor(() => expect(heard).toEqual(['job:slow']), { timeout: 30_000, interval: 20 })
    release()
  })
})

describe('a payment over the budget', () => {
  it('costs nothing, not even the fee of breaking a coin for it', async () => {
    await home.wallets.transfer(home.node.owner, home.agent.owner, sats(512), randomUUID())
    const { request } = await home.node.createInvoice({ ...operation(), amountSats: sats(40), creditAccount: 'node/equity/moved' as const })
    const before = home.agent.balance().balanceSats
    const limits = { perTxSats: sats(30), perTickSats: sats(100), perDaySats: sats(100) }
    const payment = { ...operation(), request, debitAccount: `agent:${home.agent.owner.pubkey}/expense/invoice` as const }
    await expect(home.agent.pay(payment, { subject: home.agent.owner.pubkey, tickId: 'tick', limits })).rejects.toMatchObject({
      code: 'budget_exceeded',
    })
    expect(home.agent.balance().balanceSats).toBe(before)
  })
})
