/**
 * Wallets that other programs put on relays (NIP-60), read back: the events here are built with nostr-tools, their coins with cashu-ts,
 * after the document alone.
 */
import { type Proof, Wallet as StrangersWallet } from '@cashu/cashu-ts'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { encrypt, getConversationKey } from 'nostr-tools/nip44'
import { type EventTemplate, finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import WebSocket from 'ws'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import { WalletBackups } from '../../../src/wallet/nutzaps/backups.ts'
import { type RelayWalletFound, takeBack } from '../../../src/wallet/nutzaps/taking-back.ts'
import { Death } from '../../support/death.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { expectSound, fund } from '../wallet/home.ts'
import { HomeOnDisk, type NutzapHome } from './home.ts'

let sandbox: TestSandbox
let outside: TestNostr

beforeAll(async () => {
  sandbox = await startSandbox()
  outside = startNostr({ relays: [sandbox.relayUrl] })
})
afterAll(async () => {
  await outside.stop()
  await sandbox.stop()
})

async function openHome(disk = new HomeOnDisk(), options: Parameters<HomeOnDisk['open']>[1] = {}): Promise<NutzapHome> {
  const home = await disk.open(sandbox, options)
  onTestFinished(() => home.close().catch(() => {}))
  return home
}

/** Another program with a wallet of its own. */
class Stranger {
  readonly secret = generateSecretKey()
  readonly pubkey = getPublicKey(this.secret)
  readonly signer = createSigner(new Uint8Array(this.secret))
  /** Of its wallet, no Nostr key. */
  readonly lockSecret = Buffer.from(secp256k1.utils.randomSecretKey())
  readonly lockPubkey = Buffer.from(secp256k1.getPublicKey(this.lockSecret, true)).toString('hex')
  #at = Math.floor(Date.now() / 1000) - 1000

  seal(value: unknown): string {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    return encrypt(text, getConversationKey(this.secret, this.pubkey))
  }

  async publish(template: Partial<EventTemplate> & { kind: number }, secret = this.secret): Promise<string> {
    const event = finalizeEvent({ created_at: this.#at++, tags: [], content: '', ...template }, secret)
    const socket = new WebSocket(sandbox.relayUrl)
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    const said = new Promise<unknown[]>((resolve) => socket.on('message', (data) => resolve(JSON.parse(String(data)))))
    socket.send(JSON.stringify(['EVENT', event]))
    expect(await said).toEqual(['OK', event.id, true, expect.anything()])
    socket.close()
    return event.id
  }

  wallet = () =>
    this.publish({
      kind: 17_375,
      content: this.seal([
        ['privkey', this.lockSecret.toString('hex')],
        ['mint', sandbox.mintUrl],
      ]),
    })

  token = (proofs: unknown, more: Record<string, unknown> = {}) =>
    this.publish({ kind: 7375, content: this.seal({ mint: sandbox.mintUrl, unit: 'sat', proofs, ...more }) })

  delete = (ids: readonly string[], tags: string[][] = [['k', '7375']]) =>
    this.publish({ kind: 5, tags: [...ids.map((id) => ['e', id]), ...tags] })
}

async function strangersWallet(): Promise<StrangersWallet> {
  const wallet = new StrangersWallet(sandbox.mintUrl, { unit: 'sat' })
  await wallet.loadMint()
  return wallet
}

async function minted(amount: number): Promise<Proof[]> {
  const wallet = await strangersWallet()
  const quote = await wallet.createMintQuoteBolt11(amount)
  await fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: quote.request }) })
  return await wallet.mintProofsBolt11(amount, quote)
}

const wire = (proofs: readonly Proof[]) => proofs.map(({ id, amount, secret, C }) => ({ id, amount: amount.toNumber(), secret, C }))
const worth = (proofs: readonly Proof[]) => proofs.reduce((sum, { amount }) => sum + amount.toBigInt(), 0n)

async function lockedTo(pubkey: string, amount: number): Promise<Proof[]> {
  const wallet = await strangersWallet()
  return (
    await wallet.ops
      .send(amount, await minted(amount + 20))
      .asP2PK({ pubkey })
      .run()
  ).send
}

async function spend(proofs: readonly Proof[]): Promise<void> {
  const wallet = await strangersWallet()
  await wallet.ops.receive({ mint: sandbox.mintUrl, proofs: [...proofs], unit: 'sat' } as never).run()
}

const back = (
  home: NutzapHome,
  signer = home.keyring.localSigner(home.node.owner.pubkey),
  more: Partial<Parameters<typeof takeBack>[1]> = {},
): Promise<RelayWalletFound> => {
  const { store, keyring, nostr, wallets } = home
  return takeBack(
    { store, keyring, nostr, wallets, clock: testScope().clock },
    { signer, into: home.node.owner, relays: [], move: false, dryRun: false, ...more },
  )
}

