import { describe, expect, it, vi } from 'vitest'
import { MAX_TURNS } from '../../../src/host/policy.ts'
import type { SendZap } from '../../../src/wallet/zaps/zaps.ts'
import { tempDir } from '../../support/temp.ts'
import { zapReceipt } from '../../support/zap-receipts.ts'
import { startWorld, stranger, type World } from './world.ts'

const MINUTE = 60_000
const bob = stranger(0x0b)
const lnurlServer = stranger(0x77)

const rules = (...list: object[]) => ({ type: 'script' as const, rules: JSON.stringify({ rules: list }) })
const REPLIER = rules({ on: 'mention', max: 20, do: [{ type: 'reply', to: '{{mention.id}}', text: 'I heard: {{mention.text}}' }] })

/** Agents that tick by themselves once a month, so that all they do here is to answer. */
async function spawnAll(world: World, brain: ReturnType<typeof rules>, names: readonly string[]): Promise<string[]> {
  const pubkeys: string[] = []
  for (const name of names) {
    const { pubkey } = await world.host.spawn({ name, brain, heartbeat_s: 30 * 86_400, budget: { per_day_sats: 100_000 } })
    pubkeys.push(pubkey)
    await vi.waitFor(() => expect(world.host.log(name)[0]?.state).toBe('done'))
  }
  return pubkeys
}

/** Long enough for dozens of answers, in steps, so that all that is due happens. */
async function halfHours(world: World, count: number): Promise<void> {
  for (let i = 0; i < count * 30; i++) await world.clock.advance(MINUTE)
}

const counts = (world: World) => world.host.list().map((agent) => agent.tick_count)

describe('agents of one home', () => {
  it('end a thread in which each answers each mention, whoever began it', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 1, replies_per_hour: 1000, triggered_per_hour: 1000 } })
    const [ada = '', bea = '', cleo = ''] = await spawnAll(world, REPLIER, ['ada', 'bea', 'cleo'])
    await world.say(bob, { content: 'talk', tags: [['p', ada]] })
    await world.say(world.keyring.localSigner(ada), {
      content: 'what do you think?',
      tags: [
        ['p', bea],
        ['p', cleo],
      ],
    })
    await halfHours(world, 1)
    const said = world.outside.ofKind(1).length
    const ticks = counts(world)
    expect(world.outside.ofKind(1, ada).length).toBeGreaterThan(2)
    await halfHours(world, 2)
    expect(world.outside.ofKind(1)).toHaveLength(said)
    expect(counts(world)).toEqual(ticks)
    // A word from outside begins anew.
    const fresh = await world.say(bob, { content: 'still there?', tags: [['p', ada]] })
    await halfHours(world, 1)
    expect(world.outside.ofKind(1, ada).some((note) => note.tags.some((tag) => tag[1] === fresh.id))).toBe(true)
    await world.close()
  })

  it('end a ping-pong of messages after the turns of one exchange', async () => {
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 1, replies_per_hour: 100 } })
    const answers = { on: 'dm', do: [{ type: 'dm', to: '{{dm.npub}}', text: 'pong' }] }
    const [, bea = ''] = await spawnAll(world, rules(answers), ['ada', 'bea'])
    await world.host.set('ada', {
      brain: rules(answers, {
        on: 'tick',
        when: [{ field: 'dms.count', op: 'eq', value: 0 }],
        do: [{ type: 'dm', to: bea, text: 'ping' }],
      }),
    })
    const sent = (name: string) => world.host.log(name).flatMap((tick) => tick.actions.filter((action) => action.state === 'published'))
    await world.host.tick('ada')
    await halfHours(world, 2)
    expect(sent('ada').length + sent('bea').length).toBe(MAX_TURNS)
    // The last word is heard and not answered; then the agent's own clock, or its owner, begins anew.
    expect((await world.host.tick('ada')).actions).toMatchObject([{ type: 'dm', state: 'refused' }])
    await world.host.tick('ada')
    await halfHours(world, 1)
    expect(sent('ada').length + sent('bea').length).toBe(2 * MAX_TURNS)
    expect(world.host.log('ada').filter((tick) => tick.trigger === 'dm').length).toBeLessThanOrEqual(MAX_TURNS)
    await world.close()
  })

  it('end a loop of zaps that thank for zaps', async () => {
    const zapAddresses = {
      register: async () => ({ lnurl: 'lnurl1test', lud16: undefined }),
      receiptKeyOf: async () => lnurlServer.pubkey,
    }
    const world = await startWorld({ dir: tempDir(), host: { debounce_s: 1 }, deps: { zapAddresses } })
    const back = rules({ on: 'zap', do: [{ type: 'zap', to: '{{zap.npub}}', sats: 21, comment: 'thank you' }] })
    const [ada = ''] = await spawnAll(world, back, ['ada', 'bea'])
    const { sendZap } = world.deps
    const atS = () => Math.floor(world.clock.now() / 1000)
    Object.assign(world.deps, {
      sendZap: async (order: Parameters<SendZap>[0]) => {
        const result = await sendZap(order)
        const payer = world.keyring.localSigner(order.from.pubkey)
        const receipt = { server: lnurlServer, payer, recipient: order.recipient, amountMsats: order.amountSats * 1000n, atS: atS() }
        world.clock.after(1000, () => void world.deliver(zapReceipt(receipt)))
        return result
      },
    })
    const bea = world.keyring.localSigner(world.host.get('bea').pubkey)
    await world.deliver(zapReceipt({ server: lnurlServer, payer: bea, recipient: ada, amountMsats: 21_000n, atS: atS() }))
    await halfHours(world, 2)
    const zaps = world.outside.zaps.length
    expect(zaps).toBeGreaterThan(1)
    expect(zaps).toBeLessThanOrEqual(MAX_TURNS)
    // A stranger's zap is thanked for as ever.
    await world.deliver(zapReceipt({ server: lnurlServer, payer: bob, recipient: ada, amountMsats: 21_000n, atS: atS() }))
    await halfHours(world, 1)
    expect(world.outside.zaps).toHaveLength(zaps + 1)
    await world.close()
  })
})
