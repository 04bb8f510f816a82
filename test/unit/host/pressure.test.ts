import { describe, expect, it, vi } from 'vitest'
import { type HeardRow, hear } from '../../../src/store/agents/heard.ts'
import { memoriesOf } from '../../../src/store/agents/memories.ts'
import { all } from '../../../src/store/commands.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, stranger, type World } from './world.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const rules = (...list: object[]) => ({ type: 'script' as const, rules: JSON.stringify({ rules: list }) })
const QUIET = rules({ on: 'first', do: [{ type: 'nothing' }] })

/** Something said to the agent, as the inbox writes it. */
function said(world: World, agentPubkey: string, i: number, change: Partial<HeardRow> = {}): HeardRow {
  return {
    agentPubkey,
    id: i.toString(16).padStart(64, '0'),
    type: 'mention',
    sender: i.toString(16).padStart(64, 'a'),
    content: 'hello',
    scheme: null,
    amountMsats: null,
    event: null,
    wakes: true,
    createdAt: Math.floor(world.clock.now() / 1000),
    heardAt: world.clock.now(),
    ...change,
  }
}

const ticked = (world: World, count: number) =>
  vi.waitFor(() => {
    expect(world.host.get('ada').tick_count).toBe(count)
    expect(world.host.log('ada').every((tick) => tick.state === 'done')).toBe(true)
  })

describe('an agent in a flood', () => {
  it('is woken by a zap while it hibernates, however many mentions wait before it', async () => {
    const world = await startWorld({ dir: tempDir(), host: { low_balance_days: 7, hibernate_days: 1 } })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 600, tick_fee_sats: 10, brain: QUIET })
    await world.fund(pubkey, 100)
    await ticked(world, 1)
    expect(world.host.get('ada').state).toBe('hibernating')
    const mentions = Array.from({ length: 150 }, (_, i) => hear(said(world, pubkey, i + 1)))
    await world.store.write(all(...mentions))
    await world.clock.advance(MINUTE)
    expect(world.host.get('ada').tick_count).toBe(1)
    const zap = said(world, pubkey, 9999, { type: 'zap', amountMsats: 21_000n })
    expect(await world.store.write(hear(zap))).toBe('new')
    await world.clock.advance(MINUTE)
    await ticked(world, 2)
    expect(world.host.log('ada')[0]).toMatchObject({ trigger: 'zap', state: 'done' })
    // The zap was observed by the tick that it caused: nothing is due any more.
    await world.clock.advance(HOUR)
    expect(world.host.get('ada').tick_count).toBe(2)
    await world.close()
  })

  it('takes what causes a tick into that tick, though many were heard in the same moment', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 60 } })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, brain: QUIET })
    await ticked(world, 1)
    // Heard in one millisecond, the lowest ids last.
    for (let i = 180; i > 0; i--) await world.store.write(hear(said(world, pubkey, i)))
    await world.clock.advance(10 * MINUTE)
    await ticked(world, 5)
    await world.close()
  })

  it('sees a message in its next tick, however many mentions wait before it', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 3600 } })
    const brain = rules({ on: 'dm', do: [{ type: 'remember', text: '{{dm.text}}' }] })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, brain })
    await ticked(world, 1)
    await world.store.write(all(...Array.from({ length: 300 }, (_, i) => hear(said(world, pubkey, i)))))
    await world.store.write(
      hear(said(world, pubkey, 999, { type: 'dm', scheme: 'nip17', content: 'are you well?', heardAt: world.clock.now() + 1 })),
    )
    await world.host.tick('ada')
    expect(memoriesOf(world.store, world.host.get('ada').pubkey, 50)).toMatchObject([{ content: 'are you well?' }])
    await world.close()
  })

  it('hears others while one key talks without end, and zaps while mentions are over their bound', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 3600 } })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, brain: QUIET })
    await ticked(world, 1)
    const loud = { sender: 'f'.repeat(64) }
    const taken = await world.store.write(all(...Array.from({ length: 1100 }, (_, i) => hear(said(world, pubkey, i, loud)))))
    expect(taken.filter((outcome) => outcome === 'new')).toHaveLength(50)
    expect(await world.store.write(hear(said(world, pubkey, 2000)))).toBe('new')
    const crowd = await world.store.write(all(...Array.from({ length: 1100 }, (_, i) => hear(said(world, pubkey, 3000 + i)))))
    expect(crowd.filter((outcome) => outcome === 'new').length).toBe(1000 - 51)
    expect(await world.store.write(hear(said(world, pubkey, 5000, { type: 'zap', amountMsats: 1000n })))).toBe('new')
    expect(await world.store.write(hear(said(world, pubkey, 5001, { type: 'dm', scheme: 'nip17' })))).toBe('new')
    await world.close()
  })
})

