/** A seed repeats a run to the letter: what a simulation finds can be looked at as often as it takes. */
import { expect, test } from 'vitest'
import { simulate } from './scenario.ts'

test('the same seed gives the same ledger and the same log, another seed others', async () => {
  const [first, second, other] = [await simulate(7), await simulate(7), await simulate(8)]
  expect(first.kills).toBeGreaterThan(0)
  expect(first.lines.length).toBeGreaterThan(10)
  expect(second).toEqual(first)
  expect([other.ledger, other.log]).not.toEqual([first.ledger, first.log])
})
