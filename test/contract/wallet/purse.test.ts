/** Several mints as one purse, over real sandbox mints that pay each other's invoices: spends that no mint can make alone. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { topUp } from '../../../src/customer/funding.ts'
import { purseMoveKey } from '../../../src/store/keys.ts'
import { getPurseMove } from '../../../src/store/money/purse-moves.ts'
import type { Spend, Wallet } from '../../../src/wallet/types.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

const payeeDir = mkdtempSync(join(tmpdir(), 'py-'))
const boxes: TestSandbox[] = []
let [a, b]: string[] = []
let payee: TestHome
/** Changes answers after the mint did what it was asked. */
let lie: ((url: string, text: string) => string | undefined) | undefined

const lyingDialer = (real: Dialer): Dialer => ({
  ...real,
  fetch: async (url, options) => {
    const response = await real.fetch(url, options)
    return { ...response, text: lie?.(url, response.text) ?? response.text }
  },
})

beforeAll(async () => {
  for (let i = 0; i < 3; i++) boxes.push(await startSandbox())
  for (const box of boxes) await box.faults({ peers: boxes.filter((one) => one !== box).map((one) => one.mintUrl) })
  ;[a, b] = boxes.map((box) => box.mintUrl)
  payee = await openHome({ dir: payeeDir, mintUrls: [boxes[2]?.mintUrl ?? ''], words: testWords() })
})

afterEach(() => {
  lie = undefined
})

afterAll(async () => {
  await payee.close()
  for (const box of boxes) await box.stop()
  rmSync(payeeDir, { recursive: true, force: true })
})

/** A home whose node holds so much at each of the first two mints. */
async function homeWith(atA: number, atB: number, more: Partial<Parameters<typeof openHome>[0]> = {}): Promise<TestHome> {
  const home = await openHome({ dir: tempDir(), mintUrls: [a ?? '', b ?? ''], words: testWords(), dialer: lyingDialer, ...more })
  onTestFinished(() => home.close())
  if (atA > 0) await fund(home, home.node, a ?? '', atA)
  if (atB > 0) await fund(home, home.node, b ?? '', atB)
  return home
}

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const withdrawal = 'node/equity/withdrawal' as const

async function invoiceOf(amount: number): Promise<string> {
  const asked = { ...operation(), amountSats: sats(amount), creditAccount: 'node/equity/funding' as const }
  return (await payee.node.createInvoice(asked)).request
}

const at = (wallet: Wallet, url: string | undefined) => wallet.balance().mints.find((mint) => mint.url === url)?.balanceSats ?? 0n

/** Nothing is on its way, and the books and both mints agree. */
async function expectAllSound(home: TestHome): Promise<void> {
  await expectSound(home, a ?? '')
  await expectSound(home, b ?? '')
  const between = [...balancesByPrefix(home.store, '')].filter(([account]) => /\/(?:held|equity\/moved|expense\/lost)/.test(account))
  expect(between).toEqual([])
}

describe('a payment that no mint can make alone', () => {
  it('is made when the sats of the others have come to one, and says all that it cost', async () => {
    const home = await homeWith(600, 500)
    const pay = { ...operation(), request: await invoiceOf(1000), debitAccount: withdrawal, maxFeeSats: sats(40) }
    const paid = await home.node.pay(pay)
    if (paid.state !== 'paid') throw new Error('not paid')
    expect(paid.preimage).toMatch(/^[0-9a-f]{64}$/)
    expect(1100n - home.node.balance().balanceSats).toBe(1000n + paid.feeSats)
    expect(await home.node.pay(pay)).toEqual(paid)
    expect(home.store.sql('SELECT from_url, to_url, state FROM purse_moves').all()).toEqual([{ from_url: b, to_url: a, state: 'arrived' }])
    const told = () => home.events.map(({ type, idempotencyKey }) => [type, idempotencyKey])
    await expect.poll(told).toContainEqual(['payment_settled', pay.idempotencyKey])
    expect(home.events.filter(({ idempotencyKey }) => idempotencyKey === purseMoveKey(pay.idempotencyKey, 1))).toEqual([])
    await expectAllSound(home)
  })

  it('is refused with what was tried where all together are not enough, and nothing has moved', async () => {
    const home = await homeWith(60, 50)
    const pay = { ...operation(), request: await invoiceOf(109), debitAccount: withdrawal }
    await expect(home.node.pay(pay)).rejects.toMatchObject({
      code: 'insufficient_funds',
      message: expect.stringMatching(/110 sats, not 109 sats at one mint.*together with the other mints neither: .*missing/),
    })
    expect(home.store.sql('SELECT count(*) AS n FROM purse_moves').get()).toEqual({ n: 0n })
    expect(home.node.balance().balanceSats).toBe(110n)
  })

  it('stays within the limit of its fees, those of the move included, or nothing leaves', async () => {
    const home = await homeWith(600, 500)
    const pay = { ...operation(), request: await invoiceOf(1000), debitAccount: withdrawal, maxFeeSats: sats(12) }
    await expect(home.node.pay(pay)).rejects.toMatchObject({
      code: 'insufficient_funds',
      message: expect.stringMatching(/in fees, and at most/),
    })
    expect(home.node.balance().balanceSats).toBe(1100n)
  })

  it('is bound by its policy before anything moves', async () => {
    const home = await homeWith(600, 500)
    const spend: Spend = { subject: 'owner', limits: { perTxSats: sats(1005) } }
    const pay = { ...operation(), request: await invoiceOf(1000), debitAccount: withdrawal }
    await expect(home.node.pay(pay, spend)).rejects.toMatchObject({ code: 'budget_exceeded' })
    expect(home.node.balance().balanceSats).toBe(1100n)
    expect(home.store.sql('SELECT count(*) AS n FROM purse_moves').get()).toEqual({ n: 0n })
  })

  it('counts what the move costs against the budget, once', async () => {
    const home = await homeWith(600, 500)
    const spend: Spend = { subject: 'owner', limits: { perDaySats: sats(1040) } }
    const paid = await home.node.pay({ ...operation(), request: await invoiceOf(1000), debitAccount: withdrawal }, spend)
    if (paid.state !== 'paid') throw new Error('not paid')
    const held = home.store.sql(`SELECT sum(amount_sats) AS n FROM spend_holds WHERE subject = 'owner' AND state = 'spent'`).get()?.['n']
    expect(held).toBe(1000n + paid.feeSats)
  })
})