describe('whom an agent has spoken to', () => {
  it('is heard, and in the next tick, whatever crowd of strangers waits', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 3600 } })
    const brain = rules({ on: 'mention', max: 1, do: [{ type: 'reply', to: '{{mention.id}}', text: 'hello' }] })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, brain })
    await ticked(world, 1)
    const friend = stranger(0x20)
    await world.say(friend, { content: 'are you there?', tags: [['p', pubkey]] })
    await world.host.tick('ada')
    expect(world.outside.ofKind(1, pubkey)).toHaveLength(1)
    await world.store.write(all(...Array.from({ length: 1000 }, (_, i) => hear(said(world, pubkey, i)))))
    expect(await world.store.write(hear(said(world, pubkey, 2000)))).toBe('full')
    const again = said(world, pubkey, 3000, { sender: friend.pubkey, heardAt: world.clock.now() + 1 })
    expect(await world.store.write(hear(again))).toBe('new')
    await world.host.tick('ada')
    const observed = world.store.sql('SELECT tick_id FROM heard WHERE id = ?').get(again.id)
    expect(observed?.['tick_id']).not.toBeNull()
    await world.close()
  })
})

describe('many agents', () => {
  it('take turns: who has waited longest ticks first', async () => {
    const world = await startWorld({ dir: tempDir(), host: { concurrency: 1 } })
    // Each of them is due again before its turn is over.
    const slow = world.deps.wallets.transfer
    Object.assign(world.deps.wallets, {
      transfer: async (...args: Parameters<typeof slow>) => {
        await world.clock.sleep(3000)
        await slow(...args)
      },
    })
    for (const name of ['ada', 'bea', 'cleo']) {
      const { pubkey } = await world.host.spawn({ name, heartbeat_s: 1, tick_fee_sats: 1, brain: QUIET })
      await world.fund(pubkey, 10_000_000)
    }
    await world.clock.advance(MINUTE)
    const counts = world.host.list().map((agent) => agent.tick_count)
    expect(Math.max(...counts) - Math.min(...counts), JSON.stringify(counts)).toBeLessThanOrEqual(1)
    expect(Math.min(...counts)).toBeGreaterThan(2)
    const closed = world.close()
    await world.clock.advance(MINUTE)
    await closed
  })
})

describe('a busy agent', () => {
  it('ticks when its owner asks, though it is due again each time that it ends', async () => {
    const world = await startWorld({ dir: tempDir() })
    const { transfer } = world.deps.wallets
    let running = 0
    let most = 0
    Object.assign(world.deps.wallets, {
      transfer: async (...args: Parameters<typeof transfer>) => {
        most = Math.max(most, ++running)
        await world.clock.sleep(3000)
        await transfer(...args)
        running--
      },
    })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 1, tick_fee_sats: 1, brain: QUIET })
    await world.fund(pubkey, 10_000_000)
    await world.clock.advance(10_000)
    const ticked: string[] = []
    const asked = [1, 2].map(() => world.host.tick('ada').then((tick) => void ticked.push(tick.trigger)))
    await world.clock.advance(20_000)
    expect(ticked).toEqual(['manual', 'manual'])
    expect(most).toBe(1)
    await Promise.all(asked)
    const closed = world.close()
    await world.clock.advance(MINUTE)
    await closed
  })
})

describe('a clock that jumps', () => {
  it('goes on after a clock that ran a year ahead was put right, and after a sleep', async () => {
    const world = await startWorld({ dir: tempDir() })
    let offsetMs = 365 * 24 * HOUR
    const { clock } = world
    const skewed = { now: () => clock.now() + offsetMs, sleep: clock.sleep.bind(clock), after: clock.after.bind(clock) }
    Object.assign(world.deps, { clock: skewed })
    await world.host.spawn({ name: 'ada', heartbeat_s: 600, brain: QUIET })
    await clock.advance(MINUTE)
    await ticked(world, 1)
    offsetMs = 0
    await clock.advance(MINUTE)
    await ticked(world, 2)
    expect(Date.parse(world.host.get('ada').next_tick_at ?? '')).toBeLessThan(clock.now() + HOUR)
    // Eight hours in which no timer ran: the tick that was missed comes at once, once.
    offsetMs = 8 * HOUR
    await clock.advance(MINUTE)
    await ticked(world, 3)
    await world.close()
  })
})
