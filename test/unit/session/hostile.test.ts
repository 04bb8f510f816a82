/** What strangers and members of bad will send to a session: refused, counted, and without an effect on what stands. */
import { afterEach, describe, expect, it } from 'vitest'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { sealRumor, wrapSeal } from '../../../src/nostr/nips/nip59.ts'
import type { IdentifiedEvent, NostrEvent } from '../../../src/nostr/types.ts'
import { makeCommit } from '../../../src/session/mls/commit.ts'
import { mlsContext } from '../../../src/session/mls/context.ts'
import { decodeState, epochKeysOf, groupDataOf, groupDataProposal, type MlsState, removeProposals } from '../../../src/session/mls/group.ts'
import { newKeyPackage } from '../../../src/session/mls/key-package.ts'
import { encodeMessage, writeMessage } from '../../../src/session/mls/messages.ts'
import { sealGroupEvent } from '../../../src/session/wire/group-event.ts'
import { keyPackageEvents } from '../../../src/session/wire/key-package-event.ts'
import { getGroup, unreadOf } from '../../../src/store/sessions/groups.ts'
import { type Peer, SessionWorld } from '../../support/session-world.ts'
import { tempDir } from '../../support/temp.ts'
import { testSigner } from '../../support/test-signer.ts'

const DAY_MS = 86_400_000
const RELAYS = ['ws://one.example', 'ws://two.example']

let world: SessionWorld
afterEach(() => world.close())

async function started(count: number): Promise<Peer[]> {
  world = new SessionWorld(tempDir())
  for (let number = 1; number <= count; number++) world.start(number)
  await world.settle()
  for (const peer of world.peers) await world.send(peer)
  return world.peers
}

async function invited(owner: Peer, bot: Peer) {
  const order = { key: 'k', peers: [bot.pubkey], name: 'Chat', relays: RELAYS, timeoutMs: 10 }
  const created = await owner.sessions.create(order)
  await world.send(owner)
  return created
}

async function arrived(peer: Peer): Promise<void> {
  const at = world.peers.indexOf(peer)
  while ((world.onTheWay[at] ?? []).length > 0) await world.deliver(peer, 0)
}

/** Owner and bot in one group, and the bot's state as a member of bad will has it. */
async function pair() {
  const [owner, bot] = (await started(2)) as [Peer, Peer]
  const { group } = await invited(owner, bot)
  await arrived(bot)
  return { owner, bot, id: group.id, state: stateOf(bot, group.id) }
}

const stateOf = (peer: Peer, id: string): MlsState => decodeState(getGroup(peer.store, peer.pubkey, id)?.mlsState ?? new Uint8Array())
const said = (peer: Peer, id: string) => peer.sessions.messages(id, { limit: 100 }).map(({ content }) => content)

async function event(state: MlsState, id: string, bytes: Uint8Array): Promise<NostrEvent> {
  return sealGroupEvent(
    id,
    (await epochKeysOf(state)).key,
    bytes,
    Math.floor(world.clock.now() / 1000),
    world.peers[0]?.scope.random as never,
  )
}

const rumorOf = (pubkey: string, tags: string[][] = []): IdentifiedEvent =>
  identify(pubkey, { kind: 9, created_at: Math.floor(world.clock.now() / 1000), tags, content: 'bad' })

