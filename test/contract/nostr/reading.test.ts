/** All that relays have for us is read, whatever they give at once, over few requests, as the keys that they want to see. */
import { describe, expect, it, vi } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import type { Filter, NostrEvent } from '../../../src/nostr/types.ts'
import { cursorOf } from '../../../src/store/nostr/cursors.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import type { TestNostr } from '../../support/nostr-node.ts'
import { matches, type ScriptedConnection, type ScriptedRelay, type ScriptedRelayOptions } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node } = nostrBench()

const until = (check: () => void, timeout = 30_000) => vi.waitFor(check, { timeout, interval: 20 })
const nowS = () => Math.floor(Date.now() / 1000)
const author = testSigner(1)
let serial = 0
const event = (createdAt: number, kind = 1, tags: string[][] = []): NostrEvent =>
  author.sign({ kind, created_at: createdAt, tags, content: `${serial++}` })

type OnFrame = NonNullable<ScriptedRelayOptions['onFrame']>
type WireFilter = Filter & Record<string, unknown>
const filtersOf = (frame: unknown[]) => frame.slice(2) as WireFilter[]
const reqsOf = (one: ScriptedRelay) =>
  one.received('REQ').filter((frame) => filtersOf(frame).some((filter) => !filter.kinds?.includes(20_911)))

/** Subscribes and gathers ids. */
function gather(
  at: TestNostr,
  filters: readonly Filter[],
  more: { name?: string; overlapS?: number; rereadMs?: number; relays?: string[] } = {},
): Set<string> {
  const ids = new Set<string>()
  at.nostr.subscribe({ name: 'test', filters, backfillS: 7200, ...more, onEvent: async ({ id }) => void ids.add(id) })
  return ids
}

/** Answers each request with so many of the newest that are stored, whatever it was asked for. */
const stingy = (one: () => ScriptedRelay, mostOf: (filter: WireFilter) => number): OnFrame => {
  return (frame, connection) => {
    if (frame[0] !== 'REQ') return false
    for (const filter of filtersOf(frame)) {
      for (const found of one().query([{ ...filter, limit: mostOf(filter) }])) connection.send(['EVENT', frame[1], found])
    }
    connection.send(['EOSE', frame[1]])
    return true
  }
}

describe('what a relay has stored', () => {
  it('is read again now and then where that is asked for: what was lost on a live connection comes late', async () => {
    const one = await relay()
    const at = node({ relays: [one.url] })
    const ids = gather(at, [{ kinds: [1] }], { rereadMs: 200 })
    await until(() => expect(reqsOf(one).length).toBeGreaterThan(0))
    const lost = event(nowS())
    one.stored.push(lost)
    await until(() => expect(ids).toEqual(new Set([lost.id])))
  })

  it('is read to the end where an answer without a limit is a quarter of the limit that it states', async () => {
    const one: ScriptedRelay = await relay({
      info: { limitation: { max_limit: 100 } },
      onFrame: stingy(
        () => one,
        ({ limit }) => Math.min(limit ?? 25, 100),
      ),
    })
    for (let n = 0; n < 300; n++) one.stored.push(event(nowS() - 3600 + n))
    const at = node({ relays: [one.url] })
    const ids = gather(at, [{ kinds: [1] }])
    await until(() => expect(ids.size).toBe(300))
    expect((await at.nostr.query([{ kinds: [1] }])).events.length).toBe(300)
    expect((await at.nostr.query([{ kinds: [1], limit: 250 }])).events.length).toBeGreaterThanOrEqual(250)
  })

  it('is read to the end where answers are shorter than was asked for, and behind more in one second than an answer holds', async () => {
    const one: ScriptedRelay = await relay({
      onFrame: stingy(
        () => one,
        () => 7,
      ),
    })
    const second = nowS() - 1000
    for (let n = 0; n < 20; n++) one.stored.push(event(second))
    const older = Array.from({ length: 30 }, (_, n) => event(second - 1 - Math.floor(n / 3)))
    one.stored.push(...older)
    const others = event(second, 7)
    one.stored.push(others)
    const at = node({ relays: [one.url] })
    const ids = gather(at, [{ kinds: [1] }, { kinds: [7] }])
    await until(() => expect([...older, others].filter(({ id }) => !ids.has(id))).toEqual([]))
    await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeDefined())
  })
})

