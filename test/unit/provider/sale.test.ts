/** What a payment does to a sale, by its state, its price and its time. */
import { expect, it } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { judgePayment, type Payable, refundOwed } from '../../../src/provider/sale/machine.ts'

const NOW = 1000
const sale = { state: 'quoted', priceMsats: msats(5000), paidMsats: msats(0), wantedUntil: NOW + 1 } as const
const held = (amount: number, paid = amount) => ({ heldMsats: msats(amount), paidMsats: msats(paid) })

it.each<[string, Partial<Payable>, number, string]>([
  ['nothing', {}, 0, 'nothing'],
  ['the price', {}, 5000, 'paid'],
  ['less', {}, 4999, 'little'],
  ['more', {}, 6000, 'paid'],
  ['the price at the end of its time', { wantedUntil: NOW }, 5000, 'late'],
  ['the price after the invoice ran out', { state: 'expired' }, 5000, 'paid'],
  ['the price after all of its time', { state: 'expired', wantedUntil: NOW }, 5000, 'late'],
  ['what was called off', { state: 'withdrawn' }, 5000, 'withdrawn'],
  ['what is paid already, told twice', { state: 'paid', paidMsats: msats(5000) }, 5000, 'nothing'],
  ['what is paid already, once more', { state: 'paid', paidMsats: msats(5000) }, 10_000, 'more'],
  ['what is earned', { state: 'earned' }, 5000, 'again'],
  ['what was given back', { state: 'refunded' }, 5000, 'again'],
  ['what is on its way back', { state: 'refunding' }, 5000, 'nothing'],
])('judges a payment of %s', (_, more, amount, expected) => {
  const verdict = judgePayment({ ...sale, ...more }, held(amount), NOW)
  expect(verdict.type === 'back' ? verdict.why : verdict.type).toBe(expected)
})

it('owes back what was paid and is neither earned nor given back yet', () => {
  expect(refundOwed({ paidMsats: msats(5000) }, held(5000))).toBe(5000n)
  expect(refundOwed({ paidMsats: msats(5000) }, held(2000, 5000))).toBe(2000n)
  // What came after the refund was begun waits for the next one.
  expect(refundOwed({ paidMsats: msats(5000) }, held(7000, 7000))).toBe(5000n)
  expect(refundOwed({ paidMsats: msats(5000) }, held(0, 5000))).toBe(0n)
})
