/** Relays that mean harm, relays that are merely broken, and a clock that was wrong. */
import { describe, expect, it, vi } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { RelayPool } from '../../../src/nostr/relay/pool.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { cursorOf, putCursors } from '../../../src/store/nostr/cursors.ts'
import { type DeliveryOutcome, enqueueEvent, lastMessageId, recordDeliveries } from '../../../src/store/nostr/outbox.ts'
import { relayListOf } from '../../../src/store/nostr/relay-lists.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import { relayListWith } from '../../support/nostr-events.ts'
import type { TestNostr } from '../../support/nostr-node.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import { ScriptedRelay } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node, cleanups } = nostrBench()

const until = (check: () => void, timeout = 30_000) => vi.waitFor(check, { timeout, interval: 20 })
const nowS = () => Math.floor(Date.now() / 1000)
const DAY_S = 86_400
const stranger = testSigner(3)
const note = (content: string, createdAt = nowS()) => stranger.sign({ kind: 1, created_at: createdAt, tags: [], content })
const notesOf = (one: ScriptedRelay) =>
  one
    .received('EVENT')
    .map((frame) => frame[1] as NostrEvent)
    .filter((event) => event.kind === 1)

function enqueue(at: TestNostr, key: string, relays: readonly string[]): Promise<boolean> {
  const event = identify(at.keyring.node().pubkey, { kind: 1, created_at: nowS(), tags: [], content: key })
  return at.store
    .write(enqueueEvent({ key, event, relays, notAfter: Date.now() + 7 * DAY_S * 1000, at: Date.now() }))
    .finally(() => at.nostr.nudgeOutbox())
}

describe('a clock that was ahead', () => {
  it('leaves no cursor behind that the relay would be silent after', async () => {
    const one = await relay()
    one.stored.push(note('while we were down', nowS() - 600))
    const before = node({ relays: [one.url], start: false })
    const ahead = Date.now() + 30 * DAY_S * 1000
    await before.store.write(putCursors({ cursors: [{ relay: one.url, name: 'test', reachedAt: ahead }], at: ahead }))
    await before.stop({ keep: true })
    const at = node({ relays: [one.url], dir: before.dir })
    const contents: string[] = []
    at.nostr.subscribe({
      name: 'test',
      filters: [{ kinds: [1] }],
      backfillS: 3600,
      onEvent: async ({ content }) => void contents.push(content),
    })
    await until(() => expect(contents).toEqual(['while we were down']))
    one.push(note('live'))
    await until(() => expect(contents).toEqual(['while we were down', 'live']))
    // On disk too: else it would hide what comes until then from a later start.
    await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeLessThanOrEqual(Date.now()))
  })

  it('puts off no delivery until that time', async () => {
    const one = await relay()
    const before = node({ relays: [one.url], start: false })
    await enqueue(before, 'waiting', [one.url])
    const outcome: DeliveryOutcome = {
      messageId: lastMessageId(before.store),
      relay: one.url,
      state: 'pending',
      attempts: 0,
      error: 'rate-limited: later',
      nextAt: Date.now() + 3 * DAY_S * 1000,
    }
    await before.store.write(recordDeliveries({ outcomes: [outcome], at: Date.now() }))
    await before.stop({ keep: true })
    const at = node({ relays: [one.url], dir: before.dir })
    await until(() => expect(deliveriesOf(at.store, 'waiting')[0]?.state).toBe('accepted'))
  })

  it('waits for no answer to what was sent in the future', async () => {
    let silent = true
    const one = await relay({ onFrame: (frame) => silent && frame[0] === 'EVENT' })
    const clock = new ManualClock(Date.now() + DAY_S * 1000)
    const skewed = {
      now: () => clock.now() - (silent ? 0 : DAY_S * 1000),
      elapsedMs: () => clock.elapsedMs(),
      sleep: clock.sleep.bind(clock),
      after: clock.after.bind(clock),
    }
    const at = node({ relays: [one.url], clock: skewed })
    await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
    await enqueue(at, 'lost answer', [one.url])
    await until(() => expect(notesOf(one).length).toBe(1))
    silent = false
    await vi.waitFor(
      async () => {
        await clock.advance(1000)
        expect(deliveriesOf(at.store, 'lost answer')[0]?.state).toBe('accepted')
      },
      { timeout: 10_000, interval: 20 },
    )
  })
})

