/** `pylon agent`: the agents that this node hosts, and those that run in a runtime. */
import { createInterface } from 'node:readline/promises'
import type { Argv } from 'yargs'
import type { Sats } from '../../base/amounts.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Output } from '../../control/client.ts'
import { agentsRoutes } from '../../control/contract/agents.ts'
import { managedRoutes } from '../../control/contract/managed.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { ask, callNode, defineCommand, defineGroup } from '../command.ts'
import { argument, flagOption, limitOf, limitOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { json, plain, print, printAnswer } from '../terminal/output.ts'
import { clockTime, drawList, right, sats, shorten } from '../terminal/table.ts'
import { many, wholeNumber } from '../terminal/values.ts'
import { attachCommand, chatCommand } from './agent-chat.ts'
import { drawAction, drawAgent, drawAgents, drawMessages, drawTick, drawTicks } from './agent-drawing.ts'
import { newCommand } from './agent-new.ts'
import { setCommand, spawnCommand } from './agent-settings.ts'
import { drawManaged } from './managed-drawing.ts'

const LOOK_S = 15

function withName<T>(yargs: Argv<T>) {
  return yargs.positional('name', argument('Name or npub of the agent'))
}

const list = defineCommand({
  command: 'list',
  describe: 'All agents',
  handler: (args) =>
    ask(args, agentsRoutes.listAgents, {}, ({ agents, managed }) =>
      agents.length + managed.length === 0
        ? 'No agent yet; make one with: pylon agent spawn, or one in a runtime, to talk to: pylon agent new'
        : drawAgents(agents, managed, Date.now()),
    ),
})

const show = defineCommand({
  command: ['show <name>', 'status <name>'],
  describe: 'One agent: state, sats, budget, brain; or phases, runtime and backups',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const managed = await managedNamed(args)
    if (managed === undefined) {
      return await ask(args, agentsRoutes.getAgent, { name: args.name }, (agent) => drawAgent(agent, Date.now()))
    }
    // What its node says now, where that can be asked: backups and the way to its screen.
    const runtime = args.json ? undefined : await runtimeNow(args, managed.value)
    printAnswer(args, managed, (agent) => drawManaged(agent, runtime, Date.now()))
  },
})

/** Undefined where the name is not that of an agent in a runtime. */
async function managedNamed(args: { sandbox: boolean; name: string }) {
  try {
    return await callNode(args, managedRoutes.getManaged, { name: args.name })
  } catch (error) {
    if (isPylonError(error, 'agent_not_found')) return undefined
    throw error
  }
}

async function runtimeNow(args: { sandbox: boolean }, { runtime_id, server }: Output<typeof managedRoutes.getManaged>) {
  if (runtime_id === null) return undefined
  try {
    const command = { command: 'get_runtime', runtime_id }
    const { value } = await callNode(args, runtimesRoutes.askRuntime, { server, command, timeout_s: LOOK_S })
    return value.runtime
  } catch (error) {
    return { reason: messageOf(error) }
  }
}

const drawState = (agent: { name: string; state: string }): string => `${agent.name} is ${agent.state}.`

const start = defineCommand({
  command: 'start <name>',
  describe: 'Let a paused agent go on',
  builder: (yargs) => withName(yargs),
  handler: (args) => ask(args, agentsRoutes.startAgent, { name: args.name }, drawState),
})

const pause = defineCommand({
  command: 'pause <name>',
  describe: 'No more ticks until it is started; its key and sats stay',
  builder: (yargs) => withName(yargs),
  handler: (args) => ask(args, agentsRoutes.pauseAgent, { name: args.name }, drawState),
})

const tick = defineCommand({
  command: 'tick <name>',
  describe: 'Have it observe, think and act once, now',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const value = await ask(args, agentsRoutes.tickAgent, { name: args.name }, drawTick)
    if (value.state === 'failed') process.exitCode = 1
  },
})

const act = defineCommand({
  command: 'act <name> <action>',
  describe: 'Have it do one action, by its policy and within its budget: agent act ada "POST: hello"',
  builder: (yargs) =>
    withName(yargs)
      .positional('action', argument('A line (docs/agents.md), or an action as JSON'))
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const value = await ask(args, agentsRoutes.actAgent, { name: args.name, action: actionOf(args.action) }, drawAction, spendingCall(args))
    if (value.state === 'refused' || value.state === 'failed') process.exitCode = 1
  },
})

/** What looks like an object is read as one; a line is read by the node. */
function actionOf(text: string) {
  const value = text.trimStart().startsWith('{') ? parseJson(text) : undefined
  return typeof value === 'object' && value !== null ? (value as { type: string }) : text
}

