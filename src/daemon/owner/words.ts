/** What the owner may write to the node, and what the node writes of actions that wait. Pure. */
import { rfc3339 } from '../../base/clock.ts'
import type { ApprovalView } from '../../host/approvals.ts'

export type Order =
  | { readonly do: 'decide'; readonly id: number; readonly to: 'approved' | 'denied'; readonly reason: string | null }
  | { readonly do: 'list' }
  | { readonly do: 'help' }

const MAX_REASON_CHARS = 500
const NAMED = 10

/** Case and spaces do not matter; what is none of the orders is undefined, so that no talk is taken for one. */
export function readOrder(text: string): Order | undefined {
  const line = text.trim().replace(/\s+/g, ' ')
  const decision = /^(approve|deny) #?(\d{1,9})(?: ?[.!]|(?: because |: ?| - )(.+))?$/i.exec(line)
  if (decision !== null) {
    const [, word = '', id = '', reason] = decision
    const to = word.toLowerCase() === 'approve' ? 'approved' : 'denied'
    // A yes with conditions is none.
    if (to === 'approved' && reason !== undefined) return undefined
    return { do: 'decide', id: Number(id), to, reason: reason?.slice(0, MAX_REASON_CHARS) ?? null }
  }
  const single = /^(list|help)[.!?]?$/i.exec(line)?.[1]?.toLowerCase()
  return single === 'list' || single === 'help' ? { do: single } : undefined
}

export const HELP = [
  'I understand:',
  'approve 7 - have action 7 done, once',
  'deny 7 because it is too dear - refuse it; the agent hears why',
  'list - what waits for you',
].join('\n')

/** One action that waits, in a few lines. */
export function tellApproval({ id, agent, action, amount_sats, to, summary, why }: ApprovalView): string {
  const [sats, whom] = [amount_sats > 0 ? ` of ${amount_sats} sats` : '', to === null ? '' : ` to ${to}`]
  return [
    `${id}: ${agent} asks for ${action}${sats}${whom}.`,
    ...(summary === '' ? [] : [`"${summary}"`]),
    // Nobody says yes to what he was not shown.
    ...(summary.endsWith('…') ? [`All of it: pylon approvals show ${id}`] : []),
    `It waits because: ${why}`,
  ].join('\n')
}

/** What waits, the first of it by name. */
export function askOwner(approvals: readonly ApprovalView[]): string {
  const [first] = approvals
  if (first === undefined) return 'Nothing waits for you.'
  const more = approvals.length - NAMED
  return [
    ...approvals.slice(0, NAMED).map(tellApproval),
    ...(more > 0 ? [`${more} more wait: list`] : []),
    `Answer: approve ${first.id} or deny ${first.id} because ... (${approvals.length === 1 ? '' : 'the first '}until ${utc(first.expires_at)}).`,
  ].join('\n\n')
}

export function tellDecided({ id, agent, action, state, reason, action_state, action_reason }: ApprovalView): string {
  const became =
    action_state === null ? '' : ` The ${action} of ${agent} is ${action_state}${action_reason === null ? '' : `: ${action_reason}`}.`
  return `${id} is ${state}${reason === null ? '' : `: ${reason}`}.${became}`
}

/** To the minute, for a person. */
const utc = (time: string): string => `${time.slice(0, 16).replace('T', ' ')} UTC`

export const utcOf = (ms: number): string => utc(rfc3339(ms))
