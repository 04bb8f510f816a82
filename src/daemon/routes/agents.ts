/** Handlers of the routes about agents: reads of the store, and what the host does at the owner's word. */
import { msats, sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { agentsRoutes } from '../../control/contract/agents.ts'
import type { Handlers, Output } from '../../control/route.ts'
import { type AgentDetail, type AgentView, readAgents, readLog, readMemory, type TickView, viewAgent, viewDetail } from '../../host/view.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { type AgentRow, findAgent, goalsOf } from '../../store/agents.ts'
import { spentOnDay } from '../../store/budgets.ts'
import type { Store } from '../../store/store.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_LIMIT = 20

type Routes = typeof agentsRoutes
type Reads = 'listAgents' | 'getAgent' | 'getGoals' | 'getMemory' | 'getLog'
type ReadDeps = Pick<ReadServices, 'store' | 'clock' | 'config'>

export function agentsReadHandlers(deps: ReadDeps): Pick<Handlers<Routes>, Reads> {
  const { store } = deps
  return {
    listAgents: () => ({ agents: readAgents(store).map(summaryAnswer) }),
    getAgent: ({ name }) => {
      const row = agentNamed(store, name)
      return detailAnswer(deps, viewDetail(store, row, viewAgent(store, row), deps.config().node.relays))
    },
    getGoals: ({ name }) => ({ goals: goalsOf(store, agentNamed(store, name).pubkey) }),
    getMemory: ({ name, limit }) => ({
      memories: readMemory(store, agentNamed(store, name).pubkey, limit ?? DEFAULT_LIMIT).map((memory) => ({
        ...memory,
        type: memory.type as 'remember' | 'summary',
      })),
    }),
    getLog: ({ name, limit }) => ({ ticks: readLog(store, agentNamed(store, name).pubkey, limit ?? DEFAULT_LIMIT).map(tickAnswer) }),
  }
}

/** By name, npub or key. @throws agent_not_found */
export function agentNamed(store: Store, ref: string): AgentRow {
  const agent = findAgent(store, ref)
  if (agent === undefined) throw new PylonError('agent_not_found', `There is no agent ${ref}; pylon agent list shows them.`)
  return agent
}

/** The view of the host as the contract types it. */
export function summaryAnswer(view: AgentView): Output<Routes['listAgents']>['agents'][number] {
  return { ...view, balance_sats: sats(view.balance_sats) }
}

export function detailAnswer({ store, clock }: Pick<ReadDeps, 'store' | 'clock'>, view: AgentDetail): Output<Routes['getAgent']> {
  return {
    ...view,
    balance_sats: sats(view.balance_sats),
    autonomy: view.autonomy as Output<Routes['getAgent']>['autonomy'],
    dm_scheme: view.dm_scheme as Output<Routes['getAgent']>['dm_scheme'],
    brain: view.brain as Output<Routes['getAgent']>['brain'],
    relays: [...view.relays],
    allow: view.allow.map(npubOf),
    tick_fee_sats: sats(view.tick_fee_sats),
    budget: {
      per_tx_sats: sats(view.budget.per_tx_sats),
      per_tick_sats: sats(view.budget.per_tick_sats),
      per_day_sats: sats(view.budget.per_day_sats),
      spent_today_sats: sats(spentOnDay(store, view.pubkey, rfc3339(clock.now()).slice(0, 10))),
    },
    transitions: view.transitions.map((step) => ({ ...step })),
  }
}

/** The kinds of the events that actions publish; a zap publishes nothing itself: its request (9734) goes to the LNURL server. */
const KIND_OF: Readonly<Record<string, number>> = { post: 1, reply: 1, react: 7, channel: 42, zap: 9734 }

export function tickAnswer(tick: TickView): Output<Routes['tickAgent']> {
  return {
    ...tick,
    cost_msats: msats(tick.cost_msats),
    actions: tick.actions.map((action) => ({ ...action, kind: KIND_OF[action.type] ?? null, cost_msats: msats(action.cost_msats) })),
  }
}

/** One agent as status shows it. */
export function agentSummary(store: Store, row: AgentRow): Output<Routes['listAgents']>['agents'][number] {
  return summaryAnswer(viewAgent(store, row))
}
