/** When an agent ticks next, pure: heartbeats with a fixed jitter, debounced triggers, caps; missed ticks are one tick. */
import { hash } from 'node:crypto'
import type { AgentState } from '../base/states.ts'
import type { TickTrigger } from '../store/agents/ticks.ts'
import { allowsTick, heartbeatOf } from './lifecycle.ts'
import { MAX_TURNS } from './policy.ts'

const JITTER = 0.05
const HOUR_MS = 3_600_000
/** What happened longer ago is seen but wakes nobody. */
export const MAX_TRIGGER_AGE_MS = 86_400_000
/** How long a brain that failed in a row is left alone. */
export const BRAIN_AGAIN = { minMs: 60_000, maxMs: 6 * HOUR_MS }
/** A heartbeat at low balance, with its jitter: none is ever set further ahead. */
const LONGEST_BEAT = 2 * (1 + JITTER)

/** A share from -1 to 1 that is always the same for the same agent and tick. */
function steadyJitter(pubkey: string, number: number): number {
  const digest = hash('sha256', `${pubkey}:${number}`)
  return Number.parseInt(digest.slice(0, 8), 16) / 0x7fffffff - 1
}

/** When the next heartbeat is due, in ms since the epoch; undefined where the state has none. */
export function nextHeartbeat(agent: {
  pubkey: string
  state: AgentState
  heartbeatS: number
  tickNumber: number
  nowMs: number
}): number | undefined {
  const seconds = heartbeatOf(agent.state, agent.heartbeatS)
  if (seconds === undefined) return undefined
  return agent.nowMs + Math.round(seconds * 1000 * (1 + JITTER * steadyJitter(agent.pubkey, agent.tickNumber)))
}

export interface HeardMark {
  readonly id: string
  readonly type: 'mention' | 'dm' | 'zap'
  readonly heardAt: number
  /** Ticks that failed over it or left it for a later one. */
  readonly tries: number
}

export interface ScheduleFacts {
  readonly nowMs: number
  readonly state: AgentState
  readonly heartbeatS: number
  readonly nextTickAt: number | undefined
  readonly retryAt: number | undefined
  readonly tickCount: number
  /** What waits and may wake: the oldest of each type. */
  readonly waiting: readonly HeardMark[]
  /** When the ticks that triggers caused within the last hour began, oldest first. */
  readonly triggeredAt: readonly number[]
  readonly debounceMs: number
  readonly triggeredPerHour: number
}

export interface Due {
  readonly at: number
  readonly trigger: TickTrigger
  /** Names the occasion: claimed once. */
  readonly slot: string
  /** What was heard and causes it: the tick observes it, whatever else waits. */
  readonly heardId?: string
}

/**
 * The agent's next tick, whichever occasion comes first; undefined while nothing is due. Times that no clock of now can have
 * set (the clock ran ahead and was put right) do not hold the agent up.
 */
export function nextDue(facts: ScheduleFacts): Due | undefined {
  const beat = dueHeartbeat(facts)
  const trigger = dueTrigger(facts)
  const due = trigger === undefined || (beat !== undefined && beat.at <= trigger.at) ? beat : trigger
  if (due === undefined) return undefined
  const { retryAt, nowMs } = facts
  return retryAt !== undefined && retryAt > due.at && retryAt <= nowMs + BRAIN_AGAIN.maxMs ? { ...due, at: retryAt } : due
}

function dueHeartbeat(facts: ScheduleFacts): Due | undefined {
  const { nextTickAt, nowMs, state } = facts
  if (nextTickAt === undefined) return undefined
  const at = nextTickAt > nowMs + facts.heartbeatS * 1000 * LONGEST_BEAT ? nowMs : nextTickAt
  // Hibernating has no heartbeat: a due time is there only because somebody funded it.
  if (state === 'hibernating') return { at, trigger: 'funding', slot: `funding:${nextTickAt}` }
  if (!allowsTick(state, 'heartbeat')) return undefined
  return facts.tickCount === 0 ? { at, trigger: 'first', slot: 'first' } : { at, trigger: 'heartbeat', slot: `heartbeat:${nextTickAt}` }
}

function dueTrigger(facts: ScheduleFacts): Due | undefined {
  const allowed = facts.waiting.filter((mark) => allowsTick(facts.state, mark.type))
  const first = allowed.sort((a, b) => a.heardAt - b.heardAt)[0]
  if (first === undefined) return undefined
  const debounced = first.heardAt > facts.nowMs ? facts.nowMs : first.heardAt + facts.debounceMs
  const triggeredAt = facts.triggeredAt.filter((at) => at <= facts.nowMs)
  const oldest = triggeredAt[triggeredAt.length - facts.triggeredPerHour]
  const at = oldest === undefined ? debounced : Math.max(debounced, oldest + HOUR_MS)
  return { at, trigger: first.type, slot: `trigger:${first.id}:${first.tries}`, heardId: first.id }
}

/**
 * Whether an event may cause a tick: not what was said before the agent existed, nor history, nor by a key over its cap, nor
 * the end of an exchange between agents of this home.
 */
export function wakes(event: {
  createdAtMs: number
  bornAtMs: number
  nowMs: number
  repliesToSender: number
  replyCap: number
  answersBefore: number
}): boolean {
  if (event.createdAtMs < Math.floor(event.bornAtMs / 1000) * 1000) return false
  if (event.nowMs - event.createdAtMs > MAX_TRIGGER_AGE_MS) return false
  return event.repliesToSender < event.replyCap && event.answersBefore < MAX_TURNS
}