describe('a relay that replays', () => {
  it('brings nothing from before what was asked for, whose claim may be forgotten', async () => {
    const one = await relay({ onFrame: () => false })
    const at = node({ relays: [one.url] })
    const contents: string[] = []
    at.nostr.subscribe({
      name: 'test',
      filters: [{ kinds: [1] }],
      backfillS: 3600,
      onEvent: async ({ content }) => void contents.push(content),
    })
    await until(() => expect(one.received('REQ').length).toBeGreaterThan(0))
    one.push(note('long ago', nowS() - 90 * DAY_S))
    one.push(note('now'))
    await until(() => expect(contents).toContain('now'))
    expect(contents).toEqual(['now'])
  })

  it('hides no event behind its id with another signature', async () => {
    const one = await relay()
    const at = node({ relays: [one.url] })
    const contents: string[] = []
    at.nostr.subscribe({
      name: 'test',
      filters: [{ kinds: [1] }],
      backfillS: 3600,
      onEvent: async ({ content }) => void contents.push(content),
    })
    await until(() => expect(one.received('REQ').length).toBeGreaterThan(0))
    const event = note('true')
    one.push({ ...event, sig: note('other').sig })
    one.push({ ...event, content: 'false' })
    one.push(event)
    await until(() => expect(contents).toEqual(['true']))
  })
})

describe('the outbox', () => {
  it('gets everything else through where one message ends the connection', async () => {
    const one = await relay({
      onFrame(frame, connection) {
        if (frame[0] !== 'EVENT' || (frame[1] as NostrEvent).content !== 'poison') return false
        connection.drop()
        return true
      },
    })
    const at = node({ relays: [one.url] })
    await enqueue(at, 'poison', [one.url])
    const others = Array.from({ length: 5 }, (_, n) => `other ${n}`)
    for (const key of others) await enqueue(at, key, [one.url])
    await until(() => expect(others.map((key) => deliveriesOf(at.store, key)[0]?.state)).toEqual(others.map(() => 'accepted')), 30_000)
    expect(deliveriesOf(at.store, 'poison')[0]).toMatchObject({ state: 'pending' })
    await enqueue(at, 'after', [one.url])
    await until(() => expect(deliveriesOf(at.store, 'after')[0]?.state).toBe('accepted'), 30_000)
  })

  it('reaches a relay that answers past many that strangers named and that do not', async () => {
    const own = await relay()
    const theirs = await relay()
    const dead = await ScriptedRelay.start()
    await dead.stop()
    const at = node({ relays: [own.url] })
    const many = Array.from({ length: 100 }, (_, n) => `${dead.url}/${n}`)
    for (const url of [...many, theirs.url]) at.dialer.allow(url, true)
    await enqueue(at, 'k', [...many, theirs.url])
    const stateOf = (url: string) => deliveriesOf(at.store, 'k').find((delivery) => delivery.relay === url)?.state
    await until(() => expect(stateOf(theirs.url)).toBe('accepted'))
    expect(stateOf(`${dead.url}/0`)).toBe('pending')
  })

  it('keeps few of the relays that strangers named in memory, and each has its turn', async () => {
    const theirs = await relay()
    const dead = await ScriptedRelay.start()
    await dead.stop()
    const at = node({ relays: [], start: false })
    const clock = new ManualClock(Date.now())
    const hold = vi.spyOn(RelayPool.prototype, 'hold')
    cleanups.push(async () => hold.mockRestore())
    const many = Array.from({ length: 500 }, (_, n) => `${dead.url}/${n}`)
    await enqueue(at, 'k', [...many, `${theirs.url}/zz`])
    const working = node({ relays: [], dir: at.dir, clock, start: false })
    for (const url of [...many, `${theirs.url}/zz`]) working.dialer.allow(url, true)
    working.nostr.start()
    await clock.advance(5000)
    expect(new Set(hold.mock.calls.map(([url]) => url)).size).toBe(200)
    await vi.waitFor(
      async () => {
        await clock.advance(1000)
        const accepted = deliveriesOf(working.store, 'k').filter(({ state }) => state === 'accepted')
        expect(accepted.map((delivery) => delivery.relay)).toEqual([`${theirs.url}/zz`])
        expect(new Set(hold.mock.calls.map(([url]) => url)).size).toBe(501)
      },
      { timeout: 20_000, interval: 10 },
    )
  })

  it('proves the author again where the challenge came late', async () => {
    let authed = false
    let asked = false
    const one = await relay({
      onFrame(frame, connection) {
        const event = frame[1] as NostrEvent
        if (frame[0] === 'AUTH') {
          authed = authed || event.pubkey === agent().pubkey
          connection.send(['OK', event.id, true, ''])
          return true
        }
        if (frame[0] !== 'EVENT' || event.kind !== 1 || authed) return false
        connection.send(['OK', event.id, false, 'auth-required: who are you'])
        if (!asked) connection.send(['AUTH', 'late'])
        asked = true
        return true
      },
    })
    const at = node({ relays: [one.url] })
    const agent = () => at.keyring.account(10)
    const event = identify(agent().pubkey, { kind: 1, created_at: nowS(), tags: [], content: 'agent' })
    await at.store.write(enqueueEvent({ key: 'a', event, relays: [one.url], notAfter: Date.now() + 60_000, at: Date.now() }))
    at.nostr.nudgeOutbox()
    await until(() => expect(deliveriesOf(at.store, 'a')[0]?.state).toBe('accepted'))
  })
})

