/** What is noticed and mended without being told: deaf relays, missing EOSE, private events, foreign relays, old rows. */
import { describe, expect, it, vi } from 'vitest'
import { type Clock, ManualClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { systemRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { buildDm17, unwrap } from '../../../src/nostr/nips/nip59.ts'
import { CANARY_KIND } from '../../../src/nostr/reading/canary.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import { sweepOnce } from '../../../src/nostr/retention.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { cursorOf } from '../../../src/store/nostr/cursors.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import { claimEvent } from '../../../src/store/nostr/seen-events.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import { dmRelaysWith, relayListWith } from '../../support/nostr-events.ts'
import type { TestNostr } from '../../support/nostr-node.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import { startSandbox } from '../../support/sandbox.ts'
import { ScriptedRelay } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node, cleanups } = nostrBench()

const until = (check: () => void) => vi.waitFor(check, { timeout: 30_000, interval: 20 })
const isTestReq = (frame: unknown[]) => frame[0] === 'REQ' && JSON.stringify(frame).includes('"kinds":[1]')
const isCanary = (frame: unknown[]) => frame[0] === 'EVENT' && (frame[1] as NostrEvent).kind === CANARY_KIND

/** Turns the clock in steps short enough for pings, with a round trip to the relay after each. */
async function pass(clock: ManualClock, at: TestNostr, seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds; passed += 5) {
    await clock.advance(5000)
    await at.nostr.query([{ kinds: [9999] }], { timeoutMs: 3_600_000 })
  }
}

describe('a relay that is connected and delivers nothing', () => {
  it('is found by the canary, shown, asked again from before it went deaf, and heard again', async () => {
    let deaf = false
    const one = await relay({
      onFrame(frame, connection) {
        const event = frame[1] as NostrEvent
        if (!deaf || frame[0] !== 'EVENT') return false
        connection.send(['OK', event.id, true, ''])
        return true
      },
    })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    at.nostr.subscribe({ name: 'test', filters: [{ kinds: [1] }], backfillS: 60, onEvent: async () => {} })
    await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
    await pass(clock, at, 10)
    await until(() => expect(one.frames.filter(isCanary).length).toBe(1))
    deaf = true
    const deafAt = clock.now()
    await pass(clock, at, 165)
    await until(() => expect(at.nostr.health()[0]).toMatchObject({ state: 'connected', reason: 'deaf' }))
    const reqs = one.received('REQ').filter(isTestReq)
    expect(reqs.length).toBe(2)
    // What was missed meanwhile is asked for: nothing later than the last proof was taken as read.
    expect((reqs[1]?.[2] as { since?: number } | undefined)?.since).toBeLessThanOrEqual(Math.floor(deafAt / 1000) - 120)
    expect(cursorOf(at.store, one.url, 'test')).toBeLessThanOrEqual(deafAt)
    deaf = false
    // Still deaf to one more canary, it is connected to anew, and then everything is well.
    await vi.waitFor(
      async () => {
        await clock.advance(1000)
        expect(one.received('REQ').filter(isTestReq).length).toBeGreaterThan(2)
        expect(at.nostr.health()[0]).toMatchObject({ state: 'connected', reason: undefined })
      },
      { timeout: 30_000, interval: 20 },
    )
  })

  it('is not called deaf when it never passed on an ephemeral event', async () => {
    const one = await relay({ onFrame: (frame) => frame[0] === 'EVENT' })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
    await pass(clock, at, 200)
    expect(one.frames.filter(isCanary).length).toBe(2)
    expect(at.nostr.health()[0]).toMatchObject({ state: 'connected', reason: undefined })
  })
})

describe('a relay that never sends EOSE', () => {
  it('is asked again, and moves no cursor; where nothing else is answered either, it is connected to anew', async () => {
    let connections = 0
    let isMute = false
    const one = await relay({ onConnect: () => connections++, onFrame: (frame) => isMute || isTestReq(frame) })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    at.nostr.subscribe({ name: 'test', filters: [{ kinds: [1] }], backfillS: 60, onEvent: async () => {} })
    await until(() => expect(one.received('REQ').filter(isTestReq).length).toBe(1))
    await pass(clock, at, 30)
    await until(() => expect(one.received('REQ').filter(isTestReq).length).toBe(2))
    expect(at.nostr.health()[0]?.reason).toContain('no EOSE')
    await pass(clock, at, 100)
    expect(one.received('REQ').filter(isTestReq).length).toBeGreaterThan(3)
    expect(connections).toBe(1)
    isMute = true
    await vi.waitFor(
      async () => {
        await clock.advance(5000)
        expect(connections).toBeGreaterThan(1)
      },
      { timeout: 30_000, interval: 5 },
    )
    expect(cursorOf(at.store, one.url, 'test')).toBeUndefined()
  })
})

