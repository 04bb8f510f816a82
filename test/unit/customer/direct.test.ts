/** A peer that no session can be begun with: what is said to it goes by NIP-17, and its answering message ends the turn. */
import { expect, onTestFinished, test, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { Chat } from '../../../src/customer/agents/chat.ts'
import { DirectMessages } from '../../../src/customer/agents/direct-messages.ts'
import { buildDm17, unwrap, WRAP_KIND } from '../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import { tempDir } from '../../support/temp.ts'
import { startWorld, stranger, type World } from '../host/world.ts'

const signal = new AbortController().signal
const RELAY = 'ws://relay.test'

/** The owner's end, over the relay of a world in which no key has a key package. */
function owner(world: World) {
  const { scope, store, clock, nostr } = world.deps
  const signer = world.keyring.customer()
  const direct = new DirectMessages({ scope: scope.child('direct'), store, nostr, signer })
  direct.start()
  nostr.subscribe({
    ...{ name: 'wraps', backfillS: 0, filters: [{ kinds: [WRAP_KIND], '#p': [signer.pubkey] }] },
    onEvent: async (wrap) => direct.onRumor(await unwrap(signer, wrap, createVerifier())),
  })
  const sessions = {
    groups: () => [],
    group: () => undefined,
    groupWith: () => undefined,
    create: async () => {
      throw new PylonError('session_no_key_package', 'The peer has published no key package.')
    },
  }
  const chat = new Chat({
    store,
    clock,
    relays: [],
    direct,
    owner: { sessions: sessions as never, listen() {} },
    hostedKey: () => undefined,
  })
  return { chat, direct, signer }
}

async function started() {
  const world = await startWorld({ dir: tempDir() })
  onTestFinished(() => world.close())
  return { world, ...owner(world) }
}

test('an agent without a key package is written to by NIP-17, and its message is the answer', async () => {
  const { world, chat } = await started()
  const { pubkey } = await world.host.spawn({ name: 'ada', heartbeat_s: 86_400 })
  await vi.waitFor(() => expect(world.host.log('ada')).toMatchObject([{ state: 'done' }]))
  world.outside.inboxes.set(pubkey, [RELAY])
  const turning = chat.turn(pubkey, 'hello', 'k', 60_000, signal)
  await vi.waitFor(() => expect(world.host.messages('ada')).toMatchObject([{ text: 'hello', scheme: 'nip17' }]))
  await world.clock.advance(6_000)
  const turn = await turning
  expect(turn).toMatchObject({ line: { via: 'nip17' }, outcome: 'done', reply: expect.stringContaining('your message arrived') })
  expect(turn.messages).toHaveLength(1)
  // The same key again is the same turn; a copy is with us, and who answers finds where.
  expect(await chat.turn(pubkey, 'hello', 'k', 60_000, signal)).toEqual({
    ...turn,
    said: await chat.say(pubkey, { type: 'prompt', text: 'hello' }, 'k').then(({ said }) => said),
  })
  expect(world.host.messages('ada')).toHaveLength(1)
  expect(world.outside.ofKind(10_050, world.keyring.customer().pubkey)).toMatchObject([{ tags: [['relay', RELAY]] }])
  expect(chat.last(chat.lineOf(pubkey), 10, 'coding').map(({ message }) => [message.isOwn, message.state])).toEqual([
    [true, 'sent'],
    [false, 'handled'],
  ])
})

test('who reads no such messages either is not written to', async () => {
  const { chat } = await started()
  await expect(chat.say(stranger(5).pubkey, { type: 'prompt', text: 'hello' }, 'k')).rejects.toThrow(
    /key package of it \(30443\), nor its DM relays \(10050\)/,
  )
})

test('what comes from keys that were never written to is not kept, nor the same twice', async () => {
  const { world, direct, signer } = await started()
  const [friend, other] = [stranger(6), stranger(7)]
  world.outside.inboxes.set(friend.pubkey, [RELAY])
  await direct.say(friend.pubkey, 'hello', 'k')
  const [mine, theirs] = await Promise.all([friend, other].map(async (author) => (await buildDm17(author, [signer.pubkey], 'hi', 1)).rumor))
  if (mine === undefined || theirs === undefined) throw new Error('no messages')
  for (const rumor of [mine, mine, theirs]) await direct.onRumor(rumor)
  await direct.onRumor((await buildDm17(friend, [other.pubkey], 'for somebody else', 1)).rumor)
  expect(direct.messages(friend.pubkey, { after: 0, limit: 10 }).map(({ content }) => content)).toEqual(['hello', 'hi'])
  expect(direct.messages(other.pubkey, { after: 0, limit: 10 })).toEqual([])
})

test('a relay that refuses it says so to who waits', async () => {
  const { world, chat } = await started()
  const friend = stranger(6)
  world.outside.inboxes.set(friend.pubkey, [RELAY])
  world.outside.refuses = (event) => (event.tags.some(([, value]) => value === friend.pubkey) ? 'blocked: no' : undefined)
  const turning = chat.turn(friend.pubkey, 'hello', 'k', 10_000, signal)
  turning.catch(() => undefined)
  await vi.waitFor(() => expect(chat.last(chat.lineOf(friend.pubkey), 1, 'coding')).toMatchObject([{ message: { state: 'refused' } }]))
  await world.clock.advance(11_000)
  await expect(turning).rejects.toMatchObject({ code: 'relay_refused' })
})
