/** `pylon wallet`: what a wallet holds, sats in and out, the mints it may use. */
import type { Argv } from 'yargs'
import { formatSats, type Sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { callNode, defineCommand, defineGroup } from '../command.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { plain, print, printAnswer, warn } from '../terminal/output.ts'
import { clockTime, drawFields, drawTable, sats, shorten } from '../terminal/table.ts'
import { one, secretFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import { interruptible } from '../terminal/waiting.ts'

/** What an invoice waits for at most when `--wait` is given: an hour. */
const INVOICE_WAIT_MS = 3_600_000
const WAIT_S = 25
/** A payment of the last second is seen a little later. */
const EXPIRY_GRACE_MS = 5_000

function withWallet<T>(yargs: Argv<T>) {
  return yargs.option('wallet', {
    type: 'string',
    nargs: 1,
    default: 'node',
    describe: 'Whose: node, customer or the name of an agent',
  })
}

const includeOwedOption = {
  type: 'boolean',
  default: false,
  describe: 'Spend also what customers paid for jobs and leases that are not settled; a refund may have to wait then',
} as const

const balance = defineCommand({
  command: 'balance',
  describe: 'What the wallet holds, by mint',
  builder: (yargs) => withWallet(yargs),
  handler: async (args) => {
    const answer = await callNode(args, walletRoutes.getWallet, { wallet: one(args.wallet, '--wallet') })
    printAnswer(args, answer, (wallet) => {
      const fields: [string, string][] = [
        ['Wallet', wallet.wallet],
        ['Balance', sats(wallet.balance_sats)],
      ]
      if (wallet.at_risk_sats > 0n) fields.push(['Unclear', `${sats(wallet.at_risk_sats)} (held until the mint says what became of them)`])
      if (wallet.owed_sats > 0n)
        fields.push(['Owed', `${sats(wallet.owed_sats)} (paid by customers whose jobs and leases are not settled)`])
      fields.push(['Locks to', wallet.lock_pubkey])
      const mints = drawTable(
        [{ title: 'MINT' }, { title: 'BALANCE', align: 'right' }, { title: 'STATE' }],
        wallet.mints.map((mint) => [
          mint.url,
          sats(mint.balance_sats),
          mint.reason === undefined ? mint.state : `${mint.state}: ${mint.reason}`,
        ]),
      )
      return `${drawFields(fields)}\n\n${wallet.mints.length === 0 ? 'No mint yet; add one with: pylon wallet mints add URL' : mints}`
    })
  },
})

const fund = defineCommand({
  command: 'fund <sats>',
  describe: 'Sandbox: have the faucet pay this many sats of play money in',
  builder: (yargs) =>
    withWallet(yargs).positional('sats', { type: 'string', demandOption: true }).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = { wallet: one(args.wallet, '--wallet'), amount_sats: wholeNumber(args.sats, 'The amount') }
    const answer = await callNode(args, walletRoutes.fundWallet, request, spendingCall(args))
    printAnswer(args, answer, (done) => `Funded ${done.wallet} with ${sats(done.amount_sats)}; it holds ${sats(done.balance_sats)} now.`)
  },
})

const invoice = defineCommand({
  command: 'invoice <sats>',
  describe: 'Make a Lightning invoice that funds the wallet',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('sats', { type: 'string', demandOption: true })
      .option('description', { type: 'string', nargs: 1, describe: 'What the payer reads' })
      .option('mint', { type: 'string', nargs: 1, describe: 'The mint that shall hold the sats' })
      .option('wait', { type: 'boolean', default: false, describe: 'Wait until it is paid' })
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
      if (answer.value.state !== 'settled') warn(goesOn)
      if (answer.value.state !== 'settled') process.exitCode = 1
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
  },
})

