/** Handlers of the routes about agents: reads of the store, and what the host does at the owner's word. */

import { msats, sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { agentsRoutes } from '../../control/contract/agents.ts'
import type { Handlers, Output } from '../../control/route.ts'
import type { BrainInput } from '../../host/brains/brain.ts'
import { type AgentDetail, type AgentView, readAgents, readLog, readMemory, type TickView, viewAgent, viewDetail } from '../../host/view.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { type AgentRow, findAgent } from '../../store/agents/agents.ts'
import { goalsOf } from '../../store/agents/goals.ts'
import { ownerKey } from '../../store/keys.ts'
import { spentOnDay } from '../../store/money/budgets.ts'
import type { Store } from '../../store/store.ts'
import type { ReadServices, Services } from '../services.ts'

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

/** What the host does at the owner's word. Each throws why there is no host, but for reads: what is stored is told all the same. */
export function agentsHandlers(services: Pick<Services, 'store' | 'clock' | 'config' | 'keyring' | 'parts'>): Handlers<Routes> {
  const { store, parts } = services
  const { host } = parts
  const read = agentsReadHandlers(services)
  const detail = (view: AgentDetail) => detailAnswer(services, view)
  return {
    ...read,
    listAgents: (input, call) => {
      const running = host.peek()
      return running === undefined ? read.listAgents(input, call) : { agents: running.list().map(summaryAnswer) }
    },
    getAgent: (input, call) => {
      const running = host.peek()
      return running === undefined ? read.getAgent(input, call) : detail(running.get(input.name))
    },
    spawnAgent: async (request) => detail(await host.get().spawn({ ...request, brain: request.brain as BrainInput | undefined })),
    startAgent: async ({ name }) => detail(await host.get().resume(name)),
    pauseAgent: async ({ name }) => detail(await host.get().pause(name)),
    tickAgent: async ({ name }) => tickAnswer(await host.get().tick(name)),
    setAgent: async ({ name, new_name, brain, ...settings }) => {
      const running = host.get()
      const change = { ...settings, ...given({ name: new_name }) }
      const current = agentNamed(store, name).brain
      return detail(await running.set(name, brain === undefined ? change : { ...change, brain: mergedBrain(current, brain) }))
    },
    actAgent: async ({ name, action }, call) => {
      const { tick_number, ...done } = await host.get().act(name, action, call.idempotencyKey)
      return { ...actionAnswer(done), tick_number }
    },
    getInbox: ({ name, limit }) => ({
      messages: host
        .get()
        .messages(name, { limit: limit ?? DEFAULT_LIMIT })
        .map((message) => ({ ...message, amount_msats: message.amount_msats === null ? null : msats(message.amount_msats) })),
    }),
    setGoals: async ({ name, goals }) => ({
      goals: await host.get().setGoals(
        name,
        goals.map((description) => ({ description })),
      ),
    }),
    deleteAgent: async ({ name }) => {
      const running = host.get()
      const { npub } = agentNamed(store, name)
      const gone = await running.delete(name, { moveFunds: true })
      return { name: gone.name, npub, swept_sats: sats(gone.moved_sats) }
    },
    exportAgent: ({ name }) => ({ ...host.get().export(name) }),
    fundAgent: async ({ name, amount_sats }, call) => {
      // Where no agents run, none is funded.
      host.get()
      const agent = agentNamed(store, name)
      const owner = { kind: 'agent', pubkey: agent.pubkey } as const
      const node = { kind: 'node', pubkey: services.keyring.node().pubkey } as const
      const wallets = parts.wallets.get()
      await wallets.transfer(node, owner, sats(amount_sats), ownerKey(agent.pubkey, call.idempotencyKey))
      return { name: agent.name, amount_sats: sats(amount_sats), balance_sats: wallets.of(owner).balance().balanceSats }
    },
  }
}

/** What is given over what is there, as long as it is the same kind of brain. */
function mergedBrain(current: unknown, given: { readonly type: string }): BrainInput {
  const isSame = typeof current === 'object' && current !== null && (current as { type?: unknown }).type === given.type
  return { ...(isSame ? current : {}), ...given } as BrainInput
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
    actions: tick.actions.map(actionAnswer),
  }
}

function actionAnswer(action: TickView['actions'][number]): Output<Routes['tickAgent']>['actions'][number] {
  return { ...action, kind: KIND_OF[action.type] ?? null, cost_msats: msats(action.cost_msats) }
}

/** One agent as status shows it. */
export function agentSummary(store: Store, row: AgentRow): Output<Routes['listAgents']>['agents'][number] {
  return summaryAnswer(viewAgent(store, row))
}
