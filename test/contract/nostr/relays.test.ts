/** Subscriptions and outbox over real sockets, against the sandbox's relay and a scripted one. */
import { afterEach, describe, expect, it, vi } from 'vitest'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import type { NostrEvent, SubscriptionSpec } from '../../../src/nostr/types.ts'
import { cursorOf } from '../../../src/store/nostr/cursors.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import { claimEvent } from '../../../src/store/nostr/seen-events.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import { startSandbox } from '../../support/sandbox.ts'
import { type ScriptedConnection, ScriptedRelay, type ScriptedRelayOptions } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const cleanups: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function relay(options: ScriptedRelayOptions = {}): Promise<ScriptedRelay> {
  const started = await ScriptedRelay.start(options)
  cleanups.push(() => started.stop())
  return started
}

function node(options: Parameters<typeof startNostr>[0]): TestNostr {
  const started = startNostr(options)
  let stopped = false
  cleanups.push(async () => {
    if (!stopped) await started.stop()
  })
  return {
    ...started,
    async stop(how) {
      stopped = true
      await started.stop(how)
    },
  }
}

const nowS = () => Math.floor(Date.now() / 1000)
const author = testSigner(1)
const note = (content: string, createdAtS = nowS()): NostrEvent => author.sign({ kind: 1, created_at: createdAtS, tags: [], content })
const until = (check: () => void, timeout = 30_000) => vi.waitFor(check, { timeout, interval: 20 })

function collecting(events: NostrEvent[], more: Partial<SubscriptionSpec> = {}): SubscriptionSpec {
  return {
    name: 'test',
    filters: [{ kinds: [1] }],
    backfillS: 3600,
    async onEvent(event) {
      events.push(event)
    },
    ...more,
  }
}

const isTestReq = (frame: unknown[]) => frame[0] === 'REQ' && JSON.stringify(frame).includes('"kinds":[1]')

