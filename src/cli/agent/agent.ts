/** `pylon agent`: the agents that this node hosts, and those that run in a runtime. */
import { createInterface } from 'node:readline/promises'
import type { Argv } from 'yargs'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { parseJson } from '../../base/json.ts'
import type { Output } from '../../control/client.ts'
import { agentsRoutes } from '../../control/contract/agents.ts'
import { managedRoutes } from '../../control/contract/managed.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { callNode, defineCommand, defineGroup } from '../command.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { json, plain, print, printAnswer } from '../terminal/output.ts'
import { clockTime, drawTable, sats, shorten } from '../terminal/table.ts'
import { many, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import { attachCommand, chatCommand } from './agent-chat.ts'
import { drawAction, drawAgent, drawAgents, drawMessages, drawTick, drawTicks } from './agent-drawing.ts'
import { newCommand } from './agent-new.ts'
import { setCommand, spawnCommand } from './agent-settings.ts'
import { drawManaged } from './managed-drawing.ts'

const LOOK_S = 15

function withName<T>(yargs: Argv<T>) {
  return yargs.positional('name', { type: 'string', demandOption: true, describe: 'Name or npub of the agent' })
}

const list = defineCommand({
  command: 'list',
  describe: 'All agents',
  handler: async (args) => {
    const answer = await callNode(args, agentsRoutes.listAgents, {})
    printAnswer(args, answer, ({ agents, managed }) =>
      agents.length + managed.length === 0
        ? 'No agent yet; make one with: pylon agent spawn, or one in a runtime, to talk to: pylon agent new'
        : drawAgents(agents, managed, Date.now()),
    )
  },
})

const show = defineCommand({
  command: ['show <name>', 'status <name>'],
  describe: 'One agent: state, sats, budget, brain; or phases, runtime and backups',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const managed = await managedNamed(args)
    if (managed === undefined) {
      const answer = await callNode(args, agentsRoutes.getAgent, { name: args.name })
      return printAnswer(args, answer, (agent) => drawAgent(agent, Date.now()))
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

const start = defineCommand({
  command: 'start <name>',
  describe: 'Let a paused agent go on',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const answer = await callNode(args, agentsRoutes.startAgent, { name: args.name })
    printAnswer(args, answer, (agent) => `${agent.name} is ${agent.state}.`)
  },
})

const pause = defineCommand({
  command: 'pause <name>',
  describe: 'No more ticks until it is started; its key and sats stay',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const answer = await callNode(args, agentsRoutes.pauseAgent, { name: args.name })
    printAnswer(args, answer, (agent) => `${agent.name} is ${agent.state}.`)
  },
})

const tick = defineCommand({
  command: 'tick <name>',
  describe: 'Have it observe, think and act once, now',
  builder: (yargs) => withName(yargs),
  handler: async (args) => {
    const answer = await callNode(args, agentsRoutes.tickAgent, { name: args.name })
    if (answer.value.state === 'failed') process.exitCode = 1
    printAnswer(args, answer, drawTick)
  },
})

const act = defineCommand({
  command: 'act <name> <action>',
  describe: 'Have it do one action, by its policy and within its budget: agent act ada "POST: hello"',
  builder: (yargs) =>
    withName(yargs)
      .positional('action', { type: 'string', demandOption: true, describe: 'A line (docs/agents.md), or an action as JSON' })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const answer = await callNode(args, agentsRoutes.actAgent, { name: args.name, action: actionOf(args.action) }, spendingCall(args))
    if (answer.value.state === 'refused' || answer.value.state === 'failed') process.exitCode = 1
    printAnswer(args, answer, drawAction)
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
  builder: (yargs) => withName(yargs).option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (20)' }),
  handler: async (args) => {
    const request = { name: args.name, ...given({ limit: wholeNumberIf(args.limit, '--limit') }) }
    const answer = await callNode(args, agentsRoutes.getInbox, request)
    printAnswer(args, answer, ({ messages }) => (messages.length === 0 ? 'Nobody said anything to it yet.' : drawMessages(messages)))
  },
})

const goals = defineCommand({
  command: 'goals <name> [goals..]',
  describe: 'What it works towards; with GOALS, replaces them',
  builder: (yargs) =>
    withName(yargs)
      .positional('goals', { type: 'string', array: true, describe: 'One argument each' })
      .option('clear', { type: 'boolean', default: false, describe: 'Have no goals' }),
  handler: async (args) => {
    const wanted = many(args.goals).filter((goal) => goal !== '')
    const answer =
      wanted.length > 0 || args.clear
        ? await callNode(args, agentsRoutes.setGoals, { name: args.name, goals: wanted })
        : await callNode(args, agentsRoutes.getGoals, { name: args.name })
    printAnswer(args, answer, ({ goals: known }) =>
      known.length === 0
        ? `No goals; give it one with: pylon agent goals ${args.name} "..."`
        : drawTable(
            [{ title: 'PRIORITY' }, { title: 'STATUS' }, { title: 'DONE', align: 'right' }, { title: 'GOAL' }],
            known.map((goal) => [String(goal.priority), goal.status, `${goal.progress}%`, shorten(goal.description, 100)]),
          ),
    )
  },
})

const memory = defineCommand({
  command: 'memory <name>',
  describe: 'What it remembers, newest first',
  builder: (yargs) => withName(yargs).option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (20)' }),
  handler: async (args) => {
    const request = { name: args.name, ...given({ limit: wholeNumberIf(args.limit, '--limit') }) }
    const answer = await callNode(args, agentsRoutes.getMemory, request)
    printAnswer(args, answer, ({ memories }) =>
      memories.length === 0
        ? 'It remembers nothing yet.'
        : memories.map((one) => `${clockTime(one.created_at)} UTC  ${plain(one.content)}`).join('\n'),
    )
  },
})

const log = defineCommand({
  command: 'log <name>',
  describe: 'Its ticks and actions, with event ids and costs, newest first',
  builder: (yargs) => withName(yargs).option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many ticks (20)' }),
  handler: async (args) => {
    const request = { name: args.name, ...given({ limit: wholeNumberIf(args.limit, '--limit') }) }
    const answer = await callNode(args, agentsRoutes.getLog, request)
    printAnswer(args, answer, ({ ticks }) => (ticks.length === 0 ? 'No tick yet.' : drawTicks(ticks)))
  },
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
    const managed = await managedNamed(args)
    if (managed !== undefined) {
      const ended = await callNode(args, managedRoutes.endManaged, { name: args.name })
      return printAnswer(
        args,
        ended,
        ({ name, runtime_id }) => `${name} is gone${runtime_id === null ? '' : `, and ${runtime_id} with it`}.`,
      )
    }
    const answer = await callNode(args, agentsRoutes.deleteAgent, { name: args.name }, spendingCall(args))
    printAnswer(args, answer, (gone) => `${gone.name} is gone; ${sats(gone.swept_sats)} went to the node wallet.`)
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
  builder: (yargs) =>
    withName(yargs).positional('sats', { type: 'string', demandOption: true }).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = { name: args.name, amount_sats: wholeNumber(args.sats, 'The amount') }
    const answer = await callNode(args, agentsRoutes.fundAgent, request, spendingCall(args))
    printAnswer(args, answer, (done) => `${done.name} got ${sats(done.amount_sats)} and holds ${sats(done.balance_sats)} now.`)
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
