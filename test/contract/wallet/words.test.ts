/** From the words alone: the list of mints on a relay (NUT-27), then what each mint signed for node, customer and agents. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { accountOf, accountOwner } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { homeAt } from '../../../src/base/paths.ts'
import { mintsToRestore } from '../../../src/daemon/home/purse-restore.ts'
import { type RestoredWords, restoreFromWords } from '../../../src/daemon/offline/restore-words.ts'
import { mintBackupSecret, seedOfWords } from '../../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { createNostr } from '../../../src/nostr/nostr.ts'
import { findAgent } from '../../../src/store/agents/agents.ts'
import { walletOwners } from '../../../src/store/money/held-value.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import { listWrappedKeys } from '../../../src/store/nostr/wrapped-keys.ts'
import { Store } from '../../../src/store/store.ts'
import { buildMintBackup, newestMintBackup } from '../../../src/wallet/mint-backup/event.ts'
import { MintBackup } from '../../../src/wallet/mint-backup/mint-backup.ts'
import type { Wallet } from '../../../src/wallet/types.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { fund, openHome, type TestHome, testWords } from './home.ts'

const words = testWords()
const signer = createSigner(mintBackupSecret(seedOfWords(words)))
const dirs: string[] = []
const folder = () => {
  const dir = mkdtempSync(join(tmpdir(), 'pylon-words-'))
  dirs.push(dir)
  return dir
}
let first: TestSandbox
let second: TestSandbox

beforeAll(async () => {
  ;[first, second] = await Promise.all([startSandbox(), startSandbox()])
  const home = await openHome({ dir: folder(), mintUrls: [first.mintUrl, second.mintUrl], words })
  await fund(home, home.node, first.mintUrl, 300)
  await fund(home, home.node, second.mintUrl, 200)
  await fund(home, home.customer, second.mintUrl, 50)
  // The agent of account 10 was deleted before, with nothing left; that of 11 has sats, at one mint only.
  await fund(home, home.agent, first.mintUrl, 16)
  const leave = { idempotencyKey: 'leave', cause: { type: 'owner' as const, id: 'leave' }, amountSats: home.agent.balance().balanceSats }
  await home.agent.sendToken({
    ...leave,
    lessFee: true,
    lockTo: home.node.lockPubkey,
    debitAccount: accountOf(accountOwner(home.agent.owner), 'equity', 'withdrawal'),
  })
  const agent = home.wallets.of({ kind: 'agent', pubkey: home.keyring.account(11).pubkey })
  await fund(home, agent, second.mintUrl, 70)
  // Some of it is spent: what is gone does not come back.
  const sent = { idempotencyKey: 'spent', cause: { type: 'owner' as const, id: 'spent' }, amountSats: sats(30) }
  await home.node.sendToken({
    ...sent,
    debitAccount: accountOf(accountOwner(home.node.owner), 'equity', 'withdrawal'),
    lockTo: agent.lockPubkey,
  })
  held = { node: balance(home.node), customer: balance(home.customer), agent: balance(agent) }
  await published(home, [first.mintUrl, second.mintUrl])
  await home.close()
})
afterAll(async () => {
  await Promise.all([first.stop(), second.stop()])
  for (const dir of dirs) rmSync(dir, { recursive: true, force: true })
})

let held: { node: number; customer: number; agent: number }
const balance = (wallet: Wallet) => Number(wallet.balance().balanceSats)
const total = () => BigInt(held.node + held.customer + held.agent)

/** What a home's backup leaves on the first relay. */
async function published(home: TestHome, wanted: readonly string[]): Promise<void> {
  const scope = testScope()
  const common = { store: home.store, logger: silentLogger, dialer: home.dialer, keyring: home.keyring }
  const nostr = createNostr({ ...common, scope: scope.child('nostr'), relays: [first.relayUrl] })
  nostr.start()
  const backup = new MintBackup({ ...common, scope, clock: scope.clock, nostr, config: () => DEFAULT_CONFIG })
  await backup.look()
  const listed = async () => {
    const { events } = await nostr.query([{ kinds: [30_078], authors: [signer.pubkey] }])
    return newestMintBackup(signer, events)?.mints
  }
  try {
    await vi.waitFor(async () => expect([...((await listed()) ?? [])].sort()).toEqual([...wanted].sort()), 10_000)
    // Nothing more is to be said.
    const before = home.store.sql('SELECT count(*) AS n FROM outbox_messages').get()
    await backup.look()
    expect(home.store.sql('SELECT count(*) AS n FROM outbox_messages').get()).toEqual(before)
  } finally {
    await scope.close(1000)
  }
}

const restore = (dir: string, relays: readonly string[] = [first.relayUrl], onProgress: (step: string) => void = () => {}) =>
  restoreFromWords(homeAt(dir), 'sandbox', { words, force: false, relays, mints: [], onProgress: ({ step }) => onProgress(step) })

const openStoreAt = (dir: string) => Store.open(homeAt(dir).database)

