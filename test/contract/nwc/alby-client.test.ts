/** Alby's client (@getalby/sdk) speaks with our wallet service over the sandbox's relay, and pays through its mint. */
import { Invoice } from '@getalby/lightning-tools/bolt11'
import { type Nip47Notification, NWCClient } from '@getalby/sdk/nwc'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { NWC_METHODS } from '../../../src/nostr/nips/nip47.ts'
import { insertAgent } from '../../../src/store/agents/agents.ts'
import { auditLedger, depositNow, depositOf } from '../../../src/store/money/ledger.ts'
import type { ConnectionOrder } from '../../../src/wallet/nwc/service.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { fund, type TestHome } from '../wallet/home.ts'
import { HomeOnDisk, type NwcHome } from './home.ts'

let sandbox: TestSandbox
let disk: HomeOnDisk
let home: NwcHome
const clients: NWCClient[] = []

beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())
beforeEach(async () => {
  // Alby's client writes what goes wrong to the console.
  vi.spyOn(console, 'error').mockImplementation(() => {})
  disk = new HomeOnDisk()
  home = await disk.open(sandbox)
  await makeAgent(home)
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.close()
  await home.close()
  disk[Symbol.dispose]()
  vi.restoreAllMocks()
})

describe('a wallet that Alby knows as its own', () => {
  it('says what it does and holds, and makes an invoice of whose payment it tells', async () => {
    await fund(home, home.agent, sandbox.mintUrl, 500)
    const { client } = await connect({ budget: { sats: sats(300), per: 'day' } })
    expect(await client.getWalletServiceInfo()).toEqual({
      encryptions: ['nip44_v2', 'nip04'],
      capabilities: [...NWC_METHODS, 'notifications'],
      notifications: ['payment_received', 'payment_sent'],
    })
    expect(await client.getInfo()).toMatchObject({ alias: 'ada', methods: [...NWC_METHODS], network: 'regtest' })
    expect(await client.getBalance()).toEqual({ balance: 500_000 })
    expect(await client.getBudget()).toMatchObject({ used_budget: 0, total_budget: 300_000, renewal_period: 'daily' })
    const heard: Nip47Notification[] = []
    const stop = await client.subscribeNotifications((notification) => heard.push(notification))
    const made = await client.makeInvoice({ amount: 21_000, description: 'a coffee' })
    expect(made).toMatchObject({ type: 'incoming', state: 'pending', amount: 21_000, description: 'a coffee' })
    await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: made.invoice }) })
    await vi.waitFor(() => expect(heard).toHaveLength(1), 10_000)
    expect(heard[0]).toMatchObject({
      notification_type: 'payment_received',
      notification: { payment_hash: made.payment_hash, amount: 21_000, state: 'settled' },
    })
    expect(await client.lookupInvoice({ payment_hash: made.payment_hash })).toMatchObject({ state: 'settled', invoice: made.invoice })
    expect(await client.getBalance()).toEqual({ balance: 521_000 })
    expect((await client.listTransactions({ type: 'incoming' })).transactions).toHaveLength(2)
    await expect(client.lookupInvoice({ payment_hash: 'ab'.repeat(32) })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    await expect(client.makeInvoice({ amount: 1500 })).rejects.toMatchObject({ code: 'OTHER' })
    stop()
  })

  it('pays the invoice of a job within its budget; over it, it refuses with the standard code and spends nothing', async () => {
    await fund(home, home.agent, sandbox.mintUrl, 500)
    const { client, id } = await connect({ budget: { sats: sats(120), per: 'day' } })
    const heard: Nip47Notification[] = []
    const stop = await client.subscribeNotifications((notification) => heard.push(notification), ['payment_sent'])
    const first = await jobInvoice('first', 100)
    const paid = await client.payInvoice({ invoice: first.request })
    const asAlbyReads = new Invoice({ pr: first.request })
    expect(asAlbyReads).toMatchObject({ satoshi: 100, paymentHash: first.paymentHash })
    expect(asAlbyReads.validatePreimage(paid.preimage)).toBe(true)
    await vi.waitFor(() => expect(depositNow(home.store, { type: 'job', id: 'first' }).paidMsats).toBe(100_000n), 10_000)
    const spent = 100n + BigInt(paid.fees_paid) / 1000n
    expect(home.service.spentSats(home.service.get(id))).toEqual({ inPeriod: spent, inAll: spent })
    expect(home.agent.balance().balanceSats).toBe(500n - spent)
    await vi.waitFor(() => expect(heard).toHaveLength(1), 10_000)
    expect(await client.lookupInvoice({ invoice: first.request })).toMatchObject({
      ...{ type: 'outgoing', state: 'settled', preimage: paid.preimage, invoice: first.request },
    })
    const second = await jobInvoice('second', 100)
    await expect(client.payInvoice({ invoice: second.request })).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect(home.agent.balance().balanceSats).toBe(500n - spent)
    await expect(client.payInvoice({ invoice: first.request })).rejects.toMatchObject({ code: 'OTHER' })
    expect(home.service.spentSats(home.service.get(id)).inAll).toBe(spent)
    expect(auditLedger(home.store).problems).toEqual([])
    stop()
  })

  it('holds the budget under requests at once, and the agent has a budget of its own beside it', async () => {
    await fund(home, home.agent, sandbox.mintUrl, 2000)
    const { client, id } = await connect({ budget: { sats: sats(250), per: 'hour' } })
    const invoices = await Promise.all([1, 2, 3, 4, 5].map((n) => jobInvoice(`at once ${n}`, 100)))
    const ends = await Promise.allSettled(invoices.map(({ request }) => client.payInvoice({ invoice: request })))
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(2)
    for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect(home.service.spentSats(home.service.get(id)).inPeriod).toBeLessThanOrEqual(250n)
    // More than the agent may spend at once, whatever the connection allows.
    const rich = await connect({ budget: null })
    const dear = await jobInvoice('dear', 700)
    await expect(rich.client.payInvoice({ invoice: dear.request })).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect(auditLedger(home.store).problems).toEqual([])
  })

  it('refuses what the connection may not do, what it has not, and a connection that expired or was revoked', async () => {
    const { client, id } = await connect({ methods: ['get_info', 'pay_invoice'] })
    await expect(client.getBalance()).rejects.toMatchObject({ code: 'RESTRICTED' })
    await expect(client.payKeysend({ amount: 1000, pubkey: '02'.repeat(33) })).rejects.toMatchObject({ code: 'NOT_IMPLEMENTED' })
    const invoice = await jobInvoice('poor', 100)
    await expect(client.payInvoice({ invoice: invoice.request })).rejects.toMatchObject({ code: 'INSUFFICIENT_BALANCE' })
    await home.service.revoke(id)
    await expect(client.getInfo()).rejects.toMatchObject({ code: 'UNAUTHORIZED' })
    const expired = await connect({ expiresAt: Date.now() - 1 })
    await expect(expired.client.getInfo()).rejects.toMatchObject({ code: 'UNAUTHORIZED' })
    // Another key has no wallet here, though it knows whom to ask.
    const { url } = await connect({})
    const stranger = client2(url.replace(/secret=[0-9a-f]{64}/, `secret=${'11'.repeat(32)}`))
    await expect(stranger.getInfo()).rejects.toMatchObject({ code: 'UNAUTHORIZED' })
  })

  it('speaks NIP-04 with a client that knows nothing newer', async () => {
    const { client } = await connect({})
    vi.spyOn(client, 'getWalletServiceInfo').mockResolvedValue({ encryptions: ['nip04'], capabilities: [], notifications: [] })
    expect(await client.getInfo()).toMatchObject({ alias: 'ada' })
    expect(client.encryptionType).toBe('nip04')
  })
})