describe('NIP-77', () => {
  /** All that it has, in answer to whatever is said: the plainest of all ways to follow the protocol. */
  const listOf = (stored: readonly { id: string }[]) => {
    const varint = (n: number): number[] => (n < 128 ? [n] : [(n >> 7) | 128, n & 127])
    return Buffer.from([0x61, 0, 0, 2, ...varint(stored.length)]).toString('hex') + stored.map(({ id }) => id).join('')
  }
  const reconciling = (one: () => ScriptedRelay, mostOf: (filter: WireFilter) => number): OnFrame => {
    const plain = stingy(one, mostOf)
    return (frame, connection) => {
      if (frame[0] !== 'NEG-OPEN') return plain(frame, connection)
      connection.send(['NEG-MSG', frame[1], listOf(one().stored.filter((stored) => matches(frame[2] as WireFilter, stored)))])
      return true
    }
  }
  /** More in one second than any answer holds: page by page it could not be read. */
  const crowded = (one: ScriptedRelay) => {
    for (let n = 0; n < 300; n++) one.stored.push(event(nowS() - 1000 + Math.floor(n / 100)))
  }

  it('finds what no page shows, and has little to say at the next connection', async () => {
    const one: ScriptedRelay = await relay({
      info: { supported_nips: [1, 77], limitation: { max_limit: 40 } },
      onFrame: reconciling(
        () => one,
        ({ limit }) => Math.min(limit ?? 40, 40),
      ),
    })
    crowded(one)
    const at = node({ relays: [one.url] })
    const ids = gather(at, [{ kinds: [1] }])
    await until(() => expect(ids.size).toBe(300))
    await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeDefined())
    const missed = event(nowS() - 1500)
    one.stored.push(missed)
    const before = one.received('REQ').length
    one.dropAll()
    await until(() => expect(ids.has(missed.id)).toBe(true))
    const fetched = one.frames
      .filter((frame) => frame[0] === 'REQ')
      .slice(before)
      .flatMap((frame) => filtersOf(frame).flatMap((filter) => filter.ids ?? []))
    expect(fetched).toEqual([missed.id])
  })

  it.each([
    ['refused', (connection: ScriptedConnection, id: unknown) => connection.send(['NEG-ERR', id, 'blocked: too many query results'])],
    ['not understood', (connection: ScriptedConnection) => connection.send(['NOTICE', 'ERROR: bad msg: negentropy disabled'])],
    ['answered with nonsense', (connection: ScriptedConnection, id: unknown) => connection.send(['NEG-MSG', id, '61ff'])],
    ['not answered', () => {}],
  ])('gives way to pages where it is %s', async (_, answer) => {
    const one: ScriptedRelay = await relay({
      info: { supported_nips: [77] },
      onFrame(frame, connection) {
        if (frame[0] === 'NEG-OPEN') answer(connection, frame[1])
        if (frame[0] !== 'REQ') return frame[0] === 'NEG-OPEN'
        return stingy(
          () => one,
          () => 40,
        )(frame, connection)
      },
    })
    for (let n = 0; n < 100; n++) one.stored.push(event(nowS() - 1000 + n))
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    const ids = gather(at, [{ kinds: [1] }])
    await until(() => expect(one.received('NEG-OPEN').length).toBe(1))
    await vi.waitFor(
      async () => {
        await clock.advance(1000)
        expect(ids.size).toBe(100)
      },
      { timeout: 30_000, interval: 20 },
    )
  })
})

