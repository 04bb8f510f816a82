/** The state of an agent by its runway, and what each state lets it do; pure. Its steps stand in base/states.ts. */
import type { Sats } from '../base/amounts.ts'
import type { AgentState } from '../base/states.ts'
import type { TickTrigger } from '../store/agents/ticks.ts'

export type RunningState = Exclude<AgentState, 'spawning' | 'paused'>
export interface Runway {
  readonly balanceSats: Sats
  readonly tickCostSats: Sats
  readonly heartbeatS: number
}

export interface Thresholds {
  readonly lowBalanceDays: number
  readonly hibernateDays: number
}

const DAY_S = 86_400

/** Days of heartbeats that the balance pays for; Infinity where ticks cost nothing. */
export function runwayDays(runway: Runway): number {
  const ticksPerDay = DAY_S / runway.heartbeatS
  const perDay = ticksPerDay * Number(runway.tickCostSats)
  return perDay === 0 ? Number.POSITIVE_INFINITY : Number(runway.balanceSats) / perDay
}

/** The state that the runway calls for, and why in words. */
export function stateByRunway(runway: Runway, thresholds: Thresholds): { state: RunningState; reason: string } {
  if (runway.tickCostSats === 0n) return { state: 'active', reason: 'its ticks cost nothing' }
  if (runway.balanceSats < runway.tickCostSats) {
    return { state: 'dormant', reason: `${runway.balanceSats} sats do not pay one tick of ${runway.tickCostSats}; fund it to revive it` }
  }
  const days = runwayDays(runway)
  const words = `${runway.balanceSats} sats last ${days < 10 ? days.toFixed(1) : Math.floor(days)} days`
  if (days < thresholds.hibernateDays) return { state: 'hibernating', reason: `${words}, less than ${thresholds.hibernateDays}` }
  if (days < thresholds.lowBalanceDays) return { state: 'low_balance', reason: `${words}, less than ${thresholds.lowBalanceDays}` }
  return { state: 'active', reason: words }
}

const ANY: readonly TickTrigger[] = ['first', 'heartbeat', 'mention', 'dm', 'zap', 'funding', 'manual']
/** The occasions that make a tick. The owner's own word (manual) counts while a tick can be paid. */
const ALLOWED: Readonly<Record<AgentState, readonly TickTrigger[]>> = {
  active: ANY,
  low_balance: ANY,
  hibernating: ['zap', 'funding', 'manual'],
  paused: ['manual'],
  spawning: [],
  dormant: [],
}

export const allowsTick = (state: AgentState, trigger: TickTrigger): boolean => ALLOWED[state].includes(trigger)

/** Seconds between heartbeats in this state, or undefined where there are none. */
export function heartbeatOf(state: AgentState, heartbeatS: number): number | undefined {
  if (state === 'active') return heartbeatS
  if (state === 'low_balance') return heartbeatS * 2
  return undefined
}
