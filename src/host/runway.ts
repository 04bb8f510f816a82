/** Keeps an agent's state in step with its wallet: every change stored with its reason. */

import { sats } from '../base/amounts.ts'
import { isPylonError } from '../base/errors.ts'
import { type AgentRow, getAgent, moveAgent } from '../store/agents/agents.ts'
import { type RunningState, stateByRunway } from './lifecycle.ts'
import { type HostDeps, ownerOf } from './parts.ts'
import { nextHeartbeat } from './schedule.ts'

function verdictOf(deps: HostDeps, agent: AgentRow): { state: RunningState; reason: string } {
  const { low_balance_days, hibernate_days } = deps.config().host
  const balanceSats = deps.wallets.of(ownerOf(agent)).balance().balanceSats
  const runway = { balanceSats, tickCostSats: sats(agent.tickFeeSats), heartbeatS: agent.heartbeatS }
  return stateByRunway(runway, { lowBalanceDays: low_balance_days, hibernateDays: hibernate_days })
}

/** When an agent that comes into `to` ticks next: at once where it was revived, else as its clock says. */
function firstTickIn(agent: AgentRow, from: AgentRow['state'], to: RunningState, nowMs: number): number | null {
  const revived = from === 'spawning' || from === 'dormant' || from === 'hibernating' || from === 'paused'
  if (to === 'dormant') return null
  // A hibernating agent ticks once for what woke it, and not because it fell asleep.
  if (to === 'hibernating') return from === 'dormant' ? nowMs : null
  if (revived) return nowMs
  const beat = nextHeartbeat({ pubkey: agent.pubkey, state: to, heartbeatS: agent.heartbeatS, tickNumber: agent.tickCount, nowMs })
  return beat === undefined ? null : Math.min(beat, agent.nextTickAt !== null && to === 'active' ? agent.nextTickAt : beat)
}

/** Moves the agent where its runway says. Whether it moved. A paused agent stays. */
export async function followRunway(deps: HostDeps, pubkey: string): Promise<boolean> {
  const agent = getAgent(deps.store, pubkey)
  if (agent === undefined || agent.state === 'paused') return false
  const { state, reason } = verdictOf(deps, agent)
  return state === agent.state ? false : move(deps, agent, state, reason)
}

/** By the owner. Whether it was not paused already. */
export async function pauseAgent(deps: HostDeps, agent: AgentRow): Promise<boolean> {
  if (agent.state === 'paused') return false
  await followRunway(deps, agent.pubkey)
  const current = getAgent(deps.store, agent.pubkey)
  if (current === undefined) return false
  const move = {
    pubkey: agent.pubkey,
    from: current.state,
    to: 'paused',
    reason: 'paused by the owner',
    at: deps.clock.now(),
    nextTickAt: null,
  } as const
  await deps.store.write(moveAgent(move))
  return true
}

/** Ends a pause: the agent goes where its runway says now. Whether it was paused. */
export async function resumeAgent(deps: HostDeps, agent: AgentRow): Promise<boolean> {
  if (agent.state !== 'paused') return false
  const { state, reason } = verdictOf(deps, agent)
  return move(deps, agent, state, `started by the owner; ${reason}`)
}

async function move(deps: HostDeps, agent: AgentRow, to: RunningState, reason: string): Promise<boolean> {
  const at = deps.clock.now()
  try {
    await deps.store.write(
      moveAgent({ pubkey: agent.pubkey, from: agent.state, to, reason, at, nextTickAt: firstTickIn(agent, agent.state, to, at) }),
    )
  } catch (error) {
    // Somebody else moved it meanwhile, by newer facts.
    if (isPylonError(error, 'conflict') || isPylonError(error, 'agent_not_found')) return false
    throw error
  }
  deps.logger.info({ agent: agent.name, from: agent.state, to, reason }, 'an agent changed state')
  return true
}
