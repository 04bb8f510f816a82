/** Many who speak to an agent at once: what one tick has no room for is answered by the next, or named as left. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { buildDm17 } from '../../../src/nostr/nips/nip59.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, stranger, type World } from './world.ts'

const MINUTE = 60_000
const rules = (...list: object[]) => ({ type: 'script' as const, rules: JSON.stringify({ version: 1, rules: list }) })

async function spawnAda(world: World, brain?: Parameters<World['host']['spawn']>[0]['brain']): Promise<string> {
  const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, ...(brain === undefined ? {} : { brain }) })
  await settled(world)
  return pubkey
}

/** Every tick has ended and none is due at once. */
const settled = (world: World) =>
  vi.waitFor(() => {
    expect(world.host.log('ada', { limit: 100 }).every((tick) => tick.state === 'done')).toBe(true)
    expect(Date.parse(world.host.get('ada').next_tick_at ?? '')).toBeGreaterThan(world.clock.now())
  })

async function mention(world: World, ada: string, count: number): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < count; i++) ids.push((await world.say(stranger(0x20 + i), { content: `question ${i}`, tags: [['p', ada]] })).id)
  return ids
}

function answersTo(world: World, ada: string, ids: readonly string[]): number[] {
  const replies = world.outside.ofKind(1, ada)
  return ids.map((id) => replies.filter((reply) => reply.tags.some((tag) => tag[1] === id)).length)
}

describe('a burst', () => {
  it('of ten mentions and ten messages is answered whole by the built-in rules, each once', async () => {
    const world = await startWorld({ dir: tempDir() })
    const ada = await spawnAda(world)
    const ids = await mention(world, ada, 10)
    for (let i = 0; i < 10; i++) {
      const now = Math.floor(world.clock.now() / 1000)
      const wrap = (await buildDm17(stranger(0x60 + i), [ada], 'hello', now)).wraps.find(({ recipient }) => recipient === ada)
      if (wrap !== undefined) await world.deliver(wrap.event)
    }
    await world.clock.advance(MINUTE)
    await settled(world)
    expect(answersTo(world, ada, ids)).toEqual(ids.map(() => 1))
    const messages = world.host.log('ada', { limit: 100 }).flatMap((tick) => tick.actions.filter((action) => action.type === 'dm'))
    expect(messages.map((action) => action.state)).toEqual(Array(10).fill('published'))
    expect(world.host.log('ada', { limit: 100 }).at(-2)?.thought).toContain('[left for the next tick] 7 messages, 7 mentions')
    await world.close()
  })

  it('is not answered twice by a second rule that has less room', async () => {
    const world = await startWorld({ dir: tempDir() })
    const replies = { on: 'mention', max: 2, do: [{ type: 'reply', to: '{{mention.id}}', text: 'tick {{tick.number}}' }] }
    const reacts = { on: 'mention', max: 1, do: [{ type: 'react', to: '{{mention.id}}' }] }
    const ada = await spawnAda(world, rules(reacts, replies))
    const ids = await mention(world, ada, 5)
    await world.clock.advance(MINUTE)
    await settled(world)
    expect(answersTo(world, ada, ids)).toEqual([1, 1, 1, 1, 1])
    expect(world.outside.ofKind(7, ada)).toHaveLength(3)
    await world.close()
  })

  it('wider than the actions of a tick goes on with the next, whatever the brain', async () => {
    const world = await startWorld({ dir: tempDir(), host: { actions_per_tick: 4 } })
    const answersAll = `node -e 'let s="";process.stdin.on("data",d=>s+=d).on("end",()=>{for(const m of JSON.parse(s).mentions)console.log("REPLY: "+m.id+" | hi "+m.text)})'`
    const ada = await spawnAda(world, { type: 'exec', command: answersAll })
    const ids = await mention(world, ada, 10)
    await world.clock.advance(MINUTE)
    await vi.waitFor(() => expect(answersTo(world, ada, ids)).toEqual(ids.map(() => 1)), { timeout: 30_000 })
    await settled(world)
    expect(world.host.get('ada').tick_count).toBe(4)
    await world.close()
  })

  it('of which a model is told a part is told the rest at the next tick', async () => {
    const told: string[] = []
    const server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        told.push(
          ...[
            ...Buffer.concat(chunks)
              .toString('utf8')
              .matchAll(/> question (\d+)/g),
          ].map((match) => match[1] ?? ''),
        )
        response.end(JSON.stringify({ choices: [{ message: { content: 'NOTHING' }, finish_reason: 'stop' }] }))
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    const world = await startWorld({ dir: tempDir(), host: { read_notes: 0 } })
    const base_url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const ada = await spawnAda(world, { type: 'openai', base_url, model: 'tiny' })
    await mention(world, ada, 23)
    await world.clock.advance(MINUTE)
    await settled(world)
    expect(told.map(Number)).toEqual(Array.from({ length: 23 }, (_, i) => i))
    await world.close()
  })

  it('that no tick comes to is named, and wakes nobody for ever', async () => {
    const world = await startWorld({ dir: tempDir(), host: { actions_per_tick: 1 } })
    const first = { on: 'tick', do: [{ type: 'remember', text: 'tick {{tick.number}}' }] }
    const second = { on: 'mention', do: [{ type: 'reply', to: '{{mention.id}}', text: 'hi' }] }
    const ada = await spawnAda(world, rules(first, second))
    await mention(world, ada, 2)
    await world.clock.advance(MINUTE)
    await settled(world)
    expect(world.host.get('ada').tick_count).toBe(5)
    expect(world.host.log('ada')[0]?.thought).toContain('[left unanswered] 2 mentions')
    await world.close()
  })

  it('that fails three ticks is named as left', async () => {
    const world = await startWorld({ dir: tempDir() })
    const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, brain: { type: 'exec', command: 'exit 3' } })
    await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('failed'))
    await mention(world, pubkey, 2)
    for (let i = 0; i < 3; i++) expect((await world.host.tick('ada')).state).toBe('failed')
    expect(world.host.log('ada')[0]?.error).toContain('2 of what it heard had 3 such ticks and are left unanswered')
    await world.close()
  })
})
