/** An agent whose key is elsewhere, over real sockets: at a bunker made of nostr-tools alone, and at that of another Pylon. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest'
import { sats } from '../../src/base/amounts.ts'
import { systemClock } from '../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../src/base/config.ts'
import { createDialer } from '../../src/base/dialer.ts'
import { silentLogger } from '../../src/base/logger.ts'
import { Host } from '../../src/host/host.ts'
import { Bunker } from '../../src/nostr/bunker/bunker.ts'
import { RemoteKeys } from '../../src/nostr/bunker/remote-keys.ts'
import { HomeKeyring } from '../../src/nostr/keys/keyring.ts'
import { newWords, secretOfAccount, seedOfWords } from '../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { buildDm17, unwrap, WRAP_KIND } from '../../src/nostr/nips/nip59.ts'
import { createNostr } from '../../src/nostr/nostr.ts'
import { createVerifier } from '../../src/nostr/reading/verify.ts'
import type { Filter, NostrEvent } from '../../src/nostr/types.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { enqueueEvent } from '../../src/store/nostr/outbox.ts'
import { createWallets, WALLET_DRAIN_MS } from '../../src/wallet/wallets.ts'
import { ZapAddresses } from '../../src/wallet/zaps/zap-addresses.ts'
import { createZapSender } from '../../src/wallet/zaps/zaps.ts'
import { startNostr, TEST_PUBKEY, TEST_WORDS } from '../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { testScope } from '../support/scope.ts'
import { ScriptedBunker } from '../support/scripted-bunker.ts'
import { openStore } from '../support/store.ts'
import { tempDir } from '../support/temp.ts'

const SOON = { timeout: 40_000, interval: 100 }
const bob = createSigner(new Uint8Array(32).fill(0x0b))
/** Nothing of its own accord. */
const QUIET = { type: 'script', rules: JSON.stringify({ rules: [{ on: 'first', do: [{ type: 'nothing' }] }] }) } as const

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

async function startHome(dir: string, { words = TEST_WORDS, answerMs = 2000 }: { words?: string; answerMs?: number } = {}) {
  const config: Config = { ...DEFAULT_CONFIG, host: { ...DEFAULT_CONFIG.host, debounce_s: 0, heartbeat_s: 86_400 } }
  const common = { store: openStore(join(dir, 'pylon.db')), clock: systemClock, logger: silentLogger, config: () => config }
  const keyring = new HomeKeyring({ ...common, nodePubkey: createSigner(secretOfAccount(seedOfWords(words), 0)).pubkey })
  keyring.unlock(words)
  const dialer = createDialer({ allowedOrigins: [sandbox.mintUrl] })
  for (const origin of [sandbox.relayUrl, sandbox.lnurlBaseUrl]) dialer.allow(origin, true)
  const relays = testScope()
  const nostr = createNostr({ ...common, scope: relays, dialer, keyring, relays: [sandbox.relayUrl] })
  const remoteKeys = new RemoteKeys({ ...common, scope: relays.child('remote keys'), dialer, nostr, keyring, answerMs })
  const walletScope = testScope()
  const wallets = createWallets({ ...common, scope: walletScope, dialer, nostr, invoiceNetwork: 'bcrt' })
  const scope = testScope()
  const urls = { baseUrl: sandbox.lnurlBaseUrl, mintUrl: sandbox.mintUrl }
  const zapAddresses = new ZapAddresses({ ...common, scope, dialer, nostr, wallets, ...urls })
  const sendZap = createZapSender({ ...common, dialer, nostr, wallets })
  const host = new Host({ ...common, scope: scope.child('host'), dialer, nostr, keyring, wallets, sendZap, zapAddresses, remoteKeys })
  nostr.start()
  remoteKeys.start()
  await wallets.start()
  await wallets.addMint(sandbox.mintUrl)
  zapAddresses.start()
  await host.start()
  const stop = async () => {
    await host.close(5000)
    await scope.close()
    await walletScope.close(WALLET_DRAIN_MS)
    await relays.close(2000)
    common.store.close()
    await dialer.close()
  }
  return { store: common.store, keyring, nostr, wallets, host, remoteKeys, stop }
}
type Home = Awaited<ReturnType<typeof startHome>>

