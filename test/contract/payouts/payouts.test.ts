/** Standing payouts over a real mint and a real address: what leaves, what stays, what is refused, and that nothing is sent twice. */
import { randomUUID } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { verifyAudit } from '../../../src/store/money/audit.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import { getPayoutRule, openPayouts, recentPayouts, troubledPayouts } from '../../../src/store/money/payouts.ts'
import { Death } from '../../support/death.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { expectSound, fund, ownerCause } from '../wallet/home.ts'
import { AddressServer, eventually, PayoutDisk, type PayoutHome } from './world.ts'

let sandbox: TestSandbox
let second: TestSandbox
let address: AddressServer
const receiverDisk = new PayoutDisk()
let receiver: PayoutHome
let disk: PayoutDisk
let home: PayoutHome

beforeAll(async () => {
  ;[sandbox, second, address] = await Promise.all([startSandbox(), startSandbox(), AddressServer.start()])
  receiver = await receiverDisk.open([sandbox.mintUrl])
})
afterAll(async () => {
  await receiver.close()
  receiverDisk[Symbol.dispose]()
  address.stop()
  await Promise.all([sandbox.stop(), second.stop()])
})
beforeEach(async () => {
  address.paysTo(receiver.node, [sandbox.mintUrl])
  disk = new PayoutDisk()
  home = await disk.open([sandbox.mintUrl], { lnurl: address.base })
})
afterEach(async () => {
  expect(auditLedger(home.store).problems).toEqual([])
  await home.close()
  disk[Symbol.dispose]()
})

const set = (above: number, keep: number, target = { address: address.lnurl } as { address: string } | { lockTo: string }) =>
  home.payouts.set({ owner: home.node.owner, target, aboveSats: BigInt(above), keepSats: BigInt(keep) })
const balance = () => Number(home.node.balance().balanceSats)
const payouts = () => recentPayouts(home.store, 10)
/** The looks that are under way have ended. */
const look = () => home.payouts.now(home.node.owner).catch(() => {})
const ended = () => eventually(() => expect(openPayouts(home.store)).toEqual([]))