const invoices = defineCommand({
  command: 'invoices',
  describe: 'Invoices and the quotes of mints behind them: what is paid, and what a mint has not issued',
  builder: (yargs) =>
    yargs
      .option('wallet', { type: 'string', nargs: 1, describe: 'Whose: node, customer or the name of an agent (all)' })
      .option('state', { choices: ['unpaid', 'paid', 'settled', 'expired', 'closed'] as const, describe: 'Only those' })
      .option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (50)' }),
  handler: async (args) => {
    const limit = wholeNumberIf(args.limit, '--limit')
    const filter = given({ wallet: args.wallet, state: args.state, limit: limit === undefined ? undefined : String(limit) })
    const answer = await callNode(args, walletRoutes.listInvoices, filter)
    printAnswer(args, answer, ({ invoices }) => {
      if (invoices.length === 0) return 'No such invoice.'
      const table = drawTable(
        [
          { title: 'MADE (UTC)' },
          { title: 'AMOUNT', align: 'right' },
          { title: 'STATE' },
          { title: 'WALLET' },
          { title: 'FOR' },
          { title: 'QUOTE' },
          { title: 'MINT' },
        ],
        invoices.map((one) => [
          clockTime(one.created_at),
          sats(one.amount_sats),
          one.reason === null ? one.state : `${one.state}: ${shorten(one.reason, 60)}`,
          shorten(one.wallet, 16),
          `${one.cause.type} ${one.cause.id.slice(0, 12)}`,
          one.quote_id,
          one.mint_url,
        ]),
      )
      const told = invoices.flatMap((one) => (one.tell_operator === null ? [] : [`  ${plain(one.tell_operator)}`]))
      return told.length === 0
        ? table
        : `${table}\n\nPaid and not issued; the node goes on asking, and the operator of the mint should know:\n${told.join('\n')}`
    })
  },
})

const pay = defineCommand({
  command: 'pay <bolt11>',
  describe: 'Pay a Lightning invoice',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('bolt11', { type: 'string', demandOption: true, describe: 'The invoice, or - for standard input' })
      .option('max-fee', { type: 'string', nargs: 1, describe: 'The most that the payment may cost on top, in sats' })
      .option('include-owed', includeOwedOption)
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = {
      wallet: one(args.wallet, '--wallet'),
      request: secretFrom(args.bolt11),
      include_owed: args.includeOwed,
      ...given({ max_fee_sats: wholeNumberIf(args.maxFee, '--max-fee', 0) }),
    }
    const answer = await callNode(args, walletRoutes.payInvoice, request, spendingCall(args))
    if (answer.value.state === 'unknown') process.exitCode = 1
    printAnswer(args, answer, (paid) =>
      paid.state === 'paid'
        ? drawFields([
            ['Paid', `with a fee of ${paid.fee_sats === null ? 'unknown size' : sats(paid.fee_sats)}`],
            ['Preimage', paid.preimage ?? ''],
          ])
        : 'Nobody can say yet whether the payment went through. The sats are held and the node goes on asking; do not pay again.',
    )
  },
})

const send = defineCommand({
  command: 'send <sats>',
  describe: 'Take sats out as a Cashu token',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('sats', { type: 'string', demandOption: true })
      .option('lock', { type: 'string', nargs: 1, describe: 'The npub or 02.. key that alone may spend it' })
      .option('mint', { type: 'string', nargs: 1, describe: 'From which mint' })
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
  },
})

const feeWords = (feeSats: Sats): string => (feeSats === 0n ? '' : `; it cost ${sats(feeSats)} in fees`)

const receive = defineCommand({
  command: 'receive <token>',
  describe: 'Redeem a Cashu token',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('token', { type: 'string', demandOption: true, describe: 'The token, or - for standard input (keeps it out of ps)' })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const token = secretFrom(args.token)
    if (token === '') throw new PylonError('usage', 'There is no token on standard input.')
    const answer = await callNode(args, walletRoutes.receiveToken, { wallet: one(args.wallet, '--wallet'), token }, spendingCall(args))
    printAnswer(args, answer, (got) => {
      const received = `Received ${sats(got.amount_sats)} at ${got.mint_url}.`
      if (got.held_before_sats === 0n) return received
      return `${received} ${sats(got.held_before_sats)} of it lay in this node's wallets already: they were swapped for new coins, the balance did not grow by them.`
    })
  },
})

const history = defineCommand({
  command: 'history',
  describe: 'What came in and went out',
  builder: (yargs) => withWallet(yargs).option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (20)' }),
  handler: async (args) => {
    const limit = wholeNumberIf(args.limit, '--limit')
    const answer = await callNode(args, walletRoutes.walletHistory, {
      wallet: one(args.wallet, '--wallet'),
      ...given({ limit: limit === undefined ? undefined : String(limit) }),
    })
    printAnswer(args, answer, ({ entries }) =>
      entries.length === 0
        ? 'Nothing yet.'
        : drawTable(
            [{ title: 'TIME (UTC)' }, { title: 'AMOUNT', align: 'right' }, { title: 'FOR' }, { title: 'CAUSE' }],
            entries.map((entry) => [
              clockTime(entry.at),
              `${entry.amount_msats > 0n ? '+' : ''}${formatSats(entry.amount_msats)}`,
              [...(entry.cause.type === 'transfer' ? ['transfer'] : []), ...entry.counter_accounts.map(accountWords)].join(', '),
              `${entry.cause.type} ${entry.cause.id.slice(0, 12)}`,
            ]),
          ),
    )
  },
})