const inbox = defineCommand({
  command: 'inbox <name>',
  describe: 'What was said to it, newest first; looking answers nobody',
  builder: (yargs) => withName(yargs).option('limit', limitOption('How many (20)')),
  handler: (args) =>
    ask(args, agentsRoutes.getInbox, { name: args.name, ...limitOf(args) }, ({ messages }) =>
      messages.length === 0 ? 'Nobody said anything to it yet.' : drawMessages(messages),
    ),
})

const goals = defineCommand({
  command: 'goals <name> [goals..]',
  describe: 'What it works towards; with GOALS, replaces them',
  builder: (yargs) =>
    withName(yargs)
      .positional('goals', { type: 'string', array: true, describe: 'One argument each' })
      .option('clear', flagOption('Have no goals')),
  handler: async (args) => {
    const { name } = args
    const wanted = many(args.goals).filter((goal) => goal !== '')
    const none = `No goals; give it one with: pylon agent goals ${name} "..."`
    const draw = ({ goals: known }: Output<typeof agentsRoutes.getGoals>) =>
      drawList(known, none, ['PRIORITY', 'STATUS', right('DONE'), 'GOAL'], ({ priority, status, progress, description }) => [
        String(priority),
        status,
        `${progress}%`,
        shorten(description, 100),
      ])
    if (wanted.length > 0 || args.clear) await ask(args, agentsRoutes.setGoals, { name, goals: wanted }, draw)
    else await ask(args, agentsRoutes.getGoals, { name }, draw)
  },
})

const memory = defineCommand({
  command: 'memory <name>',
  describe: 'What it remembers, newest first',
  builder: (yargs) => withName(yargs).option('limit', limitOption('How many (20)')),
  handler: (args) =>
    ask(args, agentsRoutes.getMemory, { name: args.name, ...limitOf(args) }, ({ memories }) =>
      memories.length === 0
        ? 'It remembers nothing yet.'
        : memories.map((one) => `${clockTime(one.created_at)} UTC  ${plain(one.content)}`).join('\n'),
    ),
})

const log = defineCommand({
  command: 'log <name>',
  describe: 'Its ticks and actions, with event ids and costs, newest first',
  builder: (yargs) => withName(yargs).option('limit', limitOption('How many ticks (20)')),
  handler: (args) =>
    ask(args, agentsRoutes.getLog, { name: args.name, ...limitOf(args) }, ({ ticks }) =>
      ticks.length === 0 ? 'No tick yet.' : drawTicks(ticks),
    ),
})

const remove = defineCommand({
  command: 'delete <name>',
  describe: 'End an agent: of a hosted one its sats go to the node wallet; of one in a runtime that is torn down',
  builder: (yargs) =>
    withName(yargs)
      .option('yes', { type: 'boolean', alias: 'y', default: false, describe: 'Do not ask' })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    if (!args.yes) await confirmName(args.name)
    const { name } = args
    if ((await managedNamed(args)) === undefined) {
      const draw = (gone: { name: string; swept_sats: Sats }) => `${gone.name} is gone; ${sats(gone.swept_sats)} went to the node wallet.`
      return await ask(args, agentsRoutes.deleteAgent, { name }, draw, spendingCall(args))
    }
    return await ask(args, managedRoutes.endManaged, { name }, (gone) =>
      gone.runtime_id === null ? `${gone.name} is gone.` : `${gone.name} is gone, and ${gone.runtime_id} with it.`,
    )
  },
})

async function confirmName(name: string): Promise<void> {
  if (!process.stdin.isTTY) throw new PylonError('usage', `This ends ${name} for ever: add --yes.`)
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const reply = await terminal.question(`This ends ${name} for ever. Type its name to go on: `)
  terminal.close()
  if (reply.trim() !== name) throw new PylonError('cancelled', 'Not the name: nothing was done.')
}

const exportAgent = defineCommand({
  command: 'export <name>',
  describe: 'Print its secret key and settings as JSON; whoever reads it owns the agent',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const answer = await callNode(args, agentsRoutes.exportAgent, { name: args.name })
    print(json(args.json ? answer.body : answer.value, 2))
  },
})

const fund = defineCommand({
  command: 'fund <name> <sats>',
  describe: 'Move sats from the node wallet to the agent',
  builder: (yargs) => withName(yargs).positional('sats', argument()).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = { name: args.name, amount_sats: wholeNumber(args.sats, 'The amount') }
    await ask(
      args,
      agentsRoutes.fundAgent,
      request,
      (done) => `${done.name} got ${sats(done.amount_sats)} and holds ${sats(done.balance_sats)} now.`,
      spendingCall(args),
    )
  },
})

/** `pylon agent ...` */
export const agentCommand = defineGroup('agent', 'Agents: those that this node hosts, and those that run in a runtime', [
  newCommand,
  chatCommand,
  attachCommand,
  spawnCommand,
  list,
  show,
  start,
  pause,
  tick,
  act,
  inbox,
  setCommand,
  goals,
  memory,
  log,
  remove,
  exportAgent,
  fund,
])