describe('an event that comes late', () => {
  it('is heard after a reconnect and after a restart, as late as is said, and what came meanwhile too', async () => {
    const one = await relay()
    const first = node({ relays: [one.url] })
    const ids = gather(first, [{ kinds: [1] }])
    await until(() => expect(cursorOf(first.store, one.url, 'test')).toBeDefined())
    one.dropAll()
    const meanwhile = event(nowS() - 600)
    one.stored.push(meanwhile)
    await until(() => expect(reqsOf(one).length).toBeGreaterThan(1))
    await until(() => expect(ids.has(meanwhile.id)).toBe(true))
    const late = event(nowS() - 3000)
    for (const connection of one.connections) {
      for (const [sub, filters] of connection.subs)
        if (filters.some((filter) => matches(filter, late))) connection.send(['EVENT', sub, late])
    }
    await until(() => expect(ids.has(late.id)).toBe(true))
    await first.stop({ keep: true })
    const stopped = event(nowS() - 2000)
    one.stored.push(stopped)
    const second = node({ relays: [one.url], dir: first.dir })
    const again = gather(second, [{ kinds: [1] }])
    await until(() => expect(again.has(stopped.id)).toBe(true))
  })
})

describe('an event that is too late to be of use', () => {
  it('is heard all the same where somebody wants to say so', async () => {
    const one = await relay()
    const at = node({ relays: [one.url] })
    const ids = new Set<string>()
    at.nostr.subscribe({
      name: 'test',
      filters: [{ kinds: [1] }],
      backfillS: 60,
      overlapS: 60,
      latenessS: 90_000,
      onEvent: async ({ id }) => void ids.add(id),
    })
    await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeDefined())
    const late = event(nowS() - 80_000)
    one.push(late)
    await until(() => expect(ids.has(late.id)).toBe(true))
  })
})

