/** Addresses as they are paid: one invoice for each key, whatever its server does afterwards; servers that lie are paid nothing. */
import { randomBytes, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { accountOf, accountOwner } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock } from '../../../src/base/clock.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { given } from '../../../src/base/given.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { encodeInvoice } from '../../../src/sandbox/bolt11-encode.ts'
import { getAddressInvoice } from '../../../src/store/money/address-invoices.ts'
import { type AddressOrder, askAddress, invoiceOfAddress } from '../../../src/wallet/lightning/addresses.ts'
import { decodeLnurl } from '../../../src/wallet/lightning/lnurl.ts'
import { ZapAddresses } from '../../../src/wallet/zaps/zap-addresses.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'
import { fund, type HomeOptions, openHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

async function home(options: Pick<HomeOptions, 'dialer'> = {}) {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords(), ...options })
  onTestFinished(() => opened.close())
  const deps = { store: opened.store, clock: systemClock, dialer: opened.dialer }
  const ask = (order: Partial<AddressOrder> & { url: string }) =>
    invoiceOfAddress(deps, { idempotencyKey: 'key', amountSats: 21n, comment: '', ...order })
  return { ...opened, ask }
}

const invoice = (amountMsats: bigint | undefined, ageS = 0) =>
  encodeInvoice(
    {
      network: 'bcrt',
      ...(amountMsats === undefined ? {} : { amountMsats }),
      timestampSeconds: Math.floor(Date.now() / 1000) - ageS,
      paymentHash: randomBytes(32),
      paymentSecret: randomBytes(32),
      description: 'x',
      expirySeconds: 600,
    },
    randomBytes(32),
  )

