/** A run by hand: the mint goes away between the token of a tenant and the node that it is locked to. */
import { expect, test } from 'vitest'
import { playSchedule } from './scenario.ts'
import type { Schedule } from './schedule.ts'

const RENT = { do: 'lease', seconds: 24, payWith: 'token', end: 'stays', afterMs: 0, atMs: 1000, salt: 1 } as const

test('a token for a machine that the node could not take comes back by itself, once only the tenant can have it', async () => {
  const ends: (readonly string[])[] = []
  // Around the moment when the token is made.
  for (const atMs of [1090, 1100, 1110, 1120]) {
    const world: Omit<Schedule, 'steps'> = { seed: 1, isFree: true, mints: 1, hasWallet: false, hasAgents: false, hasMachines: true }
    const away = { fault: 'mint down', mint: 0, forMs: 120_000, atMs, salt: 1 } as const
    const { problems, deeds } = await playSchedule({ ...world, steps: [away, RENT] })
    expect(problems).toEqual([])
    ends.push(deeds)
  }
  const wasTakenBack = (deeds: readonly string[]) =>
    deeds.includes('rental refused with a refund') && !deeds.some((deed) => deed.startsWith('lease refunded'))
  expect(ends.some(wasTakenBack), ends.join('\n')).toBe(true)
})