describe('many keys on one relay', () => {
  const agents = Array.from({ length: 40 }, (_, n) => testSigner(100 + n).pubkey)
  const subscribeAll = (at: TestNostr) =>
    agents.map((pubkey, n) => {
      const ids = gather(at, [{ kinds: [1, 9735], '#p': [pubkey] }], { name: `agent-${n}` })
      gather(at, [{ kinds: [1059], '#p': [pubkey] }], { name: `wraps-${n}`, overlapS: 259_200 })
      return ids
    })
  /** Says no in the given way to more open requests than it takes. */
  const narrow = (most: number, refuse: (connection: ScriptedConnection, id: unknown) => void): OnFrame => {
    return (frame, connection) => {
      if (frame[0] !== 'REQ' || connection.subs.size <= most) return false
      connection.subs.delete(String(frame[1]))
      refuse(connection, frame[1])
      return true
    }
  }

  it.each([
    ['states it', 10, { limitation: { max_subscriptions: 10 } }, () => {}],
    ['closes the others', 5, undefined, (c: ScriptedConnection, id: unknown) => c.send(['CLOSED', id, 'error: too many concurrent REQs'])],
    ['sends a notice', 4, undefined, (c: ScriptedConnection) => c.send(['NOTICE', 'ERROR: too many concurrent REQs'])],
  ])('are all heard where it takes few requests and %s', async (_, most, info, refuse) => {
    let connects = 0
    let refused = 0
    const one: ScriptedRelay = await relay({
      info,
      onConnect: () => connects++,
      onFrame: narrow(most, (connection, id) => {
        refused++
        refuse(connection, id)
      }),
    })
    const early = agents.map((pubkey) => event(nowS() - 100, 1, [['p', pubkey]]))
    one.stored.push(...early)
    const at = node({ relays: [one.url] })
    const heard = subscribeAll(at)
    await until(() => expect(early.map(({ id }, n) => heard[n]?.has(id))).toEqual(agents.map(() => true)))
    const wanted = (pubkey: string) =>
      [...one.connections].some(({ subs }) => [...subs.values()].flat().some((f) => (f['#p'] as string[] | undefined)?.includes(pubkey)))
    await until(() => expect(agents.filter((pubkey) => !wanted(pubkey))).toEqual([]))
    for (const pubkey of agents) {
      const live = event(nowS(), 1, [['p', pubkey]])
      one.push(live)
      await until(() => expect(heard[agents.indexOf(pubkey)]?.has(live.id)).toBe(true))
    }
    expect(connects).toBe(1)
    if (info !== undefined) expect(refused).toBe(0)
  })

  it('are asked for within all that it states: filters, length of a message, length of an id', async () => {
    const limits = { max_subscriptions: 20, max_filters: 2, max_message_length: 1500, max_subid_length: 5 }
    const one = await relay({ info: { limitation: limits } })
    const at = node({ relays: [one.url] })
    const heard = subscribeAll(at)
    const wanted = () =>
      new Set([...one.connections].flatMap(({ subs }) => [...subs.values()].flat().flatMap((f) => (f['#p'] ?? []) as string[])))
    await until(() => expect(wanted().size).toBe(agents.length))
    const live = event(nowS(), 1, [['p', agents[39] ?? '']])
    one.push(live)
    await until(() => expect(heard[39]?.has(live.id)).toBe(true))
    for (const frame of one.received('REQ')) {
      expect(filtersOf(frame).length).toBeLessThanOrEqual(2)
      expect(JSON.stringify(frame).length).toBeLessThanOrEqual(1500)
      expect(String(frame[1]).length).toBeLessThanOrEqual(5)
    }
    for (const { subs } of one.connections) expect(subs.size).toBeLessThanOrEqual(20)
  })

  it('share requests that change with them: who comes is heard, who goes is no longer asked for, and nothing is missed meanwhile', async () => {
    const one = await relay()
    const at = node({ relays: [one.url] })
    const first = gather(at, [{ kinds: [1], '#p': [agents[0] ?? ''] }], { name: 'first' })
    await until(() => expect(cursorOf(at.store, one.url, 'first')).toBeDefined())
    const second = new Set<string>()
    const subscription = at.nostr.subscribe({
      name: 'second',
      filters: [{ kinds: [1], '#p': [agents[1] ?? ''] }],
      backfillS: 60,
      onEvent: async ({ id }) => void second.add(id),
    })
    await until(() => expect(cursorOf(at.store, one.url, 'second')).toBeDefined())
    const asked = () =>
      [...one.connections].flatMap(({ subs }) => [...subs.values()].flat()).filter((filter) => (filter['kinds'] as number[])[0] === 1)
    await until(() => expect(asked().map((filter) => (filter['#p'] as string[]).length)).toEqual([2]))
    const both = event(nowS(), 1, [
      ['p', agents[0] ?? ''],
      ['p', agents[1] ?? ''],
    ])
    one.push(both)
    await until(() => expect([first.has(both.id), second.has(both.id)]).toEqual([true, true]))
    subscription.close()
    await until(() => expect(asked().map((filter) => filter['#p'])).toEqual([[agents[0]]]))
  })
})

describe('a request that the relay does not serve', () => {
  it.each([
    ['closes', (connection: ScriptedConnection, id: unknown) => connection.send(['CLOSED', id, 'error: kind 7 is not served'])],
    ['answers by a notice', (connection: ScriptedConnection) => connection.send(['NOTICE', 'error: kind 7 is not served'])],
    ['does not answer', () => {}],
  ])('that it %s leaves all others heard, on the same connection', async (_, refuse) => {
    let connects = 0
    const one = await relay({
      onConnect: () => connects++,
      onFrame(frame, connection) {
        if (frame[0] !== 'REQ' || !filtersOf(frame).some((filter) => filter.kinds?.includes(7))) return false
        connection.subs.delete(String(frame[1]))
        refuse(connection, frame[1])
        return true
      },
    })
    one.stored.push(event(nowS() - 10, 1), event(nowS() - 10, 6))
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    const heard = [1, 7, 6].map((kind) => gather(at, [{ kinds: [kind] }], { name: `kind-${kind}` }))
    await vi.waitFor(
      async () => {
        await clock.advance(1000)
        expect(heard.map((ids) => ids.size)).toEqual([1, 0, 1])
      },
      { timeout: 30_000, interval: 5 },
    )
    const live = event(nowS(), 6)
    one.push(live)
    await until(() => expect(heard[2]?.has(live.id)).toBe(true))
    await vi.waitFor(
      async () => {
        await clock.advance(1000)
        expect(at.nostr.health()[0]?.reason).toContain('kind-7')
      },
      { timeout: 30_000, interval: 5 },
    )
    expect(connects).toBe(1)
  })
})

