/** An agent of this home that is talked to: every turn ends in words, or in words of why there are none. */
import { expect, onTestFinished, test, vi } from 'vitest'
import { Chat } from '../../../src/customer/agents/chat.ts'
import type { SpawnSpec } from '../../../src/host/spec.ts'
import { encodeEnvelope } from '../../../src/session/envelope.ts'
import { MemoryTalk } from '../../support/memory-sessions.ts'
import { tempDir } from '../../support/temp.ts'
import { START_MS, startWorld, stranger } from './world.ts'

const SECOND = 1000
const signal = new AbortController().signal
const script = (...list: object[]) => ({ type: 'script' as const, rules: JSON.stringify({ version: 1, rules: list }) })
const dm = { type: 'dm', to: '{{dm.pubkey}}', text: 'you said {{dm.text}}' }

/** @param by who talks to ada: the owner, by default */
async function talking(
  brain: SpawnSpec['brain'],
  {
    by,
    ...more
  }: Partial<SpawnSpec> & { by?: ReturnType<typeof stranger>; host?: NonNullable<Parameters<typeof startWorld>[0]['host']> } = {},
) {
  const talk = new MemoryTalk(() => Math.floor(START_MS / 1000))
  const { host, ...spec } = more
  const world = await startWorld({
    dir: tempDir(),
    ...(host === undefined ? {} : { host }),
    deps: { openSessions: ({ scope, signer }) => talk.of(signer.pubkey, scope, worldOf().store) as never },
  })
  const worldOf = () => world
  onTestFinished(() => world.close())
  const ada = await world.host.spawn({ name: 'ada', heartbeat_s: 3600, ...spec, ...(brain === undefined ? {} : { brain }) })
  await vi.waitFor(() => expect(world.host.log('ada')).toMatchObject([{ state: 'done' }]))
  const { scope, store, clock, keyring } = world.deps
  const signer = by ?? (keyring as typeof world.keyring).customer()
  const sessions = talk.of(signer.pubkey, scope.child('owner'), store)
  const owner = { sessions, listen: () => undefined }
  const chat = new Chat({
    store,
    clock,
    owner,
    relays: [],
    direct: undefined as never,
    hostedKey: (ref) => (ref === 'ada' ? ada.pubkey : undefined),
  })
  const turn = async (text: string, key = text) => {
    const ends = chat.turn('ada', text, key, 120 * SECOND, signal)
    let isOver = false
    const over = ends.finally(() => {
      isOver = true
    })
    over.catch(() => undefined)
    while (!isOver) {
      await world.clock.advance(SECOND)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    return await over
  }
  return { ...world, chat, sessions, turn, say: (text: string) => chat.say('ada', { type: 'prompt', text }, text) }
}

test('what it answers is said whole, and then its turn is over', async () => {
  const world = await talking(script({ on: 'dm', do: [dm, { ...dm, text: 'and more' }] }))
  expect(await world.turn('hello')).toMatchObject({ reply: 'you said hello\nand more', outcome: 'done', note: undefined })
})

test('the built-in rules have words for who talks to it, as often as its policy lets it speak', async () => {
  const world = await talking(undefined, { host: { replies_per_hour: 2 } })
  expect(await world.turn('one')).toMatchObject({ outcome: 'done', reply: expect.stringContaining('ada here. I go by rules') })
  expect(await world.turn('two')).toMatchObject({ outcome: 'done' })
  const third = await world.turn('three')
  expect(third).toMatchObject({ outcome: 'silent', reply: '' })
  expect(third.note).toMatch(/^it reads this at its next tick, in about 59 min: within an hour it answers a key 2 times/)
})

test('who chooses to say nothing is heard to, with its thought', async () => {
  const world = await talking(script({ on: 'mention', do: [{ type: 'nothing' }] }))
  expect(await world.turn('hello')).toMatchObject({ outcome: 'silent', reply: '', note: 'No rule applied.' })
})

test('its thoughts are for keys of its home alone', async () => {
  const friend = stranger(0x55)
  const world = await talking(script({ on: 'mention', do: [{ type: 'nothing' }] }), { by: friend, allow: [friend.pubkey] })
  expect(await world.turn('hello')).toMatchObject({ outcome: 'silent', note: 'it chose to say nothing' })
})

test('an answer that waits for the owner of the agent is told to wait', async () => {
  const world = await talking(script({ on: 'dm', do: [dm] }), { autonomy: 'supervised' })
  const { outcome, note } = await world.turn('hello')
  expect(outcome).toBe('silent')
  expect(note).toBe('its answer waits until its owner has approved it')
})

test('a tick that fails ends the turn as an error, and says whether it is tried again', async () => {
  const world = await talking({ type: 'exec', command: `grep -q '"dms":\\[\\]' && echo NOTHING || { echo no such model >&2; exit 3; }` })
  const { outcome, messages } = await world.turn('hello')
  expect(outcome).toBe('error')
  expect(messages.at(-1)?.shown[0]?.text).toMatch(/no such model.*It is tried again in about \d+ min\.$/s)
})

test('what a tick has no room for is answered by the next, and each turn ends with its own', async () => {
  const world = await talking(script({ on: 'dm', max: 1, do: [dm] }))
  const { said: first } = await world.say('one')
  const second = await world.turn('two')
  expect(second).toMatchObject({ reply: 'you said two', outcome: 'done' })
  const ends = world.sessions.messages(first.message.groupId, { limit: 100 }).filter(({ content }) => content.includes('"done"'))
  expect(ends.map(({ content }) => JSON.parse(content.slice(content.indexOf('{'))).answers)).toEqual([
    [first.message.id],
    [second.said.message.id],
  ])
})

test('one that does not tick says so at once', async () => {
  const world = await talking(script({ on: 'dm', do: [dm] }))
  await world.host.pause('ada')
  const { outcome, note } = await world.turn('hello')
  expect({ outcome, note }).toEqual({ outcome: 'silent', note: 'it does not tick now: paused by the owner' })
})

test('an abort is told that a tick goes on', async () => {
  const world = await talking(script({ on: 'dm', do: [dm] }))
  const { line, said } = await world.chat.say('ada', { type: 'abort', text: '' }, 'abort')
  const { message } = said
  const [end] = await world.chat.after(line, { after: message.seq, limit: 1, waitMs: 0, mode: 'coding' }, signal)
  expect(end).toMatchObject({ isEnd: true, shown: [{ kind: 'note', text: expect.stringContaining('pylon agent pause ada') }] })
})

test('a person whose client knows no envelopes is answered in plain text, and told nothing else', async () => {
  const world = await talking(script({ on: 'dm', when: [{ field: 'dm.text', op: 'eq', value: 'hello' }], do: [dm] }))
  const { groupId } = (await world.say('begin')).said.message
  await world.sessions.send(groupId, { content: 'hello' }, 'plain')
  await world.sessions.send(groupId, { content: 'silence' }, 'silence')
  await world.clock.advance(10 * SECOND)
  await vi.waitFor(() => {
    const heard = world.sessions.messages(groupId, { limit: 100 }).filter(({ isOwn }) => !isOwn)
    expect(heard.map(({ content }) => content)).toContain('you said hello')
  })
  const said = world.sessions.messages(groupId, { limit: 100 }).filter(({ isOwn }) => !isOwn)
  // One end, for the one that reads envelopes.
  expect(said.filter(({ content }) => content.includes('"type":"done"'))).toHaveLength(1)
})

test('an envelope is answered by envelopes', async () => {
  const world = await talking(script({ on: 'dm', do: [dm] }))
  const { groupId } = (await world.say('begin')).said.message
  const content = encodeEnvelope({ protocol: 'acp', session_id: 's', body: { type: 'prompt', message: 'hello' } })
  await world.sessions.send(groupId, { content }, 'envelope')
  await world.clock.advance(10 * SECOND)
  await vi.waitFor(() => {
    const heard = world.sessions.messages(groupId, { limit: 100 }).filter(({ isOwn }) => !isOwn)
    expect(heard.some((message) => message.content.includes('"text":"you said hello"'))).toBe(true)
  })
})