const client2 = (url: string): NWCClient => {
  const client = new NWCClient({ nostrWalletConnectUrl: url })
  clients.push(client)
  return client
}

async function connect(order: Partial<ConnectionOrder>): Promise<{ client: NWCClient; id: string; url: string }> {
  const { connection, url } = await home.service.create({
    ...{ key: `test ${clients.length}`, owner: home.agent.owner, name: 'test', budget: null, methods: NWC_METHODS, expiresAt: null },
    ...order,
  })
  return { client: client2(url), id: connection.id, url }
}

/** What a provider asks for a job of that id. */
const jobInvoice = (id: string, amount: number) =>
  home.node.createInvoice({
    ...{ idempotencyKey: `job:${id}:invoice`, cause: { type: 'job' as const, id }, amountSats: sats(amount) },
    creditAccount: depositOf({ type: 'job', id }),
  })

async function makeAgent({ store, agent }: TestHome): Promise<void> {
  const { pubkey } = agent.owner
  await store.write(
    insertAgent({
      agent: {
        ...{ pubkey, npub: `npub-${pubkey.slice(0, 8)}`, name: 'ada', accountIndex: 10, about: '', brain: { type: 'script' }, relays: [] },
        ...{ heartbeatS: 900, autonomy: 'bounded', dmScheme: 'auto', allow: [], tickFeeSats: 0, profile: {} },
        budget: { per_tx_sats: 600, per_tick_sats: 600, per_day_sats: 5000 },
      },
      at: Date.now(),
    }),
  )
}