const nowS = () => Math.floor(Date.now() / 1000)

async function findOne(home: Home, filter: Filter, matches: (event: NostrEvent) => boolean = () => true): Promise<NostrEvent> {
  let found: NostrEvent | undefined
  await vi.waitFor(async () => {
    found = (await home.nostr.query([filter])).events.find(matches)
    expect(found, JSON.stringify(filter)).toBeDefined()
  }, SOON)
  return found as NostrEvent
}

async function say(home: Home, event: NostrEvent): Promise<void> {
  const at = Date.now()
  await home.store.write(enqueueEvent({ key: `test:${event.id}`, event, relays: home.nostr.relays, notAfter: at + 60_000, at }))
  home.nostr.nudgeOutbox()
}

async function fund(home: Home, pubkey: string, amount: number): Promise<void> {
  const wallet = home.wallets.of({ kind: 'agent', pubkey })
  const invoice = await wallet.createInvoice({
    idempotencyKey: `fund:${pubkey}`,
    cause: { type: 'owner', id: 'test' },
    amountSats: sats(amount),
    creditAccount: `agent:${pubkey}/equity/funding`,
  })
  await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: invoice.request }) })
  await vi.waitFor(() => expect(wallet.balance().balanceSats).toBe(BigInt(amount)), SOON)
}

/** What bob can read of what an agent wrote to him. */
async function lettersToBob(home: Home, from: string): Promise<string[]> {
  const { events } = await home.nostr.query([{ kinds: [WRAP_KIND], '#p': [bob.pubkey] }])
  const rumors = await Promise.all(events.map((event) => unwrap(bob, event, createVerifier())))
  return rumors.filter(({ pubkey }) => pubkey === from).map(({ content }) => content)
}

async function write(home: Home, to: string, text: string): Promise<void> {
  const { wraps } = await buildDm17(bob, [to], text, nowS())
  for (const { recipient, event } of wraps) if (recipient === to) await say(home, event)
}

/** What any agent does, with a key that is not here. */
async function lives(home: Home, name: string, pubkey: string): Promise<void> {
  expect(JSON.parse((await findOne(home, { kinds: [0], authors: [pubkey] })).content)).toMatchObject({ name })
  await home.host.act(name, 'POST: from afar', `post ${name}`)
  const post = await findOne(home, { kinds: [1], authors: [pubkey] }, ({ content }) => content === 'from afar')
  expect(createVerifier().verify(post)).toBe(true)
  await say(home, bob.sign({ kind: 10_050, created_at: nowS(), tags: [['relay', sandbox.relayUrl]], content: '' }))
  await findOne(home, { kinds: [10_050], authors: [bob.pubkey] })
  await write(home, pubkey, `hello ${name}`)
  await vi.waitFor(() => expect(home.host.messages(name)).toMatchObject([{ text: `hello ${name}` }]), SOON)
  await home.host.act(name, { type: 'dm', to: bob.pubkey, text: `hi, ${name} here` }, `dm ${name}`)
  await vi.waitFor(async () => expect(await lettersToBob(home, pubkey)).toEqual([`hi, ${name} here`]), SOON)
}

