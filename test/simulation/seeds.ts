/** Plays a range of seeds, a test each; a quarter of them in each file, so that two workers share them. */
import { expect, test } from 'vitest'
import { stringify } from '../../src/base/json.ts'
import { simulate } from './scenario.ts'

const SEEDS = Number(process.env['PYLON_SIM_SEEDS'] ?? 200)
const FILES = 4
/** One seed to repeat, with its log. */
const ONLY = process.env['PYLON_SIM_SEED']

/** @param part from 0 */
export function playSeeds(part: number): void {
  if (ONLY !== undefined) {
    test.runIf(part === 0)(`seed ${ONLY}`, async () => void (await play(Number(ONLY), true)))
    return
  }
  const seeds = Array.from({ length: SEEDS }, (_, index) => index + 1).filter((seed) => seed % FILES === part)
  const ends: string[] = []
  test.for(seeds)('seed %i', async (seed) => void ends.push(...(await play(seed, false))))
  // Orders are cancelled and payments hang in every seed: what is not delivered is paid back, which the seeds themselves look at.
  test('much of what was ordered was delivered all the same', () => {
    expect(ends.filter((status) => status === 'completed').length).toBeGreaterThan(ends.length / 3)
  })
}

async function play(seed: number, isShown: boolean): Promise<string[]> {
  const { problems, lines, purchases } = await simulate(seed)
  if (isShown) process.stdout.write(`${lines.join('')}${stringify(purchases)}\n`)
  expect(problems, `to repeat it: PYLON_SIM_SEED=${seed}`).toEqual([])
  return purchases.map(({ status }) => status)
}
