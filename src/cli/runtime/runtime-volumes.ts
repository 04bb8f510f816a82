import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { defineCommand, defineGroup } from '../command.ts'
import { plain, printAnswer } from '../terminal/output.ts'
import { drawTable } from '../terminal/table.ts'
import { type Fields, fieldsOf, idOf, PROVIDERS, runtimeCall, runtimeQuery, textOf, withCall, withTarget } from './runtime-call.ts'

export const snapshot = defineCommand({
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

export const restore = defineCommand({
  command: 'restore <id> [name]',
  describe: 'Put the volume of a runtime back to a snapshot, the newest by default',
  builder: (yargs) => withCall(yargs).positional('id', idOf).positional('name', { type: 'string', describe: 'Snapshot' }),
  handler: async (args) => {
    const answer = await runtimeCall(args, { command: 'restore', runtime_id: args.id, ...given({ snapshot: args.name }) })
    printAnswer(args, answer, ({ payload }) => `Restored ${nameOf(fieldsOf(payload)) || 'the newest snapshot'}.`)
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

export const volumes = defineGroup('volumes', 'Volumes that outlive runtimes', [listVolumes, deleteVolume])
