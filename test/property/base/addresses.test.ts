/** No address of a private range is ever public, in any way of writing it. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isPublicAddress } from '../../../src/base/addresses.ts'

const byte = fc.integer({ min: 0, max: 255 })
const group = fc.integer({ min: 0, max: 0xffff }).map((value) => value.toString(16))

/** Addresses of `a.b.0.0/bits`, where the fixed part is given as ranges of the first two bytes. */
const v4In = (first: fc.Arbitrary<number>, second: fc.Arbitrary<number> = byte) =>
  fc.tuple(first, second, byte, byte).map((parts) => parts.join('.'))

const PRIVATE_V4 = fc.oneof(
  v4In(fc.constantFrom(0, 10, 127)),
  v4In(fc.constant(100), fc.integer({ min: 64, max: 127 })),
  v4In(fc.constant(169), fc.constant(254)),
  v4In(fc.constant(172), fc.integer({ min: 16, max: 31 })),
  v4In(fc.constant(192), fc.constant(168)),
  v4In(fc.constant(198), fc.constantFrom(18, 19)),
  v4In(fc.integer({ min: 224, max: 255 })),
)

const hexOf = (v4: string): string => {
  const [a = 0, b = 0, c = 0, d = 0] = v4.split('.').map(Number)
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
}

const tail = (count: number) => fc.array(group, { minLength: count, maxLength: count }).map((groups) => groups.join(':'))

describe('isPublicAddress', () => {
  it('refuses every private IPv4 address, plain, mapped and translated', () => {
    fc.assert(
      fc.property(PRIVATE_V4, (v4) => {
        const forms = [
          v4,
          `::ffff:${v4}`,
          `::ffff:${hexOf(v4)}`,
          `0:0:0:0:0:ffff:${hexOf(v4)}`,
          `64:ff9b::${v4}`,
          `64:ff9b::${hexOf(v4)}`,
          `2002:${hexOf(v4)}::1`,
        ]
        for (const form of forms) expect({ form, isPublic: isPublicAddress(form) }).toEqual({ form, isPublic: false })
      }),
    )
  })

  it('refuses loopback, link-local, unique local, multicast and unassigned IPv6', () => {
    const inside = fc.oneof(
      tail(7).map((rest) => `fe80:${rest}`),
      fc
        .tuple(fc.constantFrom('fc', 'fd'), fc.integer({ min: 0, max: 255 }), tail(7))
        .map(([start, low, rest]) => `${start}${low.toString(16).padStart(2, '0')}:${rest}`),
      fc.tuple(fc.integer({ min: 0xff00, max: 0xffff }), tail(7)).map(([first, rest]) => `${first.toString(16)}:${rest}`),
      tail(6).map((rest) => `2001:db8:${rest}`),
      fc.constantFrom('::', '::1', '0:0:0:0:0:0:0:1', '::127.0.0.1', '::10.0.0.1', 'fe80::1%eth0', '100::1', '2001::1', '4000::1'),
    )
    fc.assert(
      fc.property(inside, (address) => {
        expect({ address, isPublic: isPublicAddress(address) }).toEqual({ address, isPublic: false })
      }),
    )
  })

  it('accepts public addresses', () => {
    const publicV4 = v4In(fc.constantFrom(1, 8, 9, 11, 23, 99, 101, 126, 128, 151, 173, 199, 223))
    fc.assert(
      fc.property(publicV4, (v4) => {
        expect([v4, `::ffff:${v4}`].map(isPublicAddress)).toEqual([true, true])
      }),
    )
    for (const address of [
      '2606:4700::1111',
      '2a00:1450:4001::200e',
      '2001:4860:4860::8888',
      '172.15.0.1',
      '172.32.0.1',
      '100.63.0.1',
      '100.128.0.1',
      '192.167.1.1',
    ]) {
      expect({ address, isPublic: isPublicAddress(address) }).toEqual({ address, isPublic: true })
    }
  })

  it('takes no text that is no address for one', () => {
    fc.assert(
      fc.property(
        fc.string().map((text) => `x${text}`),
        (text) => {
          expect(isPublicAddress(text)).toBe(false)
        },
      ),
    )
  })
})
