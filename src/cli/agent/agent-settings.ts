/** The options by which `pylon agent spawn` and `pylon agent set` describe an agent, and the request they make. */
import type { Argv } from 'yargs'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Input } from '../../control/client.ts'
import { agentsRoutes } from '../../control/contract/agents.ts'
import { type ArgsOf, ask, defineCommand } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { anyGiven, manyIf, readStdin, readTextFile, STDIN, wholeNumberIf } from '../terminal/values.ts'
import { drawAgent } from './agent-drawing.ts'

type Spawn = Input<typeof agentsRoutes.spawnAgent>
type Settings = Omit<Spawn, 'name' | 'import' | 'bunker'>
type Brain = NonNullable<Settings['brain']>

function withSettings<T>(yargs: Argv<T>) {
  return yargs
    .option('about', textOption('Who it is, for its profile and its brain'))
    .option('picture', textOption("Its profile's picture, a URL ('' takes it out)"))
    .option('nip05', textOption("Its profile's name@domain ('' takes it out)"))
    .option('lud16', textOption("Where zaps go, name@domain, instead of its own address ('' takes it out)"))
    .option('brain', {
      choices: ['script', 'exec', 'openai', 'acp'] as const,
      describe: 'What thinks: rules, a command of yours, a model, or an agent that speaks ACP (script)',
    })
    .option('script', textOption('script: a rules FILE; built-in rules by default'))
    .option('zap-sats', textOption('script: what the built-in rules zap a mention with (0)'))
    .option(
      'command',
      textOption('exec: a line for sh; reads the observation on stdin, writes actions. acp: what starts the agent, as `goose acp`'),
    )
    .option('hands', { type: 'boolean', describe: 'acp: give it the tools of this agent (yes; --no-hands)' })
    .option('model', textOption('openai: the model'))
    .option('base-url', textOption('openai: the server; local ones are found by themselves'))
    .option('api-key-file', textOption('openai: the file that holds the key'))
    .option('max-tokens', textOption('openai: the most that one thought may take, reasoning included (2000)'))
    .option('heartbeat', textOption('Seconds between ticks (900)'))
    .option('relay', textOption("A relay of its own; may be repeated (the node's by default)"))
    .option('autonomy', {
      choices: ['bounded', 'autonomous', 'supervised'] as const,
      describe: 'bounded: budgets and allowlist; autonomous: budgets; supervised: each action waits for your approval (bounded)',
    })
    .option('allow', textOption('bounded: an npub that it may deal with unasked; may be repeated'))
    .option('dm-scheme', { choices: ['auto', 'nip17', 'nip04'] as const, describe: 'How it sends direct messages' })
    .option('per-tx', textOption('The most sats that one payment may take'))
    .option('per-tick', textOption('The most sats that one tick may take'))
    .option('per-hour', textOption('The most sats that any hour may take (0: no limit of its own)'))
    .option('per-day', textOption('The most sats that any day may take'))
    .option('per-counterparty', textOption('The most sats that one counterparty may get in a day (0: no limit of its own)'))
    .option(
      'approve-above',
      textOption('What passes so many sats, with what was spent in the last hour, waits for your approval (0: nothing)'),
    )
    .option('rail', textOption('By which it may pay: ecash, mint, nwc; may be repeated (any)'))
    .option('deny', textOption("An npub, address or host that it never pays; may be repeated ('': nobody)"))
    .option('tick-fee', textOption('Sats that each tick moves from its wallet to the node, as rent (0)'))
}

type SettingsArgs = ArgsOf<typeof withSettings>

/** A list that may be emptied, by ''. */
const namedIn = (value: string | undefined): string[] | undefined => manyIf(value)?.filter((name) => name !== '')

