/** The health of one part of the node, and what is kept of how it ended. */

import { given } from '../base/given.ts'
export type Health = { readonly state: 'ok' } | { readonly state: 'degraded' | 'off'; readonly reason: string; readonly nextStep?: string }

/** The setting with what the last end did not wait for: paths of running work. */
export const LATE_WORK_KEY = 'late_work'

export const OK: Health = { state: 'ok' }

/** The wire form: `state`, `reason`, `next_step`. */
export function healthFields(health: Health): { state: 'ok' | 'degraded' | 'off'; reason?: string; next_step?: string } {
  if (health.state === 'ok') return { state: 'ok' }
  return { state: health.state, reason: health.reason, ...given({ next_step: health.nextStep }) }
}
