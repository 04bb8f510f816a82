/** A seller whose own key is at a bunker that is not ours (nostr-tools alone), over real sockets: it goes away at the worst times. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished, vi } from 'vitest'
import { sats } from '../../src/base/amounts.ts'
import { systemClock } from '../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../src/base/config.ts'
import { createDialer } from '../../src/base/dialer.ts'
import { silentLogger } from '../../src/base/logger.ts'
import { homeAt } from '../../src/base/paths.ts'
import { initHome } from '../../src/daemon/offline/init.ts'
import { restoreFromWords } from '../../src/daemon/offline/restore-words.ts'
import { RemoteKeys } from '../../src/nostr/bunker/remote-keys.ts'
import { HomeKeyring } from '../../src/nostr/keys/keyring.ts'
import { newWords, seedOfWords } from '../../src/nostr/keys/mnemonic.ts'
import { remoteKeyOf, sealConnection } from '../../src/nostr/keys/remote-key.ts'
import { parseBunkerUri } from '../../src/nostr/nips/nip46.ts'
import { parseFeedback } from '../../src/nostr/nips/nip90-answers.ts'
import { createNostr } from '../../src/nostr/nostr.ts'
import type { NostrEvent } from '../../src/nostr/types.ts'
import type { Backend } from '../../src/provider/backends/backend.ts'
import { Provider } from '../../src/provider/provider.ts'
import { accountBalance, auditLedger, balancesOf } from '../../src/store/money/ledger.ts'
import { transitionsOf } from '../../src/store/selling/job-steps.ts'
import { getJob } from '../../src/store/selling/jobs.ts'
import { createWallets, WALLET_DRAIN_MS } from '../../src/wallet/wallets.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { testScope } from '../support/scope.ts'
import { ScriptedBunker } from '../support/scripted-bunker.ts'
import { openStore } from '../support/store.ts'
import { tempDir } from '../support/temp.ts'
import { fund, openHome, type TestHome, testWords } from './wallet/home.ts'

const SOON = { timeout: 60_000, interval: 100 }
const KIND = 5003
const DAYS_MS = 86_400_000

let sandbox: TestSandbox
let buyer: TestHome
const buyerDir = mkdtempSync(join(tmpdir(), 'pylon-buyer-'))
beforeAll(async () => {
  sandbox = await startSandbox()
  buyer = await openHome({ dir: buyerDir, mintUrls: [sandbox.mintUrl], words: testWords() })
  await fund(buyer, buyer.customer, sandbox.mintUrl, 400)
})
afterAll(async () => {
  await buyer.close()
  await sandbox.stop()
  rmSync(buyerDir, { recursive: true, force: true })
})

/** What runs the jobs: it tells when the result is there, which is when things go wrong. */
let runs = 0
let onResult: () => void = () => {}
beforeEach(() => {
  runs = 0
  onResult = () => {}
})
const backend: Backend = {
  name: 'capitals',
  inline: false,
  kinds: () => [KIND],
  check: () => {},
  probe: async () => {},
  health: () => ({ state: 'ok', models: [] }),
  run: async ({ input }) => {
    runs++
    onResult()
    return input.toUpperCase()
  },
}

