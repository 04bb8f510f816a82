/** Zaps as nutzaps: once for each key whatever the home dies at, to who takes them, and shared as the event says. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { tagValue, tagValues } from '../../../src/nostr/nips/nip01.ts'
import { zapSplitsOf } from '../../../src/nostr/nips/nip57.ts'
import { NUTZAP_INFO_KIND, NUTZAP_KIND, nutzapInfoTags, parseNutzap } from '../../../src/nostr/nips/nip61.ts'
import type { LocalSigner, NostrEvent } from '../../../src/nostr/types.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { getNutzapSend } from '../../../src/store/money/nutzap-sends.ts'
import type { ZapOrder } from '../../../src/wallet/zaps/zaps.ts'
import { Death } from '../../support/death.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { publishTo } from '../../support/publish.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testSigner } from '../../support/test-signer.ts'
import { expectSound, fund } from '../wallet/home.ts'
import { HomeOnDisk, type NutzapHome } from './home.ts'

let sandbox: TestSandbox
let outside: TestNostr
const disk = new HomeOnDisk()
/** Whose agents are zapped. */
let home: NutzapHome

beforeAll(async () => {
  sandbox = await startSandbox()
  outside = startNostr({ relays: [sandbox.relayUrl] })
  home = await disk.open(sandbox)
  await takes(ada(), [sandbox.mintUrl], home.agent.lockPubkey.slice(2))
  await fund(home, home.node, sandbox.mintUrl, 1000)
})
afterAll(async () => {
  await home.close()
  await outside.stop()
  await sandbox.stop()
  disk[Symbol.dispose]()
})

const ada = (): LocalSigner => home.keyring.localSigner(home.agent.owner.pubkey)
const nowS = () => Math.floor(Date.now() / 1000)

const publish = (event: NostrEvent) => publishTo(sandbox.relayUrl, event)

const takes = (signer: LocalSigner, mints: string[], lockPubkey: string) =>
  publish(
    signer.sign({
      kind: NUTZAP_INFO_KIND,
      created_at: nowS(),
      content: '',
      tags: nutzapInfoTags({ relays: [sandbox.relayUrl], mints, lockPubkey }),
    }),
  )

const order = (from: NutzapHome, actionId: string, more: Partial<ZapOrder> = {}): ZapOrder => ({
  ...{ from: from.node.owner, recipient: home.agent.owner.pubkey, amountSats: 21n, comment: 'well said', relays: [], actionId },
  ...{ by: 'nutzap', spend: { subject: 'owner', counterparty: home.agent.owner.pubkey }, ...more },
})
const published = async (author: string) => (await outside.nostr.query([{ kinds: [NUTZAP_KIND], authors: [author] }])).events

describe('a zap as a nutzap', () => {
  it('is paid once under its key, and its recipient has all of it', async () => {
    const zapped = { eventId: '66'.repeat(32), eventKind: 1 }
    const first = await home.zaps.send(order(home, 'one', zapped))
    expect(first).toMatchObject({ state: 'paid' })
    expect(await home.zaps.send(order(home, 'one', zapped))).toEqual(first)
    expect(home.zaps.outcome(home.node.owner, 'zap:one')).toEqual(first)
    await expect(home.zaps.send(order(home, 'one', { amountSats: 22n }))).rejects.toMatchObject({ code: 'idempotency_conflict' })
    await vi.waitFor(
      () => expect(home.heard).toMatchObject([{ sender: home.node.owner.pubkey, amountSats: 21n, zapped: '66'.repeat(32) }]),
      10_000,
    )
    const [event, ...others] = await published(home.node.owner.pubkey)
    expect(others).toEqual([])
    expect(parseNutzap(event as NostrEvent)).toMatchObject({
      recipient: home.agent.owner.pubkey,
      mintUrl: sandbox.mintUrl,
      event: { kind: 1 },
    })
    expect(home.agent.balance().balanceSats).toBe(21n)
    expect(accountBalance(home.store, 'node/expense/zap')).toBe(21_000n)
    await expectSound(home, sandbox.mintUrl)
  })

  it('goes to whom no Lightning address takes it, unless it is to go there', async () => {
    expect(await home.zaps.send(order(home, 'auto', { by: 'auto' }))).toMatchObject({ state: 'paid' })
    await expect(home.zaps.send(order(home, 'there', { by: 'lightning' }))).rejects.toMatchObject({ code: 'fetch_failed' })
  })

  it.each<[string, () => Promise<LocalSigner>, string]>([
    ['who takes none', async () => testSigner(41), 'nutzap_unavailable'],
    [
      'who names other mints',
      async () => {
        await takes(testSigner(42), ['https://mint.example'], '11'.repeat(32))
        return testSigner(42)
      },
      'nutzap_unavailable',
    ],
    [
      'who names the Nostr key as the lock',
      async () => {
        await takes(testSigner(43), [sandbox.mintUrl], testSigner(43).pubkey)
        return testSigner(43)
      },
      'nutzap_unavailable',
    ],
  ])('%s costs nothing', async (name, make, code) => {
    const held = home.node.balance().balanceSats
    const { pubkey } = await make()
    const spend = { subject: 'owner', counterparty: pubkey }
    await expect(home.zaps.send(order(home, name, { recipient: pubkey, spend }))).rejects.toMatchObject({ code })
    expect(home.node.balance().balanceSats).toBe(held)
  })

  it('to whom the policy never pays, or above its limits, is refused', async () => {
    const counterparty = home.agent.owner.pubkey
    const limits = { deny: [counterparty] }
    await expect(home.zaps.send(order(home, 'deny', { spend: { subject: 'owner', counterparty, limits } }))).rejects.toMatchObject({
      code: 'spend_refused',
    })
    const small = { perTxSats: 20n }
    await expect(home.zaps.send(order(home, 'big', { spend: { subject: 'owner', counterparty, limits: small } }))).rejects.toMatchObject({
      code: 'budget_exceeded',
    })
  })
})

