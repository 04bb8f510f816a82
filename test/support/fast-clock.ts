/** Time that runs `factor` times as fast as the wall's: shortens patience where the outside is in memory and needs none. */
import { type Clock, systemClock } from '../../src/base/clock.ts'

export function fastClock(factor: number): Clock {
  const startMs = systemClock.now()
  return {
    now: () => Math.floor(startMs + (systemClock.now() - startMs) * factor),
    elapsedMs: () => systemClock.elapsedMs() * factor,
    sleep: (ms, signal) => systemClock.sleep(ms / factor, signal),
    after: (ms, fn) => systemClock.after(ms / factor, fn),
  }
}
