import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { createHost } from '../../../src/host/host.ts'
import { HomeKeyring } from '../../../src/nostr/keyring.ts'
import { all } from '../../../src/store/commands.ts'
import { putGoal } from '../../../src/store/goals.ts'
import { hear, wasHeard } from '../../../src/store/heard.ts'
import { addMemory, memoriesOf } from '../../../src/store/memories.ts'
import { Store } from '../../../src/store/store.ts'
import { sweepTicks } from '../../../src/store/ticks.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, WORDS } from './world.ts'

const DAY = 86_400_000
const quiet = { type: 'script' as const, rules: '[[rules]]\non = "first"\ndo = [{ type = "nothing" }]' }

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
    expect(world.host.goals('ada').length).toBe(50)
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
    expect(taken.filter(Boolean)).toHaveLength(1000)
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

describe('a locked home', () => {
  it('says so, shows its agents, and runs them after the unlock', async () => {
    const dir = tempDir()
    const world = await startWorld({ dir })
    await world.host.spawn({ name: 'ada', brain: quiet })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    await world.close()

    const store = Store.open(join(dir, 'pylon.db'))
    const clock = new ManualClock(world.clock.now() + DAY)
    const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey: world.keyring.node().pubkey })
    const host = createHost({ ...world.deps, store, clock, keyring, config: () => DEFAULT_CONFIG })
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
