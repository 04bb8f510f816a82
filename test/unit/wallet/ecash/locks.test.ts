/** Locks of tokens as NUT-11 and 14 have them: what opens for us, for whom else, and the true reason where it does not. */
import { describe, expect, it } from 'vitest'
import { lockOf, openingFor } from '../../../../src/wallet/ecash/locks.ts'
import { mintQuoteSchema } from '../../../../src/wallet/mint/client.ts'

const OURS = 'ab'.repeat(32)
const ALSO_OURS = 'ac'.repeat(32)
const OTHER = 'cd'.repeat(32)
const NOW = 1_800_000_000
const [PAST, FUTURE] = [NOW - 3600, NOW + 3600]

const secretOf = (kind: string, data: unknown, tags?: unknown) =>
  JSON.stringify([kind, { nonce: 'n', data, ...(tags === undefined ? {} : { tags }) }])
const p2pk = (key: string, tags?: unknown) => secretOf('P2PK', `02${key}`, tags)
const opening = (secret: string) => openingFor(lockOf(secret), new Set([OURS, ALSO_OURS]), NOW)
const key = (x: string) => `02${x}`

describe('a lock that opens for us', () => {
  it.each<[string, string, string[]]>([
    ['our key', p2pk(OURS), [OURS]],
    ['our key with the other parity', secretOf('P2PK', `03${OURS}`), [OURS]],
    ['our key in capitals', secretOf('P2PK', `02${OURS.toUpperCase()}`), [OURS]],
    ['no tags at all', p2pk(OURS, null), [OURS]],
    [
      'a future locktime with the refund of another',
      p2pk(OURS, [
        ['locktime', String(FUTURE)],
        ['refund', key(OTHER)],
      ]),
      [OURS],
    ],
    [
      'a past locktime with the refund of another, still by our key',
      p2pk(OURS, [
        ['locktime', String(PAST)],
        ['refund', key(OTHER)],
      ]),
      [OURS],
    ],
    [
      'a past locktime with our refund key',
      p2pk(OTHER, [
        ['locktime', String(PAST)],
        ['refund', key(OTHER), key(OURS)],
      ]),
      [OURS],
    ],
    [
      'one of two keys',
      p2pk(OTHER, [
        ['pubkeys', key(OURS)],
        ['n_sigs', '1'],
      ]),
      [OURS],
    ],
    ['one of two keys, without a count', p2pk(OTHER, [['pubkeys', key(OURS)]]), [OURS]],
    [
      'two of three keys, both ours',
      p2pk(OTHER, [
        ['pubkeys', key(OURS), key(ALSO_OURS)],
        ['n_sigs', '2'],
      ]),
      [OURS, ALSO_OURS],
    ],
    [
      'tags of a nutzap',
      p2pk(OURS, [
        ['e', 'ab'],
        ['P', 'cd'],
        ['e', 'ef'],
      ]),
      [OURS],
    ],
    [
      'numbers for numbers',
      p2pk(OURS, [
        ['locktime', FUTURE],
        ['n_sigs', 1],
        ['refund', key(OTHER)],
      ]),
      [OURS],
    ],
    ['a locktime that is no time', p2pk(OURS, [['locktime', '-1']]), [OURS]],
    [
      'a hash lock that has run out, with our refund key',
      secretOf('HTLC', 'ef'.repeat(32), [
        ['locktime', String(PAST)],
        ['refund', key(OURS)],
      ]),
      [OURS],
    ],
  ])('%s', (_, secret, keys) => {
    expect(opening(secret)).toEqual({ opens: true, forAll: false, keys })
  })

  it('and for everybody else: a bare secret, and a lock that has run out without refund keys', () => {
    for (const secret of ['0123abcd', '["P2PK"]', '[1,2]', '[']) expect(opening(secret)).toEqual({ opens: true, forAll: true, keys: [] })
    expect(opening(p2pk(OTHER, [['locktime', String(PAST)]]))).toEqual({ opens: true, forAll: true, keys: [] })
    expect(opening(p2pk(OTHER, [['locktime', String(NOW)]]))).toMatchObject({ opens: true, forAll: true })
    expect(opening(p2pk(OTHER, [['locktime', String(NOW + 1)]]))).toMatchObject({ opens: false })
    // Signed all the same: the clock of the mint may be behind.
    expect(opening(p2pk(OURS, [['locktime', PAST]]))).toEqual({ opens: true, forAll: true, keys: [OURS] })
  })
})