describe('subscriptions', () => {
  it('deliver stored and live events of the sandbox relay, and keep a cursor across a restart', async () => {
    const sandbox = await startSandbox()
    cleanups.push(() => sandbox.stop())
    const events: NostrEvent[] = []
    const first = node({ relays: [sandbox.relayUrl] })
    const publish = async (event: NostrEvent) => {
      await first.store.write(
        enqueueEvent({ key: `note:${event.id}`, event, relays: [sandbox.relayUrl], notAfter: Date.now() + 60_000, at: Date.now() }),
      )
      first.nostr.nudgeOutbox()
    }
    const stored = note('stored')
    await publish(stored)
    await until(() => expect(deliveriesOf(first.store, `note:${stored.id}`)[0]?.state).toBe('accepted'))
    first.nostr.subscribe(collecting(events))
    await publish(note('live'))
    await until(() => expect(events.map((event) => event.content).sort()).toEqual(['live', 'stored']))
    await until(() => expect(cursorOf(first.store, sandbox.relayUrl, 'test')).toBeGreaterThan(Date.now() - 60_000))
    expect(first.nostr.health()[0]).toMatchObject({ state: 'connected', reason: undefined })
    await first.stop({ keep: true })
    const second = node({ relays: [sandbox.relayUrl], dir: first.dir })
    const again: NostrEvent[] = []
    second.nostr.subscribe(collecting(again))
    await until(() => expect(again.length).toBe(2))
  })

  it('give one claim for an event that comes over two relays, five times, and again after a restart', async () => {
    const relays = [await relay(), await relay()]
    const event = note('once')
    for (const one of relays) one.stored.push(event)
    let claims = 0
    const claiming = (at: TestNostr): SubscriptionSpec =>
      collecting([], {
        async onEvent(received) {
          if (await at.store.write(claimEvent({ id: received.id, subscription: 'test', at: Date.now() }))) claims++
        },
      })
    const urls = relays.map((one) => one.url)
    const first = node({ relays: urls })
    first.nostr.subscribe(claiming(first))
    await until(() => expect(relays.every((one) => one.received('REQ').some(isTestReq))).toBe(true))
    for (let i = 0; i < 5; i++) for (const one of relays) one.push(event)
    await until(() => expect(claims).toBe(1))
    await first.stop({ keep: true, kill: true })
    const second = node({ relays: urls, dir: first.dir })
    second.nostr.subscribe(claiming(second))
    await until(() => expect(cursorOf(second.store, urls[0] ?? '', 'test')).toBeDefined())
    expect(claims).toBe(1)
  })

  it('ask again with a fresh id after CLOSED, and after the connection was lost', async () => {
    let closeNext = true
    const one = await relay({
      onFrame(frame, connection) {
        if (!isTestReq(frame) || !closeNext) return false
        closeNext = false
        connection.send(['CLOSED', frame[1], 'error: shutting down idle subscriptions'])
        return true
      },
    })
    const events: NostrEvent[] = []
    const at = node({ relays: [one.url] })
    at.nostr.subscribe(collecting(events))
    await until(() => expect(one.received('REQ').filter(isTestReq).length).toBe(2))
    one.push(note('after CLOSED'))
    await until(() => expect(events.length).toBe(1))
    one.dropAll()
    await until(() => expect(one.received('REQ').filter(isTestReq).length).toBe(3))
    one.push(note('after reconnect'))
    await until(() => expect(events.length).toBe(2))
    expect(new Set(one.received('REQ').map((frame) => frame[1])).size).toBe(one.received('REQ').length)
  })

  it('take only the EOSE of their own request for one', async () => {
    const one = await relay({
      onFrame(frame, connection) {
        if (!isTestReq(frame)) return false
        connection.send(['EOSE', 'another'])
        connection.send(['EOSE', String(frame[1]).slice(0, 3)])
        connection.send(['EVENT', frame[1], note('stored')])
        return true
      },
    })
    const events: NostrEvent[] = []
    const at = node({ relays: [one.url] })
    at.nostr.subscribe(collecting(events))
    await until(() => expect(events.length).toBe(1))
    await at.stop({ keep: true })
    const after = node({ relays: [one.url], dir: at.dir, start: false })
    expect(cursorOf(after.store, one.url, 'test')).toBeUndefined()
  })

  it('ignore what is forged, foreign, malformed, expired or of the future, and take their time from no event', async () => {
    const one = await relay()
    const events: NostrEvent[] = []
    const at = node({ relays: [one.url] })
    at.nostr.subscribe(collecting(events))
    await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeDefined())
    const cursor = cursorOf(at.store, one.url, 'test') ?? 0
    const good = note('good')
    const hostile: unknown[] = [
      { ...good, content: 'changed' },
      { ...note('bad signature'), sig: good.sig },
      author.sign({ kind: 7, created_at: nowS(), tags: [], content: 'another kind' }),
      note('future', nowS() + 100_000),
      author.sign({ kind: 1, created_at: nowS(), tags: [['expiration', String(nowS() - 10)]], content: 'expired' }),
      { ...good, created_at: -1 },
      { ...good, tags: [[1]] },
      { ...good, pubkey: 'f'.repeat(64) },
      null,
      [],
      'text',
      { id: good.id },
    ]
    for (const event of hostile) one.push(event)
    for (const connection of one.connections)
      for (const raw of ['{', '[]', '["EVENT"]', '[1,2]', '["OK",1]', 'x'.repeat(100_000)]) connection.sendRaw(raw)
    one.push(good)
    await until(() => expect(events.map((event) => event.content)).toEqual(['good']))
    expect(at.nostr.health()[0]?.state).toBe('connected')
    await at.stop({ keep: true })
    const after = node({ relays: [one.url], dir: at.dir, start: false })
    const moved = cursorOf(after.store, one.url, 'test') ?? 0
    expect(moved).toBeGreaterThanOrEqual(cursor)
    expect(moved).toBeLessThanOrEqual(Date.now())
  })

  it('hold the cursor while an event is not handled, and hand it over again', async () => {
    const one = await relay()
    one.stored.push(note('difficult'))
    const at = node({ relays: [one.url] })
    let calls = 0
    at.nostr.subscribe(
      collecting([], {
        async onEvent() {
          calls++
          if (calls === 1) throw new Error('the disk is full')
        },
      }),
    )
    await until(() => expect(calls).toBe(1))
    expect(cursorOf(at.store, one.url, 'test')).toBeUndefined()
    await until(() => expect(calls).toBe(2))
    await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeDefined())
  })

  it('page through a history that the relay answers in pieces, ties included', async () => {
    const one = await relay({
      onFrame(frame, connection) {
        if (!isTestReq(frame)) return false
        const [filter] = frame.slice(2) as Record<string, unknown>[]
        const page = one.query([{ ...filter, limit: 60 }])
        for (const event of page) connection.send(['EVENT', frame[1], event])
        connection.send(['EOSE', frame[1]])
        return true
      },
    })
    const base = nowS() - 3000
    for (let i = 0; i < 400; i++) one.stored.push(note(`old ${i}`, base + Math.floor(i / 25)))
    const events: NostrEvent[] = []
    const at = node({ relays: [one.url] })
    at.nostr.subscribe(collecting(events))
    await until(() => expect(new Set(events.map((event) => event.id)).size).toBe(400))
    expect(events.length).toBe(400)
    const { events: asked, complete } = await at.nostr.query([{ kinds: [1] }])
    expect({ count: asked.length, complete }).toEqual({ count: 400, complete: true })
  })

  it('prove the key where the relay asks for it, then ask again', async () => {
    let proven = ''
    const one = await relay({
      onConnect: (connection) => connection.send(['AUTH', 'challenge']),
      onFrame(frame, connection: ScriptedConnection) {
        if (frame[0] === 'AUTH') {
          const event = frame[1] as NostrEvent
          proven = event.pubkey
          connection.send(['OK', event.id, true, ''])
          return true
        }
        if (!isTestReq(frame) || proven !== '') return false
        connection.send(['CLOSED', frame[1], 'auth-required: who are you'])
        return true
      },
    })
    one.stored.push(note('private'))
    const events: NostrEvent[] = []
    const at = node({ relays: [one.url] })
    at.nostr.subscribe(collecting(events))
    await until(() => expect(events.length).toBe(1))
    expect(proven).toBe(at.keyring.node().pubkey)
    const stranger = await relay({ onConnect: (connection) => connection.send(['AUTH', 'challenge']) })
    at.dialer.allow(stranger.url, true)
    await at.nostr.query([{ kinds: [1] }], { relays: [stranger.url] })
    expect(stranger.received('AUTH')).toEqual([])
  })
})

