import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { ScriptedRelay } from '../../support/scripted-relay.ts'
import { type SessionPeer, type SessionPeerOptions, startSessionPeer } from '../../support/session-peer.ts'
import { tempDir } from '../../support/temp.ts'

const WAIT = { timeout: 30_000, interval: 20 }

interface World {
  readonly relay: ScriptedRelay
  readonly dir: string
  start(key: number, options?: Partial<SessionPeerOptions>): SessionPeer
}

async function world(): Promise<World> {
  const relay = await ScriptedRelay.start()
  const dir = tempDir()
  onTestFinished(() => relay.stop())
  return {
    relay,
    dir,
    start(key, options = {}) {
      const peer = startSessionPeer({ dir, key, relays: [relay.url], ...options })
      onTestFinished(() => peer.stop())
      return peer
    },
  }
}

const said = (peer: SessionPeer, groupId: string) => peer.sessions.messages(groupId, { limit: 100 }).map(({ content }) => content)

async function pair(w: World, botOptions: Partial<SessionPeerOptions> = {}) {
  const [owner, bot] = [w.start(1), w.start(2, botOptions)]
  const { group, welcomes } = await owner.sessions.create({
    key: 'one',
    peers: [bot.pubkey],
    name: 'Agent Chat',
    relays: [w.relay.url],
    timeoutMs: 5000,
  })
  await vi.waitFor(() => expect(bot.sessions.groups()).toHaveLength(1), WAIT)
  return { owner, bot, group, welcomes }
}

