/** `pylon bunker`: lets programs elsewhere sign with a key of this home, which stays here (NIP-46). */
import type { Argv } from 'yargs'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { bunkerRoutes } from '../../control/contract/bunker.ts'
import { type ArgsOf, ask, callNode, defineCommand, defineGroup, type GlobalOptions } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer, warn } from '../terminal/output.ts'
import { printQr } from '../terminal/qr.ts'
import { clockTime, drawFields, drawList, shorten } from '../terminal/table.ts'
import { afterLength, manyIf, namesIf, one, textFrom, wholeNumber } from '../terminal/values.ts'

type Connection = Output<typeof bunkerRoutes.getBunkerConnection>['connection']

const addGrantFlags = (yargs: Argv<GlobalOptions>) =>
  yargs
    .option('agent', textOption('The agent whose key signs'))
    .option('node', flagOption("The node's own key instead"))
    .option('kinds', textOption('What may be signed, as 1,7 (all but profile, deletions, authentication, money and commands)'))
    .option('methods', textOption('What else it may do, as sign_event,nip44_encrypt,nip44_decrypt (sign_event)'))
    .option('expires', textOption('After so long it ends by itself, as 30d, 12h or 45m'))
    .option('name', textOption('What you call it'))
    .option('idempotency-key', idempotencyOption)

function orderOf(args: ArgsOf<typeof addGrantFlags>) {
  if ((args.agent === undefined) === !args.node)
    throw new PylonError('usage', 'Name the key: --agent NAME, or --node for that of the node.')
  return {
    signs_for: args.agent === undefined ? 'node' : one(args.agent, '--agent'),
    ...given({
      name: args.name,
      kinds: namesIf(args.kinds)?.map((kind) => wholeNumber(kind, '--kinds', 0, 65_535)),
      methods: namesIf(args.methods),
      expires_at: afterLength(args.expires, '--expires'),
    }),
  }
}

const create = defineCommand({
  command: 'create',
  describe: 'Let a program elsewhere sign: prints the bunker:// string that it connects by, good once',
  builder: (yargs) => addGrantFlags(yargs).option('relay', textOption('Where it is reached; may be repeated (the relays of the node)')),
  handler: async (args) => {
    const request = { ...orderOf(args), ...given({ relays: manyIf(args.relay) }) }
    const answer = await callNode(args, bunkerRoutes.createBunkerConnection, request, spendingCall(args))
    if (!args.json) warn('whoever uses this string first, within a day, can sign as that key; it is good once')
    printAnswer(args, answer, ({ url }) => url)
    printQr(args, answer.value.url)
  },
})

const connect = defineCommand({
  command: 'connect <string>',
  describe: 'Let a program sign that shows a nostrconnect:// string (- reads it from standard input)',
  builder: (yargs) => addGrantFlags(yargs).positional('string', argument()),
  handler: (args) =>
    ask(
      args,
      bunkerRoutes.answerBunkerClient,
      { ...orderOf(args), uri: textFrom(one(args.string, 'The string')).trim() },
      ({ connection }) => fields(connection),
      spendingCall(args),
    ),
})

const list = defineCommand({
  command: 'list',
  describe: 'Programs elsewhere that may sign',
  handler: (args) =>
    ask(args, bunkerRoutes.listBunkerConnections, {}, ({ connections }) =>
      drawList(
        connections,
        'None yet; make one with: pylon bunker create --agent NAME',
        ['ID', 'NAME', 'SIGNS FOR', 'STATE', 'KINDS', 'LAST USED (UTC)'],
        (each) => [
          ...[each.id, shorten(each.name, 24), shorten(each.signs_for, 16), each.state, shorten(kindsOf(each), 24)],
          each.last_used_at === null ? 'never' : clockTime(each.last_used_at),
        ],
      ),
    ),
})

const show = defineCommand({
  command: 'show <id>',
  describe: 'What a program may sign, and what it asked last',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) =>
    ask(args, bunkerRoutes.getBunkerConnection, { id: args.id }, ({ connection, requests }) => {
      const table = drawList(requests, 'It has asked nothing yet.', ['AT (UTC)', 'METHOD', 'KIND', 'ANSWER'], (each) => [
        ...[clockTime(each.at), shorten(each.method, 24), each.kind === null ? '' : String(each.kind)],
        each.refusal === null ? 'done' : shorten(`refused: ${each.refusal}`, 80),
      ])
      return `${fields(connection)}\n\n${table}`
    }),
})

const revoke = defineCommand({
  command: 'revoke <id>',
  describe: 'End it: nothing more is signed for that program',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) => ask(args, bunkerRoutes.revokeBunkerConnection, { id: args.id }, ({ connection }) => `${connection.id} is revoked.`),
})

export const bunkerCommand = defineGroup('bunker', 'Programs elsewhere that sign with a key of this node (NIP-46)', [
  create,
  connect,
  list,
  show,
  revoke,
])

const kindsOf = ({ kinds }: Connection): string => kinds?.join(', ') ?? 'usual ones'

function fields(connection: Connection): string {
  const { id, name, signs_for, state, methods, relays, client, client_name, created_at, expires_at, last_used_at } = connection
  return drawFields([
    ['Connection', `${id} (${name})`],
    ['Signs for', signs_for],
    ['State', state],
    ['May', methods.join(', ')],
    ['Kinds', kindsOf(connection)],
    ['Program', client === null ? 'not connected yet' : `${client_name ?? 'without a name'} (${client})`],
    ['Relays', relays.join('\n')],
    ['Made', `${clockTime(created_at)} UTC`],
    ['Expires', expires_at === null ? 'never' : `${clockTime(expires_at)} UTC`],
    ['Last used', last_used_at === null ? 'never' : `${clockTime(last_used_at)} UTC`],
  ])
}
