/** The provider on the real Nostr layer and wallet, against the sandbox's relay and mint, bought from by a bare WebSocket client. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { parseFeedback } from '../../../src/nostr/nips/nip90-answers.ts'
import type { LocalSigner, NostrEvent } from '../../../src/nostr/types.ts'
import { Provider } from '../../../src/provider/provider.ts'
import { accountBalance, auditLedger, balancesOf } from '../../../src/store/money/ledger.ts'
import { transitionsOf } from '../../../src/store/selling/job-steps.ts'
import { getJob } from '../../../src/store/selling/jobs.ts'
import { createWallets, type OwnWallets, WALLET_DRAIN_MS } from '../../../src/wallet/wallets.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { faucet, fund, openHome, type TestHome, testWords } from '../wallet/home.ts'

interface Node {
  readonly nostr: TestNostr
  readonly wallets: OwnWallets
  readonly provider: Provider
  stop(): Promise<void>
}

const WAIT = { timeout: 15_000, interval: 50 }

let sandbox: TestSandbox
let dir: string
let node: Node
let buyer: TestHome
let buyerDir: string
let me: LocalSigner
let relay: Awaited<ReturnType<typeof connect>>

/** A customer's end of one WebSocket: everything that names it. */
async function connect(url: string, signer: LocalSigner) {
  const socket = new WebSocket(url)
  const seen: NostrEvent[] = []
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve)
    socket.addEventListener('error', reject)
  })
  socket.addEventListener('message', ({ data }) => {
    const [type, , event] = JSON.parse(String(data)) as [string, string, NostrEvent]
    if (type === 'EVENT') seen.push(event)
  })
  socket.send(JSON.stringify(['REQ', 'answers', { '#p': [signer.pubkey], since: Math.floor(Date.now() / 1000) - 5 }]))
  return {
    send: (event: NostrEvent) => socket.send(JSON.stringify(['EVENT', event])),
    results: (id: string) =>
      seen.filter((event) => event.kind >= 6000 && event.kind < 7000 && event.tags.some((tag) => tag[0] === 'e' && tag[1] === id)),
    feedback: (id: string) =>
      seen
        .filter((event) => event.kind === 7000 && event.tags.some((tag) => tag[0] === 'e' && tag[1] === id))
        .map((event) => parseFeedback(event, signer)),
    close: () => socket.close(),
  }
}

async function startNode(): Promise<Node> {
  const nostr = startNostr({ relays: [sandbox.relayUrl], dir })
  nostr.dialer.allow(new URL(sandbox.mintUrl).origin)
  const config: Config = {
    ...DEFAULT_CONFIG,
    provider: {
      ...DEFAULT_CONFIG.provider,
      probe: false,
      prices: { '5001': { amount_msats: 2500, unit: 'job' }, '5003': { amount_msats: 0, unit: 'job' } },
      exec: [
        { kind: 5002, command: ['false'], timeout_s: 10, max_output_bytes: 1000 },
        { kind: 5003, command: ['rev'], timeout_s: 10, max_output_bytes: 1000 },
      ],
    },
  }
  const scope = testScope()
  const common = {
    store: nostr.store,
    clock: systemClock,
    logger: silentLogger,
    config: () => config,
    dialer: nostr.dialer,
    nostr: nostr.nostr,
  }
  const wallets = createWallets({ ...common, scope, invoiceNetwork: 'bcrt' })
  if (wallets.mints().length === 0) await wallets.addMint(sandbox.mintUrl)
  const provider = new Provider({ ...common, scope: testScope(), wallets })
  await wallets.start()
  await provider.start()
  return {
    nostr,
    wallets,
    provider,
    async stop() {
      await provider.close(1000)
      await scope.close(WALLET_DRAIN_MS)
      await nostr.stop({ keep: true })
    },
  }
}

beforeAll(async () => {
  sandbox = await startSandbox()
  dir = mkdtempSync(join(tmpdir(), 'pylon-provider-'))
  buyerDir = mkdtempSync(join(tmpdir(), 'pylon-buyer-'))
  node = await startNode()
  buyer = await openHome({ dir: buyerDir, mintUrls: [sandbox.mintUrl], words: testWords() })
  me = buyer.keyring.customer()
  relay = await connect(sandbox.relayUrl, me)
})

afterAll(async () => {
  relay?.close()
  await buyer?.close()
  await node?.stop()
  await sandbox?.stop()
  for (const path of [dir, buyerDir]) rmSync(path, { recursive: true, force: true })
})

const provider = (): string => node.nostr.keyring.node().pubkey

function order(kind: number, tags: string[][] = [], content = ''): NostrEvent {
  return me.sign({
    kind,
    created_at: Math.floor(Date.now() / 1000),
    tags: [
      ['p', provider()],
      ...(content === '' ? [['i', `Sats move fast. Relays carry them. ${Math.random()} is the number.`, 'text']] : []),
      ...tags,
    ],
    content,
  })
}

async function reached(event: NostrEvent, status: string): Promise<void> {
  await vi.waitFor(() => expect(getJob(node.nostr.store, event.id)?.status).toBe(status), WAIT)
}

async function lockedToken(amount: bigint, lockTo = node.wallets.of({ kind: 'node', pubkey: provider() }).lockPubkey): Promise<string> {
  const sent = await buyer.customer.sendToken({
    idempotencyKey: `token:${Math.random()}`,
    cause: { type: 'purchase', id: 'test' },
    amountSats: sats(amount),
    lockTo,
    coverReceiverFee: true,
    debitAccount: 'customer/expense/job',
  })
  return sent.token
}

