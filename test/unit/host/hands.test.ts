/** Actions that a brain does by its tools while it thinks: part of its tick, once, whatever dies or fails afterwards. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { tempDir } from '../../support/temp.ts'
import { Outside, startWorld, stranger, type World } from './world.ts'

const bob = stranger(0x0b)

/** A brain that thinks until it is let. */
function patientBrain(dir: string, end: string) {
  const gate = join(dir, 'gate')
  const command = `cat >/dev/null; while [ ! -e '${gate}' ]; do sleep 0.05; done; ${end}`
  return { brain: { type: 'exec' as const, command }, release: () => writeFileSync(gate, '') }
}

const thinking = (world: World) => vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('thinking'))
const POST = { type: 'post', text: 'By hand.' }

it('does them within the tick, each key once, by policy, and before what is answered', async () => {
  const dir = tempDir()
  const world = await startWorld({ dir })
  onTestFinished(() => world.close())
  const { brain, release } = patientBrain(dir, `printf 'REMEMBER: all done\\n'`)
  const { pubkey } = await world.host.spawn({ name: 'ada', brain, heartbeat_s: 86_400 })
  await thinking(world)
  const done = await world.host.actInTick('ada', POST, 'k')
  expect(done).toMatchObject({ type: 'post', tick_number: 1, reason: null })
  expect((await world.host.actInTick('ada', POST, 'k')).id).toBe(done.id)
  expect(await world.host.actInTick('ada', { type: 'dm', to: bob.pubkey, text: 'a' }, 'k2')).toMatchObject({ state: 'refused' })
  await expect(world.host.actInTick('ada', { type: 'fly' }, 'k3')).rejects.toMatchObject({ code: 'action_invalid' })
  release()
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  expect(world.host.log('ada')[0]?.actions.map(({ type, state }) => `${type} ${state}`)).toEqual([
    'post published',
    'dm refused',
    'remember done',
  ])
  expect(world.outside.ofKind(1, pubkey)).toHaveLength(1)
  await expect(world.host.actInTick('ada', { type: 'post', text: 'late' }, 'k4')).rejects.toMatchObject({ code: 'conflict' })
})

it('takes only so many of one tick', async () => {
  const dir = tempDir()
  const world = await startWorld({ dir })
  onTestFinished(() => world.close())
  const { brain, release } = patientBrain(dir, 'true')
  await world.host.spawn({ name: 'ada', brain, heartbeat_s: 86_400 })
  await thinking(world)
  for (let i = 0; i < 50; i++) await world.host.actInTick('ada', { type: 'remember', text: `${i}` }, `k${i}`)
  await expect(world.host.actInTick('ada', { type: 'remember', text: 'more' }, 'more')).rejects.toMatchObject({ code: 'action_refused' })
  const done = world.host.log('ada')[0]?.actions.filter(({ state }) => state === 'done')
  expect(done).toHaveLength(world.deps.config().host.actions_per_tick)
  release()
})

it('does not think again of what it has begun to do when the node dies', async () => {
  const dir = tempDir()
  const outside = new Outside()
  outside.accepts = false
  const { brain } = patientBrain(dir, `printf 'POST: thought again\\n'`)
  const first = await startWorld({ dir, outside })
  const { pubkey } = await first.host.spawn({ name: 'ada', brain, heartbeat_s: 86_400 })
  await thinking(first)
  await first.host.actInTick('ada', POST, 'k')
  first.crash()
  outside.accepts = true
  const second = await startWorld({ dir, outside, clock: first.clock })
  onTestFinished(() => second.close())
  await vi.waitFor(() => expect(second.host.log('ada')[0]).toMatchObject({ state: 'done', actions: [{ state: 'published' }] }))
  expect(second.host.log('ada')[0]?.thought).toContain('what it had begun is finished')
  expect(outside.ofKind(1, pubkey).map(({ content }) => content)).toEqual(['By hand.'])
})

it('hears nothing a second time when it fails after it has acted', async () => {
  const dir = tempDir()
  const world = await startWorld({ dir })
  onTestFinished(() => world.close())
  const { brain, release } = patientBrain(dir, 'exit 3')
  const idle = { type: 'script' as const, rules: '[[rules]]\non = "tick"\ndo = [{ type = "nothing" }]' }
  const { pubkey } = await world.host.spawn({ name: 'ada', brain: idle, heartbeat_s: 86_400 })
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  await world.host.set('ada', { brain })
  const mention = await world.say(bob, { content: 'hi', tags: [['p', pubkey]] })
  const tick = world.host.tick('ada')
  await thinking(world)
  await world.host.actInTick('ada', { type: 'reply', to: mention.id, text: 'hello' }, 'k')
  release()
  expect(await tick).toMatchObject({ state: 'failed', number: 2 })
  expect(world.host.messages('ada')).toMatchObject([{ text: 'hi', tick_number: 2 }])
})
