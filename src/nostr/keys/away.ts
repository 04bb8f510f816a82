/** Keys that cannot be used now: locked here, or at a bunker that does not answer or will not. */
import { isPylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'

/** The last three: a bunker is asked by way of the outbox, and the node may end meanwhile. */
const CODES = [
  ...(['locked', 'bunker_unreachable', 'bunker_refused', 'bunker_approval', 'bunker_key_changed', 'bunker_answer_invalid'] as const),
  ...(['shutting_down', 'disk_full', 'database_busy'] as const),
]

/** Whether the same may succeed later, and says nothing of what was to be read or signed: it is to be tried again, never dropped. */
export const isKeyAway = (error: unknown): boolean => CODES.some((code) => isPylonError(error, code))

/** Whether a bunker was silent, or waits for its owner: what needs it is taken up again by itself. */
export const isBunkerSilent = (error: unknown): boolean =>
  isPylonError(error, 'bunker_unreachable') || isPylonError(error, 'bunker_approval')

const UNHEARD = ['disk_full', 'database_busy'] as const
const AGAIN_MS = 2000

/** Whether a bunker could not be asked or did not answer: nothing follows from it for what it was asked for. */
export const isUnheard = (error: unknown): boolean => isBunkerSilent(error) || UNHEARD.some((code) => isPylonError(error, code))

/** Does it again and again while a bunker is silent, which costs little: nobody is asked meanwhile. @throws shutting_down, what else `work` throws, and its silence after `until` */
export async function untilHeard<T>(scope: Scope, work: () => Promise<T>, until = Number.POSITIVE_INFINITY): Promise<T> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isUnheard(error) || scope.clock.now() >= until) throw error
    }
    await scope.sleep(AGAIN_MS)
  }
}