it('at a bunker that is not ours: it posts, writes, hears and zaps; while the bunker is away things wait, and come once', async () => {
  const bunker = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => bunker.stop())
  const dir = tempDir()
  let home = await startHome(dir, { answerMs: 60_000 })
  onTestFinished(() => home.stop())
  const ada = await home.host.spawn({ name: 'ada', bunker: bunker.url, brain: QUIET, autonomy: 'autonomous' })
  expect(ada.pubkey).toBe(bunker.pubkey)
  expect(() => home.host.export('ada')).toThrow(expect.objectContaining({ code: 'bunker_unable' }))
  await lives(home, 'ada', ada.pubkey)
  // A zap of its own, to an agent whose key is here.
  const bea = await home.host.spawn({ name: 'bea', brain: QUIET })
  await findOne(home, { kinds: [0], authors: [bea.pubkey] }, ({ content }) => content.includes('lud06'))
  await fund(home, ada.pubkey, 100)
  await home.host.act('ada', { type: 'zap', to: bea.pubkey, sats: 21 }, 'zap')
  const receipt = await findOne(home, { kinds: [9735], '#p': [bea.pubkey] })
  const request = JSON.parse(receipt.tags.find(([tag]) => tag === 'description')?.[1] ?? '') as NostrEvent
  expect(request).toMatchObject({ kind: 9734, pubkey: ada.pubkey })
  expect(createVerifier().verify(request)).toBe(true)
  await vi.waitFor(() => expect(home.host.get('bea').balance_sats).toBe(21n), SOON)
  // Away: a post is taken on, a letter waits on its relay, and the node ends meanwhile.
  bunker.isAway = true
  const posting = home.host.act('ada', 'POST: when it is back', 'late').catch(() => undefined)
  const writing = home.host.act('ada', { type: 'dm', to: bob.pubkey, text: 'a late letter' }, 'late letter').catch(() => undefined)
  await write(home, ada.pubkey, 'are you there?')
  // Both are being asked for when the node ends.
  await vi.waitFor(() => expect(bunker.ignored).toBeGreaterThan(1), SOON)
  await home.stop()
  await Promise.all([posting, writing])
  home = await startHome(dir)
  await vi.waitFor(() => expect(home.remoteKeys.troubled()).toMatchObject([{ health: { code: 'bunker_unreachable' } }]), SOON)
  await expect(home.host.act('ada', { type: 'zap', to: bea.pubkey, sats: 5 }, 'late zap')).rejects.toMatchObject({
    code: 'bunker_unreachable',
  })
  expect((await home.nostr.query([{ kinds: [1], authors: [ada.pubkey] }])).events).toHaveLength(1)
  bunker.isAway = false
  await findOne(home, { kinds: [1], authors: [ada.pubkey] }, ({ content }) => content === 'when it is back')
  await vi.waitFor(() => expect(home.host.messages('ada')).toMatchObject([{ text: 'are you there?' }, { text: 'hello ada' }]), SOON)
  await vi.waitFor(() => expect(home.host.get('bea').balance_sats).toBe(26n), SOON)
  await vi.waitFor(async () => expect((await lettersToBob(home, ada.pubkey)).sort()).toEqual(['a late letter', 'hi, ada here']), SOON)
  expect((await home.nostr.query([{ kinds: [1], authors: [ada.pubkey] }])).events).toHaveLength(2)
  expect(auditLedger(home.store)).toEqual({ ok: true, problems: [] })
}, 180_000)

it('at the bunker of another Pylon', async () => {
  const elsewhere = startNostr({ relays: [sandbox.relayUrl] })
  onTestFinished(() => elsewhere.stop())
  const bunker = new Bunker({ ...elsewhere, clock: systemClock, logger: silentLogger, scope: elsewhere.scope.child('bunker') })
  bunker.start()
  const { url } = await bunker.create({
    ...{ key: 'k', userPubkey: TEST_PUBKEY, name: 'ada', expiresAt: null },
    methods: ['sign_event', 'nip44_encrypt', 'nip44_decrypt'],
    kinds: [0, 1, 13, 9734, 10_002, 10_050, 22_242, 27_235, 30_443, 443, 10_051],
  })
  const home = await startHome(tempDir(), { words: newWords() })
  onTestFinished(() => home.stop())
  const cleo = await home.host.spawn({ name: 'cleo', bunker: url, brain: QUIET })
  expect(cleo.pubkey).toBe(TEST_PUBKEY)
  await lives(home, 'cleo', TEST_PUBKEY)
  // What was not granted is refused, and the action says so.
  expect(await home.host.act('cleo', { type: 'channel', channel: 'c'.repeat(64), text: 'hi' }, 'channel')).toMatchObject({
    state: 'failed',
    reason: expect.stringContaining('forbidden'),
  })
}, 180_000)
