/** `pylon agent new`: an agent in a runtime, from nothing to a conversation, whoever provides the machine. */
import { randomUUID } from 'node:crypto'
import type { Argv } from 'yargs'
import { DEFAULT_RELAYS } from '../../base/default-relays.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { parseJson } from '../../base/json.ts'
import type { Answer, Input, Output } from '../../control/client.ts'
import { managedRoutes } from '../../control/contract/managed.ts'
import { type ArgsOf, callNode, defineCommand } from '../command.ts'
import { flagOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { plain, printAnswer, warn } from '../terminal/output.ts'
import { anyGiven, envOf, manyIf, one, readTextFile, STDIN, textFrom, wholeNumberIf } from '../terminal/values.ts'
import { interruptible, pause } from '../terminal/waiting.ts'
import { converse } from './conversation.ts'
import { assertFlagsFit, flagsOf, PROVIDER_FLAGS, PROVIDERS, providerIn } from './provider-flags.ts'

type Made = Output<typeof managedRoutes.makeAgent>
type Order = Input<typeof managedRoutes.makeAgent>

const MAKE_TIMEOUT_MS = 900_000
const STEP_WAIT_S = 20
const NOT_YET_MS = 100

/** The options that every provider takes, and of the others those of the provider that is named. */
function withOrder<T>(yargs: Argv<T>) {
  const named = providerIn(process.argv)
  const shown = new Set(flagsOf(named).map(({ name }) => name))
  const common = yargs
    .option('provider', { choices: PROVIDERS, describe: 'Where it runs (local); add --help for what one takes' })
    .option('protocol', { choices: ['pi', 'acp'] as const, default: 'pi' as const, describe: 'How the agent process is spoken to' })
    .option('command', textOption('The agent process, a line for sh (of the class; for pi: pi --mode rpc)'))
    .option('name', textOption('a-z, 0-9, - and _ (chosen by itself); its volume is found again by it'))
    .option('runtime-class', textOption('The class, as pylon runtime offers names it'))
    .option('server', textOption('npub of the node whose machines are meant (this node by default)'))
    .option('max-sats', textOption('The most that a lease may cost, with fees (100)'))
    .option('lease', textOption('Seconds to rent it for (the shortest that the class has)'))
    .option(
      'relay',
      textOption(`Meet it there and nowhere else; may be repeated (those of the node; by default ${DEFAULT_RELAYS.join(' and ')})`),
    )
    .option('env', textOption('NAME=VALUE for the agent; NAME=@FILE keeps it out of ps; may be repeated'))
    .option('keep', flagOption('Leave it running at the end, and for a look where it fails'))
    .option('idempotency-key', idempotencyOption)
  for (const { name, describe } of PROVIDER_FLAGS) common.option(name, { type: 'string', nargs: 1, describe, hidden: !shown.has(name) })
  return common
}

/** Those of providers by their own names. */
type OrderArgs = ArgsOf<typeof withOrder>

/** @throws usage */
export function orderOf(args: OrderArgs): Order {
  const text = (name: string): string | undefined => (args[name] === undefined ? undefined : one(args[name] as string, `--${name}`))
  const number = (name: string): number | undefined => wholeNumberIf(text(name), `--${name}`)
  const request = text('request')
  const provider = args.provider ?? (request === undefined ? 'local' : 'incus')
  assertFlagsFit(provider, args)
  const network = text('network')
  if (network !== undefined && network !== 'none' && network !== 'host') throw new PylonError('usage', '--network is none or host.')
  const microvm = {
    ...{ spawner_url: text('spawner-url'), spawn_variant: text('spawn-variant'), flake_ref: text('flake-ref') },
    ...{ dev_shell: text('dev-shell'), cpu: number('cpu'), memory_mb: number('memory-mb'), ttl_seconds: number('ttl-seconds') },
  }
  return given({
    ...{ provider, protocol: args.protocol, command: args.command, name: args.name, runtime_class: args.runtimeClass },
    ...{ server: args.server, max_sats: wholeNumberIf(args.maxSats, '--max-sats', 0), lease_seconds: wholeNumberIf(args.lease, '--lease') },
    keep: args.keep,
    relays: manyIf(args.relay),
    env: envOf(args.env),
    ...{ image: text('image'), target: text('target') },
    resources: anyGiven({ vcpu_count: number('cpus'), memory_mib: number('memory-mib'), root_disk_gib: number('disk-gib') }),
    microvm: anyGiven(microvm),
    local: network === undefined ? undefined : { network },
    request: request === undefined ? undefined : requestIn(request),
  })
}

function requestIn(source: string): Record<string, unknown> {
  const value = parseJson(source === STDIN ? textFrom(STDIN) : readTextFile(source))
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new PylonError('usage', `--request: ${source === STDIN ? 'standard input' : source} is no JSON object.`)
}

export const newCommand = defineCommand({
  command: 'new',
  describe: 'Start an agent in a runtime and talk to it, end to end encrypted; it is torn down at the end, unless --keep',
  builder: (yargs) => withOrder(yargs),
  handler: async (args) => {
    if (args.protocol === 'acp' && args.command === undefined && args.server === undefined && args.runtimeClass === undefined)
      warn('acp: without --command the class of the node must name an agent; for one of yours: --command "goose acp"')
    const key = spendingCall(args).idempotencyKey ?? randomUUID()
    const made = await make(args, orderOf(args), key)
    const { agent } = made.value
    if (args.json) return printAnswer(args, made, () => '')
    try {
      await converse(args, agent.name, { isNew: true })
    } finally {
      if (args.keep) tellWayBack(agent)
      else await tearDown(args, agent.name)
    }
  },
})

/** Provisions and follows the phases on stderr; Ctrl-C ends what was begun, unless it is to be kept. */
async function make(args: OrderArgs, order: Order, key: string): Promise<Answer<Made>> {
  try {
    return await interruptible(
      () => (args.keep ? `It goes on by itself: pylon agent list; to end it: pylon agent delete NAME` : 'It was given up.'),
      async (signal) => {
        const over = new AbortController()
        const options = { idempotencyKey: key, timeoutMs: MAKE_TIMEOUT_MS, signal }
        const told = tellSteps(args, key, AbortSignal.any([over.signal, signal]))
        try {
          return await callNode(args, managedRoutes.makeAgent, order, options)
        } finally {
          over.abort()
          await told
        }
      },
    )
  } catch (error) {
    if (isPylonError(error, 'cancelled') && !args.keep) await tearDown(args, key)
    throw error
  }
}

/** A line for each step, with its time. */
async function tellSteps(args: OrderArgs, key: string, over: AbortSignal): Promise<void> {
  let after = 0
  const read = async (wait: number, options: { signal?: AbortSignal }) => {
    const input = { name: key, after: String(after), wait: String(wait) }
    const { value } = await callNode(args, managedRoutes.managedSteps, input, options)
    for (const { id, phase, message, after_ms } of value.steps) {
      process.stderr.write(`[${(after_ms / 1000).toFixed(1).padStart(6)} s] ${phase}: ${plain(message)}\n`)
      after = id
    }
    return value
  }
  try {
    while (!over.aborted) {
      const { steps, is_open } = await read(STEP_WAIT_S, { signal: over })
      if (!is_open) break
      if (steps.length === 0) await pause(NOT_YET_MS, over)
    }
  } catch (error) {
    if (!isPylonError(error, 'cancelled')) return
  }
  // What came with the answer, which says more than that nothing more could be heard.
  await read(0, {}).catch(() => undefined)
}

function tellWayBack({ name, runtime_id, server, own_node }: Made['agent']): void {
  const option = own_node ? '' : ` --server ${server}`
  process.stderr.write(
    `${name} goes on in ${runtime_id}. Back to it: pylon agent attach ${name}; end it: pylon agent delete ${name}; its log: pylon runtime logs ${runtime_id}${option}\n`,
  )
}

async function tearDown(args: OrderArgs, name: string): Promise<void> {
  try {
    const { value } = await callNode(args, managedRoutes.endManaged, { name }, { timeoutMs: MAKE_TIMEOUT_MS })
    process.stderr.write(`${value.name} was ended: its runtime is gone.\n`)
  } catch (error) {
    if (isPylonError(error, 'agent_not_found')) return
    process.exitCode = 1
    warn(`the agent could not be ended: ${messageOf(error)} To do it: pylon agent delete ${name}`)
  }
}
