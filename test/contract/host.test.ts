/** Agents over real sockets: the sandbox's relay, mint and LNURL server, real wallets, real time. */
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { sats } from '../../src/base/amounts.ts'
import { systemClock } from '../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../src/base/config.ts'
import { createDialer } from '../../src/base/dialer.ts'
import { silentLogger } from '../../src/base/logger.ts'
import { Host } from '../../src/host/host.ts'
import { HomeKeyring } from '../../src/nostr/keys/keyring.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { buildDm04 } from '../../src/nostr/nips/nip04.ts'
import { createNostr } from '../../src/nostr/nostr.ts'
import type { Filter, Nostr, NostrEvent } from '../../src/nostr/types.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { enqueueEvent } from '../../src/store/nostr/outbox.ts'
import type { Store } from '../../src/store/store.ts'
import { createWallets, type OwnWallets, WALLET_DRAIN_MS } from '../../src/wallet/wallets.ts'
import { ZapAddresses } from '../../src/wallet/zaps/zap-addresses.ts'
import { createZapSender } from '../../src/wallet/zaps/zaps.ts'
import { TEST_PUBKEY, TEST_WORDS } from '../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { testScope } from '../support/scope.ts'
import { openStore } from '../support/store.ts'
import { tempDir } from '../support/temp.ts'

const SOON = { timeout: 20_000, interval: 50 }
const bob = createSigner(new Uint8Array(32).fill(0x0b))

interface Home {
  readonly store: Store
  readonly keyring: HomeKeyring
  readonly nostr: Nostr
  readonly wallets: OwnWallets
  readonly host: Host
  stop(): Promise<void>
}

async function startHome(sandbox: TestSandbox, dir: string): Promise<Home> {
  const config: Config = { ...DEFAULT_CONFIG, host: { ...DEFAULT_CONFIG.host, debounce_s: 0, heartbeat_s: 3600 } }
  const common = { store: openStore(join(dir, 'pylon.db')), clock: systemClock, logger: silentLogger, config: () => config }
  const keyring = new HomeKeyring({ ...common, nodePubkey: TEST_PUBKEY })
  keyring.unlock(TEST_WORDS)
  const dialer = createDialer({ allowedOrigins: [sandbox.mintUrl] })
  for (const origin of [sandbox.relayUrl, sandbox.lnurlBaseUrl]) dialer.allow(origin, true)
  const relays = testScope()
  const nostr = createNostr({ ...common, scope: relays, dialer, keyring, relays: [sandbox.relayUrl] })
  const walletScope = testScope()
  const wallets = createWallets({ ...common, scope: walletScope, dialer, nostr, invoiceNetwork: 'bcrt' })
  const scope = testScope()
  const zapAddresses = new ZapAddresses({
    ...common,
    scope,
    dialer,
    nostr,
    wallets,
    baseUrl: sandbox.lnurlBaseUrl,
    mintUrl: sandbox.mintUrl,
  })
  const sendZap = createZapSender({ ...common, dialer, nostr, wallets })
  const host = new Host({ ...common, scope: scope.child('host'), dialer, nostr, keyring, wallets, sendZap, zapAddresses })
  nostr.start()
  await wallets.start()
  await wallets.addMint(sandbox.mintUrl)
  zapAddresses.start()
  await host.start()
  return {
    store: common.store,
    keyring,
    nostr,
    wallets,
    host,
    async stop() {
      await host.close(5000)
      await scope.close()
      await walletScope.close(WALLET_DRAIN_MS)
      await relays.close(2000)
      common.store.close()
      await dialer.close()
    },
  }
}

async function fund(home: Home, sandbox: TestSandbox, pubkey: string, amount: number): Promise<void> {
  const wallet = home.wallets.of({ kind: 'agent', pubkey })
  const invoice = await wallet.createInvoice({
    idempotencyKey: `fund:${pubkey}:${amount}`,
    cause: { type: 'owner', id: 'test' },
    amountSats: sats(amount),
    creditAccount: `agent:${pubkey}/equity/funding`,
  })
  const paid = await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: invoice.request }) })
  expect(paid.ok).toBe(true)
  await vi.waitFor(() => expect(wallet.balance().balanceSats).toBe(BigInt(amount)), SOON)
}

/** As another client would: an event that the home's own outbox only carries. */
async function say(home: Home, event: NostrEvent): Promise<void> {
  const at = Date.now()
  await home.store.write(enqueueEvent({ key: `test:${event.id}`, event, relays: home.nostr.relays, notAfter: at + 60_000, at }))
  home.nostr.nudgeOutbox()
}

const nowS = () => Math.floor(Date.now() / 1000)

async function findOne(home: Home, filter: Filter, matches: (event: NostrEvent) => boolean = () => true): Promise<NostrEvent> {
  let found: NostrEvent | undefined
  await vi.waitFor(async () => {
    found = (await home.nostr.query([filter])).events.find(matches)
    expect(found, JSON.stringify(filter)).toBeDefined()
  }, SOON)
  if (found === undefined) throw new Error('not found')
  return found
}

