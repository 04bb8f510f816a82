/** Prices: never below the list, never less for more, whole units, and what is earned adds up to what was paid. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { msats, msatsToSatsUp, sats, satsToMsats } from '../../../src/base/amounts.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { priceOf, quote } from '../../../src/provider/pricing.ts'
import { settle } from '../../../src/provider/sale/machine.ts'
import { depositOf } from '../../../src/store/money/ledger.ts'

const DEPOSIT = depositOf({ type: 'job', id: 'a' })

const price = fc.record({
  amount_msats: fc.nat(1_000_000),
  unit: fc.constantFrom('job' as const, '1k_chars' as const, '1k_tokens' as const),
})
const usage = fc.record({ inputChars: fc.nat(4_000_000), maxOutputTokens: fc.nat(32_768) })

test('a price is at least one unit, a multiple of it, and never falls with use', () => {
  fc.assert(
    fc.property(price, usage, fc.nat(10_000), (list, use, more) => {
      const asked = quote(list, use)
      const each = BigInt(list.amount_msats)
      expect(asked).toBeGreaterThanOrEqual(each)
      if (each > 0n) expect(asked % each).toBe(0n)
      expect(quote(list, { ...use, inputChars: use.inputChars + more })).toBeGreaterThanOrEqual(asked)
      expect(quote(list, { ...use, maxOutputTokens: use.maxOutputTokens + more })).toBeGreaterThanOrEqual(asked)
      if (list.unit === '1k_chars') expect(asked * 1000n).toBeGreaterThanOrEqual(each * BigInt(use.inputChars))
    }),
  )
})

test.each([
  ['1k_chars', 0, 100n],
  ['1k_chars', 1, 100n],
  ['1k_chars', 1000, 100n],
  ['1k_chars', 1001, 200n],
  ['1k_tokens', 4000, 200n],
  ['1k_tokens', 1, 100n],
  ['job', 1_000_000, 100n],
] as const)('unit %s with %i characters and 500 tokens costs %s', (unit, inputChars, expected) => {
  expect(quote({ amount_msats: 100, unit }, { inputChars, maxOutputTokens: unit === '1k_tokens' ? 500 : 0 })).toBe(expected)
})

test('defaults: 5001, 5050, and any kind of a command', () => {
  const exec = { kind: 5003, command: ['cat'], timeout_s: 1, max_output_bytes: 1 }
  const config = { ...DEFAULT_CONFIG, provider: { ...DEFAULT_CONFIG.provider, exec: [exec] } }
  expect([5001, 5050, 5003].map((kind) => priceOf(config, kind).amount_msats)).toEqual([2000, 10_000, 5000])
  const own = { ...config, provider: { ...config.provider, prices: { '5001': { amount_msats: 0, unit: 'job' as const } } } }
  expect(priceOf(own, 5001).amount_msats).toBe(0)
})

test('settling balances: price to income, the sat it was rounded to, the rest a tip; own keys all internal', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 10_000_000 }), fc.nat(1000), fc.boolean(), (price, tipSats, internal) => {
      const asked = satsToMsats(msatsToSatsUp(msats(price)))
      const held = msats(asked + satsToMsats(sats(tipSats)))
      const { postings } = settle(DEPOSIT, held, { dueMsats: msats(price), income: 'job', over: 'tip', internal })
      const of = (account: string) => postings.find((posting) => posting.account === account)?.amountMsats ?? 0n
      expect(postings.reduce((sum, posting) => sum + posting.amountMsats, 0n)).toBe(0n)
      expect(of(DEPOSIT)).toBe(held)
      if (internal) expect(of('node/income/internal')).toBe(-held)
      else {
        expect(of('node/income/job')).toBe(-BigInt(price))
        expect(-of('node/income/rounding')).toBe(asked - BigInt(price))
        expect(-of('node/income/tip')).toBe(BigInt(tipSats) * 1000n)
      }
    }),
  )
  expect(settle(DEPOSIT, msats(0), { dueMsats: msats(0), income: 'job', over: 'tip', internal: false }).postings).toEqual([])
})
