/** What a key says of itself: merged into what it said elsewhere, and given only to relays that told first what they have. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { ManualClock } from '../../../../src/base/clock.ts'
import { SelfPublisher, type SelfSpec } from '../../../../src/nostr/self/self.ts'
import type { EventTemplate, Newest, NostrEvent } from '../../../../src/nostr/types.ts'
import { outboxEvent } from '../../../../src/store/nostr/outbox.ts'
import { newestAmong } from '../../../support/newest.ts'
import { deliveriesOf } from '../../../support/outbox.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'
import { testSigner } from '../../../support/test-signer.ts'

const me = testSigner(5)
const A = 'wss://a.test'
const B = 'wss://b.test'
const MINE = 'wss://mine.example.com'
const YEAR_S = 365 * 86_400

function world() {
  const clock = new ManualClock()
  const store = openStore(`${tempDir()}/pylon.db`)
  onTestFinished(() => store.close())
  const events: NostrEvent[] = []
  let answering = [A, B]
  let asked = 0
  let extra: Partial<Newest> = {}
  const nostr = {
    newestOf: async (pubkey: string, kinds: readonly number[]) => {
      asked++
      return { ...newestAmong(events, pubkey, kinds, answering), ...extra }
    },
    nudgeOutbox: () => undefined,
  }
  const self = new SelfPublisher({ store, clock, nostr })
  const standard: SelfSpec = {
    pubkey: me.pubkey,
    keyPrefix: 'profile:',
    ttlMs: 1000,
    set: {},
    defaults: { name: 'amber-fox', about: 'An agent hosted by Pylon.', bot: true },
    lud06: undefined,
    relays: [A, B],
  }
  return {
    clock,
    store,
    asked: () => asked,
    answer(relays: string[], more: Partial<Newest> = {}) {
      answering = relays
      extra = more
    },
    says: (template: Partial<EventTemplate>) =>
      events.push(me.sign({ kind: 0, created_at: Math.floor(clock.now() / 1000) - YEAR_S, tags: [], content: '', ...template })),
    publish: (spec: Partial<SelfSpec> = {}) => self.publish({ ...standard, ...spec }),
    /** What was put out last of a kind; seen by later reads as on a relay. */
    said(kind: number): EventTemplate | undefined {
      const event = outboxEvent(store, `profile:${kind}`)
      if (event !== undefined) events.push({ ...event, sig: '' })
      return event
    },
    profile() {
      return JSON.parse(this.said(0)?.content ?? '{}') as Record<string, unknown>
    },
    to: (kind: number) => [...new Set(deliveriesOf(store, `profile:${kind}`).map(({ relay }) => relay))],
  }
}

const PERSON = {
  name: 'Grace',
  display_name: 'Grace H.',
  about: 'here since 2023',
  picture: 'https://example.com/g.png',
  nip05: 'grace@example.com',
  lud16: 'grace@wallet.example.com',
  pronouns: ['she', { odd: true }],
}

