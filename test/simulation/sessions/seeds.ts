/** Plays a range of conversations, a seed each; a half of them in each file, so that two workers share them. */
import { expect, test } from 'vitest'
import { converse, type Outcome } from './conversation.ts'

const SEEDS = Number(process.env['PYLON_SESSION_SEEDS'] ?? 40)
const FILES = 2
/** One seed to repeat, with its log. */
const ONLY = process.env['PYLON_SESSION_SEED']

/** @param part from 0 */
export function playConversations(part: number): void {
  if (ONLY !== undefined) {
    test.runIf(part === 0)(`seed ${ONLY}`, async () => void (await play(Number(ONLY), true)))
    return
  }
  const seeds = Array.from({ length: SEEDS }, (_, index) => index + 1).filter((seed) => seed % FILES === part)
  const outcomes: Outcome[] = []
  test.for(seeds)('seed %i', async (seed) => void outcomes.push(await play(seed, false)))
  test('the weather was bad', () => {
    const sum = (of: (outcome: Outcome) => number) => outcomes.reduce((total, outcome) => total + of(outcome), 0)
    const totals = {
      kills: sum(({ kills }) => kills),
      begunAgain: sum(({ begunAgain }) => begunAgain),
      forgotten: sum(({ forgotten }) => forgotten),
      opened: sum(({ opened }) => opened),
      epochs: sum(({ epoch }) => epoch),
      virtualMs: sum(({ virtualMs }) => virtualMs),
    }
    if (process.env['PYLON_SESSION_SEEDS'] !== undefined) console.log(totals)
    expect(totals.kills).toBeGreaterThan(seeds.length)
    expect(totals.begunAgain).toBeGreaterThan(0)
    expect(totals.forgotten).toBeGreaterThan(0)
    expect(totals.opened).toBeGreaterThan(seeds.length * 18)
  })
}

async function play(seed: number, isShown: boolean): Promise<Outcome> {
  const outcome = await converse(seed)
  if (isShown) process.stdout.write(`${outcome.lines.join('')}${JSON.stringify({ ...outcome, lines: undefined })}\n`)
  expect(outcome.problems, `to repeat it: PYLON_SESSION_SEED=${seed}`).toEqual([])
  return outcome
}
