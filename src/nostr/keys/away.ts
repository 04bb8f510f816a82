/** Keys that cannot be used now: locked here, or at a bunker that does not answer or will not. */
import { isPylonError } from '../../base/errors.ts'

const CODES = ['locked', 'bunker_unreachable', 'bunker_refused', 'bunker_approval', 'bunker_key_changed', 'bunker_answer_invalid'] as const

/** Whether the same may succeed later, and says nothing of what was to be read or signed: it is to be tried again, never dropped. */
export const isKeyAway = (error: unknown): boolean => CODES.some((code) => isPylonError(error, code))