describe('a lock that does not open for us says why', () => {
  it.each<[string, string, RegExp]>([
    ['another key', p2pk(OTHER), /locked to another key$/],
    [
      'another key, with our refund key later',
      p2pk(OTHER, [
        ['locktime', String(FUTURE)],
        ['refund', key(OURS)],
      ]),
      /another key until 2027-01-15T09:00:00Z$/,
    ],
    [
      'refund keys of others',
      p2pk(OTHER, [
        ['locktime', String(PAST)],
        ['refund', key(OTHER)],
      ]),
      /only its refund keys open it/,
    ],
    [
      'more signatures than we can give',
      p2pk(OURS, [
        ['pubkeys', key(OTHER)],
        ['n_sigs', '2'],
      ]),
      /needs 2 signatures, and 1 of its keys is ours/,
    ],
    [
      'our key twice for two signatures',
      p2pk(OURS, [
        ['pubkeys', `03${OURS}`, key(OTHER)],
        ['n_sigs', '2'],
      ]),
      /1 of its keys is ours/,
    ],
    ['a hash lock', secretOf('HTLC', 'ab'.repeat(32), [['pubkeys', key(OURS)]]), /preimage/],
    ['a kind to come', secretOf('FUTURE', key(OURS)), /kind FUTURE/],
    ['a malformed key', secretOf('P2PK', '02zz'), /malformed \(its key\)/],
    ['malformed tags', p2pk(OURS, 'x'), /malformed \(its tags\)/],
    [
      'a tag twice',
      p2pk(OURS, [
        ['locktime', '1'],
        ['locktime', '2'],
      ]),
      /tag locktime twice/,
    ],
    ['a strange flag', p2pk(OURS, [['sigflag', 'SIG_NONE']]), /signature flag/],
    ['more signatures than keys', p2pk(OURS, [['n_sigs', '2']]), /malformed \(n_sigs\)/],
    ['no signature at all', p2pk(OURS, [['n_sigs', '0']]), /malformed \(n_sigs\)/],
    [
      'more refund signatures than refund keys',
      p2pk(OURS, [
        ['refund', key(OTHER)],
        ['n_sigs_refund', '2'],
      ]),
      /n_sigs_refund/,
    ],
  ])('%s', (_, secret, reason) => {
    expect(opening(secret)).toEqual({ opens: false, reason: expect.stringMatching(reason) })
  })
})

describe('a mint quote', () => {
  const state = (fields: object) => mintQuoteSchema.safeParse({ quote: 'q', request: 'lnbc', amount: 8, ...fields }).data?.state

  it.each<[object, string | undefined]>([
    [{ state: 'PAID', amount_paid: 0 }, 'PAID'],
    [{ amount_paid: 0, amount_issued: 0 }, 'UNPAID'],
    [{ amount_paid: 8, amount_issued: 0 }, 'PAID'],
    [{ state: null, amount_paid: 8 }, 'PAID'],
    [{ amount_paid: 5, amount_issued: 0 }, 'UNPAID'],
    [{ amount_paid: 8, amount_issued: 8 }, 'ISSUED'],
    [{ paid: true }, 'PAID'],
    [{ paid: false }, 'UNPAID'],
    [{}, undefined],
    [{ state: 'SOMETHING' }, undefined],
  ])('that says %j is %s', (fields, expected) => {
    expect(state(fields)).toBe(expected)
  })
})
