/** Our sessions and peers on mdk in one group, over a relay: each welcomes the other, each commits, each is told and takes part. */
import type { Event } from 'nostr-tools/pure'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import WebSocket from 'ws'
import type { SessionMessage } from '../../src/session/types.ts'
import { MdkPeer, mdkPeerProgram } from '../support/mdk-peer.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { type SessionPeer, startSessionPeer } from '../support/session-peer.ts'
import { tempDir } from '../support/temp.ts'

const { path: program, missing } = mdkPeerProgram()
const WAIT = { timeout: 30_000, interval: 30 }

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

let keys = 100

/** What the relay has. */
async function stored(filter: object): Promise<Event[]> {
  const socket = new WebSocket(sandbox.relayUrl)
  const events: Event[] = []
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.once('open', () => socket.send(JSON.stringify(['REQ', 'stored', filter])))
    socket.on('message', (data) => {
      const [type, , event] = JSON.parse(data.toString()) as [string, string, Event]
      if (type === 'EVENT') events.push(event)
      if (type === 'EOSE') resolve()
    })
  })
  socket.terminate()
  return events
}

/** A key of ours on the relay, with its key packages out. */
async function ours(dir = tempDir(), former?: number): Promise<SessionPeer> {
  if (former === undefined) keys += 1
  const relays = [sandbox.relayUrl]
  const peer = startSessionPeer({ dir, key: former ?? keys, relays, via: relays })
  onTestFinished(() => peer.stop())
  await vi.waitUntil(() => peer.sessions.keyPackages().length > 0, WAIT)
  return peer
}

async function theirs(kind?: number): Promise<MdkPeer> {
  const peer = await MdkPeer.start(program, sandbox.relayUrl)
  onTestFinished(() => peer[Symbol.asyncDispose]())
  if (kind !== undefined) await peer.call('publish_key_package', { kind })
  return peer
}

const said = ({ sessions }: SessionPeer, groupId: string, isOwn = false): string[] =>
  sessions
    .messages(groupId, { limit: 100 })
    .filter((message: SessionMessage) => message.isOwn === isOwn)
    .map(({ content }) => content)

/** All of these hear what is said now, whoever says it. */
async function talk(groupId: string, us: readonly SessionPeer[], them: readonly MdkPeer[], round: string): Promise<void> {
  for (const [n, peer] of us.entries()) await peer.sessions.send(groupId, { content: `${round}: ours ${n}` }, `${round}:${n}`)
  for (const [n, peer] of them.entries()) await peer.call('send', { nostr_group_id: groupId, content: `${round}: mdk ${n}` })
  const all = [...us.map((_, n) => `${round}: ours ${n}`), ...them.map((_, n) => `${round}: mdk ${n}`)]
  for (const [n, peer] of us.entries())
    await expect.poll(() => said(peer, groupId), WAIT).toEqual(expect.arrayContaining(all.filter((one) => one !== `${round}: ours ${n}`)))
  for (const [n, peer] of them.entries())
    await expect.poll(() => peer.messages(), WAIT).toEqual(expect.arrayContaining(all.filter((one) => one !== `${round}: mdk ${n}`)))
}

const createdBy = async (us: SessionPeer, name: string, ...them: MdkPeer[]) => {
  const order = { key: name, peers: them.map(({ pubkey }) => pubkey), name, relays: [sandbox.relayUrl], timeoutMs: 20_000 }
  const { group } = await us.sessions.create(order)
  for (const peer of them) await peer.heard('joined', ({ nostr_group_id }) => nostr_group_id === group.id)
  return group.id
}