describe('a key that had a life', () => {
  it('keeps its profile, its lists and their tags; only our relays are added', async () => {
    const w = world()
    w.says({ content: JSON.stringify(PERSON), tags: [['i', 'github:grace', 'proof']] })
    const relayTags = [
      ['r', MINE],
      ['r', 'wss://outbox.example.com/', 'write'],
      ['r', 'WSS://A.test/', 'write'],
      ['alt', 'my relays'],
    ]
    w.says({ kind: 10_002, tags: relayTags })
    w.says({ kind: 10_050, tags: [['relay', 'wss://inbox.example.com']], content: 'sealed part' })
    expect(await w.publish({ lud06: 'LNURL1' })).toBe('published')
    expect(w.said(0)).toMatchObject({ content: JSON.stringify(PERSON), tags: [['i', 'github:grace', 'proof']] })
    expect(w.said(10_002)?.tags).toEqual([...relayTags, ['r', A, 'read'], ['r', B]])
    expect(w.said(10_050)).toMatchObject({
      tags: [
        ['relay', 'wss://inbox.example.com'],
        ['relay', A],
        ['relay', B],
      ],
      content: 'sealed part',
    })
    expect(await w.publish({ lud06: 'LNURL1' })).toBe('same')
  })

  it('gets what the owner sets and nothing else, later too; what is changed elsewhere since stays', async () => {
    const w = world()
    w.says({ content: JSON.stringify(PERSON) })
    await w.publish({ set: { picture: 'https://new.test/p.png' } })
    expect(w.profile()).toEqual({ ...PERSON, picture: 'https://new.test/p.png' })
    await w.clock.advance(10_000)
    const now = Math.floor(w.clock.now() / 1000)
    w.says({ content: JSON.stringify({ ...PERSON, picture: 'https://phone.test/p.png', about: 'moved' }), created_at: now + 5 })
    await w.publish({ set: { picture: 'https://new.test/p.png', nip05: '' } })
    const { nip05: _gone, ...rest } = PERSON
    expect(w.profile()).toEqual({ ...rest, picture: 'https://phone.test/p.png', about: 'moved' })
    expect(w.said(0)?.created_at).toBeGreaterThan(now + 5)
    await w.publish({ set: { picture: 'https://third.test/p.png' } })
    expect(w.profile()['picture']).toBe('https://third.test/p.png')
  })

  it('is left alone while nobody answers who should know', async () => {
    const w = world()
    w.answer([])
    expect(await w.publish()).toBe('waiting')
    w.answer([A], { isSure: false })
    await w.clock.advance(5000)
    expect(await w.publish()).toBe('waiting')
    expect(w.said(0)).toBeUndefined()
    w.says({ content: JSON.stringify(PERSON) })
    w.answer([A], { write: ['wss://w.test'], answered: [A, 'wss://w.test'] })
    w.answer([])
    await w.clock.advance(3_600_000)
    expect(await w.publish()).toBe('waiting')
    await w.clock.advance(3_600_000)
    w.answer([A, B, 'wss://w.test'], { write: ['wss://w.test', 'wss://silent.test'] })
    expect(await w.publish()).toBe('published')
    expect(w.profile()).toEqual(PERSON)
    // Where it writes, as far as that answered.
    expect(w.to(0)).toEqual([A, B, 'wss://w.test'])
  })

  it('gets what was found at once though its own relays are gone, and what was not found after a while', async () => {
    const w = world()
    w.says({ content: JSON.stringify(PERSON) })
    w.says({ kind: 10_002, tags: [['r', MINE]] })
    w.answer([A, B], { isSure: false, write: [MINE] })
    expect(await w.publish({ set: { nip05: 'new@example.com' } })).toBe('published')
    expect(w.profile()).toEqual({ ...PERSON, nip05: 'new@example.com' })
    expect(w.said(10_002)?.tags).toEqual([
      ['r', MINE],
      ['r', A],
      ['r', B],
    ])
    expect(w.said(10_050)).toBeUndefined()
    await w.clock.advance(10_000)
    await w.publish({ set: { nip05: 'new@example.com' } })
    expect(outboxEvent(w.store, `profile:10050@${A}`)).toBeUndefined()
    await w.clock.advance(60_000)
    expect(await w.publish({ set: { nip05: 'new@example.com' } })).toBe('published')
    expect(outboxEvent(w.store, `profile:10050@${A}`)?.tags).toEqual([
      ['relay', A],
      ['relay', B],
    ])
    expect(await w.publish({ set: { nip05: 'new@example.com' } })).toBe('same')
  })

  it('is given to a relay that was down only after that has told what it has', async () => {
    const w = world()
    w.answer([A])
    expect(await w.publish()).toBe('published')
    expect(w.to(0)).toEqual([A])
    expect(await w.publish()).toBe('waiting')
    const [first] = [w.said(0)]
    const asked = w.asked()
    expect(await w.publish()).toBe('waiting')
    expect(w.asked()).toBe(asked)
    w.says({ content: JSON.stringify({ ...PERSON, name: 'from b' }), created_at: (first?.created_at ?? 0) + 1 })
    w.answer([A, B])
    await w.clock.advance(10_000)
    expect(await w.publish()).toBe('published')
    const late = outboxEvent(w.store, `profile:0@${B}`)
    expect(JSON.parse(late?.content ?? '')).toMatchObject({ name: 'from b', lud16: PERSON.lud16 })
    expect(await w.publish()).toBe('same')
  })
})

