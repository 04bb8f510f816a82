/** `pylon wallet address`: where the node and each agent is paid. */
import type { Output } from '../../control/client.ts'
import { addressRoutes } from '../../control/contract/addresses.ts'
import { ask, callNode, defineCommand, defineGroup } from '../command.ts'
import { printAnswer } from '../terminal/output.ts'
import { printBech32Qr } from '../terminal/qr.ts'
import { drawFields, drawTable, shorten } from '../terminal/table.ts'

type Address = Output<typeof addressRoutes.getAddress>

const list = defineCommand({
  command: 'list',
  describe: 'The Lightning addresses of the node and its agents',
  handler: (args) =>
    ask(args, addressRoutes.listAddresses, {}, ({ service, reason, addresses }) => {
      const table = drawTable(
        ['WALLET', 'ADDRESS', 'FROM', 'NOTE'],
        addresses.map((one) => [one.wallet, one.address ?? shorten(one.lnurl ?? '-', 60), one.source, one.reason ?? '']),
      )
      return `${table}\n\n${drawFields([['Service', service ?? `none: ${reason ?? ''}`]])}`
    }),
})

const show = defineCommand({
  command: 'show [name]',
  describe: 'One of them, with its QR code',
  builder: (yargs) => yargs.positional('name', whose),
  handler: async (args) => tell(args, await callNode(args, addressRoutes.getAddress, { wallet: args.name })),
})

const make = defineCommand({
  command: 'make [name]',
  describe: 'Get the node (or an agent, which does so by itself) an address at the service',
  builder: (yargs) => yargs.positional('name', whose),
  handler: async (args) => tell(args, await callNode(args, addressRoutes.makeAddress, { wallet: args.name })),
})

const whose = { type: 'string', default: 'node', describe: 'node, or the name of an agent' } as const

type Answer = Awaited<ReturnType<typeof callNode<typeof addressRoutes.getAddress>>>

function tell(args: Parameters<typeof printAnswer>[0], answer: Answer): void {
  printAnswer(args, answer, draw)
  if (answer.value.lnurl !== null) printBech32Qr(args, answer.value.lnurl)
}

const draw = ({ wallet, npub, address, lnurl, source, mint_url, reason }: Address): string =>
  drawFields([
    ['Wallet', `${wallet} (${npub})`],
    ['Address', address ?? (lnurl === null ? 'none' : 'by its code only')],
    ...(lnurl === null ? [] : [['LNURL', lnurl] as [string, string]]),
    ['From', source],
    ...(mint_url === null ? [] : [['Mint', mint_url] as [string, string]]),
    ...(reason === null ? [] : [['Note', reason] as [string, string]]),
  ])

export const address = defineGroup('address', 'Lightning addresses of the node and its agents', [list, show, make])
