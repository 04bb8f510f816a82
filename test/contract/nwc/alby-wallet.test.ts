/** Our client speaks with a wallet behind Alby's service (@getalby/sdk) over the sandbox's relay: sales come in there, payments go out, refunds are filled. */
import { NWCWalletService, NWCWalletServiceKeyPair, type NWCWalletServiceRequestHandler } from '@getalby/sdk/nwc'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { accountOf, accountOwner } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import { accountBalance, auditLedger, depositNow, depositOf } from '../../../src/store/money/ledger.ts'
import { decodeInvoice } from '../../../src/wallet/lightning/bolt11.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testSigner } from '../../support/test-signer.ts'
import { expectSound, faucet, fund, ownerCause } from '../wallet/home.ts'
import { HomeOnDisk, type NwcHome } from './home.ts'

const WALLET_SECRET = '2a'.repeat(32)
const CLIENT_SECRET = '2b'.repeat(32)

let sandbox: TestSandbox
let service: NWCWalletService
let unsubscribe: () => void
let pair: NWCWalletServiceKeyPair
let url: string
const asked: string[] = []

beforeAll(async () => {
  sandbox = await startSandbox()
  const { getPublicKey } = await import('nostr-tools/pure')
  pair = new NWCWalletServiceKeyPair(WALLET_SECRET, getPublicKey(Buffer.from(CLIENT_SECRET, 'hex')))
  url = `nostr+walletconnect://${pair.walletPubkey}?relay=${encodeURIComponent(sandbox.relayUrl)}&secret=${CLIENT_SECRET}`
  service = new NWCWalletService({ relayUrls: [sandbox.relayUrl] })
  await service.publishWalletServiceInfoEvent(WALLET_SECRET, ['pay_invoice', 'make_invoice', 'lookup_invoice', 'get_balance'], [])
  unsubscribe = await service.subscribe(pair, walletOverTheMint())
})
afterAll(async () => {
  unsubscribe()
  service.close()
  await sandbox.stop()
})

it('takes in what a customer pays, pays an invoice, and fills a refund that no mint can make', async () => {
  using disk = new HomeOnDisk()
  let home = await disk.open(sandbox, { receiveBy: 'nwc' })
  const { id } = await home.rail.connection.connect(url)
  expect(home.rail.connection.get()).toMatchObject({ balance: { msats: 5_000_000n }, info: { encryptions: ['nip04', 'nip44_v2'] } })

  const invoice = await bill(home)
  expect(invoice.mintUrl).toBe(`nwc:${id}`)
  await faucet(sandbox.mintUrl, invoice.request)
  await vi.waitFor(() => expect(home.node.invoice('job:j1:invoice')?.state).toBe('settled'), { timeout: 15_000, interval: 50 })
  expect(depositNow(home.store, JOB).heldMsats).toBe(60_000n)
  await vi.waitFor(() => expect(home.events.map(({ type }) => type)).toContain('invoice_settled'), 5000)
  // What is there is no ecash of ours, and nothing of ours is owed from it.
  expect(home.node.balance()).toMatchObject({ balanceSats: 0n, owedSats: 0n })

  const somebodys = await home.customer.createInvoice({
    ...{ idempotencyKey: 'c1', cause: ownerCause(), amountSats: sats(30), creditAccount: 'customer/equity/funding' },
  })
  const paid = await home.node.pay({
    ...{ idempotencyKey: 'p1', cause: ownerCause(), request: somebodys.request, debitAccount: 'node/equity/withdrawal', from: 'nwc' },
  })
  expect(paid).toMatchObject({ state: 'paid', feeSats: 1n })
  expect(accountBalance(home.store, `node/wallet/nwc:${id}`)).toBe(60_000n - 31_000n)

  // The wallet and what it did are there after a restart.
  await home.close()
  home = await disk.open(sandbox, { receiveBy: 'nwc' })
  const sent = await home.node.sendToken({
    ...{
      idempotencyKey: 'job:j1:refund',
      cause: JOB,
      amountSats: sats(60),
      debitAccount: depositOf(JOB),
      lockTo: `02${testSigner(5).pubkey}`,
    },
    ...{ coverReceiverFee: true, lessFeeIfShort: true, retryFailed: true, fillIfShort: true },
  })
  expect(sent).toMatchObject({ amountSats: 60n, state: 'pending' })
  expect(depositNow(home.store, JOB).heldMsats).toBe(0n)
  expect(accountBalance(home.store, 'node/equity/moved')).toBe(0n)
  expect(asked.filter((method) => method === 'pay_invoice')).toHaveLength(2)
  await expectSound(home, sandbox.mintUrl)
  expect(auditLedger(home.store).problems).toEqual([])
  await home.close()
})