const ACCOUNT_WORDS: Readonly<Record<string, string>> = {
  'equity/funding': 'put in by you',
  'equity/withdrawal': 'taken out by you',
  'equity/restore': 'found or missed at a restore',
}

/** What an account of the ledger means to a person. */
export function accountWords(account: string): string {
  const kind = account.split('/')[0]
  const detail = account.slice(account.indexOf('/') + 1)
  if (kind === 'income') return `earned: ${detail}`
  if (kind === 'deposit') return `deposit for ${detail.slice(0, 16)}`
  return ACCOUNT_WORDS[account] ?? (kind === 'expense' ? detail : account)
}

const restore = defineCommand({
  command: 'restore',
  describe: 'Ask the mints again for ecash of this wallet, from the seed',
  builder: (yargs) => withWallet(yargs),
  handler: async (args) => {
    warn('asking the mints; this can take a minute')
    const answer = await callNode(args, walletRoutes.restoreWallet, { wallet: one(args.wallet, '--wallet') })
    printAnswer(args, answer, (done) =>
      [`Found ${sats(done.restored_sats)} that were not known; the wallet holds ${sats(done.balance_sats)}.`, ...done.problems].join('\n'),
    )
  },
})

const mintsList = defineCommand({
  command: 'list',
  describe: 'The mints that this node accepts',
  handler: async (args) => {
    const answer = await callNode(args, walletRoutes.listMints, {})
    printAnswer(args, answer, ({ mints }) =>
      mints.length === 0
        ? 'No mint yet; add one with: pylon wallet mints add URL'
        : drawTable(
            [{ title: 'MINT' }, { title: 'CAP', align: 'right' }, { title: 'ADDED (UTC)' }],
            mints.map((mint) => [mint.url, sats(mint.cap_sats), clockTime(mint.added_at)]),
          ),
    )
  },
})

const mintsAdd = defineCommand({
  command: 'add <url>',
  describe: 'Accept a mint; whoever runs it holds what you keep there',
  builder: (yargs) =>
    yargs
      .positional('url', { type: 'string', demandOption: true })
      .option('cap', { type: 'string', nargs: 1, describe: 'The most sats that it may hold for one wallet' }),
  handler: async (args) => {
    const request = { url: args.url, ...given({ cap_sats: wholeNumberIf(args.cap, '--cap') }) }
    const answer = await callNode(args, walletRoutes.addMint, request)
    printAnswer(args, answer, (mint) => `${mint.url} is on the list, for at most ${sats(mint.cap_sats)} a wallet.`)
  },
})

const mintsRemove = defineCommand({
  command: 'remove <url>',
  describe: 'Accept a mint no more (refused while it holds sats)',
  builder: (yargs) => yargs.positional('url', { type: 'string', demandOption: true }),
  handler: async (args) => {
    const answer = await callNode(args, walletRoutes.removeMint, { url: args.url })
    printAnswer(args, answer, (mint) => `${mint.url} is off the list.`)
  },
})

const mintsMove = defineCommand({
  command: 'move <old> <new>',
  describe: 'Follow a mint that has another address now, with all that it holds',
  builder: (yargs) =>
    yargs
      .positional('old', { type: 'string', demandOption: true, describe: 'Its address on the list' })
      .positional('new', { type: 'string', demandOption: true, describe: 'Where it is now; it must serve the same keysets' }),
  handler: async (args) => {
    const answer = await callNode(args, walletRoutes.moveMint, { from: args.old, to: args.new })
    printAnswer(args, answer, (mint) => `${args.old} is ${mint.url} now, with all that it holds.`)
  },
})

const mints = defineGroup('mints', 'The mints that this node accepts', [mintsList, mintsAdd, mintsMove, mintsRemove], 'wallet')

/** `pylon wallet ...` */
export const walletCommand = defineGroup('wallet', 'Sats: balance, funding, payments, ecash, mints', [
  balance,
  fund,
  invoice,
  invoices,
  pay,
  send,
  receive,
  history,
  restore,
  mints,
])
