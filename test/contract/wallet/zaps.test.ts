/** Zaps both ways against the sandbox's LNURL server: the whole flow of NIP-57, once each, and servers that lie. */
import { randomBytes, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { WalletOwner } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock } from '../../../src/base/clock.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { encodeInvoice } from '../../../src/sandbox/bolt11-encode.ts'
import { earningsSummary } from '../../../src/store/money/earnings.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { getZapSend } from '../../../src/store/money/zaps.ts'
import { decodeLnurl, encodeLnurl } from '../../../src/wallet/lightning/lnurl.ts'
import { ZapAddresses } from '../../../src/wallet/zaps/zap-addresses.ts'
import { createZapSender } from '../../../src/wallet/zaps/zaps.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

interface ZapHome extends TestHome {
  readonly addresses: ZapAddresses
  zap(
    from: WalletOwner,
    recipient: { pubkey: string; lud06: string },
    actionId: string,
    amount?: number,
  ): ReturnType<ReturnType<typeof createZapSender>>
}

async function home(wrap: (dialer: Dialer) => Dialer = (dialer) => dialer): Promise<ZapHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  opened.dialer.allow(sandbox.lnurlBaseUrl, true)
  const { store, wallets, keyring, dialer } = opened
  const common = { store, clock: systemClock, logger: silentLogger, dialer: wrap(dialer), wallets }
  const scope = testScope()
  const addresses = new ZapAddresses({ ...common, scope, nostr: { keyring }, baseUrl: sandbox.lnurlBaseUrl, mintUrl: sandbox.mintUrl })
  onTestFinished(async () => {
    await scope.close()
    await opened.close()
  })
  return {
    ...opened,
    addresses,
    zap: (from, recipient, actionId, amount = 21) =>
      createZapSender({
        ...common,
        invoiceNetwork: 'bcrt',
        nostr: { keyring, profileOf: async () => ({ lud06: recipient.lud06, lud16: 'nobody@invalid.example' }) },
      })({
        from,
        recipient: recipient.pubkey,
        amountSats: BigInt(amount),
        comment: 'well said',
        relays: [sandbox.relayUrl],
        actionId,
        spend: { subject: 'owner', counterparty: recipient.pubkey },
      }),
  }
}

async function registered(h: ZapHome): Promise<{ pubkey: string; lud06: string }> {
  const { lnurl } = await h.addresses.register(h.agent.owner, `ada-${randomUUID().slice(0, 8)}`)
  return { pubkey: h.agent.owner.pubkey, lud06: lnurl }
}

describe('zaps', () => {
  it('pay another home once, whose agent earns them once', async () => {
    const [alice, bob] = [await home(), await home()]
    await fund(alice, alice.customer, sandbox.mintUrl, 200)
    const ada = await registered(bob)
    expect(await bob.addresses.receiptKeyOf(ada.pubkey)).toMatch(/^[0-9a-f]{64}$/)
    const first = await alice.zap(alice.customer.owner, ada, 'action-1')
    expect(first).toMatchObject({ state: 'paid' })
    expect(await alice.zap(alice.customer.owner, ada, 'action-1')).toEqual(first)
    await expect(alice.zap(alice.customer.owner, ada, 'action-1', 22)).rejects.toMatchObject({ code: 'idempotency_conflict' })
    expect(accountBalance(alice.store, 'customer/expense/zap')).toBe(21_000n)
    await bob.addresses.poll()
    await bob.addresses.poll()
    expect(bob.agent.balance().balanceSats).toBe(21n)
    expect(earningsSummary(bob.store, { limit: 5 })).toMatchObject({ totalMsats: 21_000n, bySource: { zap: 21_000n }, internalMsats: 0n })
    await expect.poll(() => bob.events.map((event) => [event.type, event.cause.type])).toContainEqual(['invoice_settled', 'zap'])
    await expectSound(bob, sandbox.mintUrl)
  })

  it('between own keys are internal, no earnings', async () => {
    const h = await home()
    await fund(h, h.node, sandbox.mintUrl, 100)
    await h.zap(h.node.owner, await registered(h), 'action-2')
    await h.addresses.poll()
    expect(earningsSummary(h.store, { limit: 5 })).toMatchObject({ totalMsats: 0n, internalMsats: 21_000n })
  })

  it('keep the address, and take another name where one is taken', async () => {
    const [alice, bob] = [await home(), await home()]
    const first = await alice.addresses.register(alice.agent.owner, 'eve')
    expect(await alice.addresses.register(alice.agent.owner, 'eve')).toEqual(first)
    const second = await bob.addresses.register(bob.agent.owner, 'eve')
    expect(second.lud16).toContain(`eve-${bob.agent.owner.pubkey.slice(0, 6)}@`)
  })
})

const twisting =
  (twist: (path: string, json: Record<string, unknown>) => Record<string, unknown> | undefined) =>
  (real: Dialer): Dialer => ({
    ...real,
    fetch: async (url, options) => {
      const response = await real.fetch(url, options)
      const changed = twist(new URL(url).pathname, JSON.parse(response.text) as Record<string, unknown>)
      return changed === undefined ? response : { ...response, text: JSON.stringify(changed) }
    },
  })
const isParameters = (path: string) => path.startsWith('/.well-known/lnurlp/')