describe('a welcome', () => {
  it('of who may not invite is refused, and uses no key package up', async () => {
    world = new SessionWorld(tempDir())
    const owner = world.start(1)
    const bot = world.start(2, { mayInvite: () => false })
    await world.settle()
    await world.send(owner)
    await world.send(bot)
    await invited(owner, bot)
    await arrived(bot)
    expect(bot.sessions.groups()).toEqual([])
    expect(bot.sessions.keyPackages()).toMatchObject([{ uses: 0 }])
    expect(bot.sessions.refused).toBe(1)
  })

  it('that comes again does nothing, also after the group was left', async () => {
    const [owner, bot] = (await started(2)) as [Peer, Peer]
    const { group, welcomes } = await invited(owner, bot)
    const wraps = [...(world.onTheWay[1] ?? [])].filter(({ kind }) => kind === 1059)
    await arrived(bot)
    const rumor = welcomes[0]?.rumor as IdentifiedEvent
    await owner.sessions.send(group.id, { content: 'hello' }, 'hello')
    await world.send(owner)
    await arrived(bot)
    const before = getGroup(bot.store, bot.pubkey, group.id)
    for (const wrap of wraps) await bot.hear(wrap)
    await bot.sessions.acceptWelcome(rumor)
    const nowS = Math.floor(world.clock.now() / 1000)
    await bot.hear(wrapSeal(await sealRumor(owner.signer, rumor, bot.pubkey, nowS), bot.pubkey, nowS, owner.scope.random))
    await world.settle()
    expect(getGroup(bot.store, bot.pubkey, group.id)).toEqual(before)
    await bot.sessions.leave(group.id)
    await bot.hear(wrapSeal(await sealRumor(owner.signer, rumor, bot.pubkey, nowS), bot.pubkey, nowS, owner.scope.random))
    expect(bot.sessions.group(group.id)?.state).toBe('left')
    expect(said(bot, group.id)).toEqual(['hello'])
  })

  it('for a key package that was replaced long ago is refused; for one that was replaced now it is not', async () => {
    const [owner, bot] = (await started(2)) as [Peer, Peer]
    const created = await invited(owner, bot)
    const wraps = [...(world.onTheWay[1] ?? [])].filter(({ kind }) => kind === 1059)
    world.onTheWay[1] = []
    await bot.sessions.rotateKeyPackage()
    await world.clock.advance(5 * DAY_MS)
    await world.settle()
    for (const wrap of wraps) await bot.hear(wrap)
    await world.settle()
    expect(bot.sessions.groups()).toEqual([])
    expect(bot.sessions.refused).toBe(1)
    await world.send(bot)
    const again = await owner.sessions.create({ key: 'other', peers: [bot.pubkey], name: 'Chat', relays: RELAYS, timeoutMs: 10 })
    await bot.sessions.rotateKeyPackage()
    await world.send(owner)
    await arrived(bot)
    expect(bot.sessions.groups().map(({ id }) => id)).toEqual([again.group.id])
    expect(again.group.id).not.toBe(created.group.id)
  })

  it('that is no welcome, or sealed by another than its admin, is refused', async () => {
    const [owner, bot, eve] = (await started(3)) as [Peer, Peer, Peer]
    const [sent] = (await invited(owner, bot)).welcomes
    if (sent === undefined) throw new Error('no welcome went out')
    const { kind, content, tags, created_at } = sent.rumor
    await bot.sessions.acceptWelcome(identify(eve.pubkey, { kind, content, tags, created_at }))
    await bot.sessions.acceptWelcome(identify(owner.pubkey, { kind, content: content.slice(0, 400), tags, created_at }))
    await bot.sessions.acceptWelcome(identify(owner.pubkey, { kind, content: '', tags, created_at }))
    await bot.sessions.acceptWelcome(
      identify(owner.pubkey, { kind, content: Buffer.from('nonsense').toString('base64'), tags, created_at }),
    )
    await bot.sessions.acceptWelcome(identify(owner.pubkey, { kind, content: 'A'.repeat(600_000), tags, created_at }))
    expect(bot.sessions.groups()).toEqual([])
    expect(bot.sessions.refused).toBe(5)
  })
})

describe('a key package', () => {
  it.each([
    ['whose time is over', 'its time is over', 2, { notBefore: 1_600_000_000, notAfter: 1_700_000_000 }],
    ['whose time has not begun', 'its time has not begun', 2, { notBefore: 2_000_000_000, notAfter: 2_100_000_000 }],
    ['that was made for another key', 'it was made for another key', 9, { notBefore: 1_600_000_000, notAfter: 2_100_000_000 }],
  ])('%s is refused in words', async (_, words, of, times) => {
    const [owner] = (await started(1)) as [Peer]
    const made = await newKeyPackage(testSigner(of).pubkey, times)
    const atS = Math.floor(world.clock.now() / 1000)
    const { event: published } = keyPackageEvents({ ...made, pubkey: testSigner(2).pubkey, slot: 'ab'.repeat(32), relays: RELAYS, atS })
    world.relays.get(RELAYS[0] ?? '')?.stored.push(testSigner(2).sign(published))
    const order = { key: 'k', peers: [testSigner(2).pubkey], name: 'Chat', relays: RELAYS, timeoutMs: 10 }
    await expect(owner.sessions.create(order)).rejects.toThrow(words)
  })
})