describe.skipIf(missing !== undefined)(`our sessions and mdk${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  test('we welcome theirs; commits of both; one more of theirs is added by the older kind of key package, and removed', async () => {
    const us = await ours()
    const [bea, cleo] = [await theirs(30_443), await theirs(443)]
    const id = await createdBy(us, 'ours', bea)
    await talk(id, [us], [bea], 'first')
    await us.sessions.selfUpdate(id)
    await bea.heard('commit', ({ epoch }) => epoch === 2)
    await talk(id, [us], [bea], 'after our keys')
    await bea.call('self_update', { nostr_group_id: id })
    await talk(id, [us], [bea], 'after their keys')
    await us.sessions.rename(id, 'renamed')
    await bea.heard('commit', ({ name }) => name === 'renamed')
    await us.sessions.addMember(id, cleo.pubkey, 20_000)
    await cleo.heard('joined')
    await talk(id, [us], [bea, cleo], 'three')
    await us.sessions.removeMember(id, cleo.pubkey)
    await cleo.heard('left')
    await talk(id, [us], [bea], 'two')
  })

  test.each(['30443', '443'])('theirs welcome us, by our key package of kind %s; they rename, add and remove', async (kind) => {
    const [us, ada, cleo] = [await ours(), await theirs(), await theirs(30_443)]
    const found = () => stored({ kinds: [Number(kind)], authors: [us.pubkey] })
    await expect.poll(async () => (await found()).length, WAIT).toBe(1)
    const [key_package_event] = await found()
    const { nostr_group_id: id } = await ada.call('create_group', { name: 'theirs', key_package_event })
    await vi.waitUntil(() => us.sessions.group(id)?.state === 'active', WAIT)
    // Who has come renews its keys.
    await ada.heard('commit', ({ own }) => own === false)
    await talk(id, [us], [ada], 'first')
    await ada.call('rename', { nostr_group_id: id, name: 'renamed' })
    await expect.poll(() => us.sessions.group(id)?.name, WAIT).toBe('renamed')
    await ada.call('add', { nostr_group_id: id, pubkey: cleo.pubkey })
    await cleo.heard('joined')
    await talk(id, [us], [ada, cleo], 'three')
    await ada.call('remove', { nostr_group_id: id, pubkey: us.pubkey })
    await expect.poll(() => us.sessions.group(id)?.state, WAIT).toBe('removed')
  })

  test('commits of ours and theirs at once leave both in one epoch', async () => {
    const [us, bea] = [await ours(), await theirs(30_443)]
    const id = await createdBy(us, 'race', bea)
    for (let round = 0; round < 4; round++) {
      await Promise.all([us.sessions.selfUpdate(id), bea.call('self_update', { nostr_group_id: id })])
      await talk(id, [us], [bea], `round ${round}`)
    }
    expect((await bea.call('members', { nostr_group_id: id })).epoch).toBe(us.sessions.group(id)?.epoch)
  })

  test('what is said while commits race is heard by all, once', async () => {
    const [us, also, bea] = [await ours(), await ours(), await theirs(30_443)]
    const id = await createdBy(us, 'busy', bea)
    await us.sessions.addMember(id, also.pubkey, 20_000)
    await vi.waitUntil(() => also.sessions.group(id)?.state === 'active', WAIT)
    const rounds = [0, 1, 2, 3]
    for (const round of rounds)
      await Promise.all([
        us.sessions.selfUpdate(id),
        bea.call('self_update', { nostr_group_id: id }),
        us.sessions.send(id, { content: `ours ${round}` }, `busy ${round}`),
        also.sessions.send(id, { content: `also ours ${round}` }, `busy ${round}`),
        bea.call('send', { nostr_group_id: id, content: `mdk ${round}` }),
      ])
    await talk(id, [us, also], [bea], 'calm')
    const from = (heard: readonly (string | undefined)[], who: string) => heard.filter((one) => one?.startsWith(`${who} `)).toSorted()
    const all = (who: string) => rounds.map((round) => `${who} ${round}`)
    for (const [peer, who] of [
      [us, 'mdk'],
      [also, 'mdk'],
      [also, 'ours'],
      [us, 'also ours'],
    ] as const)
      await expect.poll(() => from(said(peer, id), who), { ...WAIT, message: `${peer === us ? 'us' : 'also'} of ${who}` }).toEqual(all(who))
    for (const who of ['ours', 'also ours'])
      await expect.poll(() => from(bea.messages(), who), { ...WAIT, message: `mdk of ${who}` }).toEqual(all(who))
  })

  test('what theirs say while we are away is there when we come back, across their commits', async () => {
    const dir = tempDir()
    const [away, bea] = [await ours(dir), await theirs(30_443)]
    const key = keys
    const id = await createdBy(away, 'away', bea)
    await talk(id, [away], [bea], 'before')
    await away.stop()
    for (const n of [0, 1, 2]) {
      await bea.call('send', { nostr_group_id: id, content: `a ${n}` })
      await bea.call('self_update', { nostr_group_id: id })
      await bea.call('send', { nostr_group_id: id, content: `b ${n}` })
    }
    const back = await ours(dir, key)
    await expect.poll(() => said(back, id).slice(-6).sort(), WAIT).toEqual(['a 0', 'a 1', 'a 2', 'b 0', 'b 1', 'b 2'])
    await talk(id, [back], [bea], 'after')
  })

  test('two of ours and one of theirs; theirs leaves our group', async () => {
    const [us, also, bea] = [await ours(), await ours(), await theirs(30_443)]
    const id = await createdBy(us, 'leaving', bea)
    await us.sessions.addMember(id, also.pubkey, 20_000)
    await vi.waitUntil(() => also.sessions.group(id)?.state === 'active', WAIT)
    await expect.poll(() => us.sessions.group(id)?.epoch, WAIT).toBe(3)
    await talk(id, [us, also], [bea], 'three')
    await bea.call('leave', { nostr_group_id: id })
    await bea.heard('left')
    await expect.poll(() => us.sessions.group(id)?.members.length, WAIT).toBe(2)
    await talk(id, [us, also], [], 'two')
  })

  test('one of ours is there while their group grows, another is brought into it when it is large', async () => {
    const [first, late] = [await ours(), await ours()]
    const [ada, bea, ...more] = [await theirs(), await theirs(30_443), await theirs(30_443), await theirs(443), await theirs(30_443)]
    const { nostr_group_id: id } = await ada.call('create_group', { name: 'large', pubkey: [first.pubkey, bea.pubkey] })
    await vi.waitUntil(() => first.sessions.group(id)?.state === 'active', WAIT)
    await ada.heard('commit', ({ own }) => own === false)
    for (const peer of more) {
      await ada.call('add', { nostr_group_id: id, pubkey: peer.pubkey })
      await peer.heard('joined')
    }
    const { event_id } = await bea.call('self_update', { nostr_group_id: id })
    await ada.heard('commit', (commit) => commit.event_id === event_id)
    await ada.call('add', { nostr_group_id: id, pubkey: late.pubkey })
    await vi.waitUntil(() => late.sessions.group(id)?.state === 'active', WAIT)
    const epoch = async () => (await ada.call('members', { nostr_group_id: id })).epoch
    // Who has come renews its keys.
    await expect.poll(epoch, WAIT).toBe(8)
    await talk(id, [first, late], [ada, bea, ...more], 'all')
    expect([first, late].map(({ sessions }) => sessions.group(id)?.members.length)).toEqual([7, 7])
  })

  test('we leave their group', async () => {
    const [us, ada, cleo] = [await ours(), await theirs(), await theirs(30_443)]
    const { nostr_group_id: id } = await ada.call('create_group', { name: 'theirs', pubkey: [us.pubkey, cleo.pubkey] })
    await vi.waitUntil(() => us.sessions.group(id)?.state === 'active', WAIT)
    await ada.heard('commit', ({ own }) => own === false)
    await talk(id, [us], [ada, cleo], 'first')
    await us.sessions.leave(id)
    await ada.heard('commit', ({ members }) => members?.length === 2)
    expect(us.sessions.group(id)?.state).toBe('left')
    await talk(id, [], [ada, cleo], 'without us')
  })
})