describe('to an address', () => {
  it('goes by itself above the limit, down to what stays, with its fees; and not below the limit', async () => {
    await fund(home, home.node, sandbox.mintUrl, 900)
    await set(1000, 200)
    expect(home.payouts.plan(home.node.owner, 'above')).toMatch(/900 sats .* not above 1000/)
    expect(payouts()).toEqual([])
    const before = Number(receiver.node.balance().balanceSats)
    await fund(home, home.node, sandbox.mintUrl, 300)
    home.payouts.look()
    await eventually(() => expect(payouts()[0]?.state).toBe('paid'))
    await eventually(() => expect(Number(receiver.node.balance().balanceSats) - before).toBe(Number(payouts()[0]?.amountSats)))
    expect(balance()).toBeGreaterThanOrEqual(200)
    expect(balance()).toBeLessThan(240)
    const [paid] = payouts()
    expect(Number(paid?.amountSats) + Number(paid?.feeSats)).toBe(1200 - balance())
    home.payouts.look()
    await ended()
    expect(payouts()).toHaveLength(1)
    expect(await verifyAudit(home.store)).toMatchObject({ ok: true })
  })

  it('leaves what is owed to customers, and so do two at once', async () => {
    await fund(home, home.node, sandbox.mintUrl, 500)
    const job = randomUUID()
    await home.node.createInvoice({
      ...{ idempotencyKey: `job:${job}:invoice`, cause: { type: 'job', id: job }, amountSats: sats(400) },
      creditAccount: `node/deposit/job:${job}`,
    })
    const { request } = home.node.invoice(`job:${job}:invoice`) ?? { request: '' }
    await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request }) })
    await eventually(() => expect(home.node.balance().owedSats).toBe(400n))
    await set(300, 100)
    home.payouts.look()
    home.payouts.look()
    await eventually(() => expect(payouts()[0]?.state).toBe('paid'))
    expect(payouts().filter(({ state }) => state === 'paid')).toHaveLength(1)
    expect(balance()).toBeGreaterThanOrEqual(500)
    expect(balance()).toBeLessThan(530)
  })

  it('takes from one mint after the other', async () => {
    await home.wallets.addMint(second.mintUrl, sats(100_000))
    await fund(home, home.node, sandbox.mintUrl, 400)
    await fund(home, home.node, second.mintUrl, 300)
    address.paysTo(receiver.node, [sandbox.mintUrl, second.mintUrl])
    await receiver.wallets.addMint(second.mintUrl, sats(100_000))
    await set(500, 100)
    await eventually(() => expect(payouts()).toHaveLength(2))
    await ended()
    expect(payouts().map((row) => row.state)).toEqual(['paid', 'paid'])
    expect(balance()).toBeGreaterThanOrEqual(100)
    expect(balance()).toBeLessThan(150)
  })

  it('is one spend of the policy, and over it nothing is sent', async () => {
    await fund(home, home.node, sandbox.mintUrl, 600)
    await set(500, 100)
    await eventually(() => expect(payouts()[0]?.state).toBe('paid'))
    const hold = home.store.sql('SELECT subject, counterparty FROM spend_holds').all()
    expect(hold).toEqual([{ subject: 'payout', counterparty: address.lnurl.toLowerCase() }])
  })

  it('that takes more only than could be sent is refused when it is set; an invoice too', async () => {
    address.says = { minSendable: 500_000 }
    await expect(set(300, 100)).rejects.toMatchObject({ code: 'amount_invalid' })
    const invoice = await receiver.node.createInvoice({
      ...{ idempotencyKey: randomUUID(), cause: ownerCause(), amountSats: sats(10), creditAccount: 'node/equity/funding' },
    })
    await expect(set(300, 100, { address: invoice.request })).rejects.toMatchObject({ code: 'destination_invalid' })
    await expect(set(100, 100)).rejects.toMatchObject({ code: 'amount_invalid' })
    expect(getPayoutRule(home.store, home.node.owner)).toBeUndefined()
  })
})

describe('an address that answers as another', () => {
  it.each<[string, Record<string, unknown>]>([
    ['gives invoices elsewhere', { callback: 'https://evil.example/callback' }],
    ['says it is another', { metadata: JSON.stringify([['text/identifier', 'eve@example.com']]) }],
    ['does not say whose it is any more', { metadata: '[]' }],
    ['has a Nostr key now', { allowsNostr: true, nostrPubkey: 'ab'.repeat(32) }],
  ])('%s: it stops before an invoice is asked for, until it is set again', async (_, says) => {
    await set(300, 100)
    address.says = says
    await fund(home, home.node, sandbox.mintUrl, 600)
    await look()
    await ended()
    expect(address.asked).toBe(0)
    expect(balance()).toBe(600)
    expect(troubledPayouts(home.store)).toMatchObject([{ state: 'stopped', failure: { code: 'payout_address_changed' } }])
    address.says = {}
    // That it is as before again changes nothing.
    await expect(home.payouts.now(home.node.owner)).rejects.toMatchObject({ code: 'payout_address_changed' })
    home.payouts.look()
    expect(balance()).toBe(600)
    await set(300, 100)
    await eventually(() => expect(payouts()[0]?.state).toBe('paid'))
    expect(troubledPayouts(home.store)).toEqual([])
  })
})

