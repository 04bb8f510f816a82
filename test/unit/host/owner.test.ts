import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { lastMessageId } from '../../../src/store/nostr/outbox.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, stranger } from './world.ts'

const bob = stranger(0x0b)

/** A brain that answers when it is let: what the owner says meanwhile comes between its thinking and its acts. */
function patientBrain(dir: string, answer: string): { brain: { type: 'exec'; command: string }; release: () => void } {
  const gate = join(dir, 'gate')
  const command = `cat >/dev/null; while [ ! -e '${gate}' ]; do sleep 0.05; done; printf '%s\\n' '${answer}'`
  return { brain: { type: 'exec', command }, release: () => writeFileSync(gate, '') }
}

it.each([
  ['pauses', (host) => host.pause('ada'), 'paused by its owner'],
  ['takes its budget', (host) => host.set('ada', { budget: { per_tx_sats: 5 } }), 'over the budget of 5'],
] satisfies [string, (host: Awaited<ReturnType<typeof startWorld>>['host']) => Promise<unknown>, string][])(
  'what the owner says while the agent thinks holds for what it does then: %s',
  async (_name, say, reason) => {
    const dir = tempDir()
    const world = await startWorld({ dir })
    const { brain, release } = patientBrain(dir, `ZAP: ${bob.pubkey} | 21`)
    await world.host.spawn({ name: 'ada', brain, autonomy: 'autonomous' })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('thinking'))
    await say(world.host)
    release()
    await vi.waitFor(() =>
      expect(world.host.log('ada')[0]).toMatchObject({
        state: 'done',
        actions: [{ type: 'zap', state: 'refused', reason: expect.stringContaining(reason) }],
      }),
    )
    expect(world.outside.zaps).toEqual([])
    await world.close()
  },
)

it('lets a paused agent act in a tick that the owner asks for', async () => {
  const world = await startWorld({ dir: tempDir() })
  const brain = { type: 'script' as const, rules: '[[rules]]\non = "tick"\ndo = [{ type = "post", text = "Tick {{tick.number}}." }]' }
  await world.host.spawn({ name: 'ada', brain })
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  await world.host.pause('ada')
  expect(await world.host.tick('ada')).toMatchObject({ trigger: 'manual', actions: [{ type: 'post', reason: null }] })
  await world.close()
})

it('charges the rent of a tick once when the mint does not say at first whether it took it', async () => {
  const world = await startWorld({ dir: tempDir() })
  const { transfer } = world.deps.wallets
  let answers = 0
  Object.assign(world.deps.wallets, {
    transfer: async (...args: Parameters<typeof transfer>) => {
      await transfer(...args)
      if (++answers === 1) throw new PylonError('payment_unknown', 'The answer is not known yet.')
    },
  })
  const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, tick_fee_sats: 10 })
  await world.fund(pubkey, 100_000)
  await vi.waitFor(() => expect(answers).toBe(1))
  await world.clock.advance(60_000)
  await vi.waitFor(() => expect(world.host.log('ada')).toMatchObject([{ state: 'done', cost_msats: 10_000n }]))
  expect(world.host.get('ada')).toMatchObject({ tick_count: 1, balance_sats: 99_990n })
  await world.close()
})

it("names an agent's own relays to the dialer before anything is put out for them", async () => {
  const seen: [string, number][] = []
  const dialer = { allow: (origin: string) => void seen.push([origin, lastMessageId(world.store)]) }
  const world = await startWorld({ dir: tempDir(), deps: { dialer } })
  await world.host.spawn({ name: 'ada', relays: ['ws://a.test'] })
  expect(seen[0]).toEqual(['ws://a.test', 0])
  const before = lastMessageId(world.store)
  await world.host.set('ada', { relays: ['ws://b.test'] })
  expect(seen.find(([origin]) => origin === 'ws://b.test')).toEqual(['ws://b.test', before])
  expect(lastMessageId(world.store)).toBeGreaterThan(before)
  await world.close()
})

it('keeps the profile of a key that is imported, and sets in it what the owner sets', async () => {
  const world = await startWorld({ dir: tempDir() })
  const grace = createSigner(new Uint8Array(32).fill(0x2a))
  const profile = { name: 'Grace', picture: 'https://example.com/g.png', lud16: 'grace@pay.example.com', odd: { a: 1 } }
  await world.say(grace, { kind: 0, content: JSON.stringify(profile), tags: [['i', 'x']] })
  await world.host.spawn({ import: '2a'.repeat(32) })
  const said = () => {
    const newest = world.outside.ofKind(0, grace.pubkey).sort((a, b) => b.created_at - a.created_at)[0]
    return { ...newest, profile: JSON.parse(newest?.content ?? '{}') as unknown }
  }
  await vi.waitFor(() => expect(world.outside.ofKind(10_002, grace.pubkey)).toHaveLength(1))
  expect(said()).toMatchObject({ profile, tags: [['i', 'x']] })
  await world.host.set(grace.pubkey, { nip05: 'grace@example.com', picture: '' })
  const { picture: _gone, ...rest } = profile
  await vi.waitFor(() => expect(said().profile).toEqual({ ...rest, nip05: 'grace@example.com' }))
  expect(world.host.get(grace.pubkey)).toMatchObject({ nip05: 'grace@example.com', picture: null })
  await expect(world.host.set(grace.pubkey, { lud16: 'no address' })).rejects.toMatchObject({ code: 'invalid_request' })
  await world.close()
})
