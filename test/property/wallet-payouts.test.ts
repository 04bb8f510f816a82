/** How much may leave as a payout: never what is owed or kept, fees included, and it ends. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { defaultMaxFee } from '../../src/wallet/moves/paying.ts'
import { type PayoutAsk, type PayoutView, planPayout } from '../../src/wallet/payouts/plan.ts'

const amount = (max: number) => fc.bigInt({ min: 0n, max: BigInt(max) })
const mint = fc.record({
  url: fc.constantFrom('https://a.example', 'https://b.example', 'https://c.example'),
  state: fc.constantFrom('ok' as const, 'down' as const),
  balanceSats: amount(100_000),
  owedSats: amount(60_000),
  inputFeeSats: amount(40),
})
const view = fc.uniqueArray(mint, { selector: ({ url }) => url, maxLength: 3 }).map(
  (mints): PayoutView => ({
    mints,
    balanceSats: mints.reduce((sum, { balanceSats }) => sum + balanceSats, 0n),
    owedSats: mints.reduce((sum, { owedSats }) => sum + owedSats, 0n),
  }),
)
const ask = fc
  .record({
    type: fc.constantFrom('address' as const, 'token' as const),
    because: fc.constantFrom('above' as const, 'sweep' as const, 'now' as const),
    keepSats: amount(50_000),
    between: fc.bigInt({ min: 1n, max: 50_000n }),
    maxFeePercent: fc.constantFrom(0, 0.5, 1, 5),
    mostSats: fc.option(fc.bigInt({ min: 1n, max: 20_000n }), { nil: undefined }),
  })
  .map(
    ({ between, mostSats, ...rest }): PayoutAsk => ({
      ...rest,
      aboveSats: rest.keepSats + between,
      ...(mostSats === undefined ? {} : { mostSats }),
    }),
  )

it('what leaves is at most what is above what stays and is owed, at the one mint that pays', () => {
  fc.assert(
    fc.property(view, ask, (held, asked) => {
      const plan = planPayout(held, asked)
      if (typeof plan === 'string') return
      const from = held.mints.find(({ url }) => url === plan.mintUrl)
      expect(held.balanceSats - plan.limitSats).toBeGreaterThanOrEqual(asked.keepSats + held.owedSats)
      expect((from?.balanceSats ?? 0n) - plan.limitSats).toBeGreaterThanOrEqual(from?.owedSats ?? 0n)
      expect(plan.amountSats).toBeGreaterThan(0n)
      expect(plan.amountSats).toBeLessThanOrEqual(plan.limitSats)
      if (asked.because === 'above') expect(held.balanceSats - held.owedSats).toBeGreaterThan(asked.aboveSats)
      if (asked.type === 'token') return
      // What routing may cost always has room, and no more than that and the coins.
      const spare = plan.limitSats - plan.amountSats
      expect(spare).toBeGreaterThanOrEqual(defaultMaxFee(plan.amountSats, asked.maxFeePercent))
      expect(spare).toBeLessThanOrEqual(defaultMaxFee(plan.limitSats, asked.maxFeePercent) + 2n * (from?.inputFeeSats ?? 0n))
      if (asked.mostSats !== undefined) expect(plan.amountSats).toBeLessThanOrEqual(asked.mostSats)
    }),
  )
})

it('a sweep ends, whatever the fees turn out to be', () => {
  fc.assert(
    fc.property(view, ask, (held, asked) => {
      const at = structuredClone(held) as { balanceSats: bigint; mints: { url: string; balanceSats: bigint }[] } & PayoutView
      let because = asked.because
      for (let nth = 0; nth < 2000; nth++) {
        const plan = planPayout(at, { ...asked, because })
        if (typeof plan === 'string') return
        because = 'sweep'
        at.balanceSats -= plan.amountSats
        for (const one of at.mints) if (one.url === plan.mintUrl) one.balanceSats -= plan.amountSats
      }
      // Only where the address takes so little at once.
      expect(asked.mostSats ?? 1_000_000n).toBeLessThan(100n)
    }),
  )
})
