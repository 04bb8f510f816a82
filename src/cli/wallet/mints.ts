import { given } from '../../base/given.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { callNode, defineCommand, defineGroup } from '../command.ts'
import { printAnswer } from '../terminal/output.ts'
import { clockTime, drawTable, sats } from '../terminal/table.ts'
import { wholeNumberIf } from '../terminal/values.ts'

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

export const mints = defineGroup('mints', 'The mints that this node accepts', [mintsList, mintsAdd, mintsMove, mintsRemove], 'wallet')
