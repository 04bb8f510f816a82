import { describe, expect, it, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { agentTransitions } from '../../../src/store/agents/agents.ts'
import { claimManagedAgent } from '../../../src/store/buying/managed-agents.ts'
import { tempDir } from '../../support/temp.ts'
import { START_MS, startWorld, stranger } from './world.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

describe('the life of an agent', () => {
  it('is active at zero sats when its ticks cost nothing, and ticks at spawn', async () => {
    const world = await startWorld({ dir: tempDir() })
    const spawned = await world.host.spawn({ name: 'ada' })
    expect(spawned).toMatchObject({ name: 'ada', state: 'active', balance_sats: 0n })
    await vi.waitFor(() => expect(world.host.get('ada').tick_count).toBe(1))
    expect(world.host.log('ada')[0]).toMatchObject({ number: 1, trigger: 'first' })
    await world.close()
  })

  it('ticks, runs low, hibernates, goes dormant, is funded and comes back, with the reason of each step', async () => {
    // Ten minutes between ticks of 10 sats: 1440 sats a day.
    const world = await startWorld({ dir: tempDir(), host: { low_balance_days: 0.5, hibernate_days: 0.1 } })
    const { host, clock, outside } = world
    const born = await host.spawn({ name: 'ada', heartbeat_s: 600, tick_fee_sats: 10 })
    expect(born).toMatchObject({ state: 'dormant', next_tick_at: null })
    expect(born.reason).toContain('do not pay one tick of 10')
    await clock.advance(2 * HOUR)
    expect(host.get('ada').tick_count).toBe(0)

    await world.fund(born.pubkey, 900)
    expect(host.get('ada').state).toBe('active')
    await vi.waitFor(() => expect(host.log('ada')[0]?.state).toBe('done'))
    expect(host.get('ada')).toMatchObject({ tick_count: 1, balance_sats: 890n })

    const seen = new Set<string>()
    let lowTicks = 0
    for (let minutes = 0; minutes < 60 * 60 && host.get('ada').state !== 'hibernating'; minutes += 10) {
      await clock.advance(10 * MINUTE)
      await vi.waitFor(() => expect(host.log('ada', { limit: 1 })[0]?.state).toBe('done'))
      const { state, tick_count } = host.get('ada')
      if (state === 'low_balance' && !seen.has(state)) lowTicks = tick_count
      seen.add(state)
    }
    expect([...seen]).toEqual(['active', 'low_balance', 'hibernating'])
    const asleep = host.get('ada')
    expect(asleep.next_tick_at).toBeNull()
    expect(asleep.reason).toContain('less than 0.1')
    // Heartbeats were twice as long while it ran low: fewer ticks than ten-minute steps.
    expect(asleep.tick_count).toBeGreaterThan(lowTicks)

    // No heartbeat and no mention wakes it; the owner's own ticks use the rest up.
    await world.say(stranger(7), { content: 'hello', tags: [['p', born.pubkey]] })
    await clock.advance(2 * HOUR)
    expect(host.get('ada').tick_count).toBe(asleep.tick_count)
    for (let i = 0; i < 100 && host.get('ada').state === 'hibernating'; i++) await host.tick('ada')
    expect(host.get('ada').state).toBe('dormant')
    await expect(host.tick('ada')).rejects.toMatchObject({ code: 'conflict' })
    expect(outside.balances.get(born.pubkey)).toBeLessThan(10n)

    // Found by looking, without any word from the wallet.
    await world.fund(born.pubkey, 5000, false)
    const before = host.get('ada').tick_count
    await clock.advance(2 * MINUTE)
    await vi.waitFor(() => expect(host.get('ada')).toMatchObject({ state: 'active', tick_count: before + 1 }))
    const steps = agentTransitions(world.store, born.pubkey).reverse()
    expect(steps.map((step) => step.to)).toEqual(['spawning', 'dormant', 'active', 'low_balance', 'hibernating', 'dormant', 'active'])
    expect(steps.every((step) => step.reason.length > 5)).toBe(true)
    await world.close()
  })

  it('wakes a hibernating agent once for funding', async () => {
    const world = await startWorld({ dir: tempDir(), host: { low_balance_days: 7, hibernate_days: 1 } })
    const { host } = world
    const { pubkey } = await host.spawn({ name: 'ada', heartbeat_s: 600, tick_fee_sats: 10 })
    await world.fund(pubkey, 100)
    await vi.waitFor(() => expect(host.log('ada')[0]).toMatchObject({ state: 'done', trigger: 'funding' }))
    expect(host.get('ada')).toMatchObject({ state: 'hibernating', tick_count: 1, next_tick_at: null })
    await world.clock.advance(MINUTE)
    await world.fund(pubkey, 100)
    await vi.waitFor(() => expect(host.get('ada').tick_count).toBe(2))
    await world.clock.advance(5 * HOUR)
    expect(host.get('ada').tick_count).toBe(2)
    await world.close()
  })

  it('pauses and goes on over a restart', async () => {
    const dir = tempDir()
    const first = await startWorld({ dir })
    await first.host.spawn({ name: 'ada', heartbeat_s: 600 })
    await vi.waitFor(() => expect(first.host.log('ada')[0]?.state).toBe('done'))
    expect(await first.host.pause('ada')).toMatchObject({ state: 'paused', reason: 'paused by the owner', next_tick_at: null })
    await first.close()
    const second = await startWorld({ dir, clock: first.clock, outside: first.outside })
    await second.clock.advance(3 * HOUR)
    expect(second.host.get('ada')).toMatchObject({ state: 'paused', tick_count: 1 })
    expect(await second.host.resume('ada')).toMatchObject({ state: 'active' })
    await vi.waitFor(() => expect(second.host.get('ada').tick_count).toBe(2))
    await second.close()
  })

  it('makes one tick of all that a long stop missed', async () => {
    const dir = tempDir()
    const first = await startWorld({ dir })
    await first.host.spawn({ name: 'ada', heartbeat_s: 600 })
    await vi.waitFor(() => expect(first.host.log('ada')[0]?.state).toBe('done'))
    await first.close()
    await first.clock.advance(48 * HOUR)
    const second = await startWorld({ dir, clock: first.clock, outside: first.outside })
    await second.clock.advance(MINUTE)
    await vi.waitFor(() => expect(second.host.get('ada').tick_count).toBe(2))
    expect(Date.parse(second.host.get('ada').next_tick_at ?? '')).toBeGreaterThan(START_MS + 48 * HOUR)
    await second.close()
  })

  it('has a name that no other agent has, wherever that one runs', async () => {
    const { host, store, close } = await startWorld({ dir: tempDir() })
    await host.spawn({ name: 'ada' })
    const asked = { id: 'k', digest: 'd', server: stranger(1).pubkey, command: {}, maxSats: null, payWith: null, keep: false, at: START_MS }
    await expect(store.write(claimManagedAgent({ ...asked, name: 'ada' }))).rejects.toMatchObject({ code: 'agent_exists' })
    await store.write(claimManagedAgent({ ...asked, name: 'bob' }))
    await expect(host.spawn({ name: 'bob' })).rejects.toMatchObject({ code: 'agent_exists' })
    await expect(host.set('ada', { name: 'bob' })).rejects.toMatchObject({ code: 'agent_exists' })
    await close()
  })

  it('tells an imported key from a new one and keeps a deleted one apart', async () => {
    const world = await startWorld({ dir: tempDir() })
    const { host } = world
    const ada = await host.spawn({ name: 'ada', about: 'counts things', heartbeat_s: 300 })
    const bundle = host.export('ada')
    expect(bundle).toMatchObject({ version: 1, pubkey: ada.pubkey, name: 'ada', heartbeat_s: 300 })
    expect(bundle.nsec).toMatch(/^nsec1/)
    await expect(host.spawn({ name: 'ada' })).rejects.toMatchObject({ code: 'agent_exists' })
    await expect(host.spawn({ name: 'Ada!' })).rejects.toMatchObject({ code: 'agent_name_invalid' })
    await expect(host.spawn({ import: JSON.stringify(bundle) })).rejects.toMatchObject({ code: 'agent_exists' })

    const other = await startWorld({ dir: tempDir() })
    // The other home has the same words here, so move a foreign key: the point is that the bundle carries the agent.
    const foreign = { ...bundle, nsec: '33'.repeat(32), pubkey: stranger(0x33).pubkey }
    expect(await other.host.spawn({ import: JSON.stringify(foreign) })).toMatchObject({
      name: 'ada',
      about: 'counts things',
      heartbeat_s: 300,
      pubkey: stranger(0x33).pubkey,
    })
    await other.close()

    await world.fund(ada.pubkey, 40)
    await expect(host.delete('ada')).rejects.toMatchObject({ code: 'conflict' })
    expect(await host.delete('ada', { moveFunds: true })).toEqual({ name: 'ada', moved_sats: 40n })
    expect(() => host.get('ada')).toThrow(/no agent/)
    expect(world.outside.balances.get(world.keyring.node().pubkey)).toBe(40n)
    const next = await host.spawn({ name: 'ada' })
    expect(next.pubkey).not.toBe(ada.pubkey)
    await world.close()
  })

  it('comes back when it is funded, though another agent cannot be looked after', async () => {
    const world = await startWorld({ dir: tempDir() })
    const ada = await world.host.spawn({ name: 'ada' })
    await world.clock.advance(MINUTE)
    const bea = await world.host.spawn({ name: 'bea', tick_fee_sats: 10 })
    expect(bea.state).toBe('dormant')
    const { of } = world.deps.wallets
    Object.assign(world.deps.wallets, {
      of: (owner: Parameters<typeof of>[0]) => {
        if (owner.pubkey === ada.pubkey) throw new PylonError('internal', 'This wallet is broken.')
        return of(owner)
      },
    })
    await world.fund(bea.pubkey, 100_000, false)
    await world.clock.advance(2 * MINUTE)
    expect(world.host.get('bea').state).toBe('active')
    await world.close()
  })

  it('leaves nothing behind that is worth its fee, though the mint asks much', async () => {
    const world = await startWorld({ dir: tempDir() })
    const { pubkey } = await world.host.spawn({ name: 'ada' })
    await world.fund(pubkey, 100)
    const { transfer, of } = world.deps.wallets
    // Thirty small coins at a sat each.
    Object.assign(world.deps.wallets, {
      transfer: async (...[from, to, amount, key]: Parameters<typeof transfer>) => {
        if (amount + 30n > of(from).balance().balanceSats) throw new PylonError('insufficient_funds', 'It does not pay for its fee.')
        await transfer(from, to, amount, key)
      },
    })
    expect(await world.host.delete('ada', { moveFunds: true })).toEqual({ name: 'ada', moved_sats: 68n })
    await world.close()
  })

  it('stays when its mint is down, with all it holds, and leaves when the mint is back', async () => {
    const world = await startWorld({ dir: tempDir() })
    const { pubkey } = await world.host.spawn({ name: 'ada' })
    await world.fund(pubkey, 100)
    const { transfer } = world.deps.wallets
    const down = async () => {
      throw new PylonError('mint_unreachable', 'The mint does not answer.')
    }
    Object.assign(world.deps.wallets, { transfer: down })
    await expect(world.host.delete('ada', { moveFunds: true })).rejects.toMatchObject({ code: 'mint_unreachable' })
    expect(world.host.get('ada')).toMatchObject({ state: 'paused', balance_sats: 100n })
    Object.assign(world.deps.wallets, { transfer })
    expect(await world.host.delete('ada', { moveFunds: true })).toEqual({ name: 'ada', moved_sats: 100n })
    await world.close()
  })

  it('gives the node what it is paid after it was deleted, also when nobody tells', async () => {
    const dir = tempDir()
    const world = await startWorld({ dir })
    const { pubkey } = await world.host.spawn({ name: 'ada' })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    await world.host.delete('ada')
    const nodeHolds = () => world.outside.balances.get(world.keyring.node().pubkey) ?? 0n
    await world.fund(pubkey, 40)
    await vi.waitFor(() => expect(nodeHolds()).toBe(40n))
    await world.close()
    const again = await startWorld({ dir, clock: world.clock, outside: world.outside })
    await again.fund(pubkey, 2, false)
    await again.clock.advance(2 * HOUR)
    await vi.waitFor(() => expect(nodeHolds()).toBe(42n))
    await again.close()
  })
})
