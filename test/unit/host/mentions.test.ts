/** Who names whom: forms in which others mention an agent, comments, what was deleted, and whom the agent's own words tell. */
import { nprofileEncode } from 'nostr-tools/nip19'
import { describe, expect, it, vi } from 'vitest'
import { peopleNamed } from '../../../src/nostr/nips/nip27.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, stranger, type World } from './world.ts'

const MINUTE = 60_000
const bob = stranger(0x42)
const eve = stranger(0x66)
const ANSWERS = {
  type: 'script' as const,
  rules: JSON.stringify({ rules: [{ on: 'mention', do: [{ type: 'reply', to: '{{mention.id}}', text: 'I heard {{mention.npub}}' }] }] }),
}

async function start(brain: Parameters<World['host']['spawn']>[0]['brain'] = ANSWERS) {
  const world = await startWorld({ dir: tempDir() })
  const { pubkey, npub } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400, brain: brain ?? ANSWERS })
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  return { world, ada: pubkey, npub }
}

const ticked = async (world: World) => {
  const before = world.host.get('ada').tick_count
  await world.clock.advance(MINUTE)
  await vi.waitFor(() => {
    expect(world.host.get('ada').tick_count).toBeGreaterThan(before)
    expect(world.host.log('ada')[0]?.state).toBe('done')
  })
}

const tagsOf = (event: { tags: readonly (readonly string[])[] } | undefined, name: string) =>
  (event?.tags ?? []).filter((tag) => tag[0] === name).map((tag) => tag[1])

describe('an agent is mentioned', () => {
  it.each([
    ['nostr:npub', (_ada: string, npub: string) => ({ content: `hi nostr:${npub}!` })],
    [
      'nostr:nprofile',
      (ada: string) => ({ content: `hi nostr:${nprofileEncode({ pubkey: ada, relays: ['wss://relay.example'] })}, how are you?` }),
    ],
    ['@npub in capitals', (_ada: string, npub: string) => ({ content: `@${npub.toUpperCase()}` })],
    ['a comment without a tag', (_ada: string, npub: string) => ({ kind: 1111, content: `nostr:${npub}` })],
    ['a tag', (ada: string) => ({ content: 'hi', tags: [['p', ada]] })],
  ])('by %s and answers once', async (_what, said) => {
    const { world, ada, npub } = await start()
    const note = await world.say(bob, said(ada, npub))
    await ticked(world)
    await world.clock.advance(5 * MINUTE)
    const replies = [...world.outside.events.values()].filter((event) => event.pubkey === ada && tagsOf(event, 'e').includes(note.id))
    expect(replies).toHaveLength(1)
    await world.close()
  })

  it('in a comment (NIP-22), and answers with a comment in the same thread', async () => {
    const { world, ada } = await start()
    const root = 'f'.repeat(64)
    const address = `30023:${eve.pubkey}:an-article`
    const tags = [
      ['A', address],
      ['E', root],
      ['K', '30023'],
      ['P', eve.pubkey],
      ['a', address],
      ['e', root],
      ['k', '30023'],
      ['p', ada],
    ]
    const comment = await world.say(bob, { kind: 1111, content: 'what do you think?', tags })
    await ticked(world)
    const [reply] = world.outside.ofKind(1111, ada)
    expect(reply?.tags.slice(0, 4)).toEqual(tags.slice(0, 4))
    expect([tagsOf(reply, 'e'), tagsOf(reply, 'k'), tagsOf(reply, 'p')]).toEqual([[comment.id], ['1111'], [bob.pubkey]])
    expect(world.outside.ofKind(1, ada)).toHaveLength(0)
    await world.close()
  })

  it('and leaves unanswered what its author has deleted, but not what somebody else would delete', async () => {
    const { world, ada } = await start()
    const deleted = await world.say(bob, { content: 'oops', tags: [['p', ada]] })
    const kept = await world.say(bob, { content: 'hi', tags: [['p', ada]] })
    await world.say(bob, { kind: 5, tags: [['e', deleted.id]] })
    await world.say(eve, { kind: 5, tags: [['e', kept.id]] })
    await ticked(world)
    expect(world.outside.ofKind(1, ada).map((reply) => tagsOf(reply, 'e')[0])).toEqual([kept.id])
    expect(world.host.log('ada')[0]?.thought).toContain('[deleted by their authors] 1')
    await world.close()
  })
})

describe('an agent names others', () => {
  it('and its posts and replies tell them', async () => {
    const profile = nprofileEncode({ pubkey: eve.pubkey, relays: [] })
    const { world, ada, npub } = await start({
      type: 'script',
      rules: JSON.stringify({
        rules: [
          { on: 'first', do: [{ type: 'post', text: `Hello nostr:${profile} and nostr:npub1nobody, from nostr:{{agent.npub}} #intro` }] },
          { on: 'mention', do: [{ type: 'reply', to: '{{mention.id}}', text: `Ask nostr:${profile}, nostr:{{mention.npub}}` }] },
        ],
      }),
    })
    expect(world.outside.ofKind(1, ada)[0]?.tags).toEqual([
      ['t', 'intro'],
      ['p', eve.pubkey],
    ])
    const note = await world.say(bob, { content: `nostr:${npub}`, tags: [['p', ada]] })
    await ticked(world)
    const reply = world.outside.ofKind(1, ada).find((event) => tagsOf(event, 'e').includes(note.id))
    expect(tagsOf(reply, 'p').sort()).toEqual([bob.pubkey, eve.pubkey].sort())
    await world.close()
  })

  it('but a text that is all names tells only so many', () => {
    const names = Array.from({ length: 40 }, (_, i) => nprofileEncode({ pubkey: stranger(i + 1).pubkey, relays: [] }))
    expect(peopleNamed(names.join(' '), 10)).toHaveLength(10)
    expect(peopleNamed(`xnpub1${'q'.repeat(58)} npub1${'q'.repeat(58)} nprofile1${'q'.repeat(900)}`, 10)).toEqual([])
  })
})
