/** A seed repeats a run to the letter: what a simulation finds can be looked at as often as it takes. */
import { expect, test } from 'vitest'
import { simulate } from './scenario.ts'
import { scheduleOf } from './schedule.ts'

test('the same seed gives the same ledger and the same log, another seed others', async () => {
  const [first, second, other] = [await simulate(7), await simulate(7), await simulate(8)]
  expect(first.kills).toBeGreaterThan(0)
  expect(first.lines.length).toBeGreaterThan(10)
  expect(second).toEqual(first)
  expect([other.ledger, other.log]).not.toEqual([first.ledger, first.log])
})

test('also with agents, whose keys for sessions are made by other threads', async () => {
  const seeds = Array.from({ length: 40 }, (_, i) => i + 1).filter((seed) => scheduleOf(seed).hasAgents)
  for (const seed of seeds.slice(0, 2)) expect(await simulate(seed)).toEqual(await simulate(seed))
})
