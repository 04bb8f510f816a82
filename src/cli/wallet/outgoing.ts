import type { Sats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { requestsRoutes } from '../../control/contract/requests.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, callNode, defineCommand } from '../command.ts'
import { argument, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer, warn } from '../terminal/output.ts'
import { drawFields, sats } from '../terminal/table.ts'
import { one, secretFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import { includeOwedOption, withWallet } from './options.ts'

export const pay = defineCommand({
  command: 'pay <destination> [sats]',
  describe: 'Pay a Lightning invoice or address, or a Cashu payment request',
  builder: (yargs) =>
    withWallet(yargs)
      .positional(
        'destination',
        argument('A bolt11 invoice, name@host, lnurl1..., lnurlp:, npub1..., creq... or bitcoin: address; - for standard input'),
      )
      .positional('sats', { type: 'string', describe: 'How much, for what does not say it' })
      .option('comment', textOption('Words for the payee, where the address takes them'))
      .option('max-sats', textOption('The most that may leave in all, in sats'))
      .option('max-fee', textOption('The most that the payment may cost on top, in sats'))
      .option('from', {
        choices: ['mint', 'nwc'] as const,
        describe: 'nwc: from your own Lightning wallet (pylon wallet connect), whose fees nothing limits',
      })
      .option('include-owed', includeOwedOption)
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = {
      wallet: one(args.wallet, '--wallet'),
      request: secretFrom(args.destination),
      include_owed: args.includeOwed,
      ...given({
        amount_sats: wholeNumberIf(args.sats, 'The amount', 1),
        comment: args.comment,
        max_fee_sats: wholeNumberIf(args.maxFee, '--max-fee', 0),
        max_sats: wholeNumberIf(args.maxSats, '--max-sats', 1),
        from: args.from,
      }),
    }
    const answer = await callNode(args, walletRoutes.payInvoice, request, spendingCall(args))
    if (answer.value.state === 'unknown') process.exitCode = 1
    printAnswer(args, answer, drawPaid)
  },
})

function drawPaid(paid: Output<typeof walletRoutes.payInvoice>): string {
  const { state, amount_sats, fee_sats, preimage, request_payment: by } = paid
  if (by !== undefined) return drawRequestPaid(by, state, fee_sats)
  if (state === 'unknown')
    return 'Nobody can say yet whether the payment went through. The sats are held and the node goes on asking; do not pay again.'
  const amount = amount_sats === undefined ? '' : `${sats(amount_sats)} `
  return drawFields([
    ['Paid', `${amount}with a fee of ${fee_sats === null ? 'unknown size' : sats(fee_sats)}`],
    ['Preimage', preimage ?? ''],
  ])
}

type RequestPaid = NonNullable<Output<typeof walletRoutes.payInvoice>['request_payment']>

function drawRequestPaid(
  { to, amount_sats, mint_url, operation_id, token, reason }: RequestPaid,
  state: string,
  feeSats: Sats | null,
): string {
  if (token !== null) return `${token}\n\nHand this token over: whoever has it can spend it${feeWords(feeSats ?? (0n as Sats))}.`
  const unsure = `not known yet${reason === null ? '' : ` (${reason})`}: the same token is sent until it is taken; do not pay again`
  return drawFields([
    ['Paid', `${sats(amount_sats)} in ecash of ${mint_url ?? 'a mint'}${feeSats === null ? '' : feeWords(feeSats)}`],
    ['To', to ?? ''],
    ['Arrived', state === 'paid' ? 'yes' : unsure],
    ...(operation_id === null ? [] : [['Untaken', `pylon wallet reclaim ${operation_id}`] as const]),
  ])
}

export const send = defineCommand({
  command: 'send <sats>',
  describe: 'Take sats out as a Cashu token',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('sats', argument())
      .option('lock', textOption('The npub or 02.. key that alone may spend it'))
      .option('mint', textOption('From which mint'))
      .option('include-owed', includeOwedOption)
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = {
      wallet: one(args.wallet, '--wallet'),
      amount_sats: wholeNumber(args.sats, 'The amount'),
      include_owed: args.includeOwed,
      ...given({ lock: args.lock, mint_url: args.mint }),
    }
    const answer = await callNode(args, walletRoutes.sendToken, request, spendingCall(args))
    if (!args.json && args.lock === undefined) warn(`whoever has this token can spend it${feeWords(answer.value.fee_sats)}`)
    printAnswer(args, answer, (sent) => sent.token)
    if (!args.json) warn(`unspent, it can be taken back with: pylon wallet reclaim ${answer.value.operation_id}`)
  },
})

export const reclaim = defineCommand({
  command: 'reclaim <key>',
  describe: 'Take back a token that was sent and that nobody has spent',
  builder: (yargs) =>
    withWallet(yargs).positional('key', argument('The id that pylon wallet send gave, or the --idempotency-key of the call')),
  handler: (args) =>
    ask(args, requestsRoutes.reclaimToken, { wallet: one(args.wallet, '--wallet'), key: args.key }, ({ state, amount_sats, mint_url }) =>
      state === 'reclaimed'
        ? `The token of ${sats(amount_sats)} at ${mint_url} was taken back.`
        : `The token of ${sats(amount_sats)} at ${mint_url} was spent by whoever received it: nothing came back.`,
    ),
})

const feeWords = (feeSats: Sats): string => (feeSats === 0n ? '' : `; it cost ${sats(feeSats)} in fees`)