describe('AUTH', () => {
  it('is given again on a new connection, though the last one went before the answer', async () => {
    let connections = 0
    const one = await relay({
      onConnect(connection) {
        connections++
        connection.send(['AUTH', `challenge ${connections}`])
      },
      onFrame(frame, connection) {
        if (frame[0] !== 'AUTH') return false
        if (connections === 1) connection.drop()
        else connection.send(['OK', (frame[1] as NostrEvent).id, true, ''])
        return true
      },
    })
    node({ relays: [one.url] })
    await until(() => expect(one.received('AUTH').length).toBe(2))
    const challenges = one.received('AUTH').map((frame) => (frame[1] as NostrEvent).tags.find((tag) => tag[0] === 'challenge')?.[1])
    expect(challenges).toEqual(['challenge 1', 'challenge 2'])
  })
})

describe('listen', () => {
  it('resolves once the relay answered, and misses nothing after', async () => {
    const one = await relay()
    const at = node({ relays: [one.url] })
    const events: NostrEvent[] = []
    const subscription = await at.nostr.listen({ filters: [{ kinds: [1] }], onEvent: (event) => events.push(event) })
    expect(one.received('REQ').filter(isTestReq).length).toBe(1)
    one.push(note('answer'))
    await until(() => expect(events.length).toBe(1))
    subscription.close()
  })
})

describe('a relay that is down', () => {
  it('is not waited for by queries and listeners, and is heard when it comes', async () => {
    const one = await relay()
    const dead = await ScriptedRelay.start()
    const port = Number(new URL(dead.url).port)
    await dead.stop()
    const at = node({ relays: [one.url, dead.url] })
    await until(() => expect(at.nostr.health().map(({ state }) => state)).toEqual(['connected', 'down']))
    const events: NostrEvent[] = []
    // Were it waited for, an hour would pass.
    const hour = 3_600_000
    expect(await at.nostr.query([{ kinds: [1] }], { timeoutMs: hour })).toEqual({ events: [], complete: false })
    await at.nostr.listen({ filters: [{ kinds: [1] }], timeoutMs: hour, onEvent: (event) => events.push(event) })
    const back = await relay({ port })
    await until(() => expect(back.received('REQ').some(isTestReq)).toBe(true))
    back.push(note('from the dead'))
    await until(() => expect(events.length).toBe(1))
  })
})

