/**
 * What an agent may do, pure: asked right before each action, whatever brain wanted it.
 *
 *   bounded      budgets, and only keys that contacted it, keys of this home and keys that the owner listed
 *   autonomous   budgets only
 *   supervised   what its owner approves, one by one; what stays within the agent (goals, memories) it does unasked
 *
 * What may be spent is judged by the wallet's policy (wallet/policy), under every spend.
 *
 * Whatever the brains, two agents of one home cannot answer each other for ever: after MAX_TURNS ticks that each answered the
 * one before, none of them speaks to a key of this home nor zaps it. A word from outside, or an agent's own clock, begins anew.
 */
import type { AgentAutonomy } from '../store/agents/agents.ts'
import type { Action } from './actions/action.ts'

/** Ticks of one home that may follow from each other, from the one that began to the last that may answer. */
export const MAX_TURNS = 6

export interface PolicyFacts {
  readonly autonomy: AgentAutonomy
  /** By the owner, since a tick began that the owner did not ask for. */
  readonly isPaused: boolean
  readonly self: string
  /** Position of the action in its tick. */
  readonly index: number
  readonly actionsPerTick: number
  /** Whom the action concerns, where it concerns a key. */
  readonly counterparty: string | undefined
  readonly isOwnHome: boolean
  readonly isListed: boolean
  readonly hasContacted: boolean
  /** Ticks of this home that led to this one, each answering the one before. */
  readonly answersBefore: number
  /** Replies, DMs and reactions to the counterparty in the last hour. */
  readonly spokenRecently: number
  readonly repliesPerHour: number
  /** Of a reply: whether it goes to somebody else's note that a zap for the agent named and that does not mention it. */
  readonly isForeignZapped: boolean
  /** Of a payment: whether a key of this home or a listed one sent the invoice to the agent in this tick. */
  readonly invoiceFromTrusted: boolean
  /** Of a spend: whether it passes what its owner lets it spend unasked. */
  readonly isAboveUnasked: boolean
  /** By its owner, this very action. */
  readonly isApproved: boolean
}

/** `asks`: only once its owner has said so, and why. */
export type Verdict = { readonly allowed: true; readonly asks?: string } | { readonly allowed: false; readonly reason: string }

const ALLOWED: Verdict = { allowed: true }
const refuse = (reason: string): Verdict => ({ allowed: false, reason })

const SPEAKS = new Set<Action['type']>(['reply', 'react', 'dm', 'request_payment'])
const TURNS = new Set<Action['type']>([...SPEAKS, 'zap'])
const NEEDS_ACQUAINTANCE = new Set<Action['type']>(['dm', 'zap', 'request_payment'])

export function judgeAction(action: Action, facts: PolicyFacts): Verdict {
  if (facts.index >= facts.actionsPerTick) return refuse(`a tick does at most ${facts.actionsPerTick} actions`)
  if (action.type === 'nothing') return ALLOWED
  if (facts.isPaused) return refuse('the agent was paused by its owner')
  return judgeCounterparty(action, facts) ?? judgeInvoice(action, facts) ?? judgeUnasked(action, facts)
}

const WITHIN = new Set<Action['type']>(['set_goal', 'remember'])

function judgeUnasked(action: Action, facts: PolicyFacts): Verdict {
  if (facts.isApproved) return ALLOWED
  if (facts.autonomy === 'supervised' && !WITHIN.has(action.type)) return { allowed: true, asks: 'the agent is supervised' }
  return facts.isAboveUnasked ? { allowed: true, asks: 'it passes what the agent may spend unasked in an hour' } : ALLOWED
}

function judgeCounterparty(action: Action, facts: PolicyFacts): Verdict | undefined {
  if (facts.counterparty === undefined) return undefined
  if (facts.counterparty === facts.self && action.type !== 'reply') return refuse(`the agent may not ${action.type} itself`)
  if (SPEAKS.has(action.type) && facts.counterparty !== facts.self && facts.spokenRecently >= facts.repliesPerHour) {
    return refuse(`the agent has spoken to this key ${facts.spokenRecently} times within the hour, the limit is ${facts.repliesPerHour}`)
  }
  if (TURNS.has(action.type) && facts.isOwnHome && facts.answersBefore >= MAX_TURNS) {
    return refuse(`agents of this home have answered each other ${MAX_TURNS} times in a row: this exchange is over`)
  }
  if (facts.isForeignZapped) return refuse('the zap named a note that is not of this agent')
  const acquainted = facts.isOwnHome || facts.isListed || facts.hasContacted
  if (facts.autonomy === 'bounded' && NEEDS_ACQUAINTANCE.has(action.type) && !acquainted) {
    return refuse('the agent is bounded and this key neither contacted it, nor is of this home, nor on its allow list')
  }
  return undefined
}

function judgeInvoice(action: Action, facts: PolicyFacts): Verdict | undefined {
  if (action.type === 'pay_invoice' && facts.autonomy === 'bounded' && !facts.invoiceFromTrusted) {
    return refuse('the agent is bounded and pays only invoices sent to it by a key of this home or on its allow list')
  }
  return undefined
}
