/** Handlers of the routes about agents: reads of the store, and what the host does at the owner's word. */
import { msats, type Sats, sats } from '../../base/amounts.ts'
import { type Clock, rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { agentsRoutes } from '../../control/contract/agents.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { type AgentRow, agentBalanceMsats, findAgent, goalsOf, listAgents, memoriesOf } from '../../store/agents.ts'
import { spentOnDay } from '../../store/budgets.ts'
import type { Store } from '../../store/store.ts'
import { type ActionRow, actionsOf, type TickRow, ticksOf } from '../../store/ticks.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_LIMIT = 20

type Reads = 'listAgents' | 'getAgent' | 'getGoals' | 'getMemory' | 'getLog'
type ReadDeps = Pick<ReadServices, 'store' | 'clock'>

export function agentsReadHandlers(deps: ReadDeps): Pick<Handlers<typeof agentsRoutes>, Reads> {
  const { store } = deps
  return {
    listAgents: () => ({ agents: listAgents(store).map((agent) => agentSummary(store, agent)) }),
    getAgent: ({ name }) => agentDetail(deps, agentNamed(store, name)),
    getGoals: ({ name }) => ({ goals: goalsOf(store, agentNamed(store, name).pubkey) }),
    getMemory: ({ name, limit }) => ({
      memories: memoriesOf(store, agentNamed(store, name).pubkey, limit ?? DEFAULT_LIMIT).map((memory) => ({
        type: memory.type,
        content: memory.content,
        created_at: rfc3339(memory.createdAt),
      })),
    }),
    getLog: ({ name, limit }) => ({
      ticks: ticksOf(store, agentNamed(store, name).pubkey, limit ?? DEFAULT_LIMIT).map((tick) => tickView(store, tick)),
    }),
  }
}

/** By name, npub or key. @throws agent_not_found */
export function agentNamed(store: Store, ref: string): AgentRow {
  const agent = findAgent(store, ref)
  if (agent === undefined) throw new PylonError('agent_not_found', `There is no agent ${ref}; pylon agent list shows them.`)
  return agent
}

/** One agent as status shows it; its balance is what the ledger says. */
export function agentSummary(store: Store, agent: AgentRow) {
  return {
    name: agent.name,
    npub: agent.npub,
    pubkey: agent.pubkey,
    state: agent.state,
    reason: agent.stateReason,
    balance_sats: balanceOf(store, agent.pubkey),
    tick_count: agent.tickCount,
    last_tick_at: timeOrNull(agent.lastTickAt),
    next_tick_at: timeOrNull(agent.nextTickAt),
  }
}

function agentDetail({ store, clock }: { store: Store; clock: Clock }, agent: AgentRow) {
  return {
    ...agentSummary(store, agent),
    about: agent.about,
    created_at: rfc3339(agent.createdAt),
    heartbeat_s: agent.heartbeatS,
    autonomy: agent.autonomy,
    dm_scheme: agent.dmScheme,
    lud06: agent.lud06,
    relays: [...agent.relays],
    brain: agent.brain as { type: 'script' | 'exec' | 'openai' },
    allow: agent.allow.map(npubOf),
    tick_fee_sats: sats(agent.tickFeeSats),
    budget: {
      per_tx_sats: sats(agent.budget.per_tx_sats),
      per_tick_sats: sats(agent.budget.per_tick_sats),
      per_day_sats: sats(agent.budget.per_day_sats),
      spent_today_sats: sats(spentOnDay(store, agent.pubkey, rfc3339(clock.now()).slice(0, 10))),
    },
  }
}

export function tickView(store: Store, tick: TickRow) {
  return {
    id: tick.id,
    number: tick.number,
    trigger: tick.trigger,
    state: tick.state,
    thought: tick.thought,
    started_at: rfc3339(tick.startedAt),
    finished_at: timeOrNull(tick.finishedAt),
    cost_msats: msats(tick.costMsats),
    error: tick.error,
    actions: actionsOf(store, tick.id).map(actionView),
  }
}

/** The kinds of the events that actions publish; a zap publishes nothing itself, its request (9734) goes to the LNURL server. */
const KIND_OF: Readonly<Record<string, number>> = { post: 1, reply: 1, react: 7, channel: 42, zap: 9734 }

function actionView(action: ActionRow) {
  return {
    id: action.id,
    type: action.type,
    params: action.params,
    counterparty: action.counterparty,
    state: action.state,
    kind: KIND_OF[action.type] ?? null,
    event_id: action.eventId,
    cost_msats: msats(action.costMsats),
    reason: action.reason,
  }
}

function balanceOf(store: Store, pubkey: string): Sats {
  return sats(agentBalanceMsats(store, pubkey) / 1000n)
}

function timeOrNull(ms: number | null): string | null {
  return ms === null ? null : rfc3339(ms)
}
