import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { Host } from '../../../src/host/host.ts'
import { HomeKeyring } from '../../../src/nostr/keys/keyring.ts'
import { goalsOf, putGoal } from '../../../src/store/agents/goals.ts'
import { hear, wasHeard } from '../../../src/store/agents/heard.ts'
import { addMemory, memoriesOf } from '../../../src/store/agents/memories.ts'
import { beginThinking, claimTick, failTick, sweepTicks } from '../../../src/store/agents/ticks.ts'
import { all } from '../../../src/store/commands.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, stranger, WORDS, type World } from './world.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const quiet = { type: 'script' as const, rules: '[[rules]]\non = "first"\ndo = [{ type = "nothing" }]' }
const REPLIER = {
  type: 'script' as const,
  rules: '[[rules]]\non = "mention"\ndo = [{ type = "reply", to = "{{mention.id}}", text = "I heard." }]',
}

describe('nothing grows without bound', () => {
  it('folds the oldest memories into one and keeps the newest whole', async () => {
    const world = await startWorld({ dir: tempDir() })
    const { pubkey } = await world.host.spawn({ name: 'ada', brain: quiet })
    for (let i = 0; i < 500; i++)
      await world.store.write(addMemory({ agentPubkey: pubkey, content: `memory ${i} ${'x'.repeat(100)}`, actionId: null, at: i }))
    const memories = memoriesOf(world.store, pubkey, 1000)
    expect(memories.length).toBeLessThanOrEqual(100)
    expect(memories[0]?.content).toContain('memory 499')
    const summaries = memories.filter((memory) => memory.type === 'summary')
    expect(summaries).toHaveLength(1)
    expect(summaries[0]?.content.length).toBeLessThanOrEqual(2000)
    for (let i = 0; i < 80; i++) {
      const goal = { id: `g${i}`, description: `goal ${i}`, priority: 3, status: 'completed' as const, progress: 100 }
      await world.store.write(putGoal({ agentPubkey: pubkey, goal, at: i }))
    }
    expect(goalsOf(world.store, world.host.get('ada').pubkey).length).toBe(50)
    await world.close()
  })

  it('cuts a flood off and forgets old ticks, but not what was said', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 3600 } })
    const { pubkey } = await world.host.spawn({
      name: 'ada',
      brain: { type: 'script', rules: '[[rules]]\non = "tick"\ndo = [{ type = "post", text = "once" }]' },
    })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    const heard = Array.from({ length: 1200 }, (_, i) =>
      hear({
        agentPubkey: pubkey,
        id: i.toString(16).padStart(64, '0'),
        type: 'mention',
        sender: i.toString(16).padStart(64, 'a'),
        content: 'flood',
        scheme: null,
        amountMsats: null,
        event: null,
        wakes: true,
        createdAt: 1,
        heardAt: world.clock.now(),
      }),
    )
    const taken = await world.store.write(all(...heard))
    expect(taken.filter((outcome) => outcome === 'new')).toHaveLength(1000)
    await world.host.tick('ada')
    expect(world.host.log('ada')[0]?.actions).toMatchObject([{ state: 'refused' }])

    const later = world.clock.now() + 100 * DAY
    await world.store.write(sweepTicks({ before: later, observedBefore: later, limit: 100 }))
    expect(world.host.log('ada')).toEqual([])
    expect(wasHeard(world.store, pubkey, '0'.repeat(64))).toBe(false)
    expect((await world.host.tick('ada')).actions).toMatchObject([{ state: 'refused', reason: expect.stringContaining('same text') }])
    await world.close()
  })
})