describe('what strangers publish about themselves', () => {
  it('is kept as the little that is used of it', async () => {
    const one = await relay()
    const content = JSON.stringify({ name: 'Eve', lud16: 'eve@example.com', about: 'x'.repeat(100_000) })
    const many = Array.from({ length: 500 }, (_, n) => `wss://relay-${n}.example`)
    one.stored.push(
      stranger.sign({ kind: 0, created_at: nowS(), tags: [['junk', 'y'.repeat(60_000)]], content }),
      stranger.sign({ ...relayListWith(many, nowS()), content: 'z'.repeat(100_000) }),
    )
    const at = node({ relays: [one.url] })
    expect(await at.nostr.profileOf(stranger.pubkey)).toEqual({ name: 'Eve', lud16: 'eve@example.com' })
    expect((await at.nostr.relaysToReach(stranger.pubkey)).slice(0, 2)).toEqual([one.url, many[0]])
    await until(() => expect(relayListOf(at.store, stranger.pubkey, 10_002)).toBeDefined())
    for (const kind of [0, 10_002]) expect(relayListOf(at.store, stranger.pubkey, kind)?.event?.length).toBeLessThan(8000)
    await at.stop({ keep: true })
    const again = node({ relays: [one.url], dir: at.dir })
    expect(await again.nostr.profileOf(stranger.pubkey)).toEqual({ name: 'Eve', lud16: 'eve@example.com' })
  })
})

describe('a flood of strangers', () => {
  it('has only so many looked up at once, and all in the end', async () => {
    const open: (() => void)[] = []
    let answering = false
    const one = await relay({
      onFrame(frame, connection) {
        if (frame[0] !== 'REQ' || answering) return false
        open.push(() => connection.send(['EOSE', frame[1]]))
        return true
      },
    })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
    const found = Promise.all(Array.from({ length: 40 }, (_, n) => at.nostr.relaysToReach((n + 1).toString(16).padStart(64, '0'))))
    // An answer to what was asked last shows that the relay has seen all that was sent before it.
    void at.nostr.query([{ kinds: [7777] }], { timeoutMs: 3_600_000 })
    await until(() => expect(one.received('REQ').some((frame) => JSON.stringify(frame).includes('7777'))).toBe(true))
    expect(open.length).toBeLessThan(15)
    answering = true
    for (const answer of open) answer()
    expect((await found).length).toBe(40)
  })
})

describe('a query', () => {
  it('ends in its time though a relay never ends its pages', async () => {
    let serial = 0
    const one = await relay({
      onFrame(frame, connection) {
        if (frame[0] !== 'REQ') return false
        const until = (frame[2] as { until?: number }).until
        if (until !== undefined) return true
        for (let n = 0; n < 60; n++) connection.send(['EVENT', frame[1], note(`${serial++}`)])
        connection.send(['EOSE', frame[1]])
        return true
      },
    })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
    let found: { events: NostrEvent[]; complete: boolean } | undefined
    void at.nostr.query([{ kinds: [1] }], { timeoutMs: 3000 }).then((answer) => {
      found = answer
    })
    await until(() => expect(one.received('REQ').some((frame) => (frame[2] as { until?: number }).until !== undefined)).toBe(true))
    await clock.advance(3000)
    await until(() => expect(found).toMatchObject({ complete: false }), 3000)
    expect(found?.events.length).toBe(60)
  })
})

describe('a relay that asks for AUTH without end', () => {
  it('is left for a while, and answered no more often than that', async () => {
    let serial = 0
    const one = await relay({
      onConnect: (connection) => connection.send(['AUTH', `c${serial++}`]),
      onFrame(frame, connection) {
        if (frame[0] !== 'AUTH') return false
        connection.send(['OK', (frame[1] as NostrEvent).id, true, ''])
        connection.send(['AUTH', `c${serial++}`])
        return true
      },
    })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    await until(() => expect(at.nostr.health()[0]).toMatchObject({ state: 'down', reason: expect.stringContaining('AUTH without end') }))
    expect(one.received('AUTH').length).toBe(50)
  })
})