async function startSeller(dir: string, words: string, bunker: ScriptedBunker, answerMs = 2000) {
  const config: Config = {
    ...DEFAULT_CONFIG,
    provider: { ...DEFAULT_CONFIG.provider, prices: { [KIND]: { amount_msats: 5000, unit: 'job' } } },
  }
  const common = { store: openStore(join(dir, 'pylon.db')), clock: systemClock, logger: silentLogger, config: () => config }
  const nodeBunker = sealConnection(seedOfWords(words), bunker.pubkey, remoteKeyOf(parseBunkerUri(bunker.url), 0))
  const keyring = new HomeKeyring({ ...common, nodePubkey: bunker.pubkey, nodeBunker })
  keyring.unlock(words)
  const dialer = createDialer({ allowedOrigins: [sandbox.mintUrl] })
  dialer.allow(sandbox.relayUrl, true)
  const relays = testScope()
  const nostr = createNostr({ ...common, scope: relays, dialer, keyring, relays: [sandbox.relayUrl] })
  const remoteKeys = new RemoteKeys({ ...common, scope: relays.child('remote keys'), dialer, nostr, keyring, answerMs })
  const walletScope = testScope()
  const wallets = createWallets({ ...common, scope: walletScope, dialer, nostr, invoiceNetwork: 'bcrt' })
  const provider = new Provider({ ...common, scope: testScope(), dialer, nostr, wallets, backends: () => [backend] })
  nostr.start()
  // As `init` does.
  if (!bunker.isAway) expect(await remoteKeys.connect(parseBunkerUri(bunker.url))).toBe(bunker.pubkey)
  remoteKeys.start()
  await wallets.start()
  if (wallets.mints().length === 0) await wallets.addMint(sandbox.mintUrl)
  await provider.start()
  let isStopped = false
  const stop = async () => {
    if (isStopped) return
    isStopped = true
    await provider.close(1000)
    await walletScope.close(WALLET_DRAIN_MS)
    await relays.close(2000)
    common.store.close()
    await dialer.close()
  }
  onTestFinished(stop)
  return { dir, store: common.store, keyring, nostr, wallets, remoteKeys, stop }
}
type Seller = Awaited<ReturnType<typeof startSeller>>

async function world() {
  const bunker = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => bunker.stop())
  const dir = tempDir()
  const words = newWords()
  return { bunker, start: (answerMs?: number) => startSeller(dir, words, bunker, answerMs) }
}

const me = () => buyer.keyring.customer()
const nowS = () => Math.floor(Date.now() / 1000)

async function token(lockTo?: string): Promise<string> {
  const sent = await buyer.customer.sendToken({
    idempotencyKey: `token:${Math.random()}`,
    cause: { type: 'purchase', id: 'test' },
    amountSats: sats(5n),
    coverReceiverFee: true,
    debitAccount: 'customer/expense/job',
    ...(lockTo === undefined ? {} : { lockTo }),
  })
  return sent.token
}

/** For all to see, paid by a token that only the seller's wallet can spend. */
async function openOrder({ wallets }: Seller, { pubkey }: ScriptedBunker, text: string): Promise<NostrEvent> {
  const locked = await token(wallets.of({ kind: 'node', pubkey }).lockPubkey)
  const tags = [
    ['p', pubkey],
    ['i', text, 'text'],
    ['cashu', locked],
  ]
  return me().sign({ kind: KIND, created_at: nowS(), tags, content: '' })
}

async function privateOrder({ pubkey }: ScriptedBunker, text: string): Promise<NostrEvent> {
  const inner = JSON.stringify([
    ['i', text, 'text'],
    ['cashu', await token()],
  ])
  return me().sign({ kind: KIND, created_at: nowS(), tags: [['p', pubkey], ['encrypted']], content: me().nip44Encrypt(pubkey, inner) })
}

async function say(event: NostrEvent): Promise<void> {
  const socket = new WebSocket(sandbox.relayUrl)
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  const heard = new Promise<string>((resolve) =>
    socket.addEventListener('message', ({ data }) => (String(data).startsWith('["OK"') ? resolve(String(data)) : undefined)),
  )
  socket.send(JSON.stringify(['EVENT', event]))
  expect((JSON.parse(await heard) as unknown[]).slice(0, 3)).toEqual(['OK', event.id, true])
  socket.close()
}

async function answers(kind: number, jobId: string): Promise<NostrEvent[]> {
  const socket = new WebSocket(sandbox.relayUrl)
  const found: NostrEvent[] = []
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  const ended = new Promise<void>((resolve) =>
    socket.addEventListener('message', ({ data }) => {
      const [type, , event] = JSON.parse(String(data)) as [string, string, NostrEvent]
      if (type === 'EVENT') found.push(event)
      if (type === 'EOSE') resolve()
    }),
  )
  socket.send(JSON.stringify(['REQ', 'x', { kinds: [kind], '#e': [jobId] }]))
  await ended
  socket.close()
  return found
}

