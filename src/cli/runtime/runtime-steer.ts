/** `pylon runtime` once there is one: look, prompt, execute, collect, prolong, recover, end. */
import { writeFileSync } from 'node:fs'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Answer } from '../../control/client.ts'
import { defineCommand } from '../command.ts'
import { plain, printAnswer, printRaw } from '../terminal/output.ts'
import { drawTable } from '../terminal/table.ts'
import { textFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import {
  drawRuntime,
  type Fields,
  fieldsOf,
  idOf,
  PROTOCOLS,
  PROVIDERS,
  type RuntimeAnswer,
  runtimeCall,
  runtimeQuery,
  shellOf,
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
      .option('class', { type: 'string', nargs: 1, describe: 'Only those of this class' })
      .option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many' }),
  handler: async (args) => {
    const filter = given({
      provider: args.provider,
      protocol: args.protocol,
      lifecycle_phase: args.phase,
      runtime_class: args.class,
      limit: wholeNumberIf(args.limit, '--limit'),
    })
    const answer = await runtimeQuery(args, { command: 'list_runtimes', ...filter })
    printAnswer(args, answer, ({ payload }) => {
      const runtimes = fieldsOf(payload)['runtimes']
      if (!Array.isArray(runtimes) || runtimes.length === 0) return 'No runtime of yours there; try: pylon runtime run -- uname -a'
      return drawTable(
        [{ title: 'RUNTIME' }, { title: 'PROVIDER' }, { title: 'CLASS' }, { title: 'PHASE' }, { title: 'STATE' }],
        runtimes.map((entry) => {
          const runtime = fieldsOf(entry)
          return [
            ...['runtime_id', 'provider', 'runtime_class', 'lifecycle_phase'].map((name) => textOf(runtime[name])),
            textOf(fieldsOf(runtime['metadata'])['state']),
          ]
        }),
      )
    })
  },
})

const get = defineCommand({
  command: 'get <id>',
  describe: 'One runtime: phase, lease, backups',
  builder: (yargs) => withTarget(yargs).positional('id', idOf),
  handler: async (args) => {
    const answer = await runtimeQuery(args, { command: 'get_runtime', runtime_id: args.id })
    printAnswer(args, answer, ({ runtime }) => drawRuntime(runtime))
  },
})