/** An LNURL server of which each test says what it answers; counts the invoices that it was asked for. */
async function server(parameters: Record<string, unknown>, pr: () => string = () => invoice(21_000n)) {
  const asked: URLSearchParams[] = []
  const http = createServer((request, response) => {
    const url = new URL(request.url ?? '', 'http://x')
    if (url.pathname === '/moved') return void response.writeHead(302, { location: 'http://127.0.0.1:9/' }).end()
    if (url.pathname === '/callback') {
      asked.push(url.searchParams)
      return void response.end(JSON.stringify({ pr: pr() }))
    }
    const all = { tag: 'payRequest', callback: '/callback', minSendable: 1000, maxSendable: 100_000, ...parameters }
    response.end(JSON.stringify(all))
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void http.close())
  return { base: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, asked }
}

it('a key is paid where its profile says, and what was asked of one place is paid there though the profile names another by then', async () => {
  const h = await home()
  const [first, second] = [await server({}), await server({})]
  for (const { base } of [first, second]) h.dialer.allow(base, true)
  const deps = { store: h.store, clock: systemClock, dialer: h.dialer }
  const of = (resolve: () => Promise<string>) =>
    askAddress(deps, { idempotencyKey: 'npub', url: `nostr:${'ab'.repeat(32)}`, amountSats: 21n, comment: '', resolve })
  const asked = await of(async () => `${first.base}/pay`)
  expect(asked.host).toBe('127.0.0.1')
  expect(await of(async () => `${second.base}/pay`)).toEqual(asked)
  expect(await of(() => Promise.reject(new Error('no relay answers')))).toEqual(asked)
  expect([first.asked.length, second.asked.length]).toEqual([1, 0])
})

it('an invoice without an amount is paid with the amount that is named, once, and with no other under another key', async () => {
  const asked: unknown[] = []
  // The sandbox pays its own invoices only: it is given one over the amount that was named.
  let own = ''
  const dialer = (real: Dialer): Dialer => ({
    ...real,
    fetch: (url, options) => {
      if (!url.endsWith('/v1/melt/quote/bolt11')) return real.fetch(url, options)
      asked.push(JSON.parse(String(options?.body)))
      return real.fetch(url, { ...options, body: JSON.stringify({ request: own, unit: 'sat' }) })
    },
  })
  const h = await home({ dialer })
  await fund(h, h.node, sandbox.mintUrl, 100)
  const move = (key: string) => ({ idempotencyKey: key, cause: { type: 'owner' as const, id: key } })
  own = (
    await h.agent.createInvoice({
      ...move('own'),
      amountSats: sats(30),
      creditAccount: accountOf(accountOwner(h.agent.owner), 'equity', 'funding'),
    })
  ).request
  const open = invoice(undefined)
  const debitAccount = accountOf(accountOwner(h.node.owner), 'equity', 'withdrawal')
  const pay = (key: string, amountMsats?: bigint) => h.node.pay({ ...move(key), request: open, debitAccount, ...given({ amountMsats }) })
  await expect(pay('none')).rejects.toMatchObject({ code: 'invoice_invalid' })
  const paid = await pay('some', 30_000n)
  expect(paid.state).toBe('paid')
  expect(asked).toEqual([{ request: open, unit: 'sat', options: { amountless: { amount_msat: 30_000 } } }])
  await expect(pay('other', 31_000n)).rejects.toMatchObject({ code: 'invoice_paid' })
  expect((await pay('again', 30_000n)).operationId).toBe(paid.operationId)
})

it('an address is asked once for a key and paid once, though it would give another invoice each time', async () => {
  const h = await home()
  h.dialer.allow(sandbox.lnurlBaseUrl, true)
  const scope = testScope()
  onTestFinished(async () => void (await scope.close()))
  const { store, dialer, wallets, keyring } = h
  const common = { scope, store, clock: systemClock, logger: silentLogger, dialer, wallets, nostr: { keyring } }
  const addresses = new ZapAddresses({ ...common, baseUrl: sandbox.lnurlBaseUrl, mintUrl: sandbox.mintUrl })
  const { lnurl } = await addresses.register(h.agent.owner, `ada-${randomUUID().slice(0, 8)}`)
  await fund(h, h.node, sandbox.mintUrl, 100)
  const pay = async () =>
    h.node.pay({
      idempotencyKey: 'key',
      cause: { type: 'owner', id: 'key' },
      request: await h.ask({ url: decodeLnurl(lnurl) }),
      debitAccount: accountOf(accountOwner(h.node.owner), 'equity', 'withdrawal'),
    })
  const first = await pay()
  expect(first).toMatchObject({ state: 'paid' })
  expect(await pay()).toEqual(first)
  expect(h.node.balance().balanceSats).toBeLessThanOrEqual(79n)
  expect(h.node.balance().balanceSats).toBeGreaterThan(58n)
})

it('the first invoice stays under its key; another order under it is refused', async () => {
  const h = await home()
  const { base, asked } = await server({ commentAllowed: 5 })
  h.dialer.allow(base, true)
  const order = { url: `${base}/`, comment: 'hello' }
  const [one, two] = await Promise.all([h.ask(order), h.ask(order)])
  expect(two).toBe(one)
  const before = asked.length
  expect(await h.ask(order)).toBe(one)
  expect(asked.length).toBe(before)
  expect(asked[0]?.get('comment')).toBe('hello')
  await expect(h.ask({ ...order, amountSats: 22n })).rejects.toMatchObject({ code: 'idempotency_conflict' })
  expect(asked.length).toBe(before)
})

it.each<[string, Record<string, unknown>, () => string, string]>([
  ['asks for more', {}, () => invoice(21_001n), 'lnurl_invalid'],
  ['asks for less', {}, () => invoice(20_999n), 'lnurl_invalid'],
  ['names no amount', {}, () => invoice(undefined), 'lnurl_invalid'],
  ['asks for a huge amount', {}, () => invoice(2_100_000_000_000_000_000n), 'invoice_invalid'],
  ['gives an old invoice', {}, () => invoice(21_000n, 700), 'lnurl_invalid'],
  ['gives no invoice', {}, () => 'lnbcrt1nonsense', 'invoice_invalid'],
  ['takes more only', { minSendable: 22_000 }, () => invoice(21_000n), 'amount_invalid'],
  ['takes less only', { maxSendable: '20999.9' }, () => invoice(21_000n), 'amount_invalid'],
  ['names limits beyond numbers', { maxSendable: 1e300 }, () => invoice(21_000n), 'lnurl_invalid'],
  ['withdraws', { tag: 'withdrawRequest' }, () => invoice(21_000n), 'lnurl_invalid'],
  ['has its callback inside', { callback: 'http://127.0.0.1:9/' }, () => invoice(21_000n), 'address_refused'],
])('a server that %s: nothing is stored to be paid', async (_, parameters, pr, code) => {
  const h = await home()
  const { base } = await server(parameters, pr)
  h.dialer.allow(base, true)
  await expect(h.ask({ url: `${base}/` })).rejects.toMatchObject({ code })
  expect(getAddressInvoice(h.store, 'key')).toBeUndefined()
})

it('leads to no private address, by itself or by a redirect, and takes no comment that its server does not', async () => {
  const h = await home()
  const { base } = await server({})
  await expect(h.ask({ url: `${base}/` })).rejects.toMatchObject({ code: 'address_refused' })
  h.dialer.allow(base, true)
  await expect(h.ask({ url: `${base}/moved` })).rejects.toMatchObject({ code: 'address_refused' })
  await expect(h.ask({ url: `${base}/`, comment: 'x' })).rejects.toMatchObject({ code: 'lnurl_invalid' })
})
