/** `pylon wallet move`, and tokens of foreign mints. */
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { purseRoutes } from '../../control/contract/purse.ts'
import { callNode, defineCommand } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer } from '../terminal/output.ts'
import { drawFields, sats } from '../terminal/table.ts'
import { one, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import { withWallet } from './options.ts'

export const move = defineCommand({
  command: 'move <sats>',
  describe: 'Move sats from one mint to another',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('sats', argument('What is to arrive'))
      .option('from', { ...textOption('The mint that they leave'), demandOption: true })
      .option('to', { ...textOption('The mint that gets them'), demandOption: true })
      .option('max-fee', textOption('The most that it may cost, in sats'))
      .option('dry-run', flagOption('Only tell what it would cost'))
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = {
      wallet: one(args.wallet, '--wallet'),
      amount_sats: wholeNumber(args.sats, 'The amount'),
      ...{ from_url: one(args.from, '--from'), to_url: one(args.to, '--to'), dry_run: args.dryRun },
      ...given({ max_fee_sats: wholeNumberIf(args.maxFee, '--max-fee', 0) }),
    }
    const answer = await callNode(args, purseRoutes.moveSats, request, spendingCall(args))
    exitBy(answer.value)
    printAnswer(args, answer, ({ state, amount_sats, fee_sats, from_url, to_url, reason }) => {
      if (state === 'quoted') return `${sats(amount_sats)} from ${from_url} to ${to_url} would cost ${sats(fee_sats)} at the most.`
      if (state === 'arrived') return `${sats(amount_sats)} are at ${to_url} now; it cost ${sats(fee_sats)}.`
      return outcome(state, reason)
    })
  },
})

/** What `pylon wallet receive --move` does. */
export async function receiveForeign(
  args: Parameters<typeof callNode>[0] &
    Parameters<typeof printAnswer>[0] & { wallet: string; maxFee: string | undefined; dryRun: boolean; idempotencyKey: string | undefined },
  token: string,
): Promise<void> {
  const request = {
    ...{ wallet: one(args.wallet, '--wallet'), token, dry_run: args.dryRun },
    ...given({ max_fee_sats: wholeNumberIf(args.maxFee, '--max-fee', 0) }),
  }
  const answer = await callNode(args, purseRoutes.receiveForeign, request, spendingCall(args))
  exitBy(answer.value)
  printAnswer(args, answer, (taken) => {
    if (taken.state === 'moving' || taken.state === 'failed') return outcome(taken.state, taken.reason)
    const isQuoted = taken.state === 'quoted'
    return drawFields([
      ['Face', `${sats(taken.face_sats)} at ${taken.from_url}`],
      [isQuoted ? 'Fee, at most' : 'Fee', sats(taken.fee_sats)],
      [isQuoted ? 'Would arrive' : 'Arrived', `${sats(taken.net_sats)} at ${taken.to_url}`],
    ])
  })
}

type State = Output<typeof purseRoutes.moveSats>['state']

function exitBy({ state }: { readonly state: State }): void {
  if (state === 'moving' || state === 'failed') process.exitCode = 1
}

const outcome = (state: State, reason: string | null): string =>
  state === 'moving'
    ? `Not there yet, and the node goes on by itself: ${reason ?? 'it is on its way'}.`
    : `Nothing was moved: ${reason ?? 'no reason given'}.`