/** Sats by what became of them. */
function fates({ mints }: RelayWalletFound): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const { coins, fates } of mints)
    for (const { secret, amount } of coins) sums[fates.get(secret) ?? ''] = (sums[fates.get(secret) ?? ''] ?? 0) + amount
  return sums
}
const received = ({ mints }: RelayWalletFound) => mints.reduce((sum, { receivedSats }) => sum + receivedSats, 0n)
const fee = ({ mints }: RelayWalletFound) => mints.reduce((sum, { feeSats }) => sum + feeSats, 0n)

const deletedBy = async (pubkey: string) =>
  (await outside.nostr.query([{ kinds: [5], authors: [pubkey] }])).events
    .flatMap(({ tags }) => tags)
    .flatMap(([name, id]) => (name === 'e' ? [id] : []))

describe('a wallet of another program', () => {
  it('is told with what taking it costs, and taken once: unlocked coins and those locked to its key', async () => {
    const home = await openHome()
    const stranger = new Stranger()
    await stranger.wallet()
    const [plain, locked, toItsNostrKey, gone] = [
      await minted(100),
      await lockedTo(stranger.lockPubkey, 40),
      await lockedTo(`02${stranger.pubkey}`, 16),
      await minted(8),
    ]
    await spend(gone)
    const ids = [
      await stranger.token(wire(plain)),
      await stranger.token(wire([...locked, ...gone])),
      await stranger.token(wire(toItsNostrKey)),
    ]

    const told = await back(home, stranger.signer, { dryRun: true })
    const face = worth(plain) + worth(locked) + worth(toItsNostrKey)
    expect(fates(told)).toEqual({ free: Number(face), spent: 8 })
    expect(home.node.balance().balanceSats).toBe(0n)
    expect(home.store.sql('SELECT 1 FROM operations').get()).toBeUndefined()

    const taken = await back(home, stranger.signer)
    expect(fates(taken)).toEqual({ taken: Number(face), spent: 8 })
    expect(fee(taken)).toBe(fee(told))
    expect(received(taken)).toBe(face - fee(told))
    expect(home.node.balance().balanceSats).toBe(received(taken))
    await vi.waitFor(async () => expect(await deletedBy(stranger.pubkey)).toEqual(expect.arrayContaining(ids)), 10_000)

    const again = await back(home, stranger.signer)
    expect(received(again)).toBe(0n)
    expect(home.node.balance().balanceSats).toBe(received(taken))
    await expectSound(home, sandbox.mintUrl)
    // Its key was used, and is nowhere.
    const kept = home.store.sql('SELECT plan_json FROM operations').all()
    expect(JSON.stringify(kept)).not.toContain(stranger.lockSecret.toString('hex'))
    expect(home.keyring.owns(stranger.pubkey)).toBe(false)
  })

  it('costs no more than is allowed, or nothing is taken', async () => {
    const home = await openHome()
    const stranger = new Stranger()
    await stranger.token(wire(await minted(63)))
    const told = await back(home, stranger.signer, { dryRun: true })
    expect(fee(told)).toBeGreaterThan(0n)
    await expect(back(home, stranger.signer, { maxFeeSats: fee(told) - 1n })).rejects.toMatchObject({ code: 'price_too_high' })
    expect(home.node.balance().balanceSats).toBe(0n)
    expect(received(await back(home, stranger.signer, { maxFeeSats: fee(told) }))).toBe(63n - fee(told))
  })

  it('brings what stands and nothing of what its events deleted, sent away, made up, or wrote wrongly', async () => {
    const home = await openHome()
    const stranger = new Stranger()
    const other = new Stranger()
    await stranger.wallet()
    const good = await minted(50)
    const [sent, rolled, foreign, someoneElses] = [await minted(7), await minted(9), await minted(11), await lockedTo(other.lockPubkey, 5)]
    // Ten events have the same coins, one of them twice.
    for (let i = 0; i < 9; i++) await stranger.token(wire(good))
    await stranger.token([...wire(good), ...wire(good)])
    // Handed to somebody who has not redeemed it: unspent, and not its own any more.
    await stranger.delete([await stranger.token(wire(sent))])
    await stranger.delete([await stranger.token(wire(sent))], [])
    const old = await stranger.token(wire(rolled))
    await stranger.token([], { del: [old, 'no id', 7] })
    await stranger.publish({ kind: 7375, content: other.seal({ mint: sandbox.mintUrl, proofs: wire(foreign) }) }, other.secret)
    await stranger.token(wire(someoneElses))
    for (const content of [
      'garbage',
      stranger.seal('no json'),
      stranger.seal([]),
      stranger.seal({ mint: 5, proofs: [] }),
      stranger.seal({ mint: 'ftp://x', proofs: [] }),
    ])
      await stranger.publish({ kind: 7375, content })
    await stranger.token([
      null,
      5,
      {},
      { ...wire(good)[0], C: '02' },
      { ...wire(good)[0], amount: -1 },
      { ...wire(good)[0], secret: 'x'.repeat(5000) },
    ])
    await stranger.token(wire(await minted(3)), { unit: 'usd' })
    // A coin that its mint never signed, beside good ones; a mint that is down, and one that is none.
    const beside = await minted(21)
    const forged = { ...wire(good)[0], secret: 'ab'.repeat(32) }
    await stranger.token([...wire(beside), forged])
    await stranger.token(wire(good), { mint: 'https://127.0.0.1:9' })

    const taken = await back(home, stranger.signer)
    const at = taken.mints.find(({ mintUrl }) => mintUrl === sandbox.mintUrl)
    expect(received({ ...taken, mints: at === undefined ? [] : [at] })).toBe(71n - (at?.feeSats ?? 0n))
    expect(fates({ ...taken, mints: at === undefined ? [] : [at] })).toEqual({ taken: 71, locked: 5, left: forged.amount })
    expect(taken.wallet.deleted).toBe(1)
    expect(taken.wallet.problems).toEqual(
      expect.arrayContaining(["5 events can't be read.", '6 coins are malformed.', expect.stringContaining('"usd": only sat is taken')]),
    )
    const down = taken.mints.find(({ mintUrl }) => mintUrl === 'https://127.0.0.1:9')
    expect(fates({ ...taken, mints: down === undefined ? [] : [down] })).toEqual({ unknown: 50 })
    expect(down?.reasons).toHaveLength(1)
    // What was sent away is still there for whom it was sent to.
    await spend(sent)
    await expectSound(home, sandbox.mintUrl)
  })

  it('is taken once whatever the process dies at', { timeout: 120_000 }, async () => {
    for (const [label, before] of [
      ['insert_operation', true],
      ['insert_operation', false],
      ['move_operation:submitted', false],
      ['move_operation:completed', true],
      ['move_operation:completed', false],
    ] as const) {
      const stranger = new Stranger()
      await stranger.wallet()
      await stranger.token(wire(await minted(64)))
      await stranger.token(wire(await lockedTo(stranger.lockPubkey, 32)))
      const disk = new HomeOnDisk()
      const death = new Death((name) => name.startsWith(label), { before })
      const dying = await disk.open(sandbox, death)
      await back(dying, stranger.signer).catch(() => {})
      expect(death.isDead, label).toBe(true)
      await dying.close().catch(() => {})
      const home = await openHome(disk)
      await back(home, stranger.signer)
      await vi.waitFor(async () => {
        const { mints } = await back(home, stranger.signer, { dryRun: true })
        expect(Object.keys(fates({ mints } as never))).not.toContain('moving')
        expect(home.node.balance().balanceSats).toBeGreaterThan(90n)
      }, 20_000)
      expect(home.node.balance().balanceSats).toBeLessThanOrEqual(96n)
      expect(auditLedger(home.store).problems).toEqual([])
      await expectSound(home, sandbox.mintUrl)
    }
  })
})