it('leaves owed what it cannot fill, and says why: no wallet, or one that is gone', async () => {
  using disk = new HomeOnDisk()
  const home = await disk.open(sandbox, { receiveBy: 'nwc' })
  const refund = () =>
    home.node.sendToken({
      ...{
        idempotencyKey: 'job:j1:refund',
        cause: JOB,
        amountSats: sats(60),
        debitAccount: depositOf(JOB),
        fillIfShort: true,
        retryFailed: true,
      },
    })
  await expect(refund()).rejects.toMatchObject({ code: 'insufficient_funds' })
  await home.rail.connection.connect(url)
  const invoice = await bill(home)
  await faucet(sandbox.mintUrl, invoice.request)
  await vi.waitFor(() => expect(home.node.invoice('job:j1:invoice')?.state).toBe('settled'), { timeout: 15_000, interval: 50 })
  await home.rail.connection.disconnect({ force: false })
  await expect(refund()).rejects.toMatchObject({ code: 'insufficient_funds' })
  expect(depositNow(home.store, JOB).heldMsats).toBe(60_000n)
  // It goes out as soon as a mint holds enough, wherever that comes from.
  await fund(home, home.node, sandbox.mintUrl, 100)
  expect(await refund()).toMatchObject({ amountSats: 60n })
  expect(depositNow(home.store, JOB).heldMsats).toBe(0n)
  expect(auditLedger(home.store).problems).toEqual([])
  await home.close()
})

it('brings nothing where the fee has a limit, which it could pass, and nothing to wallets of others than the node', async () => {
  using disk = new HomeOnDisk()
  const home = await disk.open(sandbox, { receiveBy: 'nwc' })
  const send = (wallet: typeof home.node, idempotencyKey: string, limit: { maxFeeSats?: bigint } = {}) =>
    wallet.sendToken(
      {
        ...{ idempotencyKey, cause: ownerCause(), amountSats: sats(60), fillIfShort: true },
        debitAccount: accountOf(accountOwner(wallet.owner), 'equity', 'withdrawal'),
        ...(limit.maxFeeSats === undefined ? {} : { maxFeeSats: sats(limit.maxFeeSats) }),
      },
      { subject: 'owner' },
    )
  await expect(send(home.node, 'before', { maxFeeSats: 1n })).rejects.toMatchObject({
    message: expect.not.stringContaining('Lightning wallet is'),
  })
  await home.rail.connection.connect(url)
  await expect(send(home.node, 'limited', { maxFeeSats: 1n })).rejects.toMatchObject({
    code: 'insufficient_funds',
    message: expect.stringContaining('no limit can be set'),
  })
  await expect(send(home.agent, 'of an agent')).rejects.toMatchObject({ code: 'insufficient_funds' })
  expect(home.store.sql('SELECT 1 FROM nwc_payments').get()).toBeUndefined()
  expect(await send(home.node, 'without a limit')).toMatchObject({ amountSats: 60n })
  expect(auditLedger(home.store).problems).toEqual([])
  await home.close()
})

const JOB = { type: 'job', id: 'j1' } as const

const bill = ({ node }: NwcHome) =>
  node.createInvoice({
    ...{ idempotencyKey: 'job:j1:invoice', cause: JOB, amountSats: sats(60), creditAccount: depositOf(JOB), description: 'a job' },
    expiresAt: Date.now() + 600_000,
  })

/** A wallet whose Lightning node is the sandbox's mint. */
function walletOverTheMint(): NWCWalletServiceRequestHandler {
  const quotes = new Map<string, { quote: string; request: string; amount: number }>()
  const paid = new Map<string, { preimage: string; invoice: string; amount: number }>()
  const nowS = () => Math.floor(Date.now() / 1000)
  const transaction = (
    type: 'incoming' | 'outgoing',
    state: 'settled' | 'pending',
    of: { payment_hash: string; invoice: string; amount: number; preimage?: string },
  ) => ({
    ...{ type, state, description: '', description_hash: '', preimage: '', created_at: nowS(), expires_at: nowS() + 600, ...of },
    ...{ fees_paid: type === 'outgoing' ? 1000 : 0, settled_at: state === 'settled' ? nowS() : 0 },
  })
  return {
    getBalance: async () => {
      asked.push('get_balance')
      return { result: { balance: 5_000_000 }, error: undefined }
    },
    makeInvoice: async ({ amount }) => {
      asked.push('make_invoice')
      const response = await fetch(`${sandbox.mintUrl}/v1/mint/quote/bolt11`, {
        method: 'POST',
        body: JSON.stringify({ amount: amount / 1000, unit: 'sat' }),
      })
      const { quote, request } = (await response.json()) as { quote: string; request: string }
      const { paymentHash } = decodeInvoice(request)
      quotes.set(paymentHash, { quote, request, amount })
      return { result: transaction('incoming', 'pending', { payment_hash: paymentHash, invoice: request, amount }), error: undefined }
    },
    payInvoice: async ({ invoice }) => {
      asked.push('pay_invoice')
      const response = await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: invoice }) })
      const { preimage } = (await response.json()) as { preimage: string }
      const { paymentHash, amountMsats = 0n } = decodeInvoice(invoice)
      paid.set(paymentHash, { preimage, invoice, amount: Number(amountMsats) })
      return { result: { preimage, fees_paid: 1000 }, error: undefined }
    },
    lookupInvoice: async ({ payment_hash: hash = '' }) => {
      asked.push('lookup_invoice')
      const out = paid.get(hash)
      if (out !== undefined) return { result: transaction('outgoing', 'settled', { ...out, payment_hash: hash }), error: undefined }
      const own = quotes.get(hash)
      if (own === undefined) return { result: undefined, error: { code: 'NOT_FOUND', message: 'no such invoice' } }
      const response = await fetch(`${sandbox.mintUrl}/v1/mint/quote/bolt11/${own.quote}`)
      const { state } = (await response.json()) as { state: string }
      const found = { payment_hash: hash, invoice: own.request, amount: own.amount }
      return { result: transaction('incoming', state === 'UNPAID' ? 'pending' : 'settled', found), error: undefined }
    },
  }
}