describe('a relay that wants to know who asks', () => {
  type Manner = 'says it is restricted' | 'wants any key' | 'withholds without a word'
  /** It knows one key a connection, the one that was shown last, and serves what concerns this key. */
  async function guarded(manner: Manner, asks: 'at once' | 'when refusing') {
    const keys = new Map<ScriptedConnection, string>()
    let serial = 0
    const challenge = (connection: ScriptedConnection) => connection.send(['AUTH', `challenge ${serial++}`])
    const isMine = (connection: ScriptedConnection, filter: WireFilter) =>
      filter['#p'] === undefined || filter['#p'].every((pubkey) => pubkey === keys.get(connection))
    const one: ScriptedRelay = await relay({
      onConnect: (connection) => asks === 'at once' && challenge(connection),
      onFrame(frame, connection) {
        if (frame[0] === 'AUTH') {
          const proof = frame[1] as NostrEvent
          keys.set(connection, proof.pubkey)
          connection.send(['OK', proof.id, true, ''])
          return true
        }
        if (frame[0] !== 'REQ') return false
        const why =
          manner === 'wants any key'
            ? keys.has(connection) || 'auth-required: log in'
            : manner !== 'says it is restricted' ||
              filtersOf(frame).every((filter) => isMine(connection, filter)) ||
              'restricted: not yours'
        if (why !== true) {
          connection.subs.delete(String(frame[1]))
          if (!keys.has(connection) && asks === 'when refusing') challenge(connection)
          connection.send(['CLOSED', frame[1], keys.has(connection) ? why : why.replace('restricted', 'auth-required')])
          return true
        }
        for (const found of one.query(filtersOf(frame))) {
          const to = found.tags.find(([name]) => name === 'p')?.[1]
          const isPrivate = found.kind === 1059 || found.kind === 4
          if (manner !== 'withholds without a word' || !isPrivate || to === keys.get(connection))
            connection.send(['EVENT', frame[1], found])
        }
        connection.send(['EOSE', frame[1]])
        return true
      },
    })
    return { one, keys }
  }

  it.each([
    ['says it is restricted', 'at once'],
    ['says it is restricted', 'when refusing'],
    ['wants any key', 'at once'],
    ['wants any key', 'when refusing'],
    ['withholds without a word', 'at once'],
  ] as const)('gives each key its own where it %s, and asks %s', async (manner, asks) => {
    const { one } = await guarded(manner, asks)
    const own = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(one.url, true)
    const agents = [10, 11, 12].map((account) => at.keyring.account(account).pubkey)
    const sent = agents.flatMap((pubkey) => [1, 4, 1059].map((kind) => event(nowS() - 100, kind, [['p', pubkey]])))
    one.stored.push(...sent)
    const heard = agents.map((pubkey, n) => {
      const wraps = gather(at, [{ kinds: [1059], '#p': [pubkey] }], { name: `wraps-${n}`, relays: [one.url] })
      return [gather(at, [{ kinds: [1, 4], '#p': [pubkey] }], { name: `notes-${n}`, relays: [one.url] }), wraps]
    })
    const all = () => new Set(heard.flat().flatMap((ids) => [...ids]))
    await until(() => expect(sent.filter(({ id }) => !all().has(id))).toEqual([]))
    const shown = new Set(one.received('AUTH').map((frame) => (frame[1] as NostrEvent).pubkey))
    expect([...shown].filter((pubkey) => !agents.includes(pubkey))).toEqual([])
    // A restart of the relay changes nothing about it.
    one.dropAll()
    const later = agents.map((pubkey) => event(nowS(), 1059, [['p', pubkey]]))
    one.stored.push(...later)
    await until(() => expect(later.filter(({ id }) => !all().has(id))).toEqual([]))
  })

  it.each(['at once', 'when refusing'] as const)(
    'is shown the key that a question is about, and no key for questions about others; it asks %s',
    async (asks) => {
      const { one } = await guarded('wants any key', asks)
      const own = await relay()
      const at = node({ relays: [own.url] })
      at.dialer.allow(one.url, true)
      const customer = at.keyring.customer().pubkey
      const answer = event(nowS(), 6050, [['p', customer]])
      one.stored.push(answer, event(nowS(), 10_050))
      expect(await at.nostr.query([{ kinds: [10_050], authors: [author.pubkey] }], { relays: [one.url] })).toEqual({
        events: [],
        complete: false,
      })
      expect(one.received('AUTH')).toEqual([])
      const mine: Filter = { kinds: [6050], '#p': [customer] }
      expect((await at.nostr.query([mine], { relays: [one.url] })).events.map(({ id }) => id)).toEqual([answer.id])
      const heard: string[] = []
      const subscription = await at.nostr.listen({ filters: [mine], relays: [one.url], onEvent: ({ id }) => heard.push(id) })
      expect(heard).toEqual([answer.id])
      subscription.close()
      expect(new Set(one.received('AUTH').map((frame) => (frame[1] as NostrEvent).pubkey))).toEqual(new Set([customer]))
    },
  )

  it('is shown nothing where it only asks and serves all the same', async () => {
    const one = await relay({ onConnect: (connection) => connection.send(['AUTH', 'who are you']) })
    const own = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(one.url, true)
    const agent = at.keyring.account(10).pubkey
    const ids = gather(at, [{ kinds: [1], '#p': [agent] }], { relays: [one.url] })
    const note = event(nowS(), 1, [['p', agent]])
    one.stored.push(note)
    await until(() => expect(ids.has(note.id) || cursorOf(at.store, one.url, 'test') !== undefined).toBe(true))
    await at.nostr.query([{ kinds: [1], '#p': [agent] }], { relays: [one.url] })
    expect(one.received('AUTH')).toEqual([])
  })
})

describe('a relay that restarts again and again', () => {
  it('is asked again soon each time, as long as it answers in between', async () => {
    let connects = 0
    const one = await relay({ onConnect: () => connects++ })
    const clock = new ManualClock(Date.now())
    const at = node({ relays: [one.url], clock })
    gather(at, [{ kinds: [1] }])
    for (let round = 1; round <= 8; round++) {
      await vi.waitFor(
        async () => {
          if (connects < round) await clock.advance(100)
          expect(connects).toBe(round)
        },
        { timeout: 30_000, interval: 5 },
      )
      await until(() => expect(reqsOf(one).length).toBeGreaterThanOrEqual(round))
      await until(() => expect(at.nostr.health()[0]?.state).toBe('connected'))
      await at.nostr.query([{ kinds: [9999] }], { timeoutMs: 3_600_000 })
      await clock.advance(20_000)
      const before = clock.now()
      one.dropAll()
      await until(() => expect(at.nostr.health()[0]?.state).not.toBe('connected'))
      await vi.waitFor(
        async () => {
          if (connects === round) await clock.advance(100)
          expect(connects).toBe(round + 1)
        },
        { timeout: 30_000, interval: 5 },
      )
      expect(clock.now() - before).toBeLessThan(3000)
    }
  })
})