describe('a wallet of this home', () => {
  const publish = async (home: NutzapHome) => {
    const { store, keyring, nostr, wallets } = home
    const scope = testScope()
    const config = { ...DEFAULT_CONFIG, wallet: { ...DEFAULT_CONFIG.wallet, nip60: true } }
    await new WalletBackups({ scope, store, keyring, nostr, wallets, clock: scope.clock, config: () => config }).publish()
  }

  it('is held while the books have it, and comes back from relays when they are lost, once', async () => {
    const disk = new HomeOnDisk()
    const home = await disk.open(sandbox)
    await fund(home, home.node, sandbox.mintUrl, 200)
    await publish(home)
    await vi.waitFor(async () => expect(fates(await back(home))).toEqual({ held: 200 }), 10_000)
    expect(home.node.balance().balanceSats).toBe(200n)
    await home.close()

    const lost = new HomeOnDisk()
    Object.assign(lost, { words: disk.words })
    const fresh = await openHome(lost)
    const taken = await back(fresh)
    expect(received(taken)).toBe(200n - fee(taken))
    // The seed finds nothing more.
    await fresh.wallets.restore(fresh.node.owner)
    expect(fresh.node.balance().balanceSats).toBe(received(taken))
    await expectSound(fresh, sandbox.mintUrl)
  })
})
