/** Agents as the control API shows them: the same from a running node and from a database that nobody holds. */

import { wire } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { given } from '../base/given.ts'
import type { AgentState } from '../base/states.ts'
import { type ActionRow, actionsOf } from '../store/agents/actions.ts'
import { type AgentRow, type AgentTransitionRow, agentBalanceMsats, agentTransitions, listAgents } from '../store/agents/agents.ts'
import { memoriesOf } from '../store/agents/memories.ts'
import { type TickRow, ticksOf } from '../store/agents/ticks.ts'
import type { Store } from '../store/store.ts'
import { parseBrain } from './brains/brain.ts'

/** One agent of `status` and `agent list`. */
export interface AgentView {
  readonly name: string
  readonly npub: string
  readonly pubkey: string
  readonly state: AgentState
  /** Where it is not simply active: why. */
  readonly reason?: string
  readonly balance_sats: number
  readonly tick_count: number
  readonly last_tick_at: string | null
  readonly next_tick_at: string | null
}

/** One agent of `agent spawn` and `agent show`. */
export interface AgentDetail extends AgentView {
  readonly about: string
  readonly lud06: string | null
  /** What the owner set; the profile may say more. */
  readonly picture: string | null
  readonly nip05: string | null
  readonly lud16: string | null
  readonly relays: readonly string[]
  readonly brain: unknown
  readonly heartbeat_s: number
  readonly autonomy: string
  readonly dm_scheme: string
  readonly budget: AgentRow['budget']
  readonly allow: readonly string[]
  readonly tick_fee_sats: number
  readonly created_at: string
  /** Newest first. */
  readonly transitions: readonly { readonly from: string; readonly to: string; readonly reason: string; readonly at: string }[]
}

export interface ActionView {
  readonly id: string
  readonly type: string
  readonly params: unknown
  readonly state: ActionRow['state']
  readonly event_id: string | null
  readonly cost_msats: number
  readonly reason: string | null
}

/** One tick of `agent log` and `agent tick`. */
export interface TickView {
  readonly id: string
  readonly number: number
  readonly trigger: TickRow['trigger']
  readonly state: TickRow['state']
  readonly thought: string | null
  readonly error: string | null
  /** Thinking, fee and actions together. */
  readonly cost_msats: number
  readonly started_at: string
  readonly duration_ms: number | null
  readonly actions: readonly ActionView[]
}

const timeOrNull = (ms: number | null | undefined): string | null => (ms === null || ms === undefined ? null : rfc3339(ms))

/** @param facts what a running node knows better than the database. */
export function viewAgent(store: Store, row: AgentRow, facts: { balanceSats?: bigint; nextTickAt?: number | undefined } = {}): AgentView {
  const reason = reasonOf(store, row)
  const nextTickAt = 'nextTickAt' in facts ? facts.nextTickAt : row.nextTickAt
  return {
    name: row.name,
    npub: row.npub,
    pubkey: row.pubkey,
    state: row.state,
    ...given({ reason }),
    balance_sats: wire(facts.balanceSats ?? agentBalanceMsats(store, row.pubkey) / 1000n),
    tick_count: row.tickCount,
    last_tick_at: timeOrNull(row.lastTickAt),
    next_tick_at: timeOrNull(nextTickAt),
  }
}

function reasonOf(store: Store, row: AgentRow): string | undefined {
  if (row.state !== 'active') return row.stateReason
  if (row.failures === 0) return undefined
  const failed = ticksOf(store, row.pubkey, 20).find((tick) => tick.state === 'failed')
  return `${row.failures === 1 ? 'its last tick' : `its last ${row.failures} ticks`} failed: ${failed?.error ?? 'see pylon agent log'}`
}

const viewTransition = ({ from, to, reason, at }: AgentTransitionRow) => ({ from, to, reason, at: rfc3339(at) })

/** @param relays those that it uses, where it has none of its own */
export function viewDetail(store: Store, row: AgentRow, view: AgentView, relays: readonly string[]): AgentDetail {
  return {
    ...view,
    about: row.about,
    lud06: row.lud06,
    picture: row.profile['picture'] || null,
    nip05: row.profile['nip05'] || null,
    lud16: row.profile['lud16'] || null,
    relays: row.relays.length > 0 ? row.relays : relays,
    brain: publicBrain(row.brain),
    heartbeat_s: row.heartbeatS,
    autonomy: row.autonomy,
    dm_scheme: row.dmScheme,
    budget: row.budget,
    allow: row.allow,
    tick_fee_sats: row.tickFeeSats,
    created_at: rfc3339(row.createdAt),
    transitions: agentTransitions(store, row.pubkey, 20).map(viewTransition),
  }
}

/** The settings of a brain; rules are shown by their length, `agent export` has them whole. */
function publicBrain(brain: unknown): unknown {
  const settings = parseBrain(brain)
  if (settings.type !== 'script' || settings.rules === undefined) return settings
  const { rules, ...rest } = settings
  return { ...rest, rules_chars: rules.length }
}

export function viewTick(store: Store, tick: TickRow): TickView {
  const actions = actionsOf(store, tick.id)
  const spent = actions.reduce((sum, action) => sum + action.costMsats, tick.costMsats)
  return {
    id: tick.id,
    number: tick.number,
    trigger: tick.trigger,
    state: tick.state,
    thought: tick.thought,
    error: tick.error,
    cost_msats: wire(spent),
    started_at: rfc3339(tick.startedAt),
    duration_ms: tick.finishedAt === null ? null : tick.finishedAt - tick.startedAt,
    actions: actions.map(viewAction),
  }
}

export function viewAction(action: ActionRow): ActionView {
  return {
    id: action.id,
    type: action.type,
    params: action.params,
    state: action.state,
    event_id: action.eventId,
    cost_msats: wire(action.costMsats),
    reason: action.reason,
  }
}

/** For a stopped node: `agent list`. */
export function readAgents(store: Store): AgentView[] {
  return listAgents(store).map((row) => viewAgent(store, row))
}

/** Newest first. */
export function readLog(store: Store, pubkey: string, limit: number): TickView[] {
  return ticksOf(store, pubkey, limit).map((tick) => viewTick(store, tick))
}

export function readMemory(store: Store, pubkey: string, limit: number): { type: string; content: string; created_at: string }[] {
  return memoriesOf(store, pubkey, limit).map(({ type, content, createdAt }) => ({ type, content, created_at: rfc3339(createdAt) }))
}
