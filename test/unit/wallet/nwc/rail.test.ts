/** The owner's Lightning wallet as a rail: what it says decides, what it does not say stays open, and no kill pays or counts twice. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sats } from '../../../../src/base/amounts.ts'
import { walletReadHandlers } from '../../../../src/daemon/routes/wallet-invoices.ts'
import { accountBalance, auditLedger, depositNow, depositOf } from '../../../../src/store/money/ledger.ts'
import { nwcPaymentByKey } from '../../../../src/store/money/nwc-wallets.ts'
import { insertOperation } from '../../../../src/store/money/operations.ts'
import { decodeInvoice } from '../../../../src/wallet/lightning/bolt11.ts'
import { NODE, OtherWallet, type RailNode, startRail } from './world.ts'

let world: OtherWallet
let node: RailNode

beforeEach(async () => {
  world = new OtherWallet()
  node = startRail(world)
  await node.settled(node.rail.connection.connect(world.url))
})
afterEach(async () => {
  await node.stop()
  world.close()
})

const JOB = { type: 'job', id: 'j1' } as const
const bill = (of: RailNode) =>
  of.rail.createInvoice(NODE, { idempotencyKey: 'job:j1:invoice', cause: JOB, amountSats: sats(50), creditAccount: depositOf(JOB) })
const pay = (of: RailNode, request: string, key = 'pay:1') =>
  of.rail.pay(NODE, { idempotencyKey: key, cause: { type: 'owner', id: key }, request, debitAccount: 'node/equity/withdrawal' })
const railAccount = (of: RailNode) => accountBalance(of.store, `node/wallet/nwc:${of.rail.connection.connected().id}`)
const events = (of: RailNode) =>
  of.store
    .sql('SELECT event_json FROM wallet_events ORDER BY id')
    .all()
    .map((row) => JSON.parse(String(row['event_json'])).type)

describe('a wallet that is connected', () => {
  it('says what it holds; its secret is kept with the wrapped keys and goes with it', async () => {
    expect(node.rail.connection.get()).toMatchObject({ state: 'ok', balance: { msats: 1_000_000n }, relays: ['wss://relay.wallet.test'] })
    const { clientPubkey } = node.rail.connection.connected()
    expect(node.keyring.owns(clientPubkey)).toBe(true)
    expect(JSON.stringify(node.store.sql('SELECT * FROM nwc_wallets').all().map(String))).not.toContain('1515')
    // The same string again is the same wallet, another is refused while it is there.
    await node.settled(node.rail.connection.connect(world.url))
    await expect(node.settled(node.rail.connection.connect(world.url.replace(/secret=../, 'secret=16')))).rejects.toMatchObject({
      code: 'conflict',
    })
    await node.rail.connection.disconnect({ force: false })
    expect(node.keyring.owns(clientPubkey)).toBe(false)
    expect(node.rail.connection.get()).toBeUndefined()
    await expect(bill(node)).rejects.toMatchObject({ code: 'nwc_missing' })
  })

  it('has its invoices in the list of all', async () => {
    const { paymentHash } = await node.settled(bill(node))
    const { listInvoices } = walletReadHandlers({ store: node.store })
    const call = { idempotencyKey: '', signal: new AbortController().signal }
    const made = {
      quote_id: paymentHash,
      rail: `nwc:${node.rail.connection.connected().id}`,
      mint_url: null,
      wallet: 'node',
      amount_sats: 50n,
    }
    expect(listInvoices({}, call)).toMatchObject({ invoices: [{ ...made, state: 'unpaid' }] })
    expect(listInvoices({ state: 'settled' }, call)).toMatchObject({ invoices: [] })
  })

  it('that does not answer is down, and is well when it does', async () => {
    world.isAway = true
    await node.settled(node.rail.connection.refresh())
    expect(node.rail.connection.get()).toMatchObject({ state: 'down', balance: { msats: 1_000_000n } })
    await expect(node.settled(bill(node))).rejects.toMatchObject({ code: 'nwc_unreachable' })
    world.isAway = false
    await world.clock.advance(310_000)
    expect(node.rail.connection.get()).toMatchObject({ state: 'ok', reason: null })
  })

  it('that cannot be reached is not connected', async () => {
    await node.rail.connection.disconnect({ force: false })
    world.isAway = true
    await expect(node.settled(node.rail.connection.connect(world.url))).rejects.toMatchObject({ code: 'nwc_unreachable' })
    expect(node.rail.connection.get()).toBeUndefined()
  })
})

describe('an invoice of a sale', () => {
  it.each([true, false])('is settled once it is paid, told of it (%s) or not', async (tell) => {
    const invoice = await node.settled(bill(node))
    expect(await node.settled(bill(node))).toEqual(invoice)
    expect(invoice.mintUrl).toMatch(/^nwc:/)
    await world.customerPays(invoice.request, { tell })
    await world.clock.advance(tell ? 0 : 30_000)
    expect(node.rail.invoice('job:j1:invoice')?.state).toBe('settled')
    expect(depositNow(node.store, JOB)).toEqual({ paidMsats: 50_000n, heldMsats: 50_000n })
    expect(railAccount(node)).toBe(50_000n)
    // Told again, it is counted once.
    await world.customerPays(invoice.request, { tell: true })
    await world.clock.advance(60_000)
    expect(depositNow(node.store, JOB).paidMsats).toBe(50_000n)
    expect(events(node)).toEqual(['invoice_settled'])
    expect(auditLedger(node.store).problems).toEqual([])
  })

  it('that is paid while nobody listens is found after a restart, also late', async () => {
    const invoice = await node.settled(bill(node))
    await node.stop()
    await world.customerPays(invoice.request, { tell: false })
    await world.clock.advance(3_000_000)
    node = startRail(world)
    await world.clock.advance(30_000)
    expect(node.rail.invoice('job:j1:invoice')?.state).toBe('settled')
    expect(events(node)).toEqual(['invoice_settled'])
  })

  it.each(['insert_nwc_invoice', 'move_nwc_invoice:settled'].flatMap((label) => [true, false].map((before) => ({ label, before }))))(
    'survives a kill at $label (before it: $before)',
    async ({ label, before }) => {
      await node.stop()
      node = startRail(world, { dieAt: label, before })
      await node.settled(bill(node)).catch(() => undefined)
      const made = [...world.known.values()].at(-1)
      if (made !== undefined && !node.isDead()) await world.customerPays(made.invoice, { tell: true }).catch(() => undefined)
      await world.clock.advance(5000)
      expect(node.isDead()).toBe(true)
      await node.stop().catch(() => undefined)
      node = startRail(world)
      const invoice = await node.settled(bill(node))
      await world.customerPays(invoice.request, { tell: true })
      await world.clock.advance(30_000)
      expect(depositNow(node.store, JOB).paidMsats).toBe(50_000n)
      expect(events(node)).toEqual(['invoice_settled'])
    },
  )
})

describe('a payment', () => {
  it('is made once under its key, with its fee in the books', async () => {
    const invoice = world.somebodys(100)
    const paid = await node.settled(pay(node, invoice))
    expect(paid).toMatchObject({ state: 'paid', feeSats: 1n })
    expect(await node.settled(pay(node, invoice))).toEqual(paid)
    expect(world.asked.filter((method) => method === 'pay_invoice')).toHaveLength(1)
    expect(railAccount(node)).toBe(-101_000n)
    expect(accountBalance(node.store, 'node/expense/fee')).toBe(1000n)
    await expect(node.settled(pay(node, invoice, 'pay:2'))).rejects.toMatchObject({ code: 'invoice_paid' })
    expect(auditLedger(node.store).problems).toEqual([])
  })

  it('with a limit for its fee is not made: no word of the protocol sets one', async () => {
    const limited = { idempotencyKey: 'k', cause: { type: 'owner', id: 'k' }, request: world.somebodys(100), maxFeeSats: sats(5) } as const
    await expect(node.settled(node.rail.pay(NODE, { ...limited, debitAccount: 'node/equity/withdrawal' }))).rejects.toMatchObject({
      code: 'invalid_request',
      message: expect.stringMatching(/NIP-47.*--max-fee and --max-sats/s),
    })
    expect(world.asked).not.toContain('pay_invoice')
  })

  it('and one by a mint are one payment of one hash', async () => {
    const melt = (request: string) => {
      const { paymentHash } = decodeInvoice(request)
      const base = {
        id: paymentHash.slice(0, 8),
        kind: 'melt',
        owner: NODE,
        mintUrl: 'https://mint.test',
        idempotencyKey: paymentHash,
      } as const
      const rest = { requestDigest: '', cause: { type: 'owner', id: 'x' }, amountSats: 100n, heldSats: 100n, plan: {}, at: 1 } as const
      return node.store.write(insertOperation({ ...base, ...rest, paymentHash }))
    }
    const first = world.somebodys(100)
    await node.settled(pay(node, first))
    await expect(melt(first)).rejects.toMatchObject({ code: 'invoice_paid' })
    const second = world.somebodys(100)
    await melt(second)
    await expect(node.settled(pay(node, second, 'pay:2'))).rejects.toMatchObject({ code: 'payment_in_progress' })
    expect(world.paid()).toBe(1)
  })

  it('whose answer is lost is unknown, then looked up, and never sent twice', async () => {
    world.onPay = (known) => {
      known.state = 'pending'
      return 'silent'
    }
    const invoice = world.somebodys(100)
    const paid = await node.settled(pay(node, invoice))
    expect(paid.state).toBe('unknown')
    await expect(node.rail.connection.disconnect({ force: true })).rejects.toMatchObject({ code: 'conflict' })
    await expect(node.settled(pay(node, invoice, 'pay:2'))).rejects.toMatchObject({ code: 'payment_in_progress' })
    for (const known of world.known.values()) known.state = 'settled'
    await world.clock.advance(120_000)
    expect(node.rail.payment('pay:1')).toMatchObject({ state: 'paid', feeSats: 1n })
    expect(world.asked.filter((method) => method === 'pay_invoice')).toHaveLength(1)
    expect(events(node)).toEqual(['payment_settled'])
  })

  it('that the wallet refuses before it tries has failed; what may be a timeout is looked up first', async () => {
    const poor = world.somebodys(100)
    world.onPay = (known) => {
      known.state = 'failed'
      return { error: { code: 'INSUFFICIENT_BALANCE', message: 'too poor' } }
    }
    await expect(node.settled(pay(node, poor))).rejects.toMatchObject({ code: 'payment_failed' })
    expect(world.asked).not.toContain('lookup_invoice')
    // It says that it failed, and it went through all the same.
    const slow = world.somebodys(100)
    world.onPay = () => ({ error: { code: 'PAYMENT_FAILED', message: 'timeout' } })
    expect(await node.settled(pay(node, slow, 'pay:2'))).toMatchObject({ state: 'paid' })
    const none = world.somebodys(100)
    world.onPay = (known) => {
      known.state = 'failed'
      return { error: { code: 'PAYMENT_FAILED', message: 'no route' } }
    }
    await expect(node.settled(pay(node, none, 'pay:3'))).rejects.toMatchObject({ code: 'payment_failed' })
    expect(railAccount(node)).toBe(-101_000n)
    expect(auditLedger(node.store).problems).toEqual([])
  })

  it('that never reached the wallet fails only when its request has run out', async () => {
    world.isAway = true
    const paid = await node.settled(pay(node, world.somebodys(100)))
    expect(paid.state).toBe('unknown')
    world.isAway = false
    await world.clock.advance(40_000)
    expect(node.rail.payment('pay:1')?.state).toBe('unknown')
    await world.clock.advance(400_000)
    expect(node.rail.payment('pay:1')?.state).toBe('failed')
    expect(world.paid()).toBe(0)
    expect(events(node)).toEqual(['payment_failed'])
  })

  it.each(['insert_nwc_payment', 'move_nwc_payment:completed'].flatMap((label) => [true, false].map((before) => ({ label, before }))))(
    'survives a kill at $label (before it: $before)',
    async ({ label, before }) => {
      await node.stop()
      const invoice = world.somebodys(100)
      node = startRail(world, { dieAt: label, before })
      await node.settled(pay(node, invoice)).catch(() => undefined)
      expect(node.isDead()).toBe(true)
      await node.stop().catch(() => undefined)
      node = startRail(world)
      await node.settled(pay(node, invoice)).catch(() => undefined)
      await world.clock.advance(400_000)
      expect(nwcPaymentByKey(node.store, 'pay:1')?.state).toBe('completed')
      expect(world.paid()).toBe(1)
      expect(world.asked.filter((method) => method === 'pay_invoice')).toHaveLength(1)
      expect(railAccount(node)).toBe(-101_000n)
      expect(events(node)).toEqual(['payment_settled'])
      expect(auditLedger(node.store).problems).toEqual([])
    },
  )
})
