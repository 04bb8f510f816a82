import { formatSats } from '../../base/amounts.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, defineCommand } from '../command.ts'
import { limitOf, limitOption } from '../options.ts'
import { clockTime, drawList, right } from '../terminal/table.ts'
import { one } from '../terminal/values.ts'
import { withWallet } from './options.ts'

export const history = defineCommand({
  command: 'history',
  describe: 'What came in and went out',
  builder: (yargs) => withWallet(yargs).option('limit', limitOption('How many (20)')),
  handler: (args) => {
    const request = { wallet: one(args.wallet, '--wallet'), ...limitOf(args) }
    return ask(args, walletRoutes.walletHistory, request, ({ entries }) =>
      drawList(entries, 'Nothing yet.', ['TIME (UTC)', right('AMOUNT'), 'FOR', 'CAUSE'], (entry) => [
        clockTime(entry.at),
        `${entry.amount_msats > 0n ? '+' : ''}${formatSats(entry.amount_msats)}`,
        [...(entry.cause.type === 'transfer' ? ['transfer'] : []), ...entry.counter_accounts.map(accountWords)].join(', '),
        `${entry.words} (${entry.cause.id.slice(0, 12)})`,
      ]),
    )
  },
})

const ACCOUNT_WORDS: Readonly<Record<string, string>> = {
  'equity/funding': 'put in by you',
  'equity/withdrawal': 'taken out by you',
  'equity/moved': 'between your own wallets and mints',
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