test('the customer is funded', async () => {
  await fund(buyer, buyer.customer, sandbox.mintUrl, 200)
  expect(buyer.customer.balance().balanceSats).toBe(200n)
})

test('a free job by a command, sent five times: one result', async () => {
  const event = order(5003)
  for (let i = 0; i < 5; i++) relay.send(event)
  await reached(event, 'settled')
  await vi.waitFor(() => expect(relay.results(event.id)).toHaveLength(1), WAIT)
  expect(relay.results(event.id)[0]?.content).toContain('tsaf evom staS')
  expect(transitionsOf(node.nostr.store, event.id).map((step) => step.to)).toEqual([
    'received',
    'queued',
    'running',
    'ready',
    'delivered',
    'settled',
  ])
})

test('an invoice is paid, the job is done and earned', async () => {
  const before = accountBalance(node.nostr.store, 'node/income/job')
  const event = order(5001)
  relay.send(event)
  await vi.waitFor(() => expect(relay.feedback(event.id)).toMatchObject([{ status: 'payment-required', amountMsats: 3000n }]), WAIT)
  await faucet(sandbox.mintUrl, relay.feedback(event.id)[0]?.bolt11 ?? '')
  await reached(event, 'settled')
  await vi.waitFor(() => expect(relay.results(event.id)).toHaveLength(1), WAIT)
  expect(accountBalance(node.nostr.store, 'node/income/job') - before).toBe(-2500n)
})

test('a locked token pays; the same token again is spent', async () => {
  const token = await lockedToken(5n)
  const first = order(5001, [['cashu', token]])
  relay.send(first)
  await reached(first, 'settled')
  const second = order(5001, [['cashu', token]])
  relay.send(second)
  await reached(second, 'refused')
  await vi.waitFor(() => expect(relay.feedback(second.id)).toMatchObject([{ status: 'error', extra: 'token_spent' }]), WAIT)
})

test('a token that is bare in public, or locked to another, is not taken', async () => {
  const bare = await buyer.customer.sendToken({
    idempotencyKey: 'bare',
    cause: { type: 'purchase', id: 'bare' },
    amountSats: sats(5n),
    debitAccount: 'customer/expense/job',
  })
  const cases = [
    ['token_bare', bare.token],
    ['token_locked', await lockedToken(5n, `02${me.pubkey}`)],
  ] as const
  for (const [code, token] of cases) {
    const event = order(5001, [['cashu', token]])
    relay.send(event)
    await reached(event, 'refused')
    expect(getJob(node.nostr.store, event.id)?.errorCode).toBe(code)
  }
})

test('an encrypted job with its token inside is answered for the customer alone', async () => {
  const token = (
    await buyer.customer.sendToken({
      idempotencyKey: 'inside',
      cause: { type: 'purchase', id: 'inside' },
      amountSats: sats(5n),
      coverReceiverFee: true,
      debitAccount: 'customer/expense/job',
    })
  ).token
  const inner = JSON.stringify([
    ['i', 'A private thought. It stays between us.', 'text'],
    ['cashu', token],
  ])
  const event = order(5001, [['encrypted']], me.nip44Encrypt(provider(), inner))
  relay.send(event)
  await reached(event, 'settled')
  await vi.waitFor(() => expect(relay.results(event.id)).toHaveLength(1), WAIT)
  const [result] = relay.results(event.id)
  expect(JSON.stringify(result)).not.toContain('private thought')
  expect(me.nip44Decrypt(provider(), result?.content ?? '')).toContain('private thought')
})

test('a paid job that fails is refunded, and the customer redeems it', async () => {
  const event = order(5002, [['cashu', await lockedToken(5n)]])
  relay.send(event)
  await vi.waitFor(() => expect(relay.feedback(event.id).some((feedback) => feedback.refundToken !== undefined)).toBe(true), WAIT)
  const refund = relay.feedback(event.id).find((feedback) => feedback.refundToken !== undefined)
  const back = await buyer.customer.receiveToken({
    idempotencyKey: 'refund',
    cause: { type: 'purchase', id: 'refund' },
    token: refund?.refundToken ?? '',
    creditAccount: 'customer/expense/job',
  })
  expect(back.amountSats).toBeGreaterThan(3n)
  await reached(event, 'refunded')
})

test('after a restart the same request brings no second result, and what was quoted can still be paid', async () => {
  const done = order(5003)
  relay.send(done)
  await reached(done, 'settled')
  const quoted = order(5001)
  relay.send(quoted)
  await vi.waitFor(() => expect(relay.feedback(quoted.id)).toHaveLength(1), WAIT)
  await node.stop()
  await faucet(sandbox.mintUrl, relay.feedback(quoted.id)[0]?.bolt11 ?? '')
  const whileDown = order(5003)
  relay.send(whileDown)
  node = await startNode()
  relay.send(done)
  await reached(quoted, 'settled')
  await reached(whileDown, 'settled')
  for (const event of [done, quoted, whileDown]) await vi.waitFor(() => expect(relay.results(event.id)).toHaveLength(1), WAIT)
})

test('cancelling an unpaid job', async () => {
  const event = order(5001)
  relay.send(event)
  await reached(event, 'quoted')
  relay.send(me.sign({ kind: 5, created_at: Math.floor(Date.now() / 1000), tags: [['e', event.id]], content: '' }))
  await reached(event, 'cancelled')
})

test('the books are sound: every deposit went somewhere', () => {
  expect(auditLedger(node.nostr.store).problems).toEqual([])
  expect([...balancesOf(node.nostr.store, 'node', 'deposit')]).toEqual([])
})
