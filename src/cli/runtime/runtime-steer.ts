/** `pylon runtime` once there is one: look, prompt, execute, collect, snapshot, recover, end. */
import { writeFileSync } from 'node:fs'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Answer } from '../../control/client.ts'
import { defineCommand, defineGroup } from '../command.ts'
import { plain, printAnswer, printRaw } from '../terminal/output.ts'
import { drawTable } from '../terminal/table.ts'
import { textFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import {
  drawRuntime,
  type Fields,
  fieldsOf,
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

const idOf = { type: 'string', demandOption: true, describe: 'Runtime id' } as const

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

const snapshot = defineCommand({
  command: 'snapshot <id> [name]',
  describe: 'Take a snapshot of the volume of a runtime; --list shows those there are',
  builder: (yargs) =>
    withCall(yargs)
      .positional('id', idOf)
      .positional('name', { type: 'string', describe: 'Its name (one by time)' })
      .option('list', { type: 'boolean', default: false, describe: 'Show the snapshots' }),
  handler: async (args) => {
    if (args.list) {
      const answer = await runtimeQuery(args, { command: 'list_snapshots', runtime_id: args.id })
      printAnswer(args, answer, ({ payload }) => drawSnapshots(fieldsOf(payload)))
      return
    }
    const answer = await runtimeCall(args, { command: 'snapshot', runtime_id: args.id, ...given({ snapshot: args.name }) })
    printAnswer(args, answer, ({ payload }) => `Taken: ${nameOf(fieldsOf(payload)) || 'yes'}`)
  },
})

function drawSnapshots(payload: Fields): string {
  const snapshots = payload['snapshots']
  if (!Array.isArray(snapshots) || snapshots.length === 0) return 'There is no snapshot yet.'
  return drawTable(
    [{ title: 'SNAPSHOT' }, { title: 'TAKEN' }],
    snapshots.map((entry) => [textOf(fieldsOf(entry)['name']), textOf(fieldsOf(entry)['created_at'])]),
  )
}

function nameOf(payload: Fields): string {
  return textOf(payload['snapshot'])
}

const restore = defineCommand({
  command: 'restore <id> [name]',
  describe: 'Put the volume of a runtime back to a snapshot, the newest by default',
  builder: (yargs) => withCall(yargs).positional('id', idOf).positional('name', { type: 'string', describe: 'Snapshot' }),
  handler: async (args) => {
    const answer = await runtimeCall(args, { command: 'restore', runtime_id: args.id, ...given({ snapshot: args.name }) })
    printAnswer(args, answer, ({ payload }) => `Restored ${nameOf(fieldsOf(payload)) || 'the newest snapshot'}.`)
  },
})

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

const listVolumes = defineCommand({
  command: 'list',
  describe: 'Your volumes on a node: those that runtimes have, and those that were kept',
  builder: (yargs) => withTarget(yargs).option('provider', { choices: PROVIDERS, describe: 'Only those on this substrate' }),
  handler: async (args) => {
    const answer = await runtimeQuery(args, { command: 'list_volumes', ...given({ provider: args.provider }) })
    printAnswer(args, answer, ({ payload }) => drawVolumes(fieldsOf(payload)))
  },
})

function drawVolumes({ volumes, problems }: Fields): string {
  const rows = (Array.isArray(volumes) ? volumes : []).map(fieldsOf)
  const silent = (Array.isArray(problems) ? problems : []).map(fieldsOf)
  const lines = silent.map((problem) => `Not known: those of ${textOf(problem['provider'])} (${plain(textOf(problem['reason']))})`)
  if (rows.length === 0) return [...lines, 'There is no volume of yours; --name with --keep leaves one.'].join('\n')
  const table = drawTable(
    [{ title: 'VOLUME' }, { title: 'PROVIDER' }, { title: 'NAME' }, { title: 'RUNTIME' }, { title: 'IN USE' }],
    rows.map((row) => [
      textOf(row['volume']),
      textOf(row['provider']),
      textOf(row['name']) || '-',
      textOf(row['runtime_id']) || '-',
      row['in_use'] === true ? 'yes' : 'no',
    ]),
  )
  return [table, ...lines].join('\n')
}

const deleteVolume = defineCommand({
  command: 'delete <volume>',
  describe: 'Delete a volume that no runtime has, with its snapshots',
  builder: (yargs) =>
    withCall(yargs)
      .positional('volume', { type: 'string', demandOption: true, describe: 'As the list names it' })
      .option('provider', { choices: PROVIDERS, describe: 'The substrate that it is on (found by itself)' }),
  handler: async (args) => {
    const provider = args.provider ?? (await providerOfVolume(args, args.volume))
    const answer = await runtimeCall(args, { command: 'delete_volume', provider, volume: args.volume })
    printAnswer(args, answer, () => `${args.volume} is deleted.`)
  },
})

async function providerOfVolume(args: Parameters<typeof runtimeQuery>[0], volume: string): Promise<string> {
  const { value } = await runtimeQuery(args, { command: 'list_volumes' })
  const { volumes } = fieldsOf(value.payload)
  const found = (Array.isArray(volumes) ? volumes : []).map(fieldsOf).find((row) => row['volume'] === volume)
  if (found !== undefined) return textOf(found['provider'])
  throw new PylonError('invalid_request', `You have no volume ${volume} there; pylon runtime volumes list shows yours.`)
}

const volumes = defineGroup('volumes', 'Volumes that outlive runtimes', [listVolumes, deleteVolume])

export const steerCommands = [list, get, prompt, exec, logs, collect, snapshot, restore, extend, recover, teardown, volumes]
