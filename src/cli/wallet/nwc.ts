import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { nwcRoutes } from '../../control/contract/nwc.ts'
import { ask, callNode, defineCommand, defineGroup } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer, warn } from '../terminal/output.ts'
import { printQr } from '../terminal/qr.ts'
import { clockTime, drawFields, drawList, right, sats, shorten } from '../terminal/table.ts'
import { afterLength, manyIf, namesIf, one, wholeNumber } from '../terminal/values.ts'

type Connection = Output<typeof nwcRoutes.getNwcConnection>['connection']
type Budget = Connection['budget']

const PERIODS = ['hour', 'day', 'week', 'month', 'total'] as const

const create = defineCommand({
  command: 'create',
  describe: 'Let a program elsewhere use a wallet: prints the string that it connects by, once',
  builder: (yargs) =>
    yargs
      .option('agent', textOption('The agent whose wallet it uses'))
      .option('owner', flagOption("The node's own wallet instead"))
      .option('budget', textOption('SATS/hour, /day, /week or /month, or SATS in all, fees included; none: no limit of its own'))
      .option('expires', textOption('After so long it ends by itself, as 30d, 12h or 45m'))
      .option('methods', textOption('What it may do, as pay_invoice,get_balance (all)'))
      .option('name', textOption('What you call it'))
      .option('relay', textOption('Where it is reached; may be repeated (the relays of the node)'))
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    if ((args.agent === undefined) === !args.owner)
      throw new PylonError('usage', 'Name the wallet: --agent NAME, or --owner for that of the node.')
    if (args.budget === undefined) throw new PylonError('usage', 'Say what it may spend: --budget 1000/day, or --budget none.')
    const expires = afterLength(args.expires, '--expires')
    const request = {
      wallet: args.agent === undefined ? 'node' : one(args.agent, '--agent'),
      budget: parseBudget(one(args.budget, '--budget')),
      ...given({ name: args.name, relays: manyIf(args.relay), expires_at: expires, methods: namesIf(args.methods) }),
    }
    const answer = await callNode(args, nwcRoutes.createNwcConnection, request, spendingCall(args))
    if (!args.json) warn(`whoever has this string can ${abilityOf(answer.value.connection)}; it is not shown again`)
    printAnswer(args, answer, ({ url }) => url)
    printQr(args, answer.value.url)
  },
})

const list = defineCommand({
  command: 'list',
  describe: 'The connections to wallets of this node',
  handler: (args) =>
    ask(args, nwcRoutes.listNwcConnections, {}, ({ connections }) =>
      drawList(
        connections,
        'No connection yet; make one with: pylon wallet nwc create --agent NAME --budget 1000/day',
        ['ID', 'NAME', 'WALLET', 'STATE', right('SPENT'), 'BUDGET', 'LAST USED (UTC)'],
        (each) => [
          ...[each.id, shorten(each.name, 24), shorten(each.wallet, 16), each.state, sats(each.spent_sats), budgetWords(each.budget)],
          each.last_used_at === null ? 'never' : clockTime(each.last_used_at),
        ],
      ),
    ),
})

const show = defineCommand({
  command: 'show <id>',
  describe: 'What a connection may do, what it spent, and what it asked last',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) =>
    ask(args, nwcRoutes.getNwcConnection, { id: args.id }, ({ connection, requests }) => {
      const table = drawList(requests, 'It has asked nothing yet.', ['AT (UTC)', 'METHOD', 'STATE', right('SPENT')], (each) => [
        ...[clockTime(each.at), shorten(each.method, 24)],
        each.refusal === null ? each.state : shorten(`refused: ${each.refusal}`, 80),
        each.spent_sats === null ? '' : sats(each.spent_sats),
      ])
      return `${fields(connection)}\n\n${table}`
    }),
})

const revoke = defineCommand({
  command: 'revoke <id>',
  describe: 'End a connection: its program can do nothing more',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) =>
    ask(
      args,
      nwcRoutes.revokeNwcConnection,
      { id: args.id },
      ({ connection }) => `${connection.id} is revoked; it spent ${sats(connection.spent_in_all_sats)} in all.`,
    ),
})

export const nwc = defineGroup(
  'nwc',
  'Connections by which programs elsewhere use a wallet (NIP-47)',
  [create, list, show, revoke],
  'wallet',
)

function fields(connection: Connection): string {
  const { id, name, wallet, state, budget, spent_sats, spent_in_all_sats, methods, relays, created_at, expires_at, last_used_at } =
    connection
  return drawFields([
    ['Connection', `${id} (${name})`],
    ['Wallet', wallet],
    ['State', state],
    ['Budget', budgetWords(budget)],
    ['Spent', budget === null ? sats(spent_in_all_sats) : `${sats(spent_sats)} of it now, ${sats(spent_in_all_sats)} in all`],
    ['May', methods.join(', ')],
    ['Relays', relays.join('\n')],
    ['Made', `${clockTime(created_at)} UTC`],
    ['Expires', expires_at === null ? 'never' : `${clockTime(expires_at)} UTC`],
    ['Last used', last_used_at === null ? 'never' : `${clockTime(last_used_at)} UTC`],
  ])
}

function budgetWords(budget: Budget): string {
  if (budget === null) return 'no limit of its own'
  return budget.per === 'total' ? `${sats(budget.sats)} in all` : `${sats(budget.sats)} a ${budget.per}`
}

const abilityOf = ({ methods, budget }: Connection): string =>
  methods.includes('pay_invoice') ? `spend ${budget === null ? 'what the wallet holds' : budgetWords(budget)}` : 'read this wallet'

/** `1000/day`, `1000` in all, or `none`. @throws usage */
function parseBudget(text: string): { sats: number; per: (typeof PERIODS)[number] } | null {
  if (text === 'none') return null
  const [amount = '', per = 'total', ...more] = text.split('/')
  const period = PERIODS.find((name) => name === per)
  if (period === undefined || more.length > 0)
    throw new PylonError('usage', `--budget takes SATS/${PERIODS.join(', SATS/')}, SATS or none.`)
  return { sats: wholeNumber(amount, 'The budget'), per: period }
}