describe('private messages', () => {
  it('reach an agent through a relay that serves them only to the addressee', async () => {
    const sandbox = await startSandbox({ authForDms: true })
    cleanups.push(() => sandbox.stop())
    const at = node({ relays: [sandbox.relayUrl] })
    const agent = at.keyring.account(10)
    const texts: string[] = []
    const verifier = createVerifier()
    at.nostr.subscribe({
      name: 'dms',
      filters: [{ kinds: [1059], '#p': [agent.pubkey] }],
      backfillS: 259_200,
      overlapS: 259_200,
      onEvent: async (wrap) => void texts.push((await unwrap(agent, wrap, verifier)).content),
    })
    const sender = testSigner(5)
    const { rumor, wraps } = await buildDm17(sender, [agent.pubkey], 'hello agent', Math.floor(Date.now() / 1000))
    const [wrap] = wraps
    if (wrap === undefined) throw new Error('no wrap')
    await at.store.write(
      enqueueEvent({ key: `dm:${rumor.id}`, event: wrap.event, relays: [sandbox.relayUrl], notAfter: Date.now() + 60_000, at: Date.now() }),
    )
    at.nostr.nudgeOutbox()
    await until(() => expect(texts).toEqual(['hello agent']))
  })
})

describe('other people', () => {
  it('are found by their lists, over relays that the dialer allows, and asked about once', async () => {
    const own = await relay()
    const theirs = await relay()
    const peer = testSigner(6)
    const nowS = Math.floor(Date.now() / 1000)
    own.stored.push(
      peer.sign({ kind: 0, created_at: nowS, tags: [], content: JSON.stringify({ name: 'Ada', lud06: 'LNURL1', nip05: 1 }) }),
      peer.sign({ ...relayListWith([theirs.url, 'wss://public.example', 'ws://127.0.0.1:9', 'ws://10.0.0.1'], nowS) }),
      peer.sign({ ...dmRelaysWith(['wss://dm.example', 'ws://localhost:1'], nowS) }),
      peer.sign({ ...dmRelaysWith(['wss://old.example'], nowS - 10) }),
    )
    const at = node({ relays: [own.url] })
    at.dialer.allow(theirs.url, true)
    expect(await at.nostr.relaysToReach(peer.pubkey, ['wss://hint.example', 'ws://127.0.0.1:8', 'nonsense'])).toEqual([
      own.url,
      'wss://hint.example',
      theirs.url,
      'wss://public.example',
    ])
    expect(await at.nostr.dmRelaysOf(peer.pubkey)).toEqual(['wss://dm.example'])
    expect(await at.nostr.profileOf(peer.pubkey)).toEqual({ name: 'Ada', lud06: 'LNURL1' })
    const nobody = testSigner(7).pubkey
    expect(await at.nostr.profileOf(nobody)).toBeUndefined()
    expect(await at.nostr.dmRelaysOf(nobody)).toBeUndefined()
    expect(await at.nostr.relaysToReach(nobody)).toEqual([own.url])
    expect(own.received('REQ').filter((frame) => JSON.stringify(frame).includes('10002')).length).toBe(2)
  })

  it('get events on their own relay, which sees no AUTH of ours, and no address inside our network is dialled', async () => {
    const own = await relay()
    const theirs = await relay({ onConnect: (connection) => connection.send(['AUTH', 'who']) })
    const inside = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(theirs.url, true)
    const event = identify(at.keyring.node().pubkey, { kind: 1, created_at: Math.floor(Date.now() / 1000), tags: [], content: 'x' })
    await at.store.write(
      enqueueEvent({ key: 'k', event, relays: [theirs.url, inside.url, 'nonsense'], notAfter: Date.now() + 60_000, at: Date.now() }),
    )
    at.nostr.nudgeOutbox()
    await until(() =>
      expect(Object.fromEntries(deliveriesOf(at.store, 'k').map(({ relay: url, state }) => [url, state]))).toEqual({
        [theirs.url]: 'accepted',
        [inside.url]: 'rejected',
        nonsense: 'rejected',
      }),
    )
    expect(theirs.received('AUTH')).toEqual([])
    expect(inside.frames).toEqual([])
    expect(deliveriesOf(at.store, 'k').find(({ relay: url }) => url === inside.url)?.error).toContain('refused')
  })
})

