/** The planner of moves between mints: never more than is held, never above the fees that are allowed, and it ends. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Coin, inputFee, selectCoins, splitAmount, sumOf } from '../../../../src/wallet/ecash/coins.ts'
import { mostMovable, type PurseMint, planMoves, type WantedThere } from '../../../../src/wallet/purse/plan.ts'

const POWERS = Array.from({ length: 20 }, (_, i) => 2n ** BigInt(i))

const coinsWorth = (sats: bigint, feePpk = 0): Coin[] => (splitAmount(sats, POWERS) ?? []).map((amountSats) => ({ amountSats, feePpk }))

const mint = (url: string, sats: bigint, more: Partial<PurseMint> = {}): PurseMint => ({
  ...{
    url,
    isUp: true,
    coins: coinsWorth(sats, more.feePpk),
    keptSats: 0n,
    roomSats: 1_000_000n,
    maxInputs: 100,
    sizes: POWERS,
    feePpk: 0,
  },
  ...more,
})

const onePercent = (_from: string, _to: string, amount: bigint) => (amount + 99n) / 100n
const at = (...entries: [string, WantedThere][]) => new Map(entries)
const most = 1_000_000n

describe('a plan of moves', () => {
  it('brings what is missing to the mint that lacks least', () => {
    const plan = planMoves(
      [mint('a', 600n), mint('b', 500n)],
      at(['a', { netSats: 1000n, maxFeeSats: most }], ['b', { netSats: 1000n, maxFeeSats: most }]),
      onePercent,
    )
    expect(plan).toEqual({ isPossible: true, target: 'a', moves: [{ from: 'b', to: 'a', amountSats: 400n, feeSats: 4n }], feeSats: 4n })
  })

  it('needs no move where the mint holds enough', () => {
    const plan = planMoves([mint('a', 100n), mint('b', 500n)], at(['a', { netSats: 100n, maxFeeSats: 0n }]), onePercent)
    expect(plan).toEqual({ isPossible: true, target: 'a', moves: [], feeSats: 0n })
  })

  it('takes from several, the fullest first', () => {
    const plan = planMoves([mint('a', 10n), mint('b', 50n), mint('c', 90n)], at(['a', { netSats: 140n, maxFeeSats: most }]), onePercent)
    expect(plan).toMatchObject({
      moves: [
        { from: 'c', amountSats: 89n, feeSats: 1n },
        { from: 'b', amountSats: 41n, feeSats: 1n },
      ],
    })
  })

  it.each([
    ['too little', [mint('a', 100n), mint('b', 50n)], 200n, most, /missing/],
    ['the cap of the target', [mint('a', 100n, { roomSats: 10n }), mint('b', 500n)], 200n, most, /above its cap/],
    ['the fee', [mint('a', 100n), mint('b', 500n)], 300n, 1n, /cost 2 sats in fees, and at most 1/],
    ['a source that is down', [mint('a', 100n), mint('b', 500n, { isUp: false })], 200n, most, /missing/],
    ['a target that is down', [mint('a', 100n, { isUp: false }), mint('b', 500n)], 200n, most, /does not answer/],
    ['what customers are owed', [mint('a', 100n), mint('b', 500n, { keptSats: 450n })], 200n, most, /missing/],
  ] as const)('says that %s stands in the way', (_what, mints, netSats, maxFeeSats, words) => {
    const plan = planMoves(mints, at(['a', { netSats, maxFeeSats }]), onePercent)
    expect(plan).toMatchObject({ isPossible: false, why: expect.stringMatching(words) })
  })

  it('counts what the inputs cost at both ends', () => {
    const plan = planMoves(
      [mint('a', 64n, { feePpk: 1000 }), mint('b', 256n, { feePpk: 1000 })],
      at(['a', { netSats: 100n, maxFeeSats: most }]),
      () => 0n,
    )
    if (!plan.isPossible) throw new Error(plan.why)
    const moved = plan.moves[0]?.amountSats ?? 0n
    const there = [...coinsWorth(64n, 1000), ...coinsWorth(moved, 1000)]
    const chosen = selectCoins(there, 100n) ?? []
    expect(sumOf(chosen) - inputFee(chosen)).toBeGreaterThanOrEqual(100n)
    expect(moved).toBeLessThan(50n)
  })
})

const anyMint = fc
  .record({
    coins: fc.array(
      fc.record({ amountSats: fc.integer({ min: 0, max: 12 }).map((i) => 2n ** BigInt(i)), feePpk: fc.constantFrom(0, 100, 1000, 3000) }),
      { maxLength: 25 },
    ),
    isUp: fc.boolean(),
    keptSats: fc.bigInt({ min: 0n, max: 500n }),
    roomSats: fc.bigInt({ min: 0n, max: 20_000n }),
    maxInputs: fc.constantFrom(4, 100),
    feePpk: fc.constantFrom(0, 100, 1000),
    percent: fc.bigInt({ min: 0n, max: 20n }),
  })
  .map((one) => ({ ...one, sizes: POWERS }))

describe('whatever mints there are', () => {
  it('nothing is spent that is not held or is owed, no cap and no limit is passed, and the target can spend what is wanted', () => {
    fc.assert(
      fc.property(
        fc.array(anyMint, { minLength: 1, maxLength: 4 }),
        fc.bigInt({ min: 1n, max: 10_000n }),
        fc.bigInt({ min: 0n, max: 400n }),
        (parts, netSats, maxFeeSats) => {
          const mints = parts.map((part, i) => ({ ...part, url: `m${i}` }))
          const percentOf = new Map(mints.map(({ url, percent }) => [url, percent]))
          const reserveOf = (from: string, _to: string, amount: bigint) => 1n + (amount * (percentOf.get(from) ?? 0n)) / 100n
          const wanted = new Map(mints.map(({ url }) => [url, { netSats, maxFeeSats }]))
          const plan = planMoves(mints, wanted, reserveOf)
          if (!plan.isPossible) return
          const target = mints.find(({ url }) => url === plan.target)
          if (target === undefined) throw new Error('no such mint')
          expect(target.isUp).toBe(true)
          expect(new Set(plan.moves.map(({ from }) => from)).size).toBe(plan.moves.length)
          for (const move of plan.moves) {
            const source = mints.find(({ url }) => url === move.from)
            expect(source?.isUp).toBe(true)
            expect(move.to).toBe(plan.target)
            expect(move.from).not.toBe(plan.target)
            expect(move.amountSats).toBeGreaterThan(0n)
            expect(move.amountSats + move.feeSats).toBeLessThanOrEqual(sumOf(source?.coins ?? []) - (source?.keptSats ?? 0n))
            expect(move.feeSats).toBeGreaterThanOrEqual(reserveOf(move.from, move.to, move.amountSats))
          }
          const moved = plan.moves.reduce((sum, move) => sum + move.amountSats, 0n)
          expect(moved).toBeLessThanOrEqual(target.roomSats)
          expect(plan.feeSats).toBeLessThanOrEqual(maxFeeSats)
          const minted = plan.moves.flatMap(({ amountSats }) =>
            (splitAmount(amountSats, POWERS) ?? []).map((size) => ({ amountSats: size, feePpk: target.feePpk })),
          )
          const chosen = selectCoins([...target.coins, ...minted], netSats)
          if (chosen === undefined) throw new Error('the target cannot spend it')
          expect(sumOf(target.coins) + moved - target.keptSats).toBeGreaterThanOrEqual(netSats + inputFee(chosen))
        },
      ),
    )
  })

  it('what can be moved can be paid, and nothing more than was wanted moves', () => {
    fc.assert(
      fc.property(anyMint, fc.bigInt({ min: 1n, max: 10_000n }), (part, wantedSats) => {
        const source = { ...part, url: 'm' }
        const move = mostMovable(source, 'n', wantedSats, (_from, _to, amount) => 1n + (amount * part.percent) / 100n)
        if (move === undefined) return
        expect(move.amountSats).toBeGreaterThan(0n)
        expect(move.amountSats).toBeLessThanOrEqual(wantedSats)
        expect(move.amountSats + move.feeSats).toBeLessThanOrEqual(sumOf(source.coins) - source.keptSats)
      }),
    )
  })
})
