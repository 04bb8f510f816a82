import { describe, expect, it, vi } from 'vitest'
import type { RedeemedNutzap } from '../../../src/wallet/nutzaps/nutzaps.ts'
import { tempDir } from '../../support/temp.ts'
import { type ReceiptOf, zapReceipt } from '../../support/zap-receipts.ts'
import { startWorld, stranger, type World } from './world.ts'

const HOUR = 3_600_000
const bob = stranger(0x0b)
const carol = stranger(0x0c)
const server = stranger(0x77)
const zapAddresses = { register: async () => ({ lnurl: 'lnurl1ada', lud16: undefined }), receiptKeyOf: async () => server.pubkey }

const start = async (): Promise<{ world: World; ada: string; zap: ReceiptOf }> => {
  const world = await startWorld({ dir: tempDir(), deps: { zapAddresses } })
  const ada = (await world.host.spawn({ name: 'ada', heartbeat_s: 86_400 })).pubkey
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  return { world, ada, zap: { server, payer: bob, recipient: ada, amountMsats: 21_000n, atS: Math.floor(world.clock.now() / 1000) } }
}
const withTag = (name: string, value: string) => (template: Parameters<NonNullable<ReceiptOf['change']>>[0]) => ({
  ...template,
  tags: template.tags.map((tag) => (tag[0] === name ? [name, value] : tag)),
})

describe('a zap receipt', () => {
  it.each<[string, Partial<ReceiptOf>]>([
    ['of another server', { server: carol }],
    ['that the payer signed', { server: bob }],
    ['whose invoice is of less', { invoiced: { amountMsats: 1000n } }],
    ['for somebody else, addressed to the agent', { recipient: carol.pubkey }],
    ['with a request that nobody signed', { change: withTag('description', '{"kind":9734}') }],
    ['with no invoice', { change: withTag('bolt11', 'lnbcrt1nonsense') }],
    ['for another note than the request', { eventId: '12'.repeat(32), change: withTag('e', '34'.repeat(32)) }],
  ])('%s neither wakes, thanks nor counts', async (_name, change) => {
    const { world, ada, zap } = await start()
    const forged = { ...zap, ...change }
    const inner = forged.change
    // Whatever it says, it reaches the agent.
    await world.deliver(zapReceipt({ ...forged, change: (template) => withTag('p', ada)(inner?.(template) ?? template) }))
    await world.clock.advance(HOUR)
    expect(world.host.get('ada').tick_count).toBe(1)
    const tick = await world.host.tick('ada')
    expect(tick.actions.filter((action) => action.type === 'dm' || action.type === 'reply')).toEqual([])
    expect(world.store.sql('SELECT count(*) AS n FROM heard').get()).toEqual({ n: 0n })
    await world.close()
  })

  it('thanks once, however many receipts tell of one invoice', async () => {
    const { world, zap } = await start()
    const receipt = zapReceipt(zap)
    await world.deliver(receipt)
    await world.deliver(receipt)
    await world.deliver(server.sign({ ...receipt, created_at: receipt.created_at + 1, content: 'again' }))
    await world.clock.advance(HOUR)
    expect(world.host.get('ada').tick_count).toBe(2)
    await vi.waitFor(() => expect(world.outside.ofKind(4)).toHaveLength(1))
    expect(bob.nip04Decrypt(zap.recipient, world.outside.ofKind(4)[0]?.content ?? '')).toContain('Thank you for 21 sats')
    await world.close()
  })

  it("makes the agent say nothing under somebody else's note, and thanks under its own", async () => {
    const { world, ada, zap } = await start()
    const theirs = await world.say(carol, { content: 'leave me alone' })
    await world.deliver(zapReceipt({ ...zap, eventId: theirs.id }))
    const mine = await world.say(world.keyring.localSigner(ada), { content: 'a note of mine' })
    await world.deliver(zapReceipt({ ...zap, eventId: mine.id, amountMsats: 5000n }))
    const replies = (await world.host.tick('ada')).actions.filter((action) => action.type === 'reply')
    const reasons = new Map(replies.map((action) => [(action.params as { to: string }).to, action.reason]))
    expect(reasons).toEqual(
      new Map([
        [theirs.id, expect.stringContaining('not of this agent')],
        [mine.id, null],
      ]),
    )
    await world.close()
  })
})

describe('a nutzap that was redeemed', () => {
  it('is heard as a zap, once, and its sender is thanked', async () => {
    const onRedeemed = vi.fn<(handler: (nutzap: RedeemedNutzap) => Promise<void>) => void>()
    const nutzaps = { watch: vi.fn(), unwatch: vi.fn(), onRedeemed }
    const world = await startWorld({ dir: tempDir(), deps: { nutzaps } })
    const ada = (await world.host.spawn({ name: 'ada', heartbeat_s: 86_400 })).pubkey
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    expect(nutzaps.watch).toHaveBeenCalledWith({ kind: 'agent', pubkey: ada }, world.deps.nostr.relays)
    const nutzap = { id: '0e'.repeat(32), recipient: ada, sender: bob.pubkey, comment: 'for the note', zapped: null, amountSats: 21n }
    const createdAt = Math.floor(world.clock.now() / 1000)
    for (let i = 0; i < 2; i++) await onRedeemed.mock.lastCall?.[0]({ ...nutzap, createdAt })
    await world.clock.advance(HOUR)
    expect(world.host.get('ada').tick_count).toBe(2)
    expect(world.host.messages('ada')).toMatchObject([{ type: 'zap', from_pubkey: bob.pubkey, amount_msats: 21_000n }])
    await vi.waitFor(() => expect(world.outside.ofKind(4)).toHaveLength(1))
    await world.close()
  })
})
