/** Whatever is paid, late, twice, too much or too little, and whatever fails: each msat of a sale is held, earned, given back or a fee. */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Msats, msats, msatsToSatsDown, msatsToSatsUp, satsToMsats } from '../../../src/base/amounts.ts'
import { canStep, JOB_STEPS, LEASE_STEPS, statesOf } from '../../../src/base/states.ts'
import { saleStateOf as ofJob } from '../../../src/provider/jobs/states.ts'
import { SALE_OF_LEASE } from '../../../src/provider/machines/lease-product.ts'
import { judgePayment, refundOwed, SALE_STEPS, type SaleState, type SettlementTerms, settle } from '../../../src/provider/sale/machine.ts'
import { depositOf } from '../../../src/store/money/ledger.ts'

const ACCOUNT = depositOf({ type: 'job', id: 'a' })

type Move =
  | { readonly does: 'pay'; readonly msats: number }
  | { readonly does: 'earn'; readonly percent: number }
  | { readonly does: 'refund'; readonly feeSats: number }
  | { readonly does: 'wait' | 'expire' | 'withdraw' | 'fail' | 'claim' | 'look' }

const does = <T extends Move['does']>(name: T) => fc.constant(name)
const move: fc.Arbitrary<Move> = fc.oneof(
  // Beside the price of 2500: too little, the price in whole sats, too much; of a mint that counts in msats too.
  { weight: 4, arbitrary: fc.record({ does: does('pay'), msats: fc.constantFrom(1000, 2000, 2500, 3000, 3000, 3001, 7000, 10_000) }) },
  { weight: 3, arbitrary: fc.record({ does: does('earn'), percent: fc.integer({ min: 0, max: 100 }) }) },
  { weight: 2, arbitrary: fc.record({ does: does('refund'), feeSats: fc.nat(2) }) },
  { weight: 6, arbitrary: fc.record({ does: fc.constantFrom('wait', 'expire', 'withdraw', 'fail', 'claim', 'look') }) },
)

/** The least that sells: what jobs and leases do, with the books in three numbers. */
class Till {
  state: SaleState = 'quoted'
  paidMsats = msats(0)
  held = 0n
  paid = 0n
  earned = 0n
  refunded = 0n
  fees = 0n
  readonly path: SaleState[] = ['quoted']
  readonly priceMsats = msats(2500)
  readonly #sort: 'job' | 'lease'
  #nowMs = 0
  #isSent = false

  constructor(sort: 'job' | 'lease') {
    this.#sort = sort
  }

  get deposit() {
    return { paidMsats: msats(this.paid), heldMsats: msats(this.held) }
  }

  /** A job that is paid late is still run; a lease is not begun. */
  get wantedUntil(): number {
    return this.#sort === 'job' ? 3 : this.state === 'quoted' ? Number.MAX_SAFE_INTEGER : 0
  }