const statusOf = ({ store }: Seller, id: string) => getJob(store, id)?.status
const reached = (seller: Seller, id: string, status: string) => vi.waitFor(() => expect(statusOf(seller, id)).toBe(status), SOON)
const isAway = ({ remoteKeys }: Seller) =>
  vi.waitFor(() => expect(remoteKeys.troubled()).toMatchObject([{ health: { code: 'bunker_unreachable' } }]), SOON)
const countOf = (seller: Seller, id: string, to: string) => transitionsOf(seller.store, id).filter((step) => step.to === to).length

/** Every deposit went somewhere, and what was sold is income once. */
function isSound(seller: Seller, jobs: number): void {
  expect(auditLedger(seller.store).problems).toEqual([])
  expect([...balancesOf(seller.store, 'node', 'deposit')]).toEqual([])
  expect(accountBalance(seller.store, 'node/income/job')).toBe(BigInt(-5000 * jobs))
}

/** What came back, once, and is good. */
async function isRefundedOnce(seller: Seller, id: string): Promise<void> {
  let refund: string | undefined
  await vi.waitFor(async () => {
    const told = (await answers(7000, id)).map((event) => parseFeedback(event, me()))
    refund = told.find((feedback) => feedback.refundToken !== undefined)?.refundToken
    expect(refund).toBeDefined()
  }, SOON)
  const back = await buyer.customer.receiveToken({
    idempotencyKey: `refund ${id}`,
    cause: { type: 'purchase', id },
    token: refund ?? '',
    creditAccount: 'customer/expense/job',
  })
  expect(back.amountSats).toBeGreaterThanOrEqual(3n)
  await reached(seller, id, 'refunded')
  expect(countOf(seller, id, 'refunding')).toBe(1)
  expect(await answers(6003, id)).toEqual([])
}

it('is made once its owner has allowed it, comes back by its words, and leaves nothing where the bunker refuses', async () => {
  const bunker = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => bunker.stop())
  const home = homeAt(join(tempDir(), 'h'))
  bunker.misbehave = ({ id, method }) => (method === 'sign_event' ? [{ id, error: 'not that kind' }] : undefined)
  const urls: string[] = []
  const order = { text: bunker.url, onApproval: (url: string) => void urls.push(url) }
  const words = newWords()
  await expect(initHome(home, { words, force: false, bunker: order })).rejects.toMatchObject({ code: 'bunker_refused' })
  expect([home.identity, home.database].filter(existsSync)).toEqual([])
  await expect(initHome(home, { words, force: false, bunker: { ...order, text: 'bunker://x' } })).rejects.toMatchObject({
    code: 'bunker_invalid',
  })
  bunker.misbehave = (asked, right) => {
    if (asked.method !== 'sign_event' || urls.length > 0) return undefined
    setTimeout(() => bunker.allow(right), 500)
    return [{ id: asked.id, result: 'auth_url', error: 'https://bunker.example/allow' }]
  }
  // The same words bring the same connection, though its string is good once.
  const made = await initHome(home, { words, passphrase: 'open', force: false, bunker: order })
  expect(made).toMatchObject({ pubkey: bunker.pubkey, isRemote: true, words })
  expect(urls).toEqual(['https://bunker.example/allow'])
  const asked = bunker.asked.length
  await expect(initHome(home, { force: false, bunker: order })).rejects.toMatchObject({ code: 'identity_exists' })
  expect(bunker.asked.length).toBe(asked)
  const restore = { words, force: false, relays: [sandbox.relayUrl], mints: [], onProgress: () => undefined }
  expect(await restoreFromWords(home, 'sandbox', restore)).toMatchObject({ pubkey: bunker.pubkey, isProtected: true })
  const anew = homeAt(join(tempDir(), 'h'))
  expect(await restoreFromWords(anew, 'sandbox', { ...restore, bunker: order })).toMatchObject({ pubkey: bunker.pubkey })
}, 120_000)

