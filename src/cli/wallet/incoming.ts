import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, callNode, defineCommand } from '../command.ts'
import { argument, flagOption, limitOf, limitOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { plain, print, printAnswer, warn } from '../terminal/output.ts'
import { printBech32Qr } from '../terminal/qr.ts'
import { clockTime, drawFields, drawList, right, sats, shorten } from '../terminal/table.ts'
import { one, secretFrom, wholeNumber } from '../terminal/values.ts'
import { interruptible } from '../terminal/waiting.ts'
import { withWallet } from './options.ts'
import { receiveForeign } from './purse.ts'

/** What an invoice waits for at most when `--wait` is given: an hour. */
const INVOICE_WAIT_MS = 3_600_000
const WAIT_S = 25
/** A payment of the last second is seen a little later. */
const EXPIRY_GRACE_MS = 5_000

export const fund = defineCommand({
  command: 'fund <sats>',
  describe: 'Sandbox: have the faucet pay this many sats of play money in',
  builder: (yargs) => withWallet(yargs).positional('sats', argument()).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = { wallet: one(args.wallet, '--wallet'), amount_sats: wholeNumber(args.sats, 'The amount') }
    const answer = await callNode(args, walletRoutes.fundWallet, request, spendingCall(args))
    printAnswer(args, answer, (done) => `Funded ${done.wallet} with ${sats(done.amount_sats)}; it holds ${sats(done.balance_sats)} now.`)
  },
})

export const invoice = defineCommand({
  command: 'invoice <sats>',
  describe: 'Make a Lightning invoice that funds the wallet',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('sats', argument())
      .option('description', textOption('What the payer reads'))
      .option('mint', textOption('The mint that shall hold the sats'))
      .option('wait', flagOption('Wait until it is paid'))
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const wallet = one(args.wallet, '--wallet')
    const request = {
      wallet,
      amount_sats: wholeNumber(args.sats, 'The amount'),
      ...given({ description: args.description, mint_url: args.mint }),
    }
    let answer = await callNode(args, walletRoutes.createInvoice, request, spendingCall(args))
    if (args.wait) {
      if (!args.json) print(answer.value.request)
      printBech32Qr(args, answer.value.request)
      warn('waiting for the payment; Ctrl-C stops the waiting, not the invoice')
      const { invoice_id } = answer.value
      const goesOn = `The invoice stays, and what is paid on it comes into the wallet ${wallet} by itself: pylon wallet balance --wallet ${wallet}`
      answer = await interruptible(
        () => goesOn,
        async (signal) => {
          let now = answer
          const until = Math.min(Date.now() + INVOICE_WAIT_MS, Date.parse(now.value.expires_at) + EXPIRY_GRACE_MS)
          while (now.value.state !== 'settled' && now.value.state !== 'expired' && Date.now() < until) {
            const wait = Math.max(1, Math.min(WAIT_S, Math.ceil((until - Date.now()) / 1000)))
            now = await callNode(args, walletRoutes.getInvoice, { wallet, invoice_id, wait: String(wait) }, { signal })
          }
          return now
        },
      )
      if (answer.value.state !== 'settled') {
        warn(goesOn)
        process.exitCode = 1
      }
    }
    printAnswer(args, answer, (made) =>
      args.wait
        ? `The invoice is ${made.state}${made.state === 'settled' ? `: ${sats(made.amount_sats)} are in the wallet ${made.wallet}` : ''}.`
        : `${made.request}\n\n${drawFields([
            ['Amount', sats(made.amount_sats)],
            ['Mint', made.mint_url],
            ['Expires', `${clockTime(made.expires_at)} UTC`],
          ])}`,
    )
    if (!args.wait) printBech32Qr(args, answer.value.request)
  },
})

export const invoices = defineCommand({
  command: 'invoices',
  describe: 'Invoices of mints and of your Lightning wallet: what is paid, and what a mint has not issued',
  builder: (yargs) =>
    yargs
      .option('wallet', textOption('Whose: node, customer or the name of an agent (all)'))
      .option('state', { choices: ['unpaid', 'paid', 'settled', 'expired', 'closed'] as const, describe: 'Only those' })
      .option('limit', limitOption('How many (50)')),
  handler: (args) => {
    const filter = given({ wallet: args.wallet, state: args.state, ...limitOf(args) })
    return ask(args, walletRoutes.listInvoices, filter, ({ invoices }) => {
      const columns = ['MADE (UTC)', right('AMOUNT'), 'STATE', 'WALLET', 'FOR', 'QUOTE', 'MADE BY']
      const table = drawList(invoices, 'No such invoice.', columns, (one) => [
        clockTime(one.created_at),
        sats(one.amount_sats),
        one.reason === null ? one.state : `${one.state}: ${shorten(one.reason, 60)}`,
        shorten(one.wallet, 16),
        `${one.cause.type} ${one.cause.id.slice(0, 12)}`,
        one.quote_id,
        one.mint_url ?? one.rail,
      ])
      const told = invoices.flatMap((one) => (one.tell_operator === null ? [] : [`  ${plain(one.tell_operator)}`]))
      return told.length === 0
        ? table
        : `${table}\n\nPaid and not issued; the node goes on asking, and the operator of the mint should know:\n${told.join('\n')}`
    })
  },
})

export const receive = defineCommand({
  command: 'receive <token>',
  describe: 'Redeem a Cashu token',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('token', argument('The token, or - for standard input (keeps it out of ps)'))
      .option('move', flagOption('Of a mint that is not on the list: bring it to one that is, for its fee'))
      .option('dry-run', flagOption('With --move: only tell what it would cost'))
      .option('max-fee', textOption('With --move: the most that it may cost, in sats'))
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const token = secretFrom(args.token)
    if (token === '') throw new PylonError('usage', 'There is no token on standard input.')
    if (args.move || args.dryRun) return await receiveForeign(args, token)
    const answer = await callNode(args, walletRoutes.receiveToken, { wallet: one(args.wallet, '--wallet'), token }, spendingCall(args))
    printAnswer(args, answer, (got) => {
      const received = `Received ${sats(got.amount_sats)} at ${got.mint_url}.`
      if (got.held_before_sats === 0n) return received
      return `${received} ${sats(got.held_before_sats)} of it lay in this node's wallets already: they were swapped for new coins, the balance did not grow by them.`
    })
  },
})
