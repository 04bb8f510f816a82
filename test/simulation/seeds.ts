/** Plays a range of seeds, a test each; a quarter of them in each file, so that two workers share them. */
import { expect, test } from 'vitest'
import { simulate } from './scenario.ts'

const SEEDS = Number(process.env['PYLON_SIM_SEEDS'] ?? 200)
const FILES = 4

/** @param part from 0 */
export function playSeeds(part: number): void {
  const seeds = Array.from({ length: SEEDS }, (_, index) => index + 1).filter((seed) => seed % FILES === part)
  const ends: string[] = []
  test.for(seeds)('seed %i', async (seed) => void ends.push(...(await play(seed))))
  // Orders are cancelled and payments hang in every seed: what is not delivered is paid back, which the seeds themselves look at.
  test('much of what was ordered was delivered all the same', () => {
    expect(ends.filter((status) => status === 'completed').length).toBeGreaterThan(ends.length / 3)
  })
}

async function play(seed: number): Promise<string[]> {
  const { problems, purchases } = await simulate(seed)
  expect(problems, `to repeat it: npm run test:faults -- --show --seed ${seed}`).toEqual([])
  return purchases.map(({ status }) => status)
}
