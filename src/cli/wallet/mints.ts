import { given } from '../../base/given.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, defineCommand, defineGroup } from '../command.ts'
import { argument, textOption } from '../options.ts'
import { clockTime, drawList, right, sats } from '../terminal/table.ts'
import { wholeNumberIf } from '../terminal/values.ts'

export const NO_MINT = 'No mint yet; add one with: pylon wallet mints add URL'

const mintsList = defineCommand({
  command: 'list',
  describe: 'The mints that this node accepts',
  handler: (args) =>
    ask(args, walletRoutes.listMints, {}, ({ mints }) =>
      drawList(mints, NO_MINT, ['MINT', right('CAP'), 'ADDED (UTC)'], (mint) => [mint.url, sats(mint.cap_sats), clockTime(mint.added_at)]),
    ),
})

const mintsAdd = defineCommand({
  command: 'add <url>',
  describe: 'Accept a mint; whoever runs it holds what you keep there',
  builder: (yargs) => yargs.positional('url', argument()).option('cap', textOption('The most sats that it may hold for one wallet')),
  handler: (args) => {
    const request = { url: args.url, ...given({ cap_sats: wholeNumberIf(args.cap, '--cap') }) }
    return ask(args, walletRoutes.addMint, request, (mint) => `${mint.url} is on the list, for at most ${sats(mint.cap_sats)} a wallet.`)
  },
})

const mintsRemove = defineCommand({
  command: 'remove <url>',
  describe: 'Accept a mint no more (refused while it holds sats)',
  builder: (yargs) => yargs.positional('url', argument()),
  handler: (args) => ask(args, walletRoutes.removeMint, { url: args.url }, (mint) => `${mint.url} is off the list.`),
})

const mintsMove = defineCommand({
  command: 'move <old> <new>',
  describe: 'Follow a mint that has another address now, with all that it holds',
  builder: (yargs) =>
    yargs
      .positional('old', argument('Its address on the list'))
      .positional('new', argument('Where it is now; it must serve the same keysets')),
  handler: (args) =>
    ask(args, walletRoutes.moveMint, { from: args.old, to: args.new }, (mint) => `${args.old} is ${mint.url} now, with all that it holds.`),
})

export const mints = defineGroup('mints', 'The mints that this node accepts', [mintsList, mintsAdd, mintsMove, mintsRemove], 'wallet')