const teardown = defineCommand({
  command: 'teardown <id>',
  describe: 'End a runtime; nothing of it stays, except its volume with --keep-volume',
  builder: (yargs) =>
    withCall(yargs).positional('id', idOf).option('keep-volume', { type: 'boolean', default: false, describe: 'Keep its volume' }),
  handler: async (args) => {
    const keep = args.keepVolume ? { keep_volume: true } : {}
    const answer = await runtimeCall(args, { command: 'teardown', runtime_id: args.id, ...keep })
    printAnswer(args, answer, ({ payload }) => {
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
  handler: async (args) => {
    const answer = await runtimeCall(args, { command: 'recover', runtime_id: args.id })
    printAnswer(args, answer, ({ runtime }) => drawRuntime(runtime))
  },
})

const prompt = defineCommand({
  command: 'prompt <id> <message>',
  describe: 'Say something to the agent in a runtime: TEXT, @FILE or - for standard input',
  builder: (yargs) =>
    withCall(yargs)
      .positional('id', idOf)
      .positional('message', { type: 'string', demandOption: true })
      .option('protocol', { choices: PROTOCOLS, describe: 'That of the runtime by default' })
      .option('session', { type: 'string', nargs: 1, describe: 'The conversation (default)' })
      .option('prompt-timeout', { type: 'string', nargs: 1, describe: 'Seconds that the agent may take (120)' }),
  handler: async (args) => {
    const answer = await runtimeCall(args, {
      command: 'prompt',
      runtime_id: args.id,
      message: textFrom(args.message),
      ...given({ protocol: args.protocol, session_id: args.session, timeout_s: wholeNumberIf(args.promptTimeout, '--prompt-timeout') }),
    })
    printAnswer(args, answer, ({ payload }) => plain(textOf(fieldsOf(payload)['reply'])))
  },
})

const exec = defineCommand({
  command: 'exec <id> [shell..]',
  describe: 'Run a command inside a runtime: runtime exec ID -- CMD',
  builder: (yargs) =>
    withCall(yargs)
      .positional('id', idOf)
      .positional('shell', { type: 'string', array: true, describe: 'The command; one argument is a shell script' })
      .option('user', { type: 'string', nargs: 1, describe: 'As whom' })
      .option('exec-timeout', { type: 'string', nargs: 1, describe: 'Seconds that it may take (60)' }),
  handler: async (args) => {
    const words = wordsOf(args)
    if (words.length === 0) throw new PylonError('usage', 'Name a command: pylon runtime exec ID -- CMD')
    const answer = await runtimeCall(args, {
      command: 'exec',
      runtime_id: args.id,
      shell: shellOf(words),
      ...given({ user: args.user, timeout_s: wholeNumberIf(args.execTimeout, '--exec-timeout') }),
    })
    printOutcome(args, answer)
  },
})

/** Output and exit code of what ran inside become ours. */
function printOutcome(args: { json: boolean }, answer: Answer<RuntimeAnswer>): void {
  const result = fieldsOf(answer.value.payload)
  process.exitCode = typeof result['exit_code'] === 'number' ? result['exit_code'] & 0xff : 1
  if (args.json) printAnswer(args, answer, () => '')
  else {
    printRaw(process.stdout, textOf(result['stdout']))
    printRaw(process.stderr, textOf(result['stderr']))
  }
}

const logs = defineCommand({
  command: 'logs <id>',
  describe: 'The end of the log of a runtime',
  builder: (yargs) =>
    withTarget(yargs).positional('id', idOf).option('bytes', { type: 'string', nargs: 1, describe: 'How much of it (16384)' }),
  handler: async (args) => {
    const tail = given({ tail_bytes: wholeNumberIf(args.bytes, '--bytes') })
    const answer = await runtimeQuery(args, { command: 'logs', runtime_id: args.id, ...tail })
    printAnswer(args, answer, ({ payload }) => plain(textOf(fieldsOf(payload)['log'])))
  },
})

const collect = defineCommand({
  command: 'collect <id>',
  describe: 'What a run left: outputs and artifacts, all names or one of them',
  builder: (yargs) =>
    withTarget(yargs)
      .positional('id', idOf)
      .option('output', { type: 'string', nargs: 1, describe: 'stdout, stderr, log, events, status, result or artifact:PATH' })
      .option('to', { type: 'string', nargs: 1, describe: 'Write it to this file (standard output by default)' }),
  handler: async (args) => {
    if (args.output === undefined) {
      const answer = await runtimeQuery(args, { command: 'collect', runtime_id: args.id })
      printAnswer(args, answer, ({ payload }) => drawOutputs(fieldsOf(payload)))
      return
    }
    const { data, answer } = await readAll(args, args.id, args.output)
    if (args.to !== undefined) writeFileSync(args.to, data)
    if (args.json) printAnswer(args, answer, () => '')
    else if (args.to === undefined) printRaw(process.stdout, data)
  },
})

/** Page after page. */
async function readAll(args: Parameters<typeof runtimeQuery>[0], id: string, output: string) {
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

function drawOutputs(payload: Fields): string {
  const outputs = payload['outputs']
  if (!Array.isArray(outputs) || outputs.length === 0) return 'Nothing was collected.'
  return drawTable(
    [{ title: 'OUTPUT' }, { title: 'BYTES', align: 'right' }],
    outputs.map((entry) => [textOf(fieldsOf(entry)['name']), String(fieldsOf(entry)['bytes'] ?? '')]),
  )
}

const extend = defineCommand({
  command: 'extend <id> <seconds>',
  describe: 'Prolong the lease of a runtime; pays within --max-sats',
  builder: (yargs) => withPrice(yargs).positional('id', idOf).positional('seconds', { type: 'string', demandOption: true }),
  handler: async (args) => {
    const seconds = wholeNumber(args.seconds, 'The time')
    const answer = await runtimeCall(args, { command: 'extend_lease', runtime_id: args.id, lease_seconds: seconds })
    printAnswer(args, answer, ({ runtime }) => drawRuntime(runtime))
  },
})

export const steerCommands = [list, get, prompt, exec, logs, collect, snapshot, restore, extend, recover, teardown, volumes]