describe('a member of bad will', () => {
  it.each<[string, (bot: Peer, owner: Peer, id: string) => unknown]>([
    ['in the name of another', (_bot, owner) => rumorOf(owner.pubkey)],
    ['signed', (bot) => bot.signer.sign(rumorOf(bot.pubkey))],
    ['with the name of the group inside', (bot, _owner, id) => rumorOf(bot.pubkey, [['h', id]])],
    ['under a wrong id', (bot) => ({ ...rumorOf(bot.pubkey), id: '00'.repeat(32) })],
    ['that is no event', () => ['x']],
    ['that is nothing', () => null],
  ])('is not heard: %s', async (_, make) => {
    const { owner, bot, id, state } = await pair()
    const { message, state: next } = await writeMessage(state, Buffer.from(JSON.stringify(make(bot, owner, id))))
    await owner.hear(await event(state, id, message))
    expect(said(owner, id)).toEqual([])
    const good = await writeMessage(next, Buffer.from(JSON.stringify({ ...rumorOf(bot.pubkey), id: rumorOf(bot.pubkey).id })))
    await owner.hear(await event(state, id, good.message))
    await world.pass(121_000)
    expect(said(owner, id)).toEqual(['bad'])
  })

  it('changes nothing where it is no admin', async () => {
    const { owner, bot, id, state } = await pair()
    const context = await mlsContext()
    const before = getGroup(owner.store, owner.pubkey, id)
    const orders = [
      { proposals: [groupDataProposal(state, { ...groupDataOf(state), name: 'Mine', admins: [bot.pubkey] })] },
      { proposals: removeProposals(state, owner.pubkey) },
    ]
    for (const order of orders) await owner.hear(await event(state, id, encodeMessage((await makeCommit(context, state, order)).message)))
    expect(getGroup(owner.store, owner.pubkey, id)).toEqual(before)
    await owner.sessions.send(id, { content: 'still here' }, 'k')
    await world.send(owner)
    await arrived(bot)
    expect(said(bot, id)).toEqual(['still here'])
  })

  it('can write what is no MLS', async () => {
    const { owner, id, state } = await pair()
    for (const bytes of [new Uint8Array(1), new Uint8Array(1000), Buffer.from('0001000200000000', 'hex')]) {
      await owner.hear(await event(state, id, Uint8Array.from(bytes)))
    }
    await owner.sessions.send(id, { content: 'goes on' }, 'k')
    expect(said(owner, id)).toEqual(['goes on'])
  })
})

describe('a stranger', () => {
  it('who floods a group is kept to a bound', async () => {
    const { owner, bot, id, state } = await pair()
    const random = owner.scope.random
    const flood = Array.from({ length: 300 }, () => sealGroupEvent(id, random.bytes(32), random.bytes(500), 1_767_225_600, random))
    for (const one of flood) await owner.hear(one)
    expect(unreadOf(owner.store, owner.pubkey, id)).toHaveLength(200)
    const { message } = await writeMessage(state, Buffer.from(JSON.stringify(rumorOf(bot.pubkey))))
    await owner.hear(await event(state, id, message))
    expect(said(owner, id)).toEqual(['bad'])
  })

  it('is not looked at: two groups named, none named, too long, no base64', async () => {
    const { owner, id, state } = await pair()
    const good = await event(state, id, new Uint8Array(100))
    const sign = (change: object) => testSigner(7).sign({ ...good, ...change })
    for (const change of [
      {
        tags: [
          ['h', id],
          ['h', id],
        ],
      },
      { tags: [] },
      { content: 'A'.repeat(300_000) },
    ]) {
      await owner.hear(sign(change))
    }
    expect(unreadOf(owner.store, owner.pubkey, id)).toHaveLength(0)
    await owner.hear(sign({ content: '!' }))
    expect(unreadOf(owner.store, owner.pubkey, id)).toHaveLength(0)
  })
})
