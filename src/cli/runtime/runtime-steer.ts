/** `pylon runtime` once there is one: look, prompt, execute, collect, prolong, recover, end. */
import { writeFileSync } from 'node:fs'
import { given } from '../../base/given.ts'
import { PROVIDERS } from '../agent/provider-flags.ts'
import { defineCommand } from '../command.ts'
import { argument, flagOption, limitOf, limitOption, textOption } from '../options.ts'
import { plain, printAnswer, printRaw } from '../terminal/output.ts'
import { drawList, right } from '../terminal/table.ts'
import { textFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import {
  command,
  drawRuntime,
  fieldsOf,
  idOf,
  listIn,
  PROTOCOLS,
  printOutcome,
  query,
  type RuntimeAnswer,
  runtimeCall,
  runtimeQuery,
  shellOf,
  shellOption,
  type Target,
  textOf,
  withCall,
  withPrice,
  withTarget,
  wordsOf,
} from './runtime-call.ts'
import { restore, snapshot, volumes } from './runtime-volumes.ts'

const list = defineCommand({
  command: 'list',
  describe: 'Your runtimes on a node',
  builder: (yargs) =>
    withTarget(yargs)
      .option('provider', { choices: PROVIDERS, describe: 'Only those on this substrate' })
      .option('protocol', { choices: PROTOCOLS, describe: 'Only those that speak it' })
      .option('phase', {
        choices: ['queued', 'provisioning', 'ready', 'failed', 'teardown'] as const,
        describe: 'Only those in this phase',
      })
      .option('class', textOption('Only those of this class'))
      .option('limit', limitOption('How many')),
  handler: async (args) => {
    const { provider, protocol } = args
    const filter = given({ provider, protocol, lifecycle_phase: args.phase, runtime_class: args.class, ...limitOf(args) })
    await query(args, { command: 'list_runtimes', ...filter }, ({ payload }) =>
      drawList(listIn(payload, 'runtimes'), NO_RUNTIME, ['RUNTIME', 'PROVIDER', 'CLASS', 'PHASE', 'STATE'], (runtime) => [
        ...['runtime_id', 'provider', 'runtime_class', 'lifecycle_phase'].map((name) => textOf(runtime[name])),
        textOf(fieldsOf(runtime['metadata'])['state']),
      ]),
    )
  },
})

const NO_RUNTIME = 'No runtime of yours there; try: pylon runtime run -- uname -a'

const drawAnswered = ({ runtime }: RuntimeAnswer): string => drawRuntime(runtime)

const get = defineCommand({
  command: 'get <id>',
  describe: 'One runtime: phase, lease, backups',
  builder: (yargs) => withTarget(yargs).positional('id', idOf),
  handler: (args) => query(args, { command: 'get_runtime', runtime_id: args.id }, drawAnswered),
})

const teardown = defineCommand({
  command: 'teardown <id>',
  describe: 'End a runtime; nothing of it stays, except its volume with --keep-volume',
  builder: (yargs) => withCall(yargs).positional('id', idOf).option('keep-volume', flagOption('Keep its volume')),
  handler: (args) => {
    const keep = args.keepVolume ? { keep_volume: true } : {}
    return command(args, { command: 'teardown', runtime_id: args.id, ...keep }, ({ payload }) => {
      const { teardown: outcome, hint } = fieldsOf(payload)
      return outcome === 'manual'
        ? `${args.id} has to be ended by hand: ${plain(textOf(hint))}`
        : `${args.id} is ${textOf(outcome) || 'torn down'}.`
    })
  },
})

const recover = defineCommand({
  command: 'recover <id>',
  describe: 'Restart a runtime with its volume',
  builder: (yargs) => withCall(yargs).positional('id', idOf),
  handler: (args) => command(args, { command: 'recover', runtime_id: args.id }, drawAnswered),
})

const prompt = defineCommand({
  command: 'prompt <id> <message>',
  describe: 'Say something to the agent in a runtime: TEXT, @FILE or - for standard input',
  builder: (yargs) =>
    withCall(yargs)
      .positional('id', idOf)
      .positional('message', argument())
      .option('protocol', { choices: PROTOCOLS, describe: 'That of the runtime by default' })
      .option('session', textOption('The conversation (default)'))
      .option('prompt-timeout', textOption('Seconds that the agent may take (120)')),
  handler: (args) => {
    const timeout_s = wholeNumberIf(args.promptTimeout, '--prompt-timeout')
    const more = given({ protocol: args.protocol, session_id: args.session, timeout_s })
    const fields = { command: 'prompt', runtime_id: args.id, message: textFrom(args.message), ...more }
    return command(args, fields, ({ payload }) => plain(textOf(fieldsOf(payload)['reply'])))
  },
})

const exec = defineCommand({
  command: 'exec <id> [shell..]',
  describe: 'Run a command inside a runtime: runtime exec ID -- CMD',
  builder: (yargs) =>
    withCall(yargs)
      .positional('id', idOf)
      .positional('shell', shellOption)
      .option('user', textOption('As whom'))
      .option('exec-timeout', textOption('Seconds that it may take (60)')),
  handler: async (args) => {
    const shell = shellOf(wordsOf(args, 'exec ID -- CMD'))
    const more = given({ user: args.user, timeout_s: wholeNumberIf(args.execTimeout, '--exec-timeout') })
    printOutcome(args, await runtimeCall(args, { command: 'exec', runtime_id: args.id, shell, ...more }))
  },
})

const logs = defineCommand({
  command: 'logs <id>',
  describe: 'The end of the log of a runtime',
  builder: (yargs) => withTarget(yargs).positional('id', idOf).option('bytes', textOption('How much of it (16384)')),
  handler: (args) => {
    const tail = given({ tail_bytes: wholeNumberIf(args.bytes, '--bytes') })
    return query(args, { command: 'logs', runtime_id: args.id, ...tail }, ({ payload }) => plain(textOf(fieldsOf(payload)['log'])))
  },
})

const collect = defineCommand({
  command: 'collect <id>',
  describe: 'What a run left: outputs and artifacts, all names or one of them',
  builder: (yargs) =>
    withTarget(yargs)
      .positional('id', idOf)
      .option('output', textOption('stdout, stderr, log, events, status, result or artifact:PATH'))
      .option('to', textOption('Write it to this file (standard output by default)')),
  handler: async (args) => {
    if (args.output === undefined) return await query(args, { command: 'collect', runtime_id: args.id }, drawOutputs)
    const { data, answer } = await readAll(args, args.id, args.output)
    if (args.to !== undefined) writeFileSync(args.to, data)
    if (args.json) printAnswer(args, answer, () => '')
    else if (args.to === undefined) printRaw(process.stdout, data)
  },
})

/** Page after page. */
async function readAll(args: Target, id: string, output: string) {
  const pages: Buffer[] = []
  for (let offset = 0; ; ) {
    const answer = await runtimeQuery(args, { command: 'collect', runtime_id: id, output, offset })
    const payload = fieldsOf(answer.value.payload)
    const page = Buffer.from(textOf(payload['data_base64']), 'base64')
    pages.push(page)
    offset += page.length
    const total = payload['total_bytes']
    if (page.length === 0 || typeof total !== 'number' || offset >= total) return { data: Buffer.concat(pages), answer }
  }
}

function drawOutputs({ payload }: RuntimeAnswer): string {
  return drawList(listIn(payload, 'outputs'), 'Nothing was collected.', ['OUTPUT', right('BYTES')], ({ name, bytes }) => [
    textOf(name),
    String(bytes ?? ''),
  ])
}

const extend = defineCommand({
  command: 'extend <id> <seconds>',
  describe: 'Prolong the lease of a runtime; pays within --max-sats',
  builder: (yargs) => withPrice(yargs).positional('id', idOf).positional('seconds', argument()),
  handler: (args) => {
    const lease_seconds = wholeNumber(args.seconds, 'The time')
    return command(args, { command: 'extend_lease', runtime_id: args.id, lease_seconds }, drawAnswered)
  },
})

export const steerCommands = [list, get, prompt, exec, logs, collect, snapshot, restore, extend, recover, teardown, volumes]
