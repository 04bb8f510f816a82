/** Filters: what is accepted as one, what matches, and that the subscription index misses nothing. */
import { describe, expect, test } from 'vitest'
import type { NostrEvent } from '../../../src/sandbox/nostr-event.ts'
import { type Filter, matchesFilter, parseFilter } from '../../../src/sandbox/relay/filter.ts'
import { SubscriptionIndex } from '../../../src/sandbox/relay/subscriptions.ts'

const AUTHOR = 'a'.repeat(64)
const ID = '1'.repeat(64)
const event: NostrEvent = {
  id: ID,
  pubkey: AUTHOR,
  created_at: 1_000,
  kind: 5_050,
  tags: [
    ['e', 'x'],
    ['t', 'one', 'ignored'],
    ['t', 'two'],
    ['long', 'v'],
  ],
  content: '',
  sig: '0'.repeat(128),
}

function filterOf(value: unknown): Filter {
  const filter = parseFilter(value)
  if (typeof filter === 'string') throw new Error(filter)
  return filter
}

const matching: [string, object][] = [
  ['everything', {}],
  ['id', { ids: [ID] }],
  ['author', { authors: ['b'.repeat(64), AUTHOR] }],
  ['kind', { kinds: [1, 5_050] }],
  ['bounds, inclusive', { since: 1_000, until: 1_000 }],
  ['tag', { '#e': ['x'] }],
  ['one of several values of a repeated tag', { '#t': ['zero', 'two'] }],
  ['all fields', { ids: [ID], authors: [AUTHOR], kinds: [5_050], since: 1, until: 2_000, '#e': ['x'], '#t': ['one'] }],
  ['a limit of zero bounds stored events only', { limit: 0 }],
  ['unknown fields', { search: 'x', '#long': ['other'] }],
]
const failing: [string, object][] = [
  ['id', { ids: ['2'.repeat(64)] }],
  ['no ids at all', { ids: [] }],
  ['author', { authors: ['b'.repeat(64)] }],
  ['kind', { kinds: [1] }],
  ['since', { since: 1_001 }],
  ['until', { until: 999 }],
  ['second value of a tag', { '#t': ['ignored'] }],
  ['one tag of two', { '#e': ['x'], '#t': ['three'] }],
]

describe.each(matching)('%s', (_name, value) => {
  test('matches, directly and by the index', () => {
    expect(matchesFilter(filterOf(value), event)).toBe(true)
    const index = new SubscriptionIndex<string>()
    const subscription = { id: 's', owner: 'o', filters: [filterOf({ kinds: [1] }), filterOf(value)] }
    index.add(subscription)
    expect([...index.matching(event)]).toEqual([subscription])
    index.remove(subscription)
    expect([...index.matching(event)]).toEqual([])
  })
})

test.each(failing)('does not match: %s', (_name, value) => {
  expect(matchesFilter(filterOf(value), event)).toBe(false)
  const index = new SubscriptionIndex<string>()
  index.add({ id: 's', owner: 'o', filters: [filterOf(value)] })
  expect([...index.matching(event)]).toEqual([])
})

test.each([
  null,
  [],
  'x',
  { ids: 'x' },
  { ids: ['A'.repeat(64)] },
  { authors: [1] },
  { kinds: ['1'] },
  { kinds: [70_000] },
  { since: -1 },
  { until: 1.5 },
  { limit: '5' },
  { '#e': [1] },
  { '#e': 'x' },
])('refuses %j', (value) => {
  expect(typeof parseFilter(value)).toBe('string')
})