/** An invoice that nobody can pay, for 21 sats. */
const invoice = (change: Partial<Parameters<typeof encodeInvoice>[0]>, hasAmount = true): string =>
  encodeInvoice(
    {
      network: 'bcrt',
      ...(hasAmount ? { amountMsats: 21_000n } : {}),
      timestampSeconds: Math.floor(Date.now() / 1000),
      paymentHash: randomBytes(32),
      paymentSecret: randomBytes(32),
      description: 'x',
      expirySeconds: 600,
      ...change,
    },
    new Uint8Array(32).fill(7),
  )

describe('an LNURL server as many are', () => {
  it.each<[string, (path: string, json: Record<string, unknown>, other: string) => Record<string, unknown> | undefined, RegExp | null]>([
    [
      'writes limits as text',
      (path, json) => (isParameters(path) ? { ...json, minSendable: '1000', maxSendable: '100000000' } : undefined),
      null,
    ],
    [
      'writes limits as fractions',
      (path, json) => (isParameters(path) ? { ...json, minSendable: 1000.5, maxSendable: 1e11 } : undefined),
      null,
    ],
    [
      'writes its key in upper case',
      (path, json) => (isParameters(path) ? { ...json, nostrPubkey: String(json['nostrPubkey']).toUpperCase() } : undefined),
      null,
    ],
    ['has another invoice for all', (path, _, other) => (path.endsWith('/callback') ? { pr: other } : undefined), /does not commit/],
    ['takes no zaps', (path, json) => (isParameters(path) ? { ...json, allowsNostr: false } : undefined), /plain LNURL payment/],
    ['has no key for receipts', (path, json) => (isParameters(path) ? { ...json, nostrPubkey: null } : undefined), /plain LNURL payment/],
  ])('%s: it is paid, and what is odd about it is noted', async (name, twist, note) => {
    const bob = await home()
    const ada = await registered(bob)
    const { request } = await bob.node.createInvoice({
      idempotencyKey: 'other',
      cause: { type: 'owner', id: 'x' },
      amountSats: sats(21),
      creditAccount: 'node/equity/funding',
    })
    const alice = await home(twisting((path, json) => twist(path, json, request)))
    await fund(alice, alice.node, sandbox.mintUrl, 100)
    expect(await alice.zap(alice.node.owner, ada, name)).toMatchObject({ state: 'paid' })
    const said = getZapSend(alice.store, `zap:${name}`)?.note ?? null
    if (note === null) expect(said).toBeNull()
    else expect(said).toMatch(note)
  })

  it('has moved: redirects are followed, each as an address that a stranger named', async () => {
    const bob = await home()
    const ada = await registered(bob)
    const moved = createServer((request, response) => {
      const far = request.url === '/inside' ? 'http://127.0.0.1:9/' : request.url === '/1' ? '/2' : decodeLnurl(ada.lud06)
      response.writeHead(302, { location: far }).end()
    })
    await new Promise<void>((resolve) => moved.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void moved.close())
    const base = `http://127.0.0.1:${(moved.address() as AddressInfo).port}`
    const alice = await home()
    alice.dialer.allow(base, true)
    await fund(alice, alice.node, sandbox.mintUrl, 100)
    const at = (path: string) => ({ ...ada, lud06: encodeLnurl(`${base}${path}`) })
    expect(await alice.zap(alice.node.owner, at('/1'), 'moved')).toMatchObject({ state: 'paid' })
    await expect(alice.zap(alice.node.owner, at('/inside'), 'inside')).rejects.toMatchObject({ code: 'address_refused' })
  })
})

describe('an LNURL server that lies', () => {
  it.each<[string, (path: string, json: Record<string, unknown>) => Record<string, unknown> | undefined, string]>([
    ['wants more', (path, json) => (isParameters(path) ? { ...json, minSendable: 90_000 } : undefined), 'lnurl_invalid'],
    ['asks for more', (path) => (path.endsWith('/callback') ? { pr: invoice({ amountMsats: 21_001n }) } : undefined), 'lnurl_invalid'],
    ['asks for less', (path) => (path.endsWith('/callback') ? { pr: invoice({ amountMsats: 20_999n }) } : undefined), 'lnurl_invalid'],
    ['names no amount', (path) => (path.endsWith('/callback') ? { pr: invoice({}, false) } : undefined), 'lnurl_invalid'],
    [
      'gives an old invoice',
      (path) => (path.endsWith('/callback') ? { pr: invoice({ timestampSeconds: 1_700_000_000 }) } : undefined),
      'lnurl_invalid',
    ],
    [
      'gives one of another network',
      (path) => (path.endsWith('/callback') ? { pr: invoice({ network: 'bc' }) } : undefined),
      'lnurl_invalid',
    ],
    ['says no number', (path, json) => (isParameters(path) ? { ...json, minSendable: 'a few' } : undefined), 'lnurl_invalid'],
    ['gives junk', (path) => (path.endsWith('/callback') ? { pr: 'lnbcrt1junkjunkjunk' } : undefined), 'invoice_invalid'],
    ['says no', (path) => (path.endsWith('/callback') ? { status: 'ERROR', reason: 'closed today' } : undefined), 'lnurl_invalid'],
    [
      'sends us into the private network',
      (path, json) => (isParameters(path) ? { ...json, callback: 'https://10.0.0.1/pay' } : undefined),
      'address_refused',
    ],
  ])('%s: nothing is paid', async (_, twist, code) => {
    const bob = await home()
    const ada = await registered(bob)
    const alice = await home(twisting(twist))
    await fund(alice, alice.node, sandbox.mintUrl, 100)
    await expect(alice.zap(alice.node.owner, ada, 'action-3')).rejects.toMatchObject({ code })
    expect(alice.node.balance().balanceSats).toBe(100n)
  })
})
