import { given } from '../../base/given.ts'
import { zapsRoutes } from '../../control/contract/zaps.ts'
import { callNode, defineCommand } from '../command.ts'
import { argument, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer } from '../terminal/output.ts'
import { drawTable, right, sats } from '../terminal/table.ts'
import { one, wholeNumber } from '../terminal/values.ts'
import { withWallet } from './options.ts'

export const zap = defineCommand({
  command: 'zap <to> <sats>',
  describe: 'Zap a key or an event, over Lightning or as a nutzap',
  builder: (yargs) =>
    withWallet(yargs)
      .positional('to', argument('npub, nprofile or the name of an agent; note or nevent: shared where the event says so'))
      .positional('sats', argument())
      .option('comment', textOption('Words for who is zapped'))
      .option('by', { choices: ['lightning', 'nutzap', 'auto'] as const, describe: 'wallet.zap_by by default' })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const request = {
      wallet: one(args.wallet, '--wallet'),
      to: args.to,
      amount_sats: wholeNumber(args.sats, 'The amount'),
      ...given({ comment: args.comment, by: args.by }),
    }
    const answer = await callNode(args, zapsRoutes.sendZap, request, spendingCall(args))
    if (answer.value.state === 'unknown') process.exitCode = 1
    printAnswer(args, answer, ({ state, amount_sats, fee_sats, parts }) => {
      const shares = parts.map((part) => [part.npub, sats(part.amount_sats), part.reason ?? part.state])
      const table = parts.length === 0 ? '' : `\n\n${drawTable(['TO', right('SATS'), 'STATE'], shares)}`
      if (state === 'paid')
        return `Zapped ${sats(amount_sats)} with a fee of ${fee_sats === null ? 'unknown size' : sats(fee_sats)}.${table}`
      return `Nobody can say yet whether the zap went through. The sats are held and the node goes on asking; do not zap again.${table}`
    })
  },
})
