/** Nutzaps that come: redeemed once at their mint, by whatever relay and after whatever death; and those that steal, lie or flood. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { tagValue } from '../../../src/nostr/nips/nip01.ts'
import type { NutzapProof } from '../../../src/nostr/nips/nip61.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { earningsSummary } from '../../../src/store/money/earnings.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import { getNutzap } from '../../../src/store/money/nutzaps.ts'
import { encodeToken } from '../../../src/wallet/ecash/token.ts'
import { Death } from '../../support/death.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { publishTo } from '../../support/publish.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testSigner } from '../../support/test-signer.ts'
import { expectSound, fund } from '../wallet/home.ts'
import { HomeOnDisk, type NutzapHome, nutzapOf, proofsFor } from './home.ts'

const bob = testSigner(0x0b)
const mallory = testSigner(0x0c)

let sandbox: TestSandbox
let outside: TestNostr
const disk = new HomeOnDisk()
/** Whose agent is zapped, and whose node pays. */
let home: NutzapHome

beforeAll(async () => {
  sandbox = await startSandbox()
  outside = startNostr({ relays: [sandbox.relayUrl] })
  home = await disk.open(sandbox)
  await fund(home, home.node, sandbox.mintUrl, 2000)
})
afterAll(async () => {
  await home.close()
  await outside.stop()
  await sandbox.stop()
  disk[Symbol.dispose]()
})

const toAda = (proofs: readonly NutzapProof[], more = {}) => ({
  recipient: home.agent.owner.pubkey,
  mintUrl: sandbox.mintUrl,
  proofs,
  ...more,
})
const locked = (amount: number) => proofsFor(home, amount, { lockTo: home.agent.lockPubkey })
const receive = (event: NostrEvent) => home.nutzaps.receive(home.agent.owner, event)
const ended = (event: NostrEvent, at = home) =>
  vi.waitFor(
    () => {
      const row = getNutzap(at.store, event.id)
      expect(['told', 'refused']).toContain(row?.state)
      return row
    },
    { timeout: 15_000, interval: 20 },
  )

/** One of Bob, and what Mallory published of it: its largest coin. */
async function copiedInPart() {
  const proofs = await locked(6)
  const [most] = [...proofs].sort((a, b) => b.amount - a.amount) as [NutzapProof]
  const [copy, real] = [nutzapOf(mallory, toAda([most])), nutzapOf(bob, toAda(proofs))]
  return { proofs, copy, real, held: home.agent.balance().balanceSats }
}

const publish = (event: NostrEvent) => publishTo(sandbox.relayUrl, event)

describe('a nutzap', () => {
  it('is redeemed once for what its mint gave, heard as a zap, and its sender is told', async () => {
    const before = home.agent.balance().balanceSats
    const event = nutzapOf(bob, toAda(await locked(21), { event: { id: '77'.repeat(32) } }))
    await Promise.all([publish(event), receive(event)])
    expect(await ended(event)).toMatchObject({ state: 'told', amountSats: 21n, proofs: [], sender: bob.pubkey })
    await receive(event)
    expect(home.agent.balance().balanceSats - before).toBe(21n)
    expect(home.heard.filter(({ id }) => id === event.id)).toMatchObject([
      { sender: bob.pubkey, amountSats: 21n, zapped: '77'.repeat(32), comment: 'well said' },
    ])
    expect(earningsSummary(home.store, { limit: 5 }).bySource.zap).toBe(21_000n)
    const told = await vi.waitFor(async () => {
      const { events } = await outside.nostr.query([{ kinds: [7376], authors: [home.agent.owner.pubkey], '#e': [event.id] }])
      expect(events).toHaveLength(1)
      return events[0] as NostrEvent
    })
    expect(told.tags).toContainEqual(['e', event.id, '', 'redeemed'])
    expect(tagValue(told, 'p')).toBe(bob.pubkey)
    await expectSound(home, sandbox.mintUrl)
  })

  it('that a key of this home sends is no earning', async () => {
    const earned = earningsSummary(home.store, { limit: 5 }).totalMsats
    const event = nutzapOf(home.keyring.localSigner(home.node.owner.pubkey), toAda(await locked(5)))
    await receive(event)
    expect(await ended(event)).toMatchObject({ state: 'told', amountSats: 5n })
    expect(earningsSummary(home.store, { limit: 5 }).totalMsats).toBe(earned)
  })

  it('whose mint does not answer what it has done is redeemed all the same', async () => {
    const event = nutzapOf(bob, toAda(await locked(4)))
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/swap', count: 1 } })
    await receive(event)
    expect(await ended(event)).toMatchObject({ state: 'told', amountSats: 4n })
  })
})