describe('sessions of two keys', () => {
  it('one brings the other in, both talk, and the relay sees none of it', async () => {
    const w = await world()
    const { owner, bot, group, welcomes } = await pair(w, {
      onMessage: (message, sessions) => sessions.answer(message, [{ content: `you said ${message.content}` }], `answer ${message.id}`),
    })
    expect(group).toMatchObject({
      name: 'Agent Chat',
      members: [owner.pubkey, bot.pubkey],
      admins: [owner.pubkey],
      epoch: 1,
      state: 'active',
    })
    expect(welcomes).toMatchObject([{ peer: bot.pubkey, rumor: { kind: 444 } }])
    expect(bot.sessions.groupWith(owner.pubkey)?.id).toBe(group.id)
    for (const text of ['one', 'two', 'three']) await owner.sessions.send(group.id, { content: text }, text)
    await vi.waitFor(() => expect(said(owner, group.id)).toHaveLength(6), WAIT)
    expect(said(bot, group.id).filter((text) => !text.startsWith('you'))).toEqual(['one', 'two', 'three'])
    expect(said(owner, group.id).filter((text) => text.startsWith('you'))).toEqual(['you said one', 'you said two', 'you said three'])
    // The bot renewed its keys soon after it came.
    await vi.waitFor(() => expect([owner, bot].map(({ sessions }) => sessions.group(group.id)?.epoch)).toEqual([2, 2]), WAIT)
    const kinds = new Set(w.relay.stored.map(({ kind }) => kind))
    expect([...kinds].filter((kind) => ![443, 30_443, 10_051, 1059, 445, 5].includes(kind))).toEqual([])
    expect(JSON.stringify(w.relay.frames)).not.toContain('you said')
  })

  it('the same order is the same group, the same key is said once', async () => {
    const w = await world()
    const { owner, bot, group } = await pair(w)
    const again = await owner.sessions.create({ key: 'one', peers: [bot.pubkey], name: 'x', relays: [w.relay.url], timeoutMs: 1000 })
    expect(again.group.id).toBe(group.id)
    const first = await owner.sessions.send(group.id, { content: 'once' }, 'k')
    expect(await owner.sessions.send(group.id, { content: 'once' }, 'k')).toMatchObject({ id: first.id, seq: first.seq })
    await vi.waitFor(() => expect(said(bot, group.id)).toEqual(['once']), WAIT)
    await vi.waitFor(() => expect(owner.sessions.messages(group.id, { limit: 9 })[0]?.state).toBe('sent'), WAIT)
  })

  it('goes on after a restart of either side', async () => {
    const w = await world()
    const { owner, bot, group } = await pair(w)
    await owner.sessions.send(group.id, { content: 'before' }, 'before')
    await vi.waitFor(() => expect(said(bot, group.id)).toEqual(['before']), WAIT)
    await bot.stop()
    await owner.sessions.send(group.id, { content: 'while away' }, 'away')
    await owner.stop()
    const heard: string[] = []
    const [owner2, bot2] = [w.start(1), w.start(2, { onMessage: async ({ content }) => void heard.push(content) })]
    await vi.waitFor(() => expect(heard).toEqual(['before', 'while away']), WAIT)
    await bot2.sessions.send(group.id, { content: 'back' }, 'back')
    await vi.waitFor(() => expect(said(owner2, group.id)).toContain('back'), WAIT)
  })

  it('a group is changed by its admin, and left', async () => {
    const w = await world()
    const { owner, bot, group } = await pair(w)
    const third = w.start(3)
    await owner.sessions.addMember(group.id, third.pubkey, 5000)
    await vi.waitFor(() => expect(third.sessions.group(group.id)?.members).toHaveLength(3), WAIT)
    await owner.sessions.rename(group.id, 'Three')
    await vi.waitFor(() => expect([bot, third].map(({ sessions }) => sessions.group(group.id)?.name)).toEqual(['Three', 'Three']), WAIT)
    await expect(bot.sessions.rename(group.id, 'Mine')).rejects.toMatchObject({ code: 'session_refused' })
    await bot.sessions.send(group.id, { content: 'to both' }, 'both')
    await vi.waitFor(() => expect([said(owner, group.id), said(third, group.id)]).toEqual([['to both'], ['to both']]), WAIT)
    await owner.sessions.removeMember(group.id, third.pubkey)
    await vi.waitFor(() => expect(third.sessions.group(group.id)?.state).toBe('removed'), WAIT)
    await expect(third.sessions.send(group.id, { content: 'x' }, 'x')).rejects.toMatchObject({ code: 'session_closed' })
    await vi.waitFor(() => expect(bot.sessions.group(group.id)?.members).toHaveLength(2), WAIT)
    await bot.sessions.leave(group.id)
    expect(bot.sessions.group(group.id)?.state).toBe('left')
    await vi.waitFor(() => expect(owner.sessions.group(group.id)?.members).toEqual([owner.pubkey]), WAIT)
  })

  it('a key package that is wrong, or none, is said in words', async () => {
    const w = await world()
    const owner = w.start(1)
    const order = { key: 'k', peers: ['ab'.repeat(32)], name: 'x', relays: [w.relay.url], timeoutMs: 10 }
    await expect(owner.sessions.create(order)).rejects.toMatchObject({ code: 'session_no_key_package' })
    const stranger = w.start(9)
    await vi.waitFor(
      () => expect(w.relay.stored.some((event) => event.kind === 30_443 && event.pubkey === stranger.pubkey)).toBe(true),
      WAIT,
    )
    await vi.waitFor(() => expect(w.relay.stored.some((event) => event.kind === 443 && event.pubkey === stranger.pubkey)).toBe(true), WAIT)
    for (const event of w.relay.stored as (NostrEvent & { content: string })[]) {
      if (event.pubkey !== stranger.pubkey || (event.kind !== 443 && event.kind !== 30_443)) continue
      const changed = stranger.signer.sign({ ...event, content: `${event.content.slice(0, 40)}AAAA${event.content.slice(44)}` })
      w.relay.stored.splice(w.relay.stored.indexOf(event), 1, changed)
    }
    await expect(owner.sessions.create({ ...order, peers: [stranger.pubkey] })).rejects.toMatchObject({
      code: 'session_key_package_invalid',
    })
  })
})
