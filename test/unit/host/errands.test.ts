/** Single actions from outside the ticks: by the agent's policy, within its budgets, once for each key, whatever dies. */

import { expect, it, onTestFinished, vi } from 'vitest'
import { buildDm17 } from '../../../src/nostr/nips/nip59.ts'
import { memoriesOf } from '../../../src/store/agents/memories.ts'
import { tempDir } from '../../support/temp.ts'
import { Outside, startWorld, stranger, type World } from './world.ts'

const bob = stranger(0x0b)
const IDLE = { type: 'script' as const, rules: '[[rules]]\non = "tick"\ndo = [{ type = "nothing" }]' }

async function worldOf(spec: Parameters<World['host']['spawn']>[0] = {}, options: Partial<Parameters<typeof startWorld>[0]> = {}) {
  const world = await startWorld({ dir: tempDir(), ...options })
  onTestFinished(() => world.close())
  const agent = await world.host.spawn({ name: 'ada', brain: IDLE, heartbeat_s: 86_400, ...spec })
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  return { world, agent }
}

it('publishes what was asked for, once for each key', async () => {
  const { world, agent } = await worldOf()
  const done = await world.host.act('ada', 'POST: Hello from outside.', 'k1')
  expect(done).toMatchObject({ type: 'post', state: 'published', tick_number: 2, reason: null })
  expect(await world.host.act('ada', 'POST: Hello from outside.', 'k1')).toEqual(done)
  expect(world.outside.ofKind(1, agent.pubkey)).toMatchObject([{ id: done.event_id, content: 'Hello from outside.' }])
  expect(world.host.log('ada')[0]).toMatchObject({ trigger: 'manual', state: 'done', thought: 'Asked for from outside.' })
  expect(await world.host.act('ada', { type: 'remember', text: 'I was asked.' }, 'k2')).toMatchObject({ state: 'done' })
  expect(memoriesOf(world.store, world.host.get('ada').pubkey, 50)).toMatchObject([{ content: 'I was asked.' }])
})

it('takes one well-formed action and nothing else', async () => {
  const { world } = await worldOf()
  for (const wrong of [
    'hello',
    'POST: a\nPOST: b',
    'ZAP: nobody',
    { type: 'post' },
    { type: 'fly' },
    { type: 'post', text: 'a', more: 1 },
    'thoughts\nPOST: a',
  ])
    await expect(world.host.act('ada', wrong, 'k')).rejects.toMatchObject({ code: 'action_invalid' })
  expect(world.host.log('ada')).toHaveLength(1)
})

it.each([
  ['over the budget of a transaction', {}, { type: 'zap', to: bob.pubkey, sats: 51 }, '51 sats are over the budget of 50'],
  ['bounded, to a stranger', { autonomy: 'bounded' as const }, { type: 'dm', to: bob.pubkey, text: 'a' }, 'bounded'],
  ['an invoice of nobody', { autonomy: 'bounded' as const }, { type: 'pay_invoice', invoice: 'lnbc20n1somebody' }, 'pays only invoices'],
])('is refused what policy refuses: %s', async (_what, settings, action, reason) => {
  const { world } = await worldOf({ autonomy: 'autonomous', budget: { per_tx_sats: 50 }, ...settings })
  expect(await world.host.act('ada', action, 'k')).toMatchObject({ state: 'refused', reason: expect.stringContaining(reason) })
  expect(world.outside.zaps).toEqual([])
})

it('does nothing for an agent that its owner paused', async () => {
  const { world, agent } = await worldOf()
  await world.host.pause('ada')
  expect(await world.host.act('ada', 'POST: a', 'k')).toMatchObject({ state: 'refused', reason: expect.stringContaining('paused') })
  expect(world.outside.ofKind(1, agent.pubkey)).toEqual([])
})

it('spends within the budget under a tick of its own', async () => {
  const { world } = await worldOf({ autonomy: 'autonomous' })
  expect(await world.host.act('ada', { type: 'zap', to: bob.pubkey, sats: 21 }, 'k')).toMatchObject({ state: 'done', cost_msats: 22_000n })
  const [order] = world.outside.zaps
  expect(order?.spend).toMatchObject({ tickId: world.host.log('ada')[0]?.id, limits: { perTxSats: expect.any(BigInt) } })
})

it('shows what was said, before a tick observed it and after, and policy knows of it', async () => {
  const { world, agent } = await worldOf({ allow: [bob.pubkey], brain: IDLE })
  const at = Math.floor(world.clock.now() / 1000)
  const wrap = (await buildDm17(bob, [agent.pubkey], 'Pay lnbc20n1bobs please.', at)).wraps.find(
    ({ recipient }) => recipient === agent.pubkey,
  )
  if (wrap === undefined) throw new Error('no wrap')
  await world.deliver(wrap.event)
  await world.say(bob, { content: 'hi ada', tags: [['p', agent.pubkey]] })
  const seen = () => world.host.messages('ada').map(({ type, text, own_home, from_pubkey }) => ({ type, text, own_home, from_pubkey }))
  const expected = [
    { type: 'mention', text: 'hi ada', own_home: false, from_pubkey: bob.pubkey },
    { type: 'dm', text: 'Pay lnbc20n1bobs please.', own_home: false, from_pubkey: bob.pubkey },
  ]
  expect(seen()).toEqual(expected)
  expect(world.host.messages('ada')[0]?.tick_number).toBeNull()
  await world.host.tick('ada')
  expect(seen()).toEqual(expected)
  expect(world.host.messages('ada')[0]?.tick_number).toBe(2)
  // Read as an invoice only after policy has let it pass.
  expect(await world.host.act('ada', { type: 'pay_invoice', invoice: 'lnbc20n1bobs' }, 'k')).not.toMatchObject({ state: 'refused' })
})

it('ends after a restart what had begun, once', async () => {
  const dir = tempDir()
  const outside = new Outside()
  let isArmed = false
  const hook = {
    afterCommit: (labels: readonly string[]) => {
      if (!isArmed || !labels.includes('claim_errand')) return
      isArmed = false
      first.crash()
    },
  }
  const first: World = await startWorld({ dir, outside, hook })
  const { pubkey } = await first.host.spawn({ name: 'ada', brain: IDLE, heartbeat_s: 86_400 })
  await vi.waitFor(() => expect(first.host.log('ada')[0]?.state).toBe('done'))
  isArmed = true
  await expect(first.host.act('ada', 'POST: once', 'k')).rejects.toThrow()
  const second = await startWorld({ dir, outside })
  onTestFinished(() => second.close())
  await vi.waitFor(() => expect(second.host.log('ada')[0]).toMatchObject({ state: 'done', actions: [{ state: 'published' }] }))
  expect(await second.host.act('ada', 'POST: once', 'k')).toMatchObject({ state: 'published', tick_number: 2 })
  expect(outside.ofKind(1, pubkey)).toHaveLength(1)
})
