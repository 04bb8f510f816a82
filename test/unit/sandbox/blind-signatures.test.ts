/** The mint's signing against the test vectors of NUT-00 and NUT-12. */
import { describe, expect, test } from 'vitest'
import { hashToCurve, isPointHex, signOutput, verifyProof } from '../../../src/sandbox/mint/blind-signatures.ts'

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const B_ = '02a9acc1e48c25eeeb9289b5031cc57da9fe72f3fe2861d264bdc074209b107ba2'

describe('NUT-00', () => {
  test.each([
    [
      '0000000000000000000000000000000000000000000000000000000000000000',
      '024cce997d3b518f739663b757deaec95bcd9473c30a14ac2fd04023a739d1a725',
    ],
    [
      '0000000000000000000000000000000000000000000000000000000000000001',
      '022e7158e11c9506f1aa4248bf531298daa7febd6194f003edcd9b93ade6253acf',
    ],
    [
      '0000000000000000000000000000000000000000000000000000000000000002',
      '026cdbe15362df59cd1dd3c9c11de8aedac2106eca69236ecd9fbe117af897be4f',
    ],
  ])('hash to curve of %s', (message, point) => {
    expect(Buffer.from(hashToCurve(bytes(message))).toString('hex')).toBe(point)
  })

  test.each([
    ['01'.padStart(64, '0'), B_],
    ['7f'.repeat(32), '0398bc70ce8184d27ba89834d19f5199c84443c31131e48d3c1214db24247d005d'],
  ])('signs with key %s', (key, expected) => {
    expect(signOutput(bytes(B_), bytes(key)).c).toBe(expected)
    expect(verifyProof(bytes(B_), expected, bytes(key))).toBe(true)
    expect(verifyProof(bytes(B_), expected, bytes('03'.padStart(64, '0')))).toBe(false)
  })
})

test('NUT-12: the nonce is deterministic and the proof is the one of the vector', () => {
  expect(signOutput(bytes(B_), bytes('02'.padStart(64, '0')))).toEqual({
    c: '0244eccfc7a348274458bb38044c7f3c389b3c2086c7ec18b5812d2877ab937787',
    e: '2a16ffee280aff3c429045607f9b8e0bf8b35910c44c1b20b9dfaf01b263d7b3',
    s: '9df27731238334718d120d4f74611a7c668233f988e687ac3fb188f0a34a2dab',
  })
})

test('what is no point is told apart', () => {
  expect(isPointHex(B_)).toBe(true)
  expect(isPointHex(`02${'f'.repeat(64)}`)).toBe(false)
  expect(isPointHex(`04${B_.slice(2)}`)).toBe(false)
  expect(isPointHex('')).toBe(false)
})
