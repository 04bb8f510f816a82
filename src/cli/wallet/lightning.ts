import { PylonError } from '../../base/errors.ts'
import type { Output } from '../../control/client.ts'
import { nwcRoutes } from '../../control/contract/nwc.ts'
import { ask, defineCommand } from '../command.ts'
import { flagOption, textOption } from '../options.ts'
import { clockTime, drawFields, sats } from '../terminal/table.ts'
import { pathOf, readTextFile, secretFrom } from '../terminal/values.ts'

type LightningWallet = Output<typeof nwcRoutes.getLightningWallet>

export const connect = defineCommand({
  command: 'connect [string]',
  describe: 'Connect your own Lightning wallet by its nostr+walletconnect:// string (NWC); shows it where one is connected',
  builder: (yargs) =>
    yargs
      .positional('string', { type: 'string', describe: 'The string, or - for standard input (keeps it out of ps)' })
      .option('file', textOption('The file that holds the string')),
  handler: (args) => {
    if (args.string !== undefined && args.file !== undefined) throw new PylonError('usage', 'Give the string, or --file, not both.')
    if (args.string === undefined && args.file === undefined) return ask(args, nwcRoutes.getLightningWallet, {}, drawLightning)
    const url = args.file === undefined ? secretFrom(args.string ?? '') : readTextFile(pathOf(args.file, '--file')).trim()
    const next = 'Sales come in there with: pylon config set wallet.receive_by nwc\nPay from it with: pylon wallet pay INVOICE --from nwc'
    return ask(args, nwcRoutes.connectLightningWallet, { url }, (wallet) => `${drawLightning(wallet)}\n\n${next}`)
  },
})

export const disconnect = defineCommand({
  command: 'disconnect',
  describe: 'Let go of your Lightning wallet, and forget its secret',
  builder: (yargs) => yargs.option('force', flagOption('Also while invoices made there may still be paid')),
  handler: (args) =>
    ask(
      args,
      nwcRoutes.disconnectLightningWallet,
      args.force ? { force: 'true' } : {},
      ({ id }) => `The Lightning wallet ${id} is not connected any more. End the connection in that wallet too.`,
    ),
})

export function drawLightning(wallet: LightningWallet): string {
  const { id, balance_sats, balance_at, state, reason, relays, receives, open_payments, unpaid_invoices, lud16 } = wallet
  const at = balance_at === null ? '' : ` (${clockTime(balance_at)} UTC)`
  return drawFields([
    ['Lightning', `nwc:${id}`],
    ['Holds', balance_sats === null ? 'it does not say' : `${sats(balance_sats)}${at}, as it says`],
    ['State', reason === null ? state : `${state}: ${reason}`],
    ...(lud16 === null ? [] : ([['Address', lud16]] as const)),
    ['Receives', receives ? 'jobs and leases' : 'nothing; to change that: pylon config set wallet.receive_by nwc'],
    ...(open_payments === 0 ? [] : ([['Unclear', `${open_payments} payments, until the wallet says what became of them`]] as const)),
    ...(unpaid_invoices === 0 ? [] : ([['Unpaid', `${unpaid_invoices} invoices`]] as const)),
    ['Relays', relays.join('\n')],
  ])
}
