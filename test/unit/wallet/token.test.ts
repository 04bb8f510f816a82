/** Locks of tokens and names of mints, as strangers may write them. */
import { describe, expect, it } from 'vitest'
import { lockOf, normaliseMintUrl } from '../../../src/wallet/token.ts'

const KEY = `02${'ab'.repeat(32)}`
const p2pk = (data: unknown, tags?: unknown) => JSON.stringify(['P2PK', { nonce: 'n', data, ...(tags === undefined ? {} : { tags }) }])

describe('lockOf', () => {
  it('reads a plain lock, a refund and a signature flag', () => {
    expect(lockOf('0123abcd')).toEqual({ type: 'none' })
    expect(lockOf(p2pk(KEY))).toMatchObject({ type: 'p2pk', key: KEY, sigAll: false })
    expect(
      lockOf(
        p2pk(KEY, [
          ['locktime', '99'],
          ['refund', KEY],
          ['sigflag', 'SIG_ALL'],
        ]),
      ),
    ).toMatchObject({ type: 'p2pk', locktime: 99, refundKeys: [KEY], sigAll: true })
    expect(lockOf(p2pk(KEY, [['n_sigs', '1']]))).toMatchObject({ type: 'p2pk' })
  })

  it.each([
    ['several signatures', p2pk(KEY, [['n_sigs', '2']])],
    ['more keys', p2pk(KEY, [['pubkeys', KEY]])],
    [
      'a tag twice',
      p2pk(KEY, [
        ['locktime', '1'],
        ['locktime', '2'],
      ]),
    ],
    ['a strange tag', p2pk(KEY, [['hello', 'x']])],
    ['a strange flag', p2pk(KEY, [['sigflag', 'SIG_NONE']])],
    ['a malformed key', p2pk('02zz')],
    ['malformed tags', p2pk(KEY, 'x')],
    ['a negative locktime', p2pk(KEY, [['locktime', '-1']])],
    ['a hash lock', JSON.stringify(['HTLC', { nonce: 'n', data: 'ab'.repeat(32) }])],
    ['a kind to come', JSON.stringify(['FUTURE', { nonce: 'n', data: KEY }])],
  ])('refuses %s', (_, secret) => {
    expect(lockOf(secret)).toMatchObject({ type: 'unsupported' })
  })

  it('takes what is no well-known secret as bare, as NUT-10 says', () => {
    expect(lockOf('["P2PK"]')).toEqual({ type: 'none' })
    expect(lockOf('[1,2]')).toEqual({ type: 'none' })
    expect(lockOf('[')).toEqual({ type: 'none' })
  })
})

describe('normaliseMintUrl', () => {
  it('gives one name to one mint', () => {
    for (const url of ['https://Mint.Example', 'https://mint.example/', 'https://mint.example:443//', 'https://mint.example/?a=b#c']) {
      expect(normaliseMintUrl(url)).toBe('https://mint.example')
    }
    expect(normaliseMintUrl('https://mint.example/Bitcoin/')).toBe('https://mint.example/Bitcoin')
    expect(() => normaliseMintUrl('file:///etc/passwd')).toThrow(/http/)
    expect(() => normaliseMintUrl('mint')).toThrow(/URL/)
  })
})
