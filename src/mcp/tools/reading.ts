/** Tools that only look: at the node, its agents, what was said to them, and what was earned. */
import { z } from 'zod'
import { formatSats, satsToMsats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import { agentsRoutes } from '../../control/contract/agents.ts'
import { earningsRoutes } from '../../control/contract/earnings.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, defineTool, type Tool, type ToolAnswer, type ToolCall } from '../tool.ts'
import { agentName } from './acting.ts'

const limit = z.int().min(1).max(200).default(20).describe('How many, the newest first')
const look = { effect: 'look', openWorld: false } as const

export function ownerReadingTools(): Tool[] {
  return [
    defineTool({
      ...{ name: 'get_status', title: 'State of the node', ...look },
      description: 'The whole node: modes, agents, relays, jobs, machines and sats. What is not ok has a reason and a next step.',
      input: z.strictObject({}),
      run: (_args, call) =>
        ask(call, nodeRoutes.status, {}, ({ mode, wallet, host }) => {
          const holds = formatSats(satsToMsats(wallet.balance_sats))
          return `The node runs as ${mode}, holds ${holds} and hosts ${host.agents.length} agents.`
        }),
    }),
    defineTool({
      ...{ name: 'get_earnings', title: 'What was earned', ...look },
      description: 'What others paid this node: in total, by source (job, zap, lease, tip), kind and day. Amounts are msats.',
      input: z.strictObject({ since: z.iso.datetime().optional().describe('RFC 3339, UTC'), limit }),
      run: (args, call) =>
        ask(call, earningsRoutes.getEarnings, { ...given({ since: args.since }), limit: args.limit }, ({ total_msats, jobs_completed }) => {
          return `${formatSats(total_msats)} were earned by ${jobs_completed} jobs and what else others paid.`
        }),
    }),
    defineTool({
      ...{ name: 'get_wallet', title: 'What a wallet holds', ...look },
      description: 'Balance in sats by mint; owed_sats may have to go back to customers, at_risk_sats are in payments of unknown outcome.',
      input: z.strictObject({ wallet: z.string().min(1).max(100).default('node').describe('node, customer, or an agent') }),
      run: ({ wallet }, call) => walletOf(wallet, call),
    }),
    defineTool({
      ...{ name: 'list_agents', title: 'Agents of this node', ...look },
      description: 'All agents with state, balance in sats and ticks.',
      input: z.strictObject({}),
      run: (_args, call) =>
        ask(call, agentsRoutes.listAgents, {}, ({ agents: { length } }) =>
          length === 0 ? 'There is no agent yet; the owner makes one with: pylon agent spawn' : `${length} agents.`,
        ),
    }),
    defineTool({
      ...{ name: 'get_agent', title: 'One agent', ...look },
      description: AGENT,
      input: z.strictObject({ agent: agentName }),
      run: ({ agent }, call) => agentOf(agent, call),
    }),
    defineTool({
      ...{ name: 'list_messages', title: 'Mentions, messages and zaps', ...look, openWorld: true },
      description: `${MESSAGES} Written by strangers.`,
      input: z.strictObject({ agent: agentName, limit }),
      run: (args, call) => messagesTo(args.agent, args.limit, call),
    }),
    defineTool({
      ...{ name: 'get_agent_log', title: 'What an agent did', ...look },
      description: LOG,
      input: z.strictObject({ agent: agentName, limit }),
      run: (args, call) => logOf(args.agent, args.limit, call),
    }),
  ]
}

export function agentReadingTools(agent: string): Tool[] {
  return [
    defineTool({
      ...{ name: 'get_status', title: 'Who you are', ...look },
      description: AGENT,
      input: z.strictObject({}),
      run: (_args, call) => agentOf(agent, call),
    }),
    defineTool({
      ...{ name: 'get_wallet', title: 'What your wallet holds', ...look },
      description: 'Balance in sats by mint; at_risk_sats are in payments of unknown outcome.',
      input: z.strictObject({}),
      run: (_args, call) => walletOf(agent, call),
    }),
    defineTool({
      ...{ name: 'list_messages', title: 'Mentions, messages and zaps', ...look, openWorld: true },
      description: `${MESSAGES} Written by strangers.`,
      input: z.strictObject({ limit }),
      run: (args, call) => messagesTo(agent, args.limit, call),
    }),
    defineTool({
      ...{ name: 'get_log', title: 'What you did', ...look },
      description: LOG,
      input: z.strictObject({ limit }),
      run: (args, call) => logOf(agent, args.limit, call),
    }),
  ]
}

const AGENT = 'Name, npub, state, balance in sats, autonomy, and budgets in sats (per transaction, tick and day, and what is spent today).'
const MESSAGES = 'What was said to the agent on Nostr: mentions, private messages and zaps, the newest first. Looking answers nobody.'
const LOG = 'Ticks of the agent with its actions, event ids and costs in msats, the newest first.'

const walletOf = (wallet: string, call: ToolCall): Promise<ToolAnswer> =>
  ask(call, walletRoutes.getWallet, { wallet }, (held) => `The wallet of ${held.wallet} holds ${held.balance_sats} sats.`)

function agentOf(agent: string, call: ToolCall): Promise<ToolAnswer> {
  return ask(call, agentsRoutes.getAgent, { name: agent }, ({ name, state, autonomy, balance_sats, budget }) => {
    const { per_tx_sats, per_day_sats, spent_today_sats } = budget
    return `${name} is ${state} and ${autonomy}, holds ${balance_sats} sats, and may spend ${per_tx_sats} sats a payment and ${per_day_sats} a day (${spent_today_sats} today).`
  })
}

const messagesTo = (name: string, limit: number, call: ToolCall): Promise<ToolAnswer> =>
  ask(call, agentsRoutes.getInbox, { name, limit }, ({ messages }) => `${messages.length} messages to ${name}.`, { untrusted: true })

const logOf = (name: string, limit: number, call: ToolCall): Promise<ToolAnswer> =>
  ask(call, agentsRoutes.getLog, { name, limit }, ({ ticks }) => `The last ${ticks.length} ticks of ${name}.`, { untrusted: true })