describe('the outbox under load', () => {
  it('publishes thousands of messages once each, in fewer commits than messages', async () => {
    const one = await relay()
    const at = node({ relays: [one.url] })
    const pubkey = at.keyring.node().pubkey
    const published = new Set<string>()
    at.nostr.onPublished('n:', async (key) => void published.add(key))
    const count = 3000
    await Promise.all(
      Array.from({ length: count }, (_, i) => {
        const event = identify(pubkey, { kind: 1, created_at: 1_700_000_000 + i, tags: [], content: `${i}` })
        return at.store.write(enqueueEvent({ key: `n:${i}`, event, relays: [one.url], notAfter: Date.now() + 60_000, at: Date.now() }))
      }),
    )
    at.nostr.nudgeOutbox()
    await until(() => expect(published.size).toBe(count))
    const sent = one.received('EVENT').filter((frame) => (frame[1] as NostrEvent).kind === 1)
    expect(new Set(sent.map((frame) => (frame[1] as NostrEvent).id)).size).toBe(count)
    expect(sent.length).toBe(count)
    expect(at.nostr.health()[0]?.outboxDepth).toBe(0)
  })

  it('keeps in the table what a dead relay has no room for, and brings it back', async () => {
    const dead = await ScriptedRelay.start()
    const port = Number(new URL(dead.url).port)
    await dead.stop()
    const at = node({ relays: [dead.url] })
    const pubkey = at.keyring.node().pubkey
    const count = 6000
    await Promise.all(
      Array.from({ length: count }, (_, i) => {
        const event = identify(pubkey, { kind: 1, created_at: 1_700_000_000 + i, tags: [], content: `${i}` })
        return at.store.write(enqueueEvent({ key: `n:${i}`, event, relays: [dead.url], notAfter: Date.now() + 600_000, at: Date.now() }))
      }),
    )
    at.nostr.nudgeOutbox()
    await until(() => expect(at.nostr.health()[0]?.outboxDepth).toBe(5000))
    const back = await relay({ port })
    await vi.waitFor(
      () => expect(new Set(back.received('EVENT').map((frame) => (frame[1] as NostrEvent).content)).size).toBeGreaterThanOrEqual(count),
      { timeout: 20_000, interval: 50 },
    )
  })
})

describe('retention', () => {
  it('removes old claims and finished messages, and never what is still to be sent', async () => {
    const clock = new ManualClock()
    const at = node({ relays: [], clock })
    const pubkey = at.keyring.node().pubkey
    const put = (key: string, relays: string[]) =>
      at.store.write(
        enqueueEvent({
          key,
          event: identify(pubkey, { kind: 1, created_at: 1, tags: [], content: key }),
          relays,
          notAfter: clock.now() + 1e12,
          at: clock.now(),
        }),
      )
    await put('finished', [])
    await put('waiting', ['wss://nobody.example'])
    for (let i = 0; i < 1200; i++) void at.store.write(claimEvent({ id: `id${i}`, subscription: 's', at: clock.now() }))
    await clock.advance(1)
    const sweep = (clock: Clock) =>
      sweepOnce({ scope: Scope.root('sweep', { clock, random: systemRandom }, () => {}), store: at.store, config: () => DEFAULT_CONFIG })
    const counts = () =>
      ['seen_events', 'outbox_messages'].map((table) => Number(at.store.sql(`SELECT COUNT(*) AS n FROM ${table}`).get()?.['n']))
    await sweep(clock)
    expect(counts()).toEqual([1200, 2])
    const later = new ManualClock(clock.now() + 31 * 86_400_000)
    await sweep(later)
    expect(counts()).toEqual([0, 1])
    expect(deliveriesOf(at.store, 'waiting').map(({ state }) => state)).toEqual(['pending'])
  })
})