describe('a payout that fails', () => {
  it('is told, waits before it is tried again, and is made under a new key then', async () => {
    await set(300, 100)
    address.says = { status: 'ERROR', reason: 'closed today' }
    await fund(home, home.node, sandbox.mintUrl, 600)
    home.payouts.look()
    await eventually(() =>
      expect(troubledPayouts(home.store)).toMatchObject([{ state: 'on', failures: 1, failure: { code: 'lnurl_invalid' } }]),
    )
    home.payouts.look()
    await new Promise((resolve) => setImmediate(resolve))
    expect(payouts()).toHaveLength(1)
    address.says = {}
    await home.payouts.now(home.node.owner)
    expect(payouts().map(({ state }) => state)).toEqual(['paid', 'failed'])
    expect(troubledPayouts(home.store)).toEqual([])
  })

  it('and of which nobody can say is waited for, and no other begins', async () => {
    await set(300, 100)
    await fund(home, home.node, sandbox.mintUrl, 600)
    await sandbox.faults({ fail: { path: '/v1/melt/bolt11', status: 500, body: {}, count: 3 } })
    await home.payouts.now(home.node.owner)
    expect(payouts().map(({ state }) => state)).toEqual(['unknown'])
    expect((await home.payouts.now(home.node.owner)).payouts).toEqual([])
    await eventually(() => {
      home.payouts.look()
      expect(payouts().map(({ state }) => state)).toContain('paid')
    })
    expect(payouts().filter(({ state }) => state === 'unknown')).toEqual([])
    expect(balance()).toBeGreaterThanOrEqual(100)
  })

  it('turned off, nothing leaves', async () => {
    await set(300, 100)
    await home.payouts.off(home.node.owner)
    await fund(home, home.node, sandbox.mintUrl, 600)
    home.payouts.look()
    await expect(home.payouts.now(home.node.owner)).rejects.toMatchObject({ code: 'payout_missing' })
    expect(payouts()).toEqual([])
  })
})

describe('as tokens', () => {
  it('writes what only the owner can read and only the key can spend; what leaves is what is above', async () => {
    await set(300, 100, { lockTo: receiver.node.lockPubkey })
    await fund(home, home.node, sandbox.mintUrl, 600)
    await home.payouts.now(home.node.owner)
    const [paid] = payouts()
    expect(paid).toMatchObject({ state: 'paid', targetType: 'token' })
    expect(balance()).toBe(100)
    const token = readFileSync(paid?.file ?? '', 'utf8').trim()
    expect(statSync(paid?.file ?? '').isFile()).toBe(true)
    const receive = { idempotencyKey: randomUUID(), cause: ownerCause(), token, creditAccount: 'node/equity/funding' as const }
    await expect(home.customer.receiveToken({ ...receive, creditAccount: 'customer/equity/funding' })).rejects.toMatchObject({
      code: 'token_locked',
    })
    const got = await receiver.node.receiveToken(receive)
    expect(Number(got.amountSats)).toBeGreaterThan(490)
    await expectSound(home, sandbox.mintUrl)
  })
})

describe('a node that dies at a commit', () => {
  const labels = ['begin_payout', 'insert_address_invoice', 'insert_operation', 'move_operation:submitted', 'move_operation:completed']
  const deaths = [
    ...labels.map((label) => ({ label, before: false, token: false })),
    ...['begin_payout', 'insert_operation', 'move_operation:completed'].map((label) => ({ label, before: false, token: true })),
    ...[true, false].map((token) => ({ label: 'end_payout:paid', before: true, token })),
  ]

  it.each(deaths)('$label (before it: $before, token: $token) pays once', async ({ label, before, token }) => {
    await fund(home, home.node, sandbox.mintUrl, 600)
    await home.close()
    const death = new Death(label, { before })
    const dying = await disk.open([sandbox.mintUrl], {
      lnurl: address.base,
      ...death,
    })
    const target = token ? { lockTo: receiver.node.lockPubkey } : { address: address.lnurl }
    await dying.payouts.set({ owner: dying.node.owner, target, aboveSats: 300n, keepSats: 100n })
    await eventually(() => expect(death.isDead).toBe(true))
    await dying.close().catch(() => {})
    home = await disk.open([sandbox.mintUrl], { lnurl: address.base })
    await eventually(() => {
      home.payouts.look()
      expect(payouts().filter(({ state }) => state === 'paid')).toHaveLength(1)
    })
    await ended()
    expect(balance()).toBeGreaterThanOrEqual(100)
    expect(balance()).toBeLessThan(130)
    expect(home.node.balance().atRiskSats).toBe(0n)
    await expectSound(home, sandbox.mintUrl)
  })
})
