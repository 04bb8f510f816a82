/** What of a schedule it takes for a run to go wrong (delta debugging, Zeller and Hildebrandt 2002). */
import type { Schedule, Step } from './schedule.ts'

/**
 * @param isBad plays a schedule
 * @param tries at most so many are played
 */
export async function minimise(schedule: Schedule, isBad: (schedule: Schedule) => Promise<boolean>, tries: number): Promise<Schedule> {
  let { steps } = schedule
  let left = tries
  for (let parts = 2; steps.length > 1 && parts <= steps.length; ) {
    const size = Math.ceil(steps.length / parts)
    const found = await firstOf(steps, size, async (rest) => left-- > 0 && (await isBad({ ...schedule, steps: rest })))
    if (left <= 0) break
    if (found !== undefined) {
      steps = found
      parts = Math.max(2, parts - 1)
    } else if (size === 1) break
    else parts = Math.min(steps.length, parts * 2)
  }
  return { ...schedule, steps }
}

/** The first rest, without one slice of this size, that will do. */
async function firstOf(steps: readonly Step[], size: number, isBad: (rest: readonly Step[]) => Promise<boolean>) {
  for (let from = 0; from < steps.length; from += size) {
    const rest = [...steps.slice(0, from), ...steps.slice(from + size)]
    if (await isBad(rest)) return rest
  }
  return undefined
}
