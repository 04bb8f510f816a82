import { given } from '../../base/given.ts'
import { purseRoutes } from '../../control/contract/purse.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, defineCommand, defineGroup } from '../command.ts'
import { argument, textOption } from '../options.ts'
import { clockTime, drawList, right, sats, shorten } from '../terminal/table.ts'
import { one, wholeNumber, wholeNumberIf } from '../terminal/values.ts'

export const NO_MINT = 'No mint yet; add one with: pylon wallet mints add URL'

const mintsList = defineCommand({
  command: 'list',
  describe: 'The mints that this node accepts, how they are, and what each may still hold of the wallet node',
  handler: (args) =>
    ask(args, walletRoutes.listMints, {}, ({ mints }) =>
      drawList(mints, NO_MINT, ['MINT', 'STATE', right('HELD'), right('CAP'), right('ROOM'), 'ADDED (UTC)'], (mint) => [
        mint.url,
        mint.reason === undefined ? mint.state : `${mint.state}: ${shorten(mint.reason, 60)}`,
        sats(mint.balance_sats),
        sats(mint.cap_sats),
        sats(mint.room_sats),
        clockTime(mint.added_at),
      ]),
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

const mintsSet = defineCommand({
  command: 'set <url>',
  describe: 'Change how much a mint may hold for one wallet',
  builder: (yargs) => yargs.positional('url', argument()).option('cap', { ...textOption('The most sats'), demandOption: true }),
  handler: (args) => {
    const request = { url: args.url, cap_sats: wholeNumber(one(args.cap, '--cap'), '--cap', 0) }
    return ask(args, purseRoutes.setMint, request, (mint) => `${mint.url} may hold ${sats(mint.cap_sats)} a wallet now.`)
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

export const mints = defineGroup(
  'mints',
  'The mints that this node accepts',
  [mintsList, mintsAdd, mintsSet, mintsMove, mintsRemove],
  'wallet',
)