describe('a zap of an event that names who is to share it', () => {
  it('is shared by weight, each share once; what cannot be paid does not undo the rest', async () => {
    const event = testSigner(50).sign({
      ...{ kind: 1, created_at: nowS(), content: 'a work of three' },
      tags: [
        ['zap', home.agent.owner.pubkey, '', '2'],
        ['zap', testSigner(41).pubkey, '', '1'],
        ['zap', home.node.owner.pubkey, '', '1'],
      ],
    })
    const splits = vi.fn(async () => zapSplitsOf(event))
    const held = home.agent.balance().balanceSats
    const shared = order(home, 'split', { eventId: event.id, recipient: event.pubkey, amountSats: 41n, splits })
    const first = await home.zaps.send(shared)
    expect(first).toMatchObject({ state: 'paid', amountSats: 21n })
    expect(first.parts).toMatchObject([
      { recipient: home.agent.owner.pubkey, amountSats: 21n, state: 'paid' },
      { recipient: testSigner(41).pubkey, amountSats: 10n, state: 'failed' },
      { recipient: home.node.owner.pubkey, amountSats: 10n, state: 'failed', reason: expect.stringContaining('the key that zaps') },
    ])
    expect(await home.zaps.send(shared)).toEqual(first)
    expect(splits).toHaveBeenCalledTimes(1)
    expect(home.zaps.outcome(home.node.owner, 'zap:split')).toMatchObject({ state: 'paid', amountSats: 21n })
    await vi.waitFor(() => expect(home.agent.balance().balanceSats).toBe(held + 21n), 10_000)
  })

  it('gives no share to whom the sender refuses one', async () => {
    const splits = async () => [{ pubkey: home.agent.owner.pubkey, weight: 1 }]
    const refused = order(home, 'refused', { eventId: '55'.repeat(32), splits, refuses: () => 'it is a stranger' })
    await expect(home.zaps.send(refused)).rejects.toMatchObject({ code: 'spend_refused' })
  })
})

describe('a home that dies while it zaps', () => {
  const labels = ['insert_nutzap_send', 'insert_operation', 'move_operation:submitted', 'move_operation:completed', 'move_nutzap_send:sent']
  const deaths = labels.flatMap((label) => [[label, true] as const, [label, false] as const])
  it.each(deaths)('at %s (before it: %s) zaps once', async (label, before) => {
    using dir = new HomeOnDisk()
    const first = await dir.open(sandbox)
    await fund(first, first.node, sandbox.mintUrl, 100)
    await first.close()
    const death = new Death(label, { before })
    const dying = await dir.open(sandbox, death)
    await dying.zaps.send(order(dying, 'kill')).catch(() => {})
    expect(death.isDead).toBe(true)
    await dying.close().catch(() => {})
    const again = await dir.open(sandbox)
    // Whose outcome the wallet knows is not asked for again, and goes out all the same.
    const isSpent = again.store.sql("SELECT 1 FROM operations WHERE kind = 'send'").get() !== undefined
    if (!isSpent) await again.zaps.send(order(again, 'kill'))
    await vi.waitFor(() => expect(getNutzapSend(again.store, 'zap:kill')?.state).toBe('sent'), { timeout: 15_000, interval: 20 })
    expect(again.zaps.outcome(again.node.owner, 'zap:kill')).toMatchObject({ state: 'paid' })
    const out = await vi.waitFor(async () => {
      const events = await published(again.node.owner.pubkey)
      expect(events).toHaveLength(1)
      return events[0] as NostrEvent
    }, 10_000)
    expect(tagValue(out, 'p')).toBe(home.agent.owner.pubkey)
    expect(tagValues(out, 'proof').length).toBeGreaterThan(0)
    expect(accountBalance(again.store, 'node/expense/zap')).toBe(21_000n)
    expect(auditLedger(again.store).problems).toEqual([])
    await again.close()
  })
})
