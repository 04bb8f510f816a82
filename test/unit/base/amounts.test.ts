import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatSats, msats, msatsToSatsDown, msatsToSatsUp, sats, satsToMsats, wire } from '../../../src/base/amounts.ts'
import { stringify } from '../../../src/base/json.ts'

const amount = fc.bigInt({ min: 0n, max: 9_007_199_254_740_000n })

describe('amounts', () => {
  it('rounds up what we ask and down what we credit, by less than a sat', () => {
    fc.assert(
      fc.property(amount, (value) => {
        const up = satsToMsats(msatsToSatsUp(msats(value))) - value
        const down = value - satsToMsats(msatsToSatsDown(msats(value)))
        expect(up >= 0n && up < 1000n && down >= 0n && down < 1000n).toBe(true)
      }),
    )
  })

  it('refuses what a JSON integer cannot hold', () => {
    expect(wire(2n ** 53n - 1n)).toBe(Number.MAX_SAFE_INTEGER)
    for (const bad of [2n ** 53n, -(2n ** 53n), 1.5, Number.NaN, 2 ** 53])
      expect(() => msats(bad)).toThrow(expect.objectContaining({ code: 'amount_invalid' }))
    expect(() => satsToMsats(sats(9_007_199_254_740_992n / 1000n + 1n))).toThrow(expect.objectContaining({ code: 'amount_invalid' }))
    expect(stringify({ amount_msats: 12n })).toBe('{"amount_msats":12}')
    expect(() => stringify({ amount_msats: 2n ** 60n })).toThrow()
  })

  it('reads well', () => {
    expect([formatSats(msats(1000)), formatSats(msats(1_234_567)), formatSats(msats(12_000_000)), formatSats(msats(0))]).toEqual([
      '1 sat',
      '1,234.567 sats',
      '12,000 sats',
      '0 sats',
    ])
  })
})
