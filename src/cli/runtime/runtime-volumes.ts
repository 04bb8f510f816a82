import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { PROVIDERS } from '../agent/provider-flags.ts'
import { defineCommand, defineGroup } from '../command.ts'
import { argument, flagOption } from '../options.ts'
import { plain } from '../terminal/output.ts'
import { drawList, drawTable } from '../terminal/table.ts'
import {
  command,
  fieldsOf,
  idOf,
  listIn,
  query,
  type RuntimeAnswer,
  runtimeQuery,
  type Target,
  textOf,
  withCall,
  withTarget,
} from './runtime-call.ts'

export const snapshot = defineCommand({
  command: 'snapshot <id> [name]',
  describe: 'Take a snapshot of the volume of a runtime; --list shows those there are',
  builder: (yargs) =>
    withCall(yargs)
      .positional('id', idOf)
      .positional('name', { type: 'string', describe: 'Its name (one by time)' })
      .option('list', flagOption('Show the snapshots')),
  handler: async (args) => {
    if (args.list) return await query(args, { command: 'list_snapshots', runtime_id: args.id }, drawSnapshots)
    const taken = { command: 'snapshot', runtime_id: args.id, ...given({ snapshot: args.name }) }
    return await command(args, taken, (answer) => `Taken: ${nameIn(answer) || 'yes'}`)
  },
})

function drawSnapshots({ payload }: RuntimeAnswer): string {
  return drawList(listIn(payload, 'snapshots'), 'There is no snapshot yet.', ['SNAPSHOT', 'TAKEN'], ({ name, created_at }) => [
    textOf(name),
    textOf(created_at),
  ])
}

const nameIn = ({ payload }: RuntimeAnswer): string => textOf(fieldsOf(payload)['snapshot'])

export const restore = defineCommand({
  command: 'restore <id> [name]',
  describe: 'Put the volume of a runtime back to a snapshot, the newest by default',
  builder: (yargs) => withCall(yargs).positional('id', idOf).positional('name', { type: 'string', describe: 'Snapshot' }),
  handler: (args) => {
    const fields = { command: 'restore', runtime_id: args.id, ...given({ snapshot: args.name }) }
    return command(args, fields, (answer) => `Restored ${nameIn(answer) || 'the newest snapshot'}.`)
  },
})

const listVolumes = defineCommand({
  command: 'list',
  describe: 'Your volumes on a node: those that runtimes have, and those that were kept',
  builder: (yargs) => withTarget(yargs).option('provider', { choices: PROVIDERS, describe: 'Only those on this substrate' }),
  handler: (args) => query(args, { command: 'list_volumes', ...given({ provider: args.provider }) }, drawVolumes),
})

function drawVolumes({ payload }: RuntimeAnswer): string {
  const silent = listIn(payload, 'problems')
  const lines = silent.map(({ provider, reason }) => `Not known: those of ${textOf(provider)} (${plain(textOf(reason))})`)
  const rows = listIn(payload, 'volumes')
  if (rows.length === 0) return [...lines, 'There is no volume of yours; --name with --keep leaves one.'].join('\n')
  const table = drawTable(
    ['VOLUME', 'PROVIDER', 'NAME', 'RUNTIME', 'IN USE'],
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
      .positional('volume', argument('As the list names it'))
      .option('provider', { choices: PROVIDERS, describe: 'The substrate that it is on (found by itself)' }),
  handler: async (args) => {
    const provider = args.provider ?? (await providerOfVolume(args, args.volume))
    await command(args, { command: 'delete_volume', provider, volume: args.volume }, () => `${args.volume} is deleted.`)
  },
})

async function providerOfVolume(args: Target, volume: string): Promise<string> {
  const { value } = await runtimeQuery(args, { command: 'list_volumes' })
  const found = listIn(value.payload, 'volumes').find((row) => row['volume'] === volume)
  if (found !== undefined) return textOf(found['provider'])
  throw new PylonError('invalid_request', `You have no volume ${volume} there; pylon runtime volumes list shows yours.`)
}

export const volumes = defineGroup('volumes', 'Volumes that outlive runtimes', [listVolumes, deleteVolume])
