import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, defineCommand, defineGroup } from '../command.ts'
import { drawFields, drawTable, right, sats } from '../terminal/table.ts'
import { one } from '../terminal/values.ts'
import { address } from './address.ts'
import { audit } from './audit.ts'
import { history } from './history.ts'
import { fund, invoice, invoices, receive } from './incoming.ts'
import { connect, disconnect, drawLightning } from './lightning.ts'
import { mints } from './mints.ts'
import { nwc } from './nwc.ts'
import { withWallet } from './options.ts'
import { pay, reclaim, send } from './outgoing.ts'
import { payout } from './payout.ts'
import { move } from './purse.ts'
import { request } from './request.ts'
import { restore } from './restore.ts'
import { zap } from './zap.ts'

const balance = defineCommand({
  command: 'balance',
  describe: 'What the wallet holds, by mint',
  builder: (yargs) => withWallet(yargs),
  handler: (args) =>
    ask(args, walletRoutes.getWallet, { wallet: one(args.wallet, '--wallet') }, (wallet) => {
      const fields: [string, string][] = [
        ['Wallet', wallet.wallet],
        ['Balance', sats(wallet.balance_sats)],
      ]
      if (wallet.at_risk_sats > 0n) fields.push(['Unclear', `${sats(wallet.at_risk_sats)} (held until the mint says what became of them)`])
      if (wallet.owed_sats > 0n)
        fields.push(['Owed', `${sats(wallet.owed_sats)} (paid by customers whose jobs and leases are not settled)`])
      fields.push(['Locks to', wallet.lock_pubkey])
      const mints = drawTable(
        ['MINT', right('BALANCE'), 'STATE'],
        wallet.mints.map((mint) => [
          mint.url,
          sats(mint.balance_sats),
          mint.reason === undefined ? mint.state : `${mint.state}: ${mint.reason}`,
        ]),
      )
      const lightning = wallet.lightning === undefined ? '' : `\n\n${drawLightning(wallet.lightning)}`
      return `${drawFields(fields)}\n\n${wallet.mints.length === 0 ? 'No mint yet; add one with: pylon wallet mints add URL' : mints}${lightning}`
    }),
})

/** `pylon wallet ...` */
export const walletCommand = defineGroup('wallet', 'Sats: balance, funding, payments, ecash, mints', [
  balance,
  fund,
  invoice,
  invoices,
  request,
  pay,
  zap,
  send,
  reclaim,
  receive,
  move,
  history,
  audit,
  restore,
  mints,
  connect,
  disconnect,
  nwc,
  address,
  payout,
])
