/** What a relay's OK means for an event, by the prefixes of NIP-01 and by the words of relays that use none. Pure. */
import { prefixOf } from '../relay/frames.ts'

/** Refusals that another try would not change. */
const FINAL_PREFIXES = new Set(['invalid', 'blocked', 'pow', 'restricted', 'mute'])
const COUNTED_PREFIXES = new Set([...FINAL_PREFIXES, 'error', 'rate-limited', 'auth-required'])
/** Some say so under another prefix, or under none. */
const TOO_FAST = /rate.?limit|slow(ing)? down|too many (requests|events|messages|notes)|noting too (much|fast)/i
/** Words about an event's date, whatever stands before them. */
const ABOUT_DATE = /created|creation|\bdate|\bold|\bpast\b|stale|too early|timestamp/i

export type Verdict = 'taken' | 'too_fast' | 'log_in' | 'final' | 'later'

export function judgeOk(ok: boolean, message: string): Verdict {
  const prefix = prefixOf(message)
  if (ok || prefix === 'duplicate') return 'taken'
  if (prefix === 'rate-limited' || TOO_FAST.test(message)) return 'too_fast'
  if (prefix === 'auth-required') return 'log_in'
  return FINAL_PREFIXES.has(prefix) ? 'final' : 'later'
}

/** Whether a refusal may be for the event's date: relays say so in words of their own. */
export function mayBeAboutDate(message: string): boolean {
  return prefixOf(message) === 'invalid' || ABOUT_DATE.test(message)
}

/** One of a few words for a refusal, to count by. */
export function reasonOfRefusal(message: string): string {
  const prefix = prefixOf(message)
  return COUNTED_PREFIXES.has(prefix) ? prefix : 'other'
}