describe('what many ticks leave behind', () => {
  /** Ticks that failed, each with what it observed. */
  async function failedTicks(world: World, agentPubkey: string, from: number, count: number): Promise<void> {
    const at = world.clock.now()
    for (let i = from; i < from + count; i++) {
      const id = `t${i}`
      const claim = claimTick({ id, agentPubkey, slot: `manual:${i}`, trigger: 'manual', at, nextTickAt: undefined })
      await world.store.write(
        all(claim, beginThinking({ id, observation: { notes: [] } }), failTick({ id, error: 'no', at, retryAt: null })),
      )
    }
  }
  const rowsOf = (world: World, where: string) => Number(world.store.sql(`SELECT count(*) AS n FROM ticks WHERE ${where}`).get()?.['n'])

  it('is swept in one go, however many there were, and of few what they observed is kept', async () => {
    const dir = tempDir()
    const world = await startWorld({ dir })
    const { pubkey } = await world.host.spawn({ name: 'ada', brain: quiet, heartbeat_s: 31_536_000 })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    await failedTicks(world, pubkey, 0, 700)
    await world.clock.advance(2 * HOUR)
    await vi.waitFor(() => expect(rowsOf(world, 'observation_json IS NOT NULL')).toBe(200))
    expect(rowsOf(world, 'TRUE')).toBe(701)
    await world.close()
    // Ninety days later: the first sweep after the start takes them all.
    const clock = new ManualClock(world.clock.now() + 91 * DAY)
    const again = await startWorld({ dir, clock, outside: world.outside })
    await again.clock.advance(MINUTE)
    await vi.waitFor(() => expect(rowsOf(again, 'number < 702')).toBe(0))
    await again.close()
  })

  it('keeps of a mention what a reply needs, however large it came', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 3600 } })
    const { pubkey } = await world.host.spawn({ name: 'ada', brain: REPLIER })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    const root = '34'.repeat(32)
    const junk = Array.from({ length: 500 }, (_, i) => ['p', i.toString(16).padStart(64, 'b'), ...Array<string>(50).fill('x'.repeat(500))])
    const tags = [['e', 'y'.repeat(60_000)], ['e', root, 'ws://relay.test', 'root'], ['p', pubkey], ...junk]
    const mention = await world.say(stranger(0x0b), { content: 'z'.repeat(100_000), tags })
    const size = world.store.sql('SELECT length(event_json) + length(content) AS n FROM heard WHERE id = ?').get(mention.id)
    expect(Number(size?.['n'])).toBeLessThan(12_000)
    await world.host.tick('ada')
    await vi.waitFor(() => expect(world.outside.ofKind(1, pubkey)).toHaveLength(1))
    expect(world.outside.ofKind(1, pubkey)[0]?.tags.slice(0, 2)).toEqual([
      ['e', root, 'ws://relay.test', 'root'],
      ['e', mention.id, '', 'reply', stranger(0x0b).pubkey],
    ])
    // What was said is in what the tick observed, and nowhere else.
    expect(world.store.sql('SELECT content FROM heard WHERE id = ?').get(mention.id)).toEqual({ content: '' })
    await world.close()
  })
})

describe('a locked home', () => {
  it('says so, shows its agents, and runs them after the unlock', async () => {
    const dir = tempDir()
    const world = await startWorld({ dir })
    await world.host.spawn({ name: 'ada', brain: quiet })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    await world.close()

    const store = openStore(join(dir, 'pylon.db'))
    const clock = new ManualClock(world.clock.now() + DAY)
    const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey: world.keyring.node().pubkey })
    const host = new Host({ ...world.deps, scope: testScope(clock), store, clock, keyring, config: () => DEFAULT_CONFIG })
    await host.start()
    expect(host.status()).toMatchObject({
      state: 'degraded',
      reason: expect.stringContaining('locked'),
      agents: [{ name: 'ada', tick_count: 1 }],
    })
    await expect(host.spawn({ name: 'bea' })).rejects.toMatchObject({ code: 'locked' })
    keyring.unlock(WORDS)
    await host.start()
    await vi.waitFor(() => expect(host.get('ada').tick_count).toBe(2))
    expect(host.status().state).toBe('ok')
    await host.close(1000)
    store.close()
  })
})

describe('what the owner says', () => {
  it.each([
    [{ heartbeat_s: 0 }, 'invalid_request', 'heartbeat_s'],
    [{ colour: 'red' }, 'invalid_request', 'colour'],
    [{ budget: { per_tx_sats: -5 } }, 'invalid_request', 'budget.per_tx_sats'],
    [{ autonomy: 'wild' }, 'invalid_request', 'autonomy'],
    [{ relays: ['http://x'] }, 'relay_invalid', 'http://x'],
    [{ allow: ['bob'] }, 'pubkey_invalid', 'bob'],
    [{ import: 'nsec1nonsense' }, 'identity_invalid', 'nsec'],
    [{ import: '{"version":1}' }, 'identity_invalid', 'bundle'],
    [{ name: 'x'.repeat(33) }, 'agent_name_invalid', '1 to 32'],
  ])('is refused in words: %j', async (spec, code, word) => {
    const world = await startWorld({ dir: tempDir() })
    // What a JSON body may carry, past the types.
    await expect(world.host.spawn(JSON.parse(JSON.stringify(spec)))).rejects.toMatchObject({ code, message: expect.stringContaining(word) })
    expect(world.host.list()).toEqual([])
    expect(() => world.host.get('nobody')).toThrowError(expect.objectContaining({ code: 'agent_not_found' }))
    await world.close()
  })

  it('gives names that are not taken', async () => {
    const world = await startWorld({ dir: tempDir() })
    const names = new Set<string>()
    for (let i = 0; i < 5; i++) names.add((await world.host.spawn({ brain: quiet })).name)
    expect(names.size).toBe(5)
    for (const name of names) expect(name).toMatch(/^[a-z0-9-]+$/)
    await world.close()
  })
})
