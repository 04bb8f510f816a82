/** Handlers of the routes about agents: reads of the store, and what the host does at the owner's word. */

import { sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { agentsRoutes } from '../../control/contract/agents.ts'
import type { Handlers } from '../../control/route.ts'
import { managedViews } from '../../customer/agents/view.ts'
import type { BrainInput } from '../../host/brains/brain.ts'
import { readAgents, readLog, readMemory, viewAgent, viewDetail } from '../../host/view.ts'
import { type AgentRow, findAgent } from '../../store/agents/agents.ts'
import { goalsOf } from '../../store/agents/goals.ts'
import { ownerKey } from '../../store/keys.ts'
import { writeAudit } from '../../store/money/audit.ts'
import type { Store } from '../../store/store.ts'
import type { ReadServices, Services } from '../services.ts'

const DEFAULT_LIMIT = 20

type Routes = typeof agentsRoutes
type Reads = 'listAgents' | 'getAgent' | 'getGoals' | 'getMemory' | 'getLog'

export function agentsReadHandlers({
  store,
  clock,
  config,
}: Pick<ReadServices, 'store' | 'clock' | 'config'>): Pick<Handlers<Routes>, Reads> {
  return {
    listAgents: () => ({ agents: readAgents(store), managed: managedViews(store, undefined, clock.now()) }),
    getAgent: ({ name }) => {
      const row = agentNamed(store, name)
      return viewDetail(store, row, { view: viewAgent(store, row), relays: config().node.relays, nowMs: clock.now() })
    },
    getGoals: ({ name }) => ({ goals: goalsOf(store, agentNamed(store, name).pubkey) }),
    getMemory: ({ name, limit }) => ({ memories: readMemory(store, agentNamed(store, name).pubkey, limit ?? DEFAULT_LIMIT) }),
    getLog: ({ name, limit }) => ({ ticks: readLog(store, agentNamed(store, name).pubkey, limit ?? DEFAULT_LIMIT) }),
  }
}

/** What the host does at the owner's word. Each throws why there is no host, but for reads: what is stored is told all the same. */
export function agentsHandlers(services: Pick<Services, 'store' | 'clock' | 'config' | 'keyring' | 'parts'>): Handlers<Routes> {
  const { store, parts } = services
  const { host } = parts
  const read = agentsReadHandlers(services)
  return {
    ...read,
    listAgents: () => {
      const running = host.peek()
      const agents = running === undefined ? readAgents(store) : running.list()
      return {
        agents,
        managed: managedViews(store, services.keyring.locked ? undefined : services.keyring.node().pubkey, services.clock.now()),
      }
    },
    getAgent: (input, call) => {
      const running = host.peek()
      return running === undefined ? read.getAgent(input, call) : running.get(input.name)
    },
    spawnAgent: (request) => host.get().spawn({ ...request, brain: request.brain as BrainInput | undefined }),
    startAgent: ({ name }) => host.get().resume(name),
    pauseAgent: ({ name }) => host.get().pause(name),
    tickAgent: ({ name }) => host.get().tick(name),
    setAgent: async ({ name, new_name, brain, ...settings }) => {
      const running = host.get()
      const change = { ...settings, ...given({ name: new_name }) }
      const current = agentNamed(store, name).brain
      return await running.set(name, brain === undefined ? change : { ...change, brain: mergedBrain(current, brain) })
    },
    actAgent: async ({ name, action }, call) => ({ ...(await host.get().act(name, action, call.idempotencyKey)) }),
    getInbox: ({ name, limit }) => ({
      messages: host.get().messages(name, { limit: limit ?? DEFAULT_LIMIT }),
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
      return { name: gone.name, npub, swept_sats: gone.moved_sats }
    },
    exportAgent: async ({ name }) => {
      const bundle = host.get().export(name)
      await store.write(writeAudit({ at: services.clock.now(), kind: 'key_exported', data: { agent: agentNamed(store, name).pubkey } }))
      return { ...bundle }
    },
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
function agentNamed(store: Store, ref: string): AgentRow {
  const agent = findAgent(store, ref)
  if (agent === undefined) throw new PylonError('agent_not_found', `There is no agent ${ref}; pylon agent list shows them.`)
  return agent
}