describe('a nutzap that is not what it says', () => {
  const other = `02${mallory.pubkey}`
  it.each<[string, string | undefined, () => Promise<NostrEvent>]>([
    ['locked to another key', undefined, async () => nutzapOf(mallory, toAda(await proofsFor(home, 3, { lockTo: other })))],
    ['not locked', undefined, async () => nutzapOf(mallory, toAda(await proofsFor(home, 3, {})))],
    [
      'that its sender can take back',
      undefined,
      async () => nutzapOf(mallory, toAda(await proofsFor(home, 3, { lockTo: home.agent.lockPubkey, refundAfter: Date.now() + 9e6 }))),
    ],
    [
      'of a mint that is not on the list',
      undefined,
      async () => nutzapOf(mallory, toAda(await locked(3), { mintUrl: 'https://mint.example' })),
    ],
    ['for another, p tag and all', undefined, async () => nutzapOf(mallory, { ...toAda(await locked(3)), recipient: mallory.pubkey })],
    [
      'without DLEQ',
      undefined,
      async () => nutzapOf(mallory, toAda((await locked(3)).map((proof) => ({ ...proof, dleq: { e: '', s: '', r: '' } })))),
    ],
    [
      'with a false DLEQ',
      'token_invalid',
      async () => nutzapOf(mallory, toAda((await locked(3)).map((proof) => ({ ...proof, dleq: { ...proof.dleq, e: '11'.repeat(32) } })))),
    ],
    [
      'that says more than its mint signed',
      'token_invalid',
      async () => nutzapOf(mallory, toAda((await locked(3)).map((proof) => ({ ...proof, amount: proof.amount * 1024 })))),
    ],
    [
      'that was spent before',
      'token_spent',
      async () => {
        const proofs = await locked(3)
        const token = { idempotencyKey: `spent ${proofs[0]?.secret}`, cause: { type: 'owner' as const, id: 'x' } }
        const creditAccount = `agent:${home.agent.owner.pubkey}/equity/funding` as const
        await home.agent.receiveToken({ ...token, token: encodeToken(sandbox.mintUrl, proofs), creditAccount })
        return nutzapOf(mallory, toAda(proofs))
      },
    ],
  ])('%s brings nothing', async (_, code, make) => {
    const event = await make()
    const [held, earned] = [home.agent.balance().balanceSats, earningsSummary(home.store, { limit: 5 }).totalMsats]
    await receive(event)
    if (code === undefined) expect(getNutzap(home.store, event.id)).toBeUndefined()
    else expect((await ended(event))?.reason).toContain(`${code}:`)
    expect(home.agent.balance().balanceSats).toBe(held)
    expect(earningsSummary(home.store, { limit: 5 }).totalMsats).toBe(earned)
    expect(home.heard.map(({ id }) => id)).not.toContain(event.id)
  })

  it('whose proofs another event has brought is not asked about; where it adds proofs of its own it brings those alone', async () => {
    const proofs = await locked(6)
    const first = nutzapOf(bob, toAda(proofs))
    await receive(first)
    await ended(first)
    const copy = nutzapOf(mallory, toAda(proofs))
    await receive(copy)
    expect(getNutzap(home.store, copy.id)).toBeUndefined()
    const held = home.agent.balance().balanceSats
    const more = nutzapOf(mallory, toAda([...proofs, ...(await locked(2))]))
    await receive(more)
    expect(await ended(more)).toMatchObject({ state: 'told', amountSats: 2n })
    expect(home.agent.balance().balanceSats).toBe(held + 2n)
  })

  it.each([['before it'], ['with it']])('of which somebody publishes a part that comes %s brings the rest', async (when) => {
    const { held, copy, real } = await copiedInPart()
    await receive(copy)
    if (when === 'before it') await ended(copy)
    await receive(real)
    expect((await ended(copy))?.state).toBe('told')
    expect((await ended(real))?.state).toBe('told')
    // The mint takes its fee twice.
    expect(home.agent.balance().balanceSats).toBe(held + 5n)
  })

  it('of which a copied part is brought while its own swap is under way brings the rest', async () => {
    const { held, copy, real } = await copiedInPart()
    await receive(copy)
    await ended(copy)
    // The store knows that the part was brought only once the swap of the whole has begun.
    home.store.sql('CREATE TABLE brought AS SELECT * FROM nutzap_proofs WHERE nutzap_id = ?').run(copy.id)
    home.store.sql('DELETE FROM nutzap_proofs WHERE nutzap_id = ?').run(copy.id)
    home.store
      .sql('CREATE TRIGGER bring AFTER INSERT ON operations BEGIN INSERT OR IGNORE INTO nutzap_proofs SELECT * FROM brought; END')
      .run()
    onTestFinished(() => {
      home.store.sql('DROP TRIGGER bring').run()
      home.store.sql('DROP TABLE brought').run()
    })
    await receive(real)
    expect((await ended(real))?.state).toBe('told')
    expect(home.agent.balance().balanceSats).toBe(held + 5n)
  })

  it('whose rest was asked of a mint that fell silent brings it once the mint speaks', async () => {
    const { proofs, held, copy, real } = await copiedInPart()
    const tried = (times: number) =>
      vi.waitFor(() => expect(getNutzap(home.store, real.id)?.tries).toBe(times), { timeout: 15_000, interval: 20 })
    const again = () => home.store.sql('UPDATE nutzaps SET next_try_at = 0 WHERE id = ?').run(real.id)
    // The whole is refused once; then the copy comes, and the rest is asked for.
    await sandbox.faults({ fail: { path: '/v1/swap', status: 400, body: { detail: 'closed for maintenance', code: 0 } } })
    await receive(real)
    await tried(1)
    await receive(copy)
    await ended(copy)
    await sandbox.faults({
      drop_response_after_commit: { path: '/v1/swap', count: 1 },
      fail: { path: '/v1/restore', status: 503, body: {}, count: 3 },
    })
    again()
    await receive(copy)
    await tried(2)
    again()
    expect(await ended(real)).toMatchObject({ state: 'told', amountSats: 2n })
    const brought = home.store
      .sql('SELECT nutzap_id, count(*) AS n FROM nutzap_proofs WHERE nutzap_id IN (?, ?) GROUP BY 1')
      .all(copy.id, real.id)
    expect(new Map(brought.map((row) => [row['nutzap_id'], row['n']]))).toEqual(
      new Map([
        [copy.id, 1n],
        [real.id, BigInt(proofs.length - 1)],
      ]),
    )
    expect(home.agent.balance().balanceSats).toBe(held + 5n)
  })

  it('does not keep the real one from being redeemed, though it has its proofs beside spent ones and comes first', async () => {
    const spent = await locked(2)
    const gone = nutzapOf(bob, toAda(spent))
    await receive(gone)
    await ended(gone)
    // The store forgets it, so that only the mint can tell.
    home.store.sql('DELETE FROM nutzap_proofs').run()
    const proofs = await locked(8)
    const copy = nutzapOf(mallory, toAda([...proofs, ...spent]))
    const real = nutzapOf(bob, toAda(proofs))
    await Promise.all([receive(copy), receive(real)])
    expect((await ended(copy))?.reason).toContain('token_spent:')
    expect(await ended(real)).toMatchObject({ state: 'told', amountSats: 8n })
  })

  it('in floods of one sender is left out beyond what is taken in an hour', async () => {
    const [proof] = (await locked(1)) as [NutzapProof]
    for (let i = 0; i < 70; i++)
      await receive(nutzapOf(mallory, toAda([{ ...proof, secret: proof.secret.replace(/[0-9a-f]{4}/, i.toString(16).padStart(4, '0')) }])))
    const row = home.store.sql('SELECT count(*) AS n FROM nutzaps WHERE sender = ?').get(mallory.pubkey)
    expect(row).toEqual({ n: 60n })
  })
})

