/** The owner's limits: what counts, and what an unclear outcome leaves counted. */
import { expect, it } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { Spending } from '../../../src/mcp/spending.ts'

const limits = { perCallSats: 100, perSessionSats: 250 }

it('gives as much as is left for one call, and counts what left in the end', () => {
  const spending = new Spending(limits)
  expect(spending.hold('a')).toBe(100)
  expect(spending.leftSats).toBe(150)
  spending.settle('a', 30)
  expect(spending.leftSats).toBe(220)
  expect(spending.hold('b', 100)).toBe(100)
  expect(spending.hold('c', 100)).toBe(100)
  expect(spending.hold('d')).toBe(20)
  expect(() => spending.hold('e')).toThrow('0 are left')
})

it('refuses what is over the limit of a call or of the session, and names the flag', () => {
  const spending = new Spending(limits)
  expect(() => spending.hold('a', 101)).toThrow('--max-sats-per-call')
  spending.hold('b', 100)
  spending.hold('c', 100)
  expect(() => spending.hold('d', 60)).toThrow('--max-sats-per-session')
  expect(spending.leftSats).toBe(50)
})

it('holds a repeated key once, with the limit that it had', () => {
  const spending = new Spending(limits)
  spending.hold('other', 80)
  spending.settle('other', 80)
  expect(spending.hold('a')).toBe(100)
  spending.settle('a', 60)
  expect(spending.hold('a')).toBe(100)
  expect(spending.leftSats).toBe(110)
})

it('keeps counting what may have left', () => {
  const spending = new Spending(limits)
  const refused = new PylonError('price_too_high', 'Too much.')
  spending.hold('a', 50)
  spending.settleFailed('a', new PylonError('timeout', 'Late.'))
  expect(spending.leftSats).toBe(200)
  // The second call was refused; what became of the first is still not known.
  spending.hold('a', 50)
  spending.settleFailed('a', refused)
  expect(spending.leftSats).toBe(200)
  spending.hold('b', 50)
  spending.settleFailed('b', refused)
  expect(spending.leftSats).toBe(200)
  spending.settleFailed('never held', refused)
  expect(spending.leftSats).toBe(200)
})
