/** What becomes of events that relays do not take: said to whoever put them out, counted, and never tried faster than a relay allows. */
import { describe, expect, it, vi } from 'vitest'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { buildDm17, unwrap } from '../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { enqueueEvent, listRefusals } from '../../../src/store/nostr/outbox.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import type { TestNostr } from '../../support/nostr-node.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import type { ScriptedRelay, ScriptedRelayOptions } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node } = nostrBench()
const until = (check: () => void, timeout = 30_000) => vi.waitFor(check, { timeout, interval: 20 })
const nowS = () => Math.floor(Date.now() / 1000)

/** A relay that answers each event by what the test says; undefined takes it. */
const judging = (judge: (event: NostrEvent) => string | undefined): ScriptedRelayOptions => ({
  onFrame(frame, connection) {
    const event = frame[1] as NostrEvent
    const words = frame[0] === 'EVENT' && event.kind < 20_000 ? judge(event) : undefined
    if (words === undefined) return false
    connection.send(['OK', event.id, false, words])
    return true
  },
})

async function put(
  at: TestNostr,
  key: string,
  relays: readonly string[],
  more: { notAfter?: number; kind?: number; content?: string } = {},
): Promise<void> {
  const event = identify(at.keyring.node().pubkey, { kind: more.kind ?? 1, created_at: nowS(), tags: [], content: more.content ?? key })
  await at.store.write(enqueueEvent({ key, event, relays, notAfter: more.notAfter ?? Date.now() + 60_000, at: Date.now() }))
  at.nostr.nudgeOutbox()
}

function listening(at: TestNostr, prefix = ''): Map<string, string> {
  const givenUp = new Map<string, string>()
  at.nostr.onGivenUp(prefix, async (key, why) => void givenUp.set(key, why))
  return givenUp
}

const eventsAt = (one: ScriptedRelay, content?: string) =>
  one
    .received('EVENT')
    .map((frame) => frame[1] as NostrEvent)
    .filter((event) => event.kind === 1 && (content === undefined || event.content === content))