describe('a home that dies', () => {
  const labels = [
    'claim_nutzap',
    'insert_operation',
    'move_operation:submitted',
    'move_operation:completed',
    'move_nutzap:redeemed',
    'move_nutzap:told',
  ]
  it.each(labels.flatMap((label) => [[label, true] as const, [label, false] as const]))(
    'at %s (before it: %s) has it once',
    async (label, before) => {
      using dir = new HomeOnDisk()
      const first = await dir.open(sandbox, { start: false })
      const { agent } = first
      const event = nutzapOf(bob, {
        ...{ recipient: agent.owner.pubkey, mintUrl: sandbox.mintUrl },
        proofs: await proofsFor(home, 9, { lockTo: agent.lockPubkey }),
      })
      await first.close()
      const death = new Death(label, { before })
      const dying = await dir.open(sandbox, death)
      await dying.nutzaps.receive(agent.owner, event).catch(() => {})
      await vi.waitFor(() => expect(death.isDead).toBe(true), { timeout: 15_000, interval: 10 })
      await dying.close().catch(() => {})
      const again = await dir.open(sandbox)
      // Relays keep it: where it was not claimed it comes again.
      await again.nutzaps.receive(agent.owner, event)
      expect(await ended(event, again)).toMatchObject({ state: 'told', amountSats: 9n })
      expect(again.agent.balance().balanceSats).toBe(9n)
      expect(earningsSummary(again.store, { limit: 5 }).bySource.zap).toBe(9000n)
      expect(dying.heard.length + again.heard.length).toBeGreaterThanOrEqual(1)
      expect(auditLedger(again.store).problems).toEqual([])
      const told = again.store.sql(`SELECT count(*) AS n FROM outbox_messages WHERE key = ?`).get(`nutzap-redeemed:${event.id}`)
      expect(told).toEqual({ n: 1n })
      await again.close()
    },
  )

  it('with the swap of a part of a nutzap that it did not note yet brings the rest of it too', async () => {
    using dir = new HomeOnDisk()
    const first = await dir.open(sandbox, { start: false })
    const { agent } = first
    const proofs = await proofsFor(home, 6, { lockTo: agent.lockPubkey })
    await first.close()
    const to = { recipient: agent.owner.pubkey, mintUrl: sandbox.mintUrl }
    const [most] = [...proofs].sort((a, b) => b.amount - a.amount) as [NutzapProof]
    const copy = nutzapOf(mallory, { ...to, proofs: [most] })
    const real = nutzapOf(bob, { ...to, proofs })
    const death = new Death('move_operation:completed', { before: true })
    const dying = await dir.open(sandbox, death)
    await dying.nutzaps.receive(agent.owner, copy).catch(() => {})
    await vi.waitFor(() => expect(death.isDead).toBe(true), { timeout: 15_000, interval: 10 })
    await dying.close().catch(() => {})
    const again = await dir.open(sandbox, { start: false })
    // So that the real one is asked about first.
    again.store.sql('UPDATE nutzaps SET next_try_at = ? WHERE id = ?').run(BigInt(Date.now() + 1000), copy.id)
    await again.nutzaps.receive(agent.owner, real)
    again.nostr.start()
    again.nutzaps.start()
    await again.wallets.start()
    expect((await ended(copy, again))?.state).toBe('told')
    expect((await ended(real, again))?.state).toBe('told')
    expect(again.agent.balance().balanceSats).toBe(5n)
    await again.close()
  })
})