describe('a key that is new', () => {
  it('says the standard words, gives way to its own zap address, and takes back what was ours', async () => {
    const w = world()
    await w.publish()
    expect(w.profile()).toEqual({ name: 'amber-fox', about: 'An agent hosted by Pylon.', bot: true })
    await w.publish({ lud06: 'LNURL1' })
    expect(w.profile()).toMatchObject({ lud06: 'LNURL1', bot: true })
    await w.publish({ lud06: 'LNURL1', set: { name: 'ada', lud16: 'ada@pay.test' } })
    expect(w.profile()).toEqual({ name: 'ada', about: 'An agent hosted by Pylon.', bot: true, lud16: 'ada@pay.test' })
    await w.publish({ lud06: 'LNURL2', set: { name: 'ada', lud16: '' } })
    expect(w.profile()).toMatchObject({ lud06: 'LNURL2' })
    expect(w.profile()).not.toHaveProperty('lud16')
    await w.publish({ lud06: 'LNURL2', set: { name: 'ada' }, relays: [B] })
    expect(w.said(10_002)?.tags).toEqual([['r', B]])
    expect(w.said(10_050)?.tags).toEqual([['relay', B]])
  })

  it('is said again after its time, with what others wrote meanwhile', async () => {
    const w = world()
    await w.publish({ repeatMs: 1000 })
    const first = w.said(0)
    expect(await w.publish({ repeatMs: 1000 })).toBe('same')
    await w.clock.advance(2000)
    expect(await w.publish({ repeatMs: 1000 })).toBe('published')
    expect(w.said(0)).toMatchObject({ content: first?.content })
    expect(w.said(0)?.created_at).toBeGreaterThan(first?.created_at ?? 0)
  })
})

describe('how a key takes nutzaps', () => {
  const nutzaps = { mints: ['https://mint.test'], lockPubkey: '22'.repeat(32) }
  const ours = [
    ['relay', A],
    ['relay', B],
    ['mint', 'https://mint.test', 'sat'],
    ['pubkey', '22'.repeat(32)],
  ]

  it('is said with relays, mints and the key of its wallet, and taken back', async () => {
    const w = world()
    expect(await w.publish({ nutzaps })).toBe('published')
    expect(w.said(10_019)?.tags).toEqual(ours)
    expect(await w.publish({ nutzaps })).toBe('same')
    await w.publish({ nutzaps: { ...nutzaps, mints: ['https://new.test'] }, relays: [A] })
    expect(w.said(10_019)?.tags).toEqual([ours[0], ours[3], ['mint', 'https://new.test', 'sat']])
    await w.publish()
    expect(w.said(10_019)?.tags).toEqual([])
  })

  it('stays as it is where another wallet takes them', async () => {
    const w = world()
    const theirs = [
      ['mint', 'https://theirs.test'],
      ['pubkey', '33'.repeat(32)],
    ]
    w.says({ kind: 10_019, tags: theirs })
    await w.publish({ nutzaps })
    expect(w.said(10_019)?.tags).toEqual(theirs)
    await w.publish()
    expect(w.said(10_019)?.tags).toEqual(theirs)
  })

  it('keeps what others added beside our key', async () => {
    const w = world()
    const more = [['mint', 'https://theirs.test', 'sat'], ['relay', MINE], ['alt', 'zap me'], ...ours.slice(3)]
    w.says({ kind: 10_019, tags: more })
    await w.publish({ nutzaps })
    expect(w.said(10_019)?.tags).toEqual([...more, ...ours.slice(0, 3)])
  })
})