  #go(to: SaleState): void {
    expect(canStep(SALE_STEPS, this.state, to), `${this.state} to ${to}`).toBe(true)
    this.state = to
    this.path.push(to)
  }

  look(): void {
    const verdict = judgePayment(this, this.deposit, this.#nowMs)
    if (verdict.type === 'nothing') return
    this.paidMsats = msats(this.paid)
    if (verdict.type === 'paid') this.#go('paid')
    if (verdict.type !== 'back') return
    if (this.state === 'quoted' || this.state === 'expired') this.#go('paid')
    this.#goBack()
  }

  #goBack(): void {
    this.#go('refunding')
    this.#isSent = false
  }

  #settle(dueMsats: Msats): void {
    const terms: SettlementTerms = { dueMsats, income: this.#sort, over: this.#sort === 'job' ? 'tip' : 'back', internal: false }
    const { earnedMsats, refundMsats, postings } = settle(ACCOUNT, msats(this.held), terms)
    expect(postings.reduce((sum, posting) => sum + posting.amountMsats, 0n)).toBe(0n)
    const kept = postings.find(({ account }) => account === ACCOUNT)?.amountMsats ?? 0n
    expect(kept).toBe(this.held - refundMsats)
    expect(earnedMsats).toBe(this.held < dueMsats ? this.held : dueMsats)
    for (const { account, amountMsats } of postings) if (account !== ACCOUNT) expect(amountMsats).toBeLessThanOrEqual(0n)
    this.paidMsats = msats(this.paid)
    this.held -= kept
    this.earned += kept
    if (refundMsats > 0n) this.#goBack()
    else this.#go('earned')
  }

  apply(action: Move): void {
    const { does } = action
    if (does === 'wait') this.#nowMs++
    if (does === 'look') this.look()
    if (does === 'expire' && this.state === 'quoted') this.#go('expired')
    if (does === 'withdraw' && this.state === 'quoted') this.#go('withdrawn')
    if (does === 'pay') {
      this.paid += BigInt(action.msats)
      this.held += BigInt(action.msats)
    }
    if (does === 'earn' && this.state === 'paid')
      this.#settle(this.#sort === 'job' ? this.priceMsats : msats((2500n * BigInt(action.percent)) / 100n))
    if (does === 'fail' && this.state === 'paid') {
      this.#go('withdrawn')
      this.look()
    }
    if (does === 'refund' && this.state === 'refunding' && !this.#isSent) this.#refund(BigInt(action.feeSats) * 1000n)
    if (does === 'claim' && this.state === 'refunding' && this.#isSent) {
      this.#go('refunded')
      this.look()
    }
  }

  /** The mint takes its fee of it; what is less than a sat, and the fee, leave the deposit as the rest. */
  #refund(feeMsats: bigint): void {
    const owed = refundOwed(this, this.deposit)
    expect(owed).toBeGreaterThan(0n)
    expect(owed).toBeLessThanOrEqual(this.held)
    const whole = satsToMsats(msatsToSatsDown(owed))
    const sent = whole > feeMsats ? whole - feeMsats : 0n
    this.held -= sent
    this.refunded += sent
    const rest = refundOwed(this, this.deposit)
    expect(rest).toBe(owed - sent)
    this.held -= rest
    this.fees += rest
    expect(refundOwed(this, this.deposit), 'it is never owed twice').toBe(0n)
    this.#isSent = true
  }

  /** All that can end has ended. */
  end(): void {
    if (this.state === 'quoted') this.#go('withdrawn')
    this.look()
    if (this.state === 'paid') this.apply({ does: 'earn', percent: 100 })
    this.look()
    for (let i = 0; i < 3; i++) {
      this.apply({ does: 'refund', feeSats: 0 })
      this.apply({ does: 'claim' })
    }
  }
}

test.each(['job', 'lease'] as const)('of a %s: deposit + earned + refunded + fees = paid, always', (sort) => {
  const seen = new Set<SaleState>()
  fc.assert(
    fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
      const till = new Till(sort)
      const holds = () => {
        expect(till.held + till.earned + till.refunded + till.fees).toBe(till.paid)
        expect(till.held).toBeGreaterThanOrEqual(0n)
      }
      for (const action of moves) {
        till.apply(action)
        holds()
      }
      till.end()
      holds()
      expect(till.held).toBe(0n)
      expect(['earned', 'withdrawn', 'expired', 'refunded']).toContain(till.state)
      for (const state of till.path) seen.add(state)
      const earned = till.path.filter((state) => state === 'earned').length
      expect(earned).toBeLessThanOrEqual(1)
      // Never refunded and earned: no more is kept than was asked for and what its payer gave on top of it.
      if (sort === 'lease') expect(till.earned).toBeLessThanOrEqual(satsToMsats(msatsToSatsUp(till.priceMsats)) + 999n)
      if (sort === 'job' && till.path.includes('withdrawn')) expect(till.earned).toBe(0n)
    }),
    { numRuns: 3000 },
  )
  expect([...seen].sort()).toEqual([...statesOf(SALE_STEPS)].sort())
})

test('the same word of a payment twice changes nothing', () => {
  fc.assert(
    fc.property(fc.array(move, { maxLength: 25 }), fc.constantFrom('job' as const, 'lease' as const), (moves, sort) => {
      const [once, twice] = [new Till(sort), new Till(sort)]
      for (const action of moves) {
        for (const till of [once, twice]) {
          till.apply(action)
          till.look()
        }
        twice.look()
      }
      expect(twice).toEqual(once)
    }),
  )
})

test('each step of a job and of a lease is one of its sale, or none', () => {
  const assertIsStep = (from: SaleState, to: SaleState, what: string) =>
    expect(from === to || canStep(SALE_STEPS, from, to), `${what}: ${from} to ${to}`).toBe(true)
  for (const from of statesOf(JOB_STEPS)) for (const to of JOB_STEPS[from]) assertIsStep(ofJob(from), ofJob(to), `${from} -> ${to}`)
  for (const from of statesOf(LEASE_STEPS))
    for (const to of LEASE_STEPS[from]) assertIsStep(SALE_OF_LEASE[from], SALE_OF_LEASE[to], `${from} -> ${to}`)
})
