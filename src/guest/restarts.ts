/** When a supervised process is started again: by the restart policy, slower each time, and not for ever. */
import { backoffMs } from '../base/backoff.ts'
import type { Clock } from '../base/clock.ts'
import { systemRandom } from '../base/random.ts'
import type { RESTART_POLICIES } from '../runtime/contract/spec.ts'

type RestartPolicy = (typeof RESTART_POLICIES)[number]

/** This many short lives in a row are a crash loop. */
const MAX_SHORT_LIVES = 5
/** A life this long was no crash loop. */
const STABLE_MS = 60_000
const DELAY = { minMs: 100, maxMs: 3200 }

export interface Life {
  readonly exitCode: number
  readonly livedMs: number
}

/**
 * @param shortLives how many short lives came before this one in a row
 * @returns how long to wait before the next start, or undefined for none
 */
export function nextStart(policy: RestartPolicy, life: Life, shortLives: number): { delayMs: number; shortLives: number } | undefined {
  if (policy === 'never' || (policy === 'on_failure' && life.exitCode === 0)) return undefined
  const count = life.livedMs >= STABLE_MS ? 0 : shortLives + 1
  if (count > MAX_SHORT_LIVES) return undefined
  return { delayMs: backoffMs(DELAY, count + 1, systemRandom), shortLives: count }
}

/** Ends early when the guest is told to stop: whoever starts next looks for that. */
export async function pauseBeforeStart(ms: number, clock: Clock, stopping: AbortSignal): Promise<void> {
  await Promise.allSettled([clock.sleep(ms, stopping)])
}
