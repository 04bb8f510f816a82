/** A backend that could not do its work although it looked well is not sold again at once: each sale would be refunded. */
import { type BackoffPolicy, backoffMs } from '../../base/backoff.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { ScopePorts } from '../../base/scope.ts'
import type { Backend } from './backend.ts'

const HOLD_OFF: BackoffPolicy = { minMs: 60_000, maxMs: 3_600_000 }

/** Holds a backend off after `backend_unavailable`: a minute, then twice as long each time, until it does a job again. */
export function withHoldOff(backend: Backend, { clock, random }: ScopePorts): Backend {
  let failures = 0
  let until = 0
  let reason = ''
  return {
    name: backend.name,
    inline: backend.inline,
    kinds: () => backend.kinds(),
    check: (work) => backend.check(work),
    probe: () => backend.probe(),
    async run(work, signal) {
      try {
        const output = await backend.run(work, signal)
        failures = 0
        until = 0
        return output
      } catch (error) {
        if (isPylonError(error, 'backend_unavailable')) {
          until = clock.now() + backoffMs(HOLD_OFF, ++failures, random)
          reason = messageOf(error)
        }
        throw error
      }
    },
    health() {
      const health = backend.health()
      return health.state === 'ok' && clock.now() < until ? { ...health, state: 'degraded', reason } : health
    },
  }
}