it('announces and sells, for all to see and in private, with a key that is not here', async () => {
  const { bunker, start } = await world()
  const seller = await start()
  const { events } = await vi.waitFor(async () => {
    const found = await seller.nostr.query([{ kinds: [31_990, 0, 10_002, 10_050], authors: [bunker.pubkey] }])
    expect(new Set(found.events.map(({ kind }) => kind))).toEqual(new Set([31_990, 0, 10_002, 10_050]))
    return found
  }, SOON)
  expect(events.every(({ pubkey }) => pubkey === bunker.pubkey)).toBe(true)
  const open = await openOrder(seller, bunker, 'aloud')
  const inside = await privateOrder(bunker, 'in private')
  for (const order of [open, inside]) await say(order)
  for (const order of [open, inside]) await reached(seller, order.id, 'settled')
  const [result] = await answers(6003, inside.id)
  expect(me().nip44Decrypt(bunker.pubkey, result?.content ?? '')).toBe('IN PRIVATE')
  expect((await answers(6003, open.id)).map(({ content }) => content)).toEqual(['ALOUD'])
  isSound(seller, 2)
}, 120_000)

it('the bunker is away when the results are there, through a restart: each is delivered once and earned once', async () => {
  const { bunker, start } = await world()
  let seller = await start()
  onResult = () => {
    bunker.isAway = true
  }
  const open = await openOrder(seller, bunker, 'aloud')
  await say(open)
  await reached(seller, open.id, 'ready')
  bunker.isAway = false
  await reached(seller, open.id, 'settled')
  const inside = await privateOrder(bunker, 'in private')
  await say(inside)
  await vi.waitFor(() => expect(getJob(seller.store, inside.id)).toMatchObject({ status: 'running', result: 'IN PRIVATE' }), SOON)
  // What comes meanwhile is kept by its relay.
  const late = await privateOrder(bunker, 'are you there')
  await say(late)
  await seller.stop()
  seller = await start()
  await isAway(seller)
  expect(statusOf(seller, inside.id)).toBe('running')
  expect(statusOf(seller, late.id)).toBeUndefined()
  onResult = () => {}
  bunker.isAway = false
  for (const order of [inside, late]) await reached(seller, order.id, 'settled')
  for (const [order, words] of [
    [inside, 'IN PRIVATE'],
    [late, 'ARE YOU THERE'],
  ] as const)
    expect((await answers(6003, order.id)).map(({ content }) => me().nip44Decrypt(bunker.pubkey, content))).toEqual([words])
  expect(await answers(6003, open.id)).toHaveLength(1)
  // What was done was not done again.
  expect(runs).toBe(3)
  isSound(seller, 3)
}, 180_000)

it('the node ends while it asks a bunker that has gone: what was done and paid is not done or paid again', async () => {
  const { bunker, start } = await world()
  let seller = await start(60_000)
  onResult = () => {
    bunker.isAway = true
  }
  const inside = await privateOrder(bunker, 'in private')
  await say(inside)
  // Nobody has heard yet that the bunker is away.
  await vi.waitFor(() => expect(getJob(seller.store, inside.id)).toMatchObject({ status: 'running', result: 'IN PRIVATE' }), SOON)
  expect(seller.remoteKeys.troubled()).toEqual([])
  await seller.stop()
  bunker.isAway = false
  seller = await start()
  await reached(seller, inside.id, 'settled')
  expect(runs).toBe(1)
  // It opens a request, and is gone before its payment is taken: that is no refusal.
  const asked = bunker.count('nip44_decrypt')
  onResult = () => {}
  bunker.misbehave = ({ method }) => {
    if (method === 'nip44_decrypt') bunker.isAway = true
    return undefined
  }
  const order = await privateOrder(bunker, 'paid in silence')
  await say(order)
  await isAway(seller)
  expect(bunker.count('nip44_decrypt')).toBe(asked + 1)
  expect(statusOf(seller, order.id)).toBe('received')
  expect([...balancesOf(seller.store, 'node', 'deposit')]).toHaveLength(1)
  bunker.misbehave = () => undefined
  bunker.isAway = false
  await reached(seller, order.id, 'settled')
  isSound(seller, 2)
}, 180_000)