async function expectAll(dir: string, restored: Pick<RestoredWords, 'npub'>): Promise<void> {
  expect(restored.npub).toMatch(/^npub1/)
  const home = await openHome({ dir, mintUrls: [], words })
  const agent = findAgent(home.store, 'agent-11')
  expect({
    node: balance(home.node),
    customer: balance(home.customer),
    agent: balance(home.wallets.of({ kind: 'agent', pubkey: agent?.pubkey ?? '' })),
  }).toEqual(held)
  expect(agent).toMatchObject({ state: 'paused', accountIndex: 11 })
  expect(findAgent(home.store, 'agent-10')).toBeUndefined()
  // The next agent gets an account that was never one; accounts that were only asked about are forgotten.
  expect(home.keyring.nextAccount()).toBe(12)
  expect(walletOwners(home.store).length).toBe(4)
  expect(auditLedger(home.store).problems).toEqual([])
  // And it can be spent.
  const send = { idempotencyKey: 'after', cause: { type: 'owner' as const, id: 'after' }, amountSats: sats(10), mintUrl: second.mintUrl }
  await home.node.sendToken({ ...send, debitAccount: accountOf('node', 'equity', 'withdrawal'), lockTo: home.customer.lockPubkey })
  await home.close()
}

describe('the list of mints', () => {
  it('is found by any wallet of these words: NUT-27, with its test vector', () => {
    const known = seedOfWords('half depart obvious quality work element tank gorilla view sugar picture humble')
    expect(Buffer.from(mintBackupSecret(known)).toString('hex')).toBe('e7ca79469a270b36617e4227ff2f068d3bcbb6b072c8584190b0203597c53c0d')
    expect(createSigner(mintBackupSecret(known)).pubkey).toBe('0767277aaed200af7a8843491745272fc1ad2c7bfe340225e6f34f3a9a273aed')
  })

  it('is read item by item, and only from its own key', () => {
    const mixed = signer.nip44Encrypt(signer.pubkey, JSON.stringify({ mints: ['https://a.example/', 7, 'ftp://b', 'https://a.example'] }))
    const event = { ...buildMintBackup(signer, [], 5) }
    const of = (content: string) => signer.sign({ kind: 30_078, created_at: 9, tags: [['d', 'mint-list']], content })
    expect(newestMintBackup(signer, [event, of(mixed)])).toEqual({ mints: ['https://a.example'], createdAtS: 9 })
    expect(newestMintBackup(signer, [event, of('nonsense')])).toEqual({ mints: [], createdAtS: 5 })
    const stranger = createSigner(new Uint8Array(32).fill(7))
    expect(newestMintBackup(signer, [buildMintBackup(stranger, ['https://evil.example'], 99)])).toBeUndefined()
  })

  it('of an older home stays when another of the same words has other mints, or none', async () => {
    const empty = await openHome({ dir: folder(), mintUrls: [], words })
    await published(empty, [first.mintUrl, second.mintUrl])
    await empty.close()
    const other = await openHome({ dir: folder(), mintUrls: [second.mintUrl], words })
    await published(other, [first.mintUrl, second.mintUrl])
    await other.wallets.removeMint(second.mintUrl)
    await published(other, [first.mintUrl])
    // As it was, for those who come after.
    await other.wallets.addMint(second.mintUrl)
    await published(other, [first.mintUrl, second.mintUrl])
    await other.close()
  })
})

describe('the words alone', () => {
  it('bring what one mint has while the other is down, and later both, three wallets and the agent, with progress told', async () => {
    const dir = folder()
    await second.stop({ keep: true })
    const partly = await restore(dir)
    expect(partly.unread).toMatchObject([{ url: second.mintUrl }])
    expect(Number(partly.restoredSats)).toBeLessThan(held.node)
    const store = openStoreAt(dir)
    expect(mintsToRestore(store)).toEqual([second.mintUrl])
    store.close()
    second = await startSandbox({ dir: second.dir })
    const steps: string[] = []
    const restored = await restore(dir, undefined, (step) => steps.push(step))
    expect(restored).toMatchObject({
      restoredSats: total() - partly.restoredSats,
      unread: [],
      problems: [],
      agents: [{ name: 'agent-11' }],
    })
    expect([...restored.mints].sort()).toEqual([first.mintUrl, second.mintUrl].sort())
    expect(steps[0]).toBe('mint_list')
    expect(steps.filter((step) => step === 'mint_read')).toHaveLength(2)
    expect(steps).toContain('agent_found')
    const after = openStoreAt(dir)
    expect(listWrappedKeys(after)).toHaveLength(3)
    expect(mintsToRestore(after)).toEqual([])
    after.close()
    await expectAll(dir, restored)
  }, 120_000)

  it('without a relay that has the list bring the keys, and say so', async () => {
    const dir = folder()
    const restored = await restore(dir, [second.relayUrl])
    expect(restored).toMatchObject({ mints: [], restoredSats: 0n, agents: [] })
    const another = { words: testWords(), force: false, relays: [first.relayUrl], mints: [], onProgress: () => {} }
    await expect(restoreFromWords(homeAt(dir), 'sandbox', another)).rejects.toMatchObject({ code: 'identity_exists' })
    await expect(restoreFromWords(homeAt(folder()), 'sandbox', { ...another, relays: [] })).rejects.toMatchObject({ code: 'usage' })
  })
})