describe('a token that no mint can make alone', () => {
  it('is made at one, or at the mint that is named where that was asked for', async () => {
    const home = await homeWith(300, 300)
    const send = { amountSats: sats(400), debitAccount: withdrawal }
    const named = { ...operation(), ...send, mintUrl: b ?? '' }
    await expect(home.node.sendToken(named)).rejects.toMatchObject({ code: 'insufficient_funds' })
    const sent = await home.node.sendToken({ ...named, fillIfShort: true })
    expect(sent).toMatchObject({ amountSats: 400n, mintUrl: b })
    expect(600n - home.node.balance().balanceSats).toBe(400n + sent.feeSats)
    await expectAllSound(home)
  })
})

it('a transfer within the home, and what a purchase needs, come from several mints', async () => {
  const home = await homeWith(300, 250)
  await home.wallets.transfer(home.node.owner, home.agent.owner, sats(400), randomUUID())
  expect(home.agent.balance().balanceSats).toBe(400n)
  await fund(home, home.node, b ?? '', 250)
  const { keyring, wallets, store } = home
  const deps = { wallets, store, nostr: { keyring }, network: 'sandbox' as const, config: () => DEFAULT_CONFIG }
  await topUp(deps, { cause: { type: 'purchase', id: 'p' }, neededSats: sats(300) })
  expect(home.customer.balance().mints.map(({ balanceSats }) => balanceSats > 300n)).toContain(true)
  await expectAllSound(home)
})

describe('mints that do not do their part', () => {
  it('a payment between mints that fails leaves the sats where they were', async () => {
    const home = await homeWith(600, 500)
    await boxes[1]?.faults({ fail: { path: '/v1/melt/bolt11', status: 400, body: { detail: 'no route', code: 20_004 } } })
    const pay = { ...operation(), request: await invoiceOf(1000), debitAccount: withdrawal }
    await expect(home.node.pay(pay)).rejects.toMatchObject({ code: 'insufficient_funds', message: expect.stringMatching(/no route/) })
    expect(home.node.balance()).toMatchObject({ balanceSats: 1100n, atRiskSats: 0n })
    expect(await home.node.pay(pay)).toMatchObject({ state: 'paid' })
    await expectAllSound(home)
  })

  it('one that does not issue what it was paid is asked until it does, and the sats show as at risk', async () => {
    const home = await homeWith(600, 500)
    lie = (url, text) => {
      if (url.startsWith(`${a}/v1/mint/quote/bolt11/`)) return JSON.stringify({ ...JSON.parse(text), state: 'UNPAID' })
      return url === `${a}/v1/mint/bolt11` ? '{"signatures": "soon"}' : undefined
    }
    const key = randomUUID()
    const paying = home.node.pay({ idempotencyKey: key, cause: ownerCause(), request: await invoiceOf(1000), debitAccount: withdrawal })
    const outcome = paying.catch((error: unknown) => error)
    await vi.waitFor(() => expect(getPurseMove(home.store, purseMoveKey(key, 1))?.state).toBe('paid'), { timeout: 15_000, interval: 20 })
    expect(home.node.balance().atRiskSats).toBeGreaterThan(400n)
    lie = undefined
    expect(await outcome).toMatchObject({ state: 'paid' })
    await expectAllSound(home)
  })

  it('one that says it paid and gives no proof, where nothing came: the books say that it is lost', async () => {
    const home = await homeWith(600, 500)
    lie = (url, text) => {
      if (url === `${b}/v1/melt/bolt11`) return JSON.stringify({ quote: 'x', state: 'PAID', payment_preimage: null, change: [] })
      return url.startsWith(`${a}/v1/mint/quote/bolt11/`) ? JSON.stringify({ ...JSON.parse(text), state: 'UNPAID' }) : undefined
    }
    const key = randomUUID()
    const paying = home.node.pay({ idempotencyKey: key, cause: ownerCause(), request: await invoiceOf(1000), debitAccount: withdrawal })
    const refused = expect(paying).rejects.toMatchObject({ code: 'insufficient_funds' })
    const move = () => getPurseMove(home.store, purseMoveKey(key, 1))
    await vi.waitFor(() => expect(move()?.state).toBe('paid'), { timeout: 15_000, interval: 20 })
    expect(home.node.balance().atRiskSats).toBe(move()?.amountSats)
    home.store.sql(`UPDATE mint_quotes SET state = 'closed', next_check_at = NULL WHERE idempotency_key = ?`).run(move()?.id ?? '')
    await refused
    expect(move()?.state).toBe('lost')
    expect(balancesByPrefix(home.store, 'node/expense/lost')).toEqual(new Map([['node/expense/lost', (move()?.amountSats ?? 0n) * 1000n]]))
    expect(at(home.node, a)).toBe(600n)
  })
})