describe('the outbox', () => {
  const enqueue = (
    at: TestNostr,
    key: string,
    relays: string[],
    more: { notAfter?: number; content?: string; kind?: number; createdAt?: number } = {},
  ) => {
    const event = identify(at.keyring.node().pubkey, {
      kind: more.kind ?? 1,
      created_at: more.createdAt ?? nowS(),
      tags: [],
      content: more.content ?? key,
    })
    return at.store
      .write(enqueueEvent({ key, event, relays, notAfter: more.notAfter ?? Date.now() + 60_000, at: Date.now() }))
      .finally(() => at.nostr.nudgeOutbox())
  }

  it('publishes once per relay after a kill, and reports the first acceptance at least once', async () => {
    const relays = [await relay(), await relay()]
    const urls = relays.map((one) => one.url)
    const killed = node({ relays: urls, start: false })
    expect(await enqueue(killed, 'job:1:result', urls)).toBe(true)
    expect(await enqueue(killed, 'job:1:result', urls)).toBe(false)
    await killed.stop({ keep: true, kill: true })
    const at = node({ relays: urls, dir: killed.dir })
    const published: string[] = []
    at.nostr.onPublished('job:', async (key) => void published.push(key))
    at.nostr.onPublished('action:', async (key) => void published.push(`wrong ${key}`))
    await until(() => expect(deliveriesOf(at.store, 'job:1:result').map(({ state }) => state)).toEqual(['accepted', 'accepted']))
    await until(() => expect(published).toEqual(['job:1:result']))
    for (const one of relays) expect(one.received('EVENT').length).toBe(1)
    await at.stop({ keep: true })
    const third = node({ relays: urls, dir: killed.dir })
    third.nostr.onPublished('job:', async (key) => void published.push(key))
    await enqueue(third, 'job:2:result', urls)
    await until(() => expect(published).toEqual(['job:1:result', 'job:2:result']))
    for (const one of relays) expect(one.received('EVENT').filter((frame) => (frame[1] as NostrEvent).kind === 1).length).toBe(2)
  })

  it('reports again after a restart what was accepted and not dealt with', async () => {
    const one = await relay()
    const first = node({ relays: [one.url] })
    let tried = 0
    first.nostr.onPublished('action:', async () => {
      tried++
      throw new Error('not now')
    })
    await enqueue(first, 'action:1', [one.url])
    await until(() => expect(tried).toBe(1))
    await first.stop({ keep: true })
    const second = node({ relays: [one.url], dir: first.dir })
    const published: string[] = []
    second.nostr.onPublished('action:', async (key) => void published.push(key))
    await until(() => expect(published).toEqual(['action:1']))
  })

  it('is not held up by a relay that is down, and fills it when it comes', async () => {
    const one = await relay()
    const late = await ScriptedRelay.start()
    const port = Number(new URL(late.url).port)
    await late.stop()
    const at = node({ relays: [one.url, late.url] })
    for (let i = 0; i < 300; i++) await enqueue(at, `note:${i}`, [one.url, late.url])
    await until(() => expect(one.received('EVENT').filter((frame) => (frame[1] as NostrEvent).kind === 1).length).toBe(300))
    expect(at.nostr.health().find((health) => health.url === late.url)).toMatchObject({ state: 'down', outboxDepth: 300 })
    const back = await relay({ port })
    await until(() => expect(back.received('EVENT').filter((frame) => (frame[1] as NostrEvent).kind === 1).length).toBe(300), 15_000)
  })

  it('takes refusals for what they are', async () => {
    const answers: Record<string, [boolean, string]> = {
      blocked: [false, 'blocked: not here'],
      invalid: [false, 'invalid: bad'],
      duplicate: [false, 'duplicate: have it'],
      limited: [false, 'rate-limited: slow down'],
    }
    const one = await relay({
      onFrame(frame, connection) {
        const event = frame[1] as NostrEvent
        const answer = frame[0] === 'EVENT' ? answers[event.content] : undefined
        if (answer === undefined) return false
        delete answers[event.content]
        connection.send(['OK', event.id, ...answer])
        return true
      },
    })
    const at = node({ relays: [one.url] })
    for (const key of Object.keys(answers)) await enqueue(at, key, [one.url])
    const stateOf = (key: string) => deliveriesOf(at.store, key)[0]
    await until(() => {
      expect(stateOf('blocked')).toMatchObject({ state: 'rejected', error: 'blocked: not here' })
      expect(stateOf('invalid')?.state).toBe('rejected')
      expect(stateOf('duplicate')?.state).toBe('accepted')
      expect(stateOf('limited')?.state).toBe('accepted')
    })
    expect(one.received('EVENT').filter((frame) => (frame[1] as NostrEvent).content === 'limited').length).toBe(2)
    expect(one.received('EVENT').filter((frame) => (frame[1] as NostrEvent).content === 'blocked').length).toBe(1)
  })

  it('proves the author where a relay wants that, and sends the same event again', async () => {
    let authed = false
    const one = await relay({
      onConnect: (connection) => connection.send(['AUTH', 'c']),
      onFrame(frame, connection) {
        const event = frame[1] as NostrEvent
        if (frame[0] === 'AUTH') authed = event.pubkey === testAgent().pubkey || authed
        if (frame[0] === 'AUTH') connection.send(['OK', event.id, true, ''])
        else if (frame[0] === 'EVENT' && event.kind === 1 && !authed) connection.send(['OK', event.id, false, 'auth-required: author'])
        else return false
        return true
      },
    })
    const at = node({ relays: [one.url] })
    const testAgent = () => at.keyring.account(10)
    const event = identify(testAgent().pubkey, { kind: 1, created_at: nowS(), tags: [], content: 'agent' })
    await at.store.write(enqueueEvent({ key: 'a', event, relays: [one.url], notAfter: Date.now() + 60_000, at: Date.now() }))
    at.nostr.nudgeOutbox()
    await until(() => expect(deliveriesOf(at.store, 'a')[0]?.state).toBe('accepted'))
    const sent = one.received('EVENT').filter((frame) => (frame[1] as NostrEvent).kind === 1)
    expect(sent.length).toBe(2)
    expect(sent[0]).toEqual(sent[1])
  })

  it('sends only the newest revision of a replaceable event, and nothing that is too late', async () => {
    const one = await ScriptedRelay.start()
    const port = Number(new URL(one.url).port)
    await one.stop()
    const at = node({ relays: [one.url] })
    await enqueue(at, 'profile', [one.url], { kind: 0, content: '{"name":"old"}', createdAt: nowS() - 1 })
    await enqueue(at, 'profile', [one.url], { kind: 0, content: '{"name":"new"}' })
    await enqueue(at, 'late', [one.url], { notAfter: Date.now() - 1 })
    await until(() => expect(deliveriesOf(at.store, 'profile').map(({ state }) => state)).toEqual(['superseded', 'pending']))
    const back = await relay({ port })
    await until(() => expect(deliveriesOf(at.store, 'profile').map(({ state }) => state)).toEqual(['superseded', 'accepted']))
    await until(() => expect(deliveriesOf(at.store, 'late')[0]?.state).toBe('expired'))
    const sent = back.received('EVENT').map((frame) => (frame[1] as NostrEvent).content)
    expect(sent).toContain('{"name":"new"}')
    expect(sent).not.toContain('{"name":"old"}')
    expect(sent).not.toContain('late')
  })

  it('waits while the keys are locked', async () => {
    const one = await relay()
    const at = node({ relays: [one.url], locked: true })
    const event = identify(at.nostr.keyring.locked ? '17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917' : '', {
      kind: 1,
      created_at: nowS(),
      tags: [],
      content: 'locked',
    })
    await at.store.write(enqueueEvent({ key: 'l', event, relays: [one.url], notAfter: Date.now() + 60_000, at: Date.now() }))
    at.nostr.nudgeOutbox()
    await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
    expect(one.received('EVENT')).toEqual([])
    at.keyring.unlock('leader monkey parrot ring guide accident before fence cannon height naive bean')
    await until(() => expect(deliveriesOf(at.store, 'l')[0]?.state).toBe('accepted'))
  })
})