describe('what no relay takes', () => {
  it('is told with the words of all, once each has refused it, and counted by relay and reason', async () => {
    const one = await relay(judging(({ content }) => (content.startsWith('good') ? undefined : 'invalid: created_at too far ahead')))
    const two = await relay(judging(({ content }) => (content === 'half' || content.startsWith('good') ? undefined : 'blocked: not here')))
    const at = node({ relays: [one.url, two.url] })
    const givenUp = listening(at)
    for (const key of ['bad 1', 'bad 2', 'half', 'good']) await put(at, key, [one.url, two.url])
    await until(() => expect(givenUp.size).toBe(2))
    for (const key of ['bad 1', 'bad 2']) {
      expect(givenUp.get(key)).toContain(`${one.url}: invalid: created_at too far ahead`)
      expect(givenUp.get(key)).toContain(`${two.url}: blocked: not here`)
    }
    await until(() => expect(deliveriesOf(at.store, 'half').map(({ state }) => state)).toContain('accepted'))
    const counted = listRefusals(at.store, 10).map(({ relay: url, reason, events, words }) => ({ url, reason, events, words }))
    expect(counted).toContainEqual({ url: one.url, reason: 'invalid', events: 3, words: 'invalid: created_at too far ahead' })
    expect(counted).toContainEqual({ url: two.url, reason: 'blocked', events: 2, words: 'blocked: not here' })
    expect(givenUp.size).toBe(2)
  })

  it('is told after a restart, when the process ended before', async () => {
    const one = await relay(judging(() => 'pow: 30 bits'))
    const first = node({ relays: [one.url] })
    await put(first, 'job-result:1', [one.url])
    await until(() => expect(deliveriesOf(first.store, 'job-result:1')[0]?.state).toBe('rejected'))
    await first.stop({ keep: true, kill: true })
    const second = node({ relays: [one.url], dir: first.dir })
    const givenUp = listening(second, 'job-result:')
    await until(() => expect([...givenUp]).toEqual([['job-result:1', `${one.url}: pow: 30 bits`]]))
    await second.stop({ keep: true })
    const third = node({ relays: [one.url], dir: first.dir })
    const again = listening(third)
    await put(third, 'another', [one.url])
    await until(() => expect([...again.keys()]).toEqual(['another']))
  })

  it('is told when it is longer than all of them say that they take', async () => {
    const narrow = await relay({ info: { limitation: { max_message_length: 2000 } } })
    const at = node({ relays: [narrow.url] })
    const givenUp = listening(at)
    // The document is read when the relay is connected, and may come after the first event.
    for (let i = 0; givenUp.size === 0 && i < 50; i++) {
      await put(at, `long ${i}`, [narrow.url], { content: `${i} ${'x'.repeat(3000)}` })
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    expect([...givenUp.values()][0]).toBe(`${narrow.url}: longer than the relay takes (2000 bytes)`)
  })

  it('is told when its time is over, and without a relay', async () => {
    const busy = await relay(judging(() => 'error: the database is busy'))
    const at = node({ relays: [busy.url] })
    const givenUp = listening(at)
    await put(at, 'late', [busy.url], { notAfter: Date.now() + 1500 })
    await put(at, 'nowhere', [])
    await put(at, 'no address', ['http://not.a.relay'])
    await until(() => expect([...givenUp.keys()].sort()).toEqual(['late', 'no address', 'nowhere']))
    expect(givenUp.get('late')).toBe(`${busy.url}: error: the database is busy`)
    expect(givenUp.get('nowhere')).toBe('there is no relay to send it to')
    expect(listRefusals(at.store, 10).find(({ reason }) => reason === 'not-taken-in-time')).toMatchObject({ relay: busy.url, events: 1 })
  })

  it('is not given up while one relay may still take it, nor when a newer revision has come', async () => {
    const one = await relay(judging(() => 'invalid: no'))
    const at = node({ relays: [one.url] })
    const givenUp = listening(at)
    const dead = 'ws://127.0.0.1:9'
    at.dialer.allow(dead, true)
    await put(at, 'waits', [one.url, dead])
    await put(at, 'profile', [dead], { kind: 0, content: 'old' })
    await put(at, 'profile', [one.url], { kind: 0 })
    await until(() => expect([...givenUp.keys()]).toEqual(['profile']))
    expect(deliveriesOf(at.store, 'waits').map(({ state }) => state)).toContain('pending')
  })
})

describe('a gift wrap', () => {
  const peer = testSigner(7)

  it.each(['invalid: event is too far in the past', 'created_at too early', 'blocked: older than one day'])(
    'that is refused for its date (%s) is made again, dated now',
    async (words) => {
      const strict = await relay(judging(({ created_at }) => (created_at < nowS() - 50 ? words : undefined)))
      const at = node({ relays: [strict.url] })
      const givenUp = listening(at)
      const agent = at.keyring.account(10)
      const { rumor, wraps } = await buildDm17(agent, [peer.pubkey], 'hello', nowS())
      const sent = wraps.find(({ recipient }) => recipient === peer.pubkey)
      if (sent === undefined) throw new Error('no wrap')
      expect(sent.event.created_at).toBeLessThan(nowS() - 60)
      const { event, seal } = sent
      await at.store.write(
        enqueueEvent({ key: 'action:1', event, seal, relays: [strict.url], notAfter: Date.now() + 60_000, at: Date.now() }),
      )
      at.nostr.nudgeOutbox()
      await until(() => expect(deliveriesOf(at.store, 'action:1')[0]?.state).toBe('accepted'))
      const [stored] = strict.stored.filter(({ kind }) => kind === 1059) as NostrEvent[]
      if (stored === undefined) throw new Error('nothing stored')
      expect(stored.created_at).toBeGreaterThan(nowS() - 50)
      expect(stored.pubkey).not.toBe(event.pubkey)
      expect(await unwrap(peer, stored, createVerifier())).toMatchObject({ id: rumor.id, content: 'hello' })
      expect(deliveriesOf(at.store, 'action:1')[0]?.eventId).toBe(stored.id)
      expect(givenUp.size).toBe(0)
    },
  )

  it('that is refused dated now too is given up', async () => {
    const never = await relay(judging(({ kind }) => (kind === 1059 ? 'invalid: no' : undefined)))
    const at = node({ relays: [never.url] })
    const givenUp = listening(at)
    const { wraps } = await buildDm17(at.keyring.account(10), [peer.pubkey], 'hello', nowS())
    for (const { event, seal } of wraps.slice(0, 1)) {
      await at.store.write(
        enqueueEvent({ key: 'action:1', event, seal, relays: [never.url], notAfter: Date.now() + 60_000, at: Date.now() }),
      )
    }
    at.nostr.nudgeOutbox()
    await until(() => expect(givenUp.get('action:1')).toBe(`${never.url}: invalid: no`))
    expect(never.received('EVENT').filter((frame) => (frame[1] as NostrEvent).kind === 1059).length).toBe(2)
  })
})

describe('a relay with a limit', () => {
  it('is slowed down to, as one, and takes everything in little more frames than events', async () => {
    const taken: number[] = []
    const limited = await relay(
      judging((event) => {
        if (event.kind !== 1) return undefined
        const now = Date.now()
        while (taken[0] !== undefined && taken[0] < now - 250) taken.shift()
        if (taken.length >= 10) return 'rate-limited: slow down there chief'
        taken.push(now)
        return undefined
      }),
    )
    const at = node({ relays: [limited.url] })
    for (let i = 0; i < 80; i++) await put(at, `note ${i}`, [limited.url])
    await until(() => expect(limited.stored.filter(({ kind }) => kind === 1).length).toBe(80), 80_000)
    expect(eventsAt(limited).length).toBeLessThan(110)
  }, 90_000)

  it('that is only in trouble is not asked by each event for itself', async () => {
    const troubled = await relay(judging(({ kind }) => (kind === 1 ? 'error: could not connect to the database' : undefined)))
    const at = node({ relays: [troubled.url] })
    for (let i = 0; i < 80; i++) await put(at, `note ${i}`, [troubled.url])
    await until(() => expect(eventsAt(troubled).length).toBeGreaterThan(5))
    expect(eventsAt(troubled).length).toBeLessThan(20)
  })
})

describe('a relay that the owner names later', () => {
  it('takes what was put out right after, though a stranger had named it before', async () => {
    const own = await relay()
    const later = await relay()
    const at = node({ relays: [own.url] })
    const givenUp = listening(at)
    expect(await at.nostr.query([{ kinds: [1] }], { relays: [later.url] })).toMatchObject({ complete: false })
    await put(at, 'before', [later.url])
    await until(() => expect(givenUp.get('before')).toContain('is refused'))
    at.dialer.allow(later.url, true)
    await put(at, 'after', [later.url])
    await until(() => expect(eventsAt(later, 'after').length).toBe(1))
  })
})