describe('agents on a network', () => {
  it('introduce themselves, answer, zap each other and thank, and the books are right, also after a restart', async () => {
    const sandbox = await startSandbox()
    onTestFinished(() => sandbox.stop())
    const dir = tempDir()
    let home = await startHome(sandbox, dir)
    onTestFinished(() => home.stop())

    const ada = await home.host.spawn({ name: 'ada', about: 'Counts.' })
    const bea = await home.host.spawn({ name: 'bea', brain: { type: 'script', zap_sats: 21 }, tick_fee_sats: 0 })
    expect(ada).toMatchObject({ state: 'active', balance_sats: 0n, lud06: expect.stringMatching(/^lnurl1/), relays: [sandbox.relayUrl] })
    const profile = await findOne(home, { kinds: [0], authors: [ada.pubkey] })
    expect(JSON.parse(profile.content)).toEqual({ name: 'ada', about: 'Counts.', bot: true, lud06: ada.lud06 })
    for (const kind of [10002, 10050]) await findOne(home, { kinds: [kind], authors: [ada.pubkey] })
    await findOne(home, { kinds: [1], authors: [ada.pubkey] }, (event) => event.content.startsWith('Hello, I am ada'))

    // A stranger's client: a mention and an old-style message.
    const mention = bob.sign({ kind: 1, created_at: nowS(), tags: [['p', ada.pubkey]], content: 'hi ada' })
    await say(home, mention)
    const reply = await findOne(home, { kinds: [1], authors: [ada.pubkey], '#e': [mention.id] })
    expect(reply.tags).toContainEqual(['p', bob.pubkey])
    await say(home, bob.sign(await buildDm04(bob, ada.pubkey, 'psst', nowS())))
    const answer = await findOne(home, { kinds: [4], authors: [ada.pubkey] })
    expect(bob.nip04Decrypt(ada.pubkey, answer.content)).toContain('ada here')

    // Ada mentions bea, who zaps the note; ada is paid, hears of it and thanks.
    await fund(home, sandbox, bea.pubkey, 200)
    const post = home.keyring
      .localSigner(ada.pubkey)
      .sign({ kind: 1, created_at: nowS(), tags: [['p', bea.pubkey]], content: 'what does bea think?' })
    await say(home, post)
    const receipt = await findOne(home, { kinds: [9735], '#p': [ada.pubkey] })
    expect(receipt.tags).toContainEqual(['e', post.id])
    await vi.waitFor(() => expect(home.host.get('ada').balance_sats).toBe(21n), SOON)
    const thanks = await findOne(home, { kinds: [1], authors: [ada.pubkey], '#e': [post.id] }, (event) =>
      event.content.startsWith('Thank you for 21 sats'),
    )
    expect(thanks.tags).toContainEqual(['p', bea.pubkey])
    const zapped = home.host.log('bea').flatMap((tick) => tick.actions.filter((action) => action.type === 'zap'))
    expect(zapped).toMatchObject([{ state: 'done' }])
    expect(zapped[0]?.cost_msats).toBeGreaterThanOrEqual(21_000n)
    await vi.waitFor(() => expect(home.host.log('ada').some((tick) => tick.trigger === 'zap')).toBe(true), SOON)

    // A fee moves rent to the node.
    await home.host.set('bea', { tick_fee_sats: 5, heartbeat_s: 86_400 })
    const before = home.host.get('bea').balance_sats
    expect(await home.host.tick('bea')).toMatchObject({ state: 'done', cost_msats: expect.toSatisfy((cost: bigint) => cost >= 5000n) })
    expect(home.wallets.of({ kind: 'node', pubkey: TEST_PUBKEY }).balance().balanceSats).toBe(5n)
    expect(home.host.get('bea').balance_sats).toBeLessThanOrEqual(before - 5n)
    // The log accounts for every sat that left its wallet, fees and all.
    const costs = home.host.log('bea', { limit: 1000 }).reduce((sum, tick) => sum + tick.cost_msats, 0n)
    expect(costs).toBe(1000n * (200n - home.host.get('bea').balance_sats))
    expect(auditLedger(home.store)).toEqual({ ok: true, problems: [] })
    const view = home.store.sql('SELECT * FROM agent_state WHERE agent_npub = ?').get(bea.npub)
    expect(view).toMatchObject({ lifecycle_state: home.host.get('bea').state, balance_sats: home.host.get('bea').balance_sats })

    // Nothing is said twice after a restart, though the relay tells it all again.
    const said = (await home.nostr.query([{ kinds: [1, 4, 1059, 7], authors: [ada.pubkey, bea.pubkey] }])).events.length
    const ticks = home.host.get('ada').tick_count
    await home.stop()
    home = await startHome(sandbox, dir)
    await say(home, mention)
    await vi.waitFor(() => expect(home.nostr.health()[0]?.state).toBe('connected'), SOON)
    const probe = bob.sign({ kind: 1, created_at: nowS(), tags: [['p', ada.pubkey]], content: 'still there?' })
    await say(home, probe)
    await findOne(home, { kinds: [1], authors: [ada.pubkey], '#e': [probe.id] })
    const after = (await home.nostr.query([{ kinds: [1], authors: [ada.pubkey], '#e': [mention.id] }])).events
    expect(after.filter((event) => event.tags.some((tag) => tag[1] === mention.id))).toHaveLength(1)
    expect(said).toBeGreaterThan(4)
    expect(home.host.get('ada').tick_count).toBe(ticks + 1)

    expect(await home.host.delete('bea', { moveFunds: true })).toMatchObject({ name: 'bea' })
    expect(home.wallets.of({ kind: 'agent', pubkey: bea.pubkey }).balance().balanceSats).toBeLessThanOrEqual(1n)
    expect(auditLedger(home.store)).toEqual({ ok: true, problems: [] })
  })
})
