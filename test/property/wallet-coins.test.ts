/** The arithmetic of ecash under every mix of coins and fees. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  blankOutputs,
  coinsToMerge,
  coinsToMove,
  coverFee,
  inputFee,
  selectCoins,
  selectExact,
  splitAmount,
  sumOf,
} from '../../src/wallet/ecash/coins.ts'

const POWERS = Array.from({ length: 32 }, (_, i) => 2n ** BigInt(i))
const coin = fc.record({
  amountSats: fc.integer({ min: 0, max: 14 }).map((i) => 2n ** BigInt(i)),
  feePpk: fc.constantFrom(0, 1, 100, 500, 1000, 3000),
})
const coins = fc.array(coin, { maxLength: 40 })
const amount = fc.bigInt({ min: 1n, max: 100_000n })

describe('coins', () => {
  it('split into the fewest powers of two that sum up, ascending', () => {
    fc.assert(
      fc.property(amount, (total) => {
        const parts = splitAmount(total, POWERS) ?? []
        expect(parts.reduce((sum, part) => sum + part, 0n)).toBe(total)
        expect(parts.length).toBe([...total.toString(2)].filter((bit) => bit === '1').length)
        expect([...parts].sort((a, b) => (a < b ? -1 : 1))).toEqual(parts)
      }),
    )
  })

  it('are chosen so that target and fee are covered, none is needless, and whenever it is possible', () => {
    fc.assert(
      fc.property(coins, amount, (own, target) => {
        const chosen = selectCoins(own, target)
        const useful = own.filter((one) => one.amountSats * 1000n > BigInt(one.feePpk))
        if (chosen === undefined) {
          expect(sumOf(useful) - inputFee(useful)).toBeLessThan(target)
          return
        }
        expect(new Set(chosen).size).toBe(chosen.length)
        expect(chosen.every((one) => own.includes(one))).toBe(true)
        expect(sumOf(chosen) - inputFee(chosen)).toBeGreaterThanOrEqual(target)
        for (const one of chosen) {
          const without = chosen.filter((other) => other !== one)
          expect(sumOf(without) - inputFee(without)).toBeLessThan(target)
        }
      }),
      {
        numRuns: 500,
        examples: [
          [
            [
              { amountSats: 2n, feePpk: 1000 },
              { amountSats: 1n, feePpk: 500 },
              { amountSats: 1n, feePpk: 0 },
            ],
            2n,
          ],
          [
            [
              { amountSats: 2n, feePpk: 500 },
              { amountSats: 1n, feePpk: 500 },
              { amountSats: 1n, feePpk: 500 },
            ],
            2n,
          ],
        ],
      },
    )
  })

  it('fit exactly or not at all', () => {
    fc.assert(
      fc.property(coins, amount, (own, total) => {
        const chosen = selectExact(own, total)
        if (chosen !== undefined) expect(sumOf(chosen)).toBe(total)
      }),
    )
  })

  it('leave the receiver what was meant, and no sat more than its fee on top', () => {
    fc.assert(
      fc.property(amount, fc.constantFrom(0, 1, 100, 999, 1000), (net, feePpk) => {
        const face = coverFee(net, POWERS, feePpk)
        const fee = inputFee((splitAmount(face, POWERS) ?? []).map(() => ({ feePpk })))
        expect(face - fee).toBeGreaterThanOrEqual(net)
        expect(face - net).toBeLessThanOrEqual(inputFee(Array.from({ length: 18 }, () => ({ feePpk }))))
      }),
    )
  })

  it('come back as change in as many blanks as are needed', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 1_000_000n }), (overpaid) => {
        const blanks = blankOutputs(overpaid)
        expect((splitAmount(overpaid, POWERS) ?? []).length).toBeLessThanOrEqual(blanks)
        expect(blanks === 0).toBe(overpaid === 0n)
      }),
    )
  })

  it('are merged to an end, each time for more than it costs, and to what a request takes where they are many alike', () => {
    const merge = (start: readonly bigint[], max: number, feePpk: number) => {
      let own = start.map((amountSats) => ({ amountSats, feePpk }))
      let rounds = 0
      for (let some = coinsToMerge(own, max, POWERS); some !== undefined; some = coinsToMerge(own, max, POWERS)) {
        expect(some.length).toBeLessThanOrEqual(max)
        const made = splitAmount(sumOf(some) - inputFee(some), POWERS) ?? []
        own = [...own.filter((one) => !some?.includes(one)), ...made.map((amountSats) => ({ amountSats, feePpk }))]
        expect(++rounds).toBeLessThan(300)
      }
      return own
    }
    const powers = fc.array(
      fc.integer({ min: 0, max: 10 }).map((i) => 2n ** BigInt(i)),
      { maxLength: 40 },
    )
    fc.assert(
      fc.property(
        powers,
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom(0, 100, 1000),
        (start, max, feePpk) => void merge(start, max, feePpk),
      ),
    )
    expect(merge(Array<bigint>(130).fill(2n), 20, 100).length).toBeLessThanOrEqual(8)
  })

  it('move out of an old keyset only within what that may cost, and whole where it ends', () => {
    fc.assert(
      fc.property(coins, fc.bigInt({ min: 0n, max: 20n }), (own, mayCost) => {
        const moved = coinsToMove(own, { endsSoon: false, mayCost, max: 100 })
        expect(inputFee(moved)).toBeLessThanOrEqual(mayCost)
        expect(inputFee(moved) * 10n).toBeLessThanOrEqual(sumOf(moved))
        const saved = coinsToMove(own, { endsSoon: true, mayCost, max: 100 })
        if (saved.length > 0) expect(sumOf(saved)).toBeGreaterThan(inputFee(saved))
        if (own.some((one) => one.amountSats * 1000n > BigInt(one.feePpk + 1000))) expect(saved.length).toBeGreaterThan(0)
      }),
    )
  })

  it('pay their fee rounded up once', () => {
    expect(inputFee([])).toBe(0n)
    expect(inputFee([{ feePpk: 1 }])).toBe(1n)
    expect(inputFee(Array.from({ length: 10 }, () => ({ feePpk: 100 })))).toBe(1n)
    expect(inputFee(Array.from({ length: 11 }, () => ({ feePpk: 100 })))).toBe(2n)
  })
})