function settingsOf(args: SettingsArgs): Settings {
  return given({
    about: args.about,
    picture: args.picture,
    nip05: args.nip05,
    lud16: args.lud16,
    brain: brainOf(args),
    heartbeat_s: wholeNumberIf(args.heartbeat, '--heartbeat'),
    relays: manyIf(args.relay),
    autonomy: args.autonomy,
    allow: manyIf(args.allow),
    dm_scheme: args.dmScheme,
    budget: anyGiven({
      per_tx_sats: wholeNumberIf(args.perTx, '--per-tx', 0),
      per_tick_sats: wholeNumberIf(args.perTick, '--per-tick', 0),
      per_day_sats: wholeNumberIf(args.perDay, '--per-day', 0),
      per_hour_sats: wholeNumberIf(args.perHour, '--per-hour', 0),
      per_counterparty_sats: wholeNumberIf(args.perCounterparty, '--per-counterparty', 0),
      approve_above_sats: wholeNumberIf(args.approveAbove, '--approve-above', 0),
      rails: namedIn(args.rail) as NonNullable<Settings['budget']>['rails'],
      deny: namedIn(args.deny),
    }),
    tick_fee_sats: wholeNumberIf(args.tickFee, '--tick-fee', 0),
  })
}

/** The brain that the options speak of; undefined where none does. @throws usage when they speak of different ones */
function brainOf(args: SettingsArgs): Brain | undefined {
  const parts = {
    script: given({
      rules: args.script === undefined ? undefined : readTextFile(args.script),
      zap_sats: wholeNumberIf(args.zapSats, '--zap-sats', 0),
    }),
    exec: given({ command: args.brain === 'acp' ? undefined : args.command }),
    acp: given({ command: args.brain === 'acp' ? args.command : undefined, hands: args.hands }),
    openai: given({
      model: args.model,
      base_url: args.baseUrl,
      api_key_file: args.apiKeyFile,
      max_tokens: wholeNumberIf(args.maxTokens, '--max-tokens'),
    }),
  }
  const named = (['script', 'exec', 'openai', 'acp'] as const).filter((type) => Object.keys(parts[type]).length > 0)
  const type = args.brain ?? named[0]
  if (type === undefined) return undefined
  const foreign = named.find((other) => other !== type)
  if (foreign !== undefined) throw new PylonError('usage', `The brain is ${type}, but an option of ${foreign} brains is given too.`)
  return { type, ...parts[type] }
}

export const spawnCommand = defineCommand({
  command: 'spawn',
  describe: 'Make an agent with a key, a wallet and a brain of its own',
  builder: (yargs) =>
    withSettings(yargs)
      .option('name', textOption('a-z, 0-9, - and _ (chosen by itself)'))
      .option('import', flagOption('Take its key from standard input: an nsec or an export'))
      .option('bunker', textOption('Its key stays at a bunker (NIP-46): its bunker:// string; - reads it from standard input')),
  handler: (args) => {
    if (args.import && args.bunker !== undefined) throw new PylonError('usage', 'Its key comes either by --import or by --bunker.')
    const bunker = args.bunker === STDIN ? readStdin().trim() : args.bunker
    const imported = args.import ? readStdin().trim() : undefined
    const request: Spawn = { ...settingsOf(args), ...given({ name: args.name, import: imported, bunker }) }
    const howOn = (name: string) => `Give it sats with: pylon agent fund ${name} 1000\nWatch it with:     pylon agent log ${name}`
    return ask(args, agentsRoutes.spawnAgent, request, (agent) => `${drawAgent(agent, Date.now())}\n\n${howOn(agent.name)}`)
  },
})

export const setCommand = defineCommand({
  command: 'set <name>',
  describe: 'Change settings; what is not given stays',
  builder: (yargs) => withSettings(yargs).positional('name', argument()).option('rename', textOption('A new name')),
  handler: async (args) => {
    const settings = { ...settingsOf(args), ...given({ new_name: args.rename }) }
    if (Object.keys(settings).length === 0) throw new PylonError('usage', 'Nothing to set: pylon agent set --help lists the settings.')
    await ask(args, agentsRoutes.setAgent, { name: args.name, ...settings }, (agent) => drawAgent(agent, Date.now()))
  },
})