it('a price that cannot be told yet is told when the bunker is back, and nothing is refused meanwhile', async () => {
  const { bunker, start } = await world()
  const seller = await start()
  bunker.misbehave = ({ method }) => {
    if (method === 'nip44_decrypt') bunker.isAway = true
    return undefined
  }
  const content = me().nip44Encrypt(bunker.pubkey, JSON.stringify([['i', 'what is it', 'text']]))
  const order = me().sign({ kind: KIND, created_at: nowS(), tags: [['p', bunker.pubkey], ['encrypted']], content })
  await say(order)
  await isAway(seller)
  expect(statusOf(seller, order.id)).toBe('received')
  bunker.misbehave = () => undefined
  bunker.isAway = false
  await reached(seller, order.id, 'quoted')
  await vi.waitFor(async () => {
    const told = (await answers(7000, order.id)).map((event) => parseFeedback(event, me()))
    expect(told).toMatchObject([{ status: 'payment-required', amountMsats: 5000n }])
  }, SOON)
  expect(transitionsOf(seller.store, order.id).map((step) => step.to)).toEqual(['received', 'quoted'])
}, 120_000)

it('the bunker is away past the deadlines of relays: both go back, once', async () => {
  const { bunker, start } = await world()
  let seller = await start()
  onResult = () => {
    bunker.isAway = true
  }
  const inside = await privateOrder(bunker, 'in private')
  await say(inside)
  await vi.waitFor(() => expect(getJob(seller.store, inside.id)?.result).toBe('IN PRIVATE'), SOON)
  bunker.isAway = false
  await reached(seller, inside.id, 'settled')
  const orders = [await privateOrder(bunker, 'too late'), await openOrder(seller, bunker, 'too late too')] as const
  for (const order of orders) {
    bunker.isAway = false
    await vi.waitFor(() => expect(seller.remoteKeys.troubled()).toEqual([]), SOON)
    await say(order)
    await vi.waitFor(() => expect(getJob(seller.store, order.id)?.result).toBeTruthy(), SOON)
  }
  await seller.stop()
  const store = openStore(join(seller.dir, 'pylon.db'))
  for (const sql of [
    `UPDATE jobs SET updated_at = updated_at - ${4 * DAYS_MS} WHERE status IN ('running', 'ready')`,
    `UPDATE outbox_messages SET not_after = not_after - ${4 * DAYS_MS} WHERE key LIKE 'job-result:%'`,
  ])
    store.sql(sql).run()
  store.close()
  seller = await start()
  await isAway(seller)
  for (const order of orders) expect(statusOf(seller, order.id)).not.toBe('refunded')
  onResult = () => {}
  bunker.isAway = false
  for (const order of orders) await isRefundedOnce(seller, order.id)
  isSound(seller, 1)
}, 240_000)

it('a bunker that answers wrongly, or will not, fails the job in words, and what was paid goes back', async () => {
  const { bunker, start } = await world()
  const seller = await start()
  const cases = [
    ['bunker_answer_invalid', (id: string) => ({ id, result: JSON.stringify({ kind: 1 }) })],
    ['bunker_refused', (id: string) => ({ id, error: 'not for you' })],
  ] as const
  for (const [code, said] of cases) {
    bunker.misbehave = ({ id, method, params }) => (method === 'sign_event' && params[0]?.includes('"kind":6003') ? [said(id)] : undefined)
    const order = await openOrder(seller, bunker, 'aloud')
    await say(order)
    await isRefundedOnce(seller, order.id)
    expect(getJob(seller.store, order.id)).toMatchObject({ error: expect.stringContaining(code) })
  }
  bunker.misbehave = ({ id, method }) => (method === 'nip44_encrypt' && runs > 2 ? [{ id, error: 'not that' }] : undefined)
  const order = await privateOrder(bunker, 'in private')
  await say(order)
  await vi.waitFor(() => expect(getJob(seller.store, order.id)).toMatchObject({ status: 'refunding', errorCode: 'bunker_refused' }), SOON)
  bunker.misbehave = () => undefined
  expect(await answers(6003, order.id)).toEqual([])
}, 180_000)
