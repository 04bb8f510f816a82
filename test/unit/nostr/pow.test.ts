/** NIP-13. */
import { expect, test } from 'vitest'
import { leadingZeroBits, workOf } from '../../../src/nostr/nips/nip13.ts'

test.each([
  ['f'.repeat(64), 0],
  [`7${'f'.repeat(63)}`, 1],
  [`000000000e9d97a1${'f'.repeat(48)}`, 36],
  [`002f${'0'.repeat(60)}`, 10],
  ['0'.repeat(64), 256],
])('an id begins with so many zero bits', (id, bits) => {
  expect(leadingZeroBits(id)).toBe(bits)
})

test('what counts is what the event commits to, and has', () => {
  const id = `000000000e9d97a1${'f'.repeat(48)}`
  expect(workOf({ id, tags: [['nonce', '776797', '20']] })).toBe(20)
  expect(workOf({ id, tags: [['nonce', '776797', '40']] })).toBe(36)
  // Without a target it may be luck: many cheap tries, one of them low.
  expect(workOf({ id, tags: [['nonce', '776797']] })).toBe(0)
  expect(workOf({ id, tags: [['nonce', '1', 'many']] })).toBe(0)
  expect(workOf({ id, tags: [] })).toBe(0)
})
