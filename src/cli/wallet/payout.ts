import { PylonError } from '../../base/errors.ts'
import type { Output } from '../../control/client.ts'
import { payoutRoutes } from '../../control/contract/payouts.ts'
import { ask, callNode, defineCommand, defineGroup } from '../command.ts'
import { argument, flagOption, limitOf, limitOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer } from '../terminal/output.ts'
import { clockTime, drawFields, drawList, right, sats, shorten } from '../terminal/table.ts'
import { one, wholeNumber } from '../terminal/values.ts'

type Rule = Output<typeof payoutRoutes.setPayout>
type Payout = Output<typeof payoutRoutes.listPayouts>['payouts'][number]

const agentOption = textOption("The agent whose wallet it is (the node's)")
const walletOf = (args: { agent: string | undefined }): string => (args.agent === undefined ? 'node' : one(args.agent, '--agent'))

const set = defineCommand({
  command: 'set <target>',
  describe: 'Let what the wallet holds above a limit leave by itself',
  builder: (yargs) =>
    yargs
      .positional('target', argument('name@host or an LNURL; or token, for locked tokens written into the home'))
      .option('above', textOption('Begin when the wallet holds more sats of your own than this'))
      .option('keep', textOption('and go down to this'))
      .option('lock-to', textOption('The npub or 02.. key that alone may spend the tokens'))
      .option('agent', agentOption),
  handler: (args) => {
    const isToken = args.target === 'token'
    if (args.above === undefined || args.keep === undefined)
      throw new PylonError('usage', 'Say what may lie there and what stays: --above SATS --keep SATS.')
    if (isToken === (args.lockTo === undefined))
      throw new PylonError(
        'usage',
        isToken ? 'Name whose the tokens are: --lock-to NPUB.' : '--lock-to is for tokens: payout set token --lock-to NPUB',
      )
    const target = isToken ? { lock_to: one(args.lockTo ?? '', '--lock-to') } : { address: args.target }
    const limits = {
      above_sats: wholeNumber(one(args.above, '--above'), '--above', 0),
      keep_sats: wholeNumber(one(args.keep, '--keep'), '--keep', 0),
    }
    return ask(args, payoutRoutes.setPayout, { wallet: walletOf(args), ...target, ...limits }, fields)
  },
})

const show = defineCommand({
  command: 'show',
  describe: 'The payout of a wallet, what it would send now, and what it sent',
  builder: (yargs) => yargs.option('agent', agentOption),
  handler: (args) =>
    ask(args, payoutRoutes.getPayout, { wallet: walletOf(args) }, ({ rule, next, reason, payouts }) =>
      [`${fields(rule)}\n${drawFields([['Now', nextWords(next, reason)]])}`, table(payouts)].join('\n\n'),
    ),
})

const list = defineCommand({
  command: 'list',
  describe: 'What went out of all wallets, with the files of tokens',
  builder: (yargs) => yargs.option('limit', limitOption('How many (20)')),
  handler: (args) => ask(args, payoutRoutes.listPayouts, limitOf(args), ({ payouts }) => table(payouts)),
})

const off = defineCommand({
  command: 'off',
  describe: 'Let nothing leave by itself any more',
  builder: (yargs) => yargs.option('agent', agentOption),
  handler: (args) => ask(args, payoutRoutes.dropPayout, { wallet: walletOf(args) }, ({ wallet }) => `Nothing leaves ${wallet} by itself.`),
})

const now = defineCommand({
  command: 'now',
  describe: 'Sweep down to what stays at once',
  builder: (yargs) =>
    yargs.option('dry-run', flagOption('Only say what would go')).option('agent', agentOption).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const answer = await callNode(args, payoutRoutes.payOutNow, { wallet: walletOf(args), dry_run: args.dryRun }, spendingCall(args))
    if (answer.value.payouts.some(({ state }) => state !== 'paid')) process.exitCode = 1
    printAnswer(args, answer, ({ next, reason, payouts }) => (payouts.length === 0 ? nextWords(next, reason) : table(payouts)))
  },
})

export const payout = defineGroup('payout', 'What leaves a wallet by itself above a limit', [set, show, list, now, off], 'wallet')

function nextWords(next: Output<typeof payoutRoutes.getPayout>['next'], reason: string | null): string {
  if (next === null) return `nothing would be sent: ${reason ?? ''}`
  return `${sats(next.amount_sats)} would be sent, at most ${sats(next.limit_sats)} with fees, from ${next.mint_url}`
}

function fields(rule: Rule): string {
  return drawFields([
    ['Payout', `of ${rule.wallet} to ${rule.target_type === 'token' ? `tokens locked to ${rule.target}` : rule.target}`],
    ['Above', `${sats(rule.above_sats)}, down to ${sats(rule.keep_sats)}; what is owed to customers counts as neither`],
    ['State', stateWords(rule)],
  ])
}

function stateWords({ state, failure, failures, next_try_at }: Rule): string {
  if (failure === null) return state
  const when = next_try_at === null ? 'set it again to go on' : `tried again at ${clockTime(next_try_at)} UTC`
  return `${state === 'stopped' ? 'stopped' : `failed ${failures} times in a row`}: ${failure.message} (${failure.code}; ${when})`
}

const table = (payouts: readonly Payout[]): string =>
  drawList(payouts, 'Nothing was sent yet.', ['AT (UTC)', 'WALLET', right('SATS'), right('FEE'), 'TO', 'STATE', ''], (each) => [
    ...[clockTime(each.created_at), shorten(each.wallet, 16), sats(each.amount_sats), each.fee_sats === null ? '' : sats(each.fee_sats)],
    ...[shorten(each.target, 32), each.state, each.file ?? each.failure?.message ?? ''],
  ])
