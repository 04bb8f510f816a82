/** `pylon wallet request`: ecash asked for by a code that other wallets read. */
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { requestsRoutes } from '../../control/contract/requests.ts'
import { ask, callNode, defineCommand } from '../command.ts'
import { flagOption, limitOf, limitOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer } from '../terminal/output.ts'
import { printQr } from '../terminal/qr.ts'
import { clockTime, drawFields, drawList, right, sats, shorten } from '../terminal/table.ts'
import { afterLength, manyIf, one, wholeNumberIf } from '../terminal/values.ts'

type Made = Output<typeof requestsRoutes.createRequest>
type Sent = Output<typeof requestsRoutes.listRequestPayments>['payments'][number]

/** Actions share the place of the amount, as in `pylon wallet request list`. */
export const request = defineCommand({
  command: 'request [sats|action] [id]',
  describe: 'Ask for ecash: a Cashu payment request (NUT-18); list, show ID, cancel ID, and sent: what you paid on those of others',
  builder: (yargs) =>
    yargs
      .positional('sats', { type: 'string', describe: 'How much (whoever pays says), or list, show, cancel, sent' })
      .positional('id', { type: 'string', describe: 'Of the request, for show and cancel' })
      .option('description', textOption('What the payer reads'))
      .option('agent', textOption('The agent whose wallet is paid (the node)'))
      .option('mint', textOption('Where it may be paid; may be repeated (all mints of the list)'))
      .option('single-use', flagOption('To be paid once; what comes again is kept, and told'))
      .option('expires', textOption('After so long it is late, as 30d, 12h or 45m'))
      .option('transport', { choices: ['nostr', 'http', 'none'] as const, describe: 'How the token comes: by letter, or none, by hand' })
      .option('limit', limitOption('How many to list (50)'))
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const [what, id] = [args.sats, args.id]
    const wallet = args.agent === undefined ? undefined : one(args.agent, '--agent')
    const page = { ...given({ wallet }), ...limitOf(args) }
    if (what === 'list') return await ask(args, requestsRoutes.listRequests, page, ({ requests }) => drawMade(requests))
    if (what === 'sent') return await ask(args, requestsRoutes.listRequestPayments, page, ({ payments }) => drawSent(payments))
    if (what === 'show') return await ask(args, requestsRoutes.getRequest, { id: needed(id) }, drawOne)
    if (what === 'cancel')
      return await ask(args, requestsRoutes.cancelRequest, { id: needed(id) }, (made) => `${made.id} is ${made.state}.`)
    if (id !== undefined) throw new PylonError('usage', 'A request takes one amount; the rest are options: pylon wallet request --help')
    if (args.transport === 'http') {
      throw new PylonError(
        'usage',
        'Nothing of this node is served to the public over HTTP: use --transport nostr, or none to take the token by hand.',
      )
    }
    const expires = afterLength(args.expires, '--expires')
    const asked = {
      wallet: wallet ?? 'node',
      single_use: args.singleUse,
      ...given({ amount_sats: wholeNumberIf(what, 'The amount'), description: args.description, mints: manyIf(args.mint) }),
      ...given({ expires_at: expires, transport: args.transport }),
    }
    const answer = await callNode(args, requestsRoutes.createRequest, asked, spendingCall(args))
    printAnswer(args, answer, (made) => `${made.request}\n\n${fields(made)}`)
    return printQr(args, answer.value.request)
  },
})

function needed(id: string | undefined): string {
  if (id === undefined) throw new PylonError('usage', 'Name the request: pylon wallet request list shows their ids.')
  return id
}

const fields = (made: Made): string =>
  drawFields([
    ['Request', `${made.id}, ${made.state}`],
    ['Asks', made.amount_sats === null ? 'whatever is paid' : sats(made.amount_sats)],
    ...(made.received_sats === 0n ? [] : [['Received', sats(made.received_sats)] as const]),
    ['Wallet', made.wallet],
    ['Mints', made.mints.join('\n')],
    ['Comes', made.transport === 'nostr' ? 'by letter (NIP-17)' : 'by hand: pylon wallet receive TOKEN'],
    ...(made.expires_at === null ? [] : [['Late after', `${clockTime(made.expires_at)} UTC`] as const]),
  ])

const drawMade = (requests: readonly Made[]): string =>
  drawList(
    requests,
    'No payment request yet.',
    ['MADE (UTC)', 'ID', right('ASKS'), right('RECEIVED'), 'STATE', 'WALLET', 'FOR'],
    (each) => [
      ...[clockTime(each.created_at), each.id, each.amount_sats === null ? 'any' : sats(each.amount_sats), sats(each.received_sats)],
      ...[each.state, shorten(each.wallet, 16), shorten(each.description ?? '', 40)],
    ],
  )

function drawOne({ request: made, payments }: Output<typeof requestsRoutes.getRequest>): string {
  const table = drawList(
    payments,
    'Nothing was paid on it yet.',
    ['AT (UTC)', right('SENT'), right('RECEIVED'), 'STATE', 'MINT'],
    (each) => [
      ...[clockTime(each.at), sats(each.face_sats), each.received_sats === null ? '' : sats(each.received_sats)],
      ...[
        shorten([each.state, ...each.notes.map((note) => NOTES[note])].join(', ') + (each.reason === null ? '' : `: ${each.reason}`), 100),
        each.mint_url,
      ],
    ],
  )
  return `${made.request}\n\n${fields(made)}\n\n${table}`
}

const NOTES = {
  short: 'less than asked',
  over: 'more than asked',
  late: 'late',
  cancelled: 'on a cancelled request',
  again: 'paid before',
} as const

const drawSent = (payments: readonly Sent[]): string =>
  drawList(
    payments,
    'Nothing was paid on requests of others yet.',
    ['AT (UTC)', right('PAID'), 'STATE', 'TOKEN', 'TO', 'TAKE BACK BY'],
    (each) => [
      ...[clockTime(each.at), sats(each.amount_sats), each.reason === null ? each.state : shorten(`${each.state}: ${each.reason}`, 60)],
      ...[each.token_state ?? '', shorten(each.to ?? 'by hand', 40), each.token_state === 'pending' ? (each.operation_id ?? '') : ''],
    ],
  )
