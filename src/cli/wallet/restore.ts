/** `pylon wallet restore`: from the seed, or from what relays have (NIP-60). */
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { ask, callNode, defineCommand } from '../command.ts'
import { flagOption, textOption } from '../options.ts'
import { plain, printAnswer, warn } from '../terminal/output.ts'
import { drawTable, right, sats, shorten } from '../terminal/table.ts'
import { manyIf, one, STDIN, secretFrom, wholeNumberIf } from '../terminal/values.ts'
import { withWallet } from './options.ts'

export const restore = defineCommand({
  command: 'restore',
  describe: 'Ask the mints again for ecash of this wallet, from the seed; or take it from relays (--nip60)',
  builder: (yargs) =>
    withWallet(yargs)
      .option('nip60', flagOption('Read the wallet that relays have of this key (NIP-60), and take what is unspent'))
      .option('nsec', textOption('With --nip60: - reads the nsec of another key from standard input, whose wallet it is'))
      .option('relay', textOption('With --nip60: a relay to look at too (may be repeated)'))
      .option('move', flagOption('With --nip60: bring what is at mints that are not on the list to one that is, for its fee'))
      .option('max-fee', textOption('With --nip60: the most that all of it may cost, in sats'))
      .option('dry-run', flagOption('With --nip60: only tell what is there and what it would cost')),
  handler: async (args) => {
    const wallet = one(args.wallet, '--wallet')
    if (args.nip60) return await fromRelays({ ...args, wallet })
    if (args.nsec !== undefined || args.relay !== undefined || args.move || args.maxFee !== undefined || args.dryRun)
      throw new PylonError('usage', '--nsec, --relay, --move, --max-fee and --dry-run go with --nip60.')
    warn('asking the mints; this can take a minute')
    await ask(args, walletRoutes.restoreWallet, { wallet }, (done) =>
      [`Found ${sats(done.restored_sats)} that were not known; the wallet holds ${sats(done.balance_sats)}.`, ...done.problems].join('\n'),
    )
  },
})

async function fromRelays(
  args: Parameters<typeof callNode>[0] &
    Parameters<typeof printAnswer>[0] & {
      wallet: string
      nsec: string | undefined
      relay: string | readonly string[] | undefined
      move: boolean
      maxFee: string | undefined
      dryRun: boolean
    },
): Promise<void> {
  if (args.nsec !== undefined && args.nsec !== STDIN)
    throw new PylonError('usage', '--nsec takes - and reads the key from standard input, so that it stands in no list of processes.')
  const nsec = args.nsec === undefined ? undefined : secretFrom(args.nsec)
  if (nsec === '') throw new PylonError('usage', 'There is no nsec on standard input.')
  const request = {
    wallet: args.wallet,
    ...given({ nsec, relays: manyIf(args.relay), max_fee_sats: wholeNumberIf(args.maxFee, '--max-fee', 0) }),
    ...(args.move ? { move: true } : {}),
  }
  warn('asking relays and mints; this can take a minute')
  const quoted = await callNode(args, walletRoutes.restoreFromRelays, { ...request, dry_run: true })
  if (args.dryRun) return printAnswer(args, quoted, draw)
  if (quoted.value.received_sats > 0n)
    warn(`taking ${sats(quoted.value.received_sats)}, for ${sats(quoted.value.fee_sats)} of fees at the most`)
  printAnswer(args, await callNode(args, walletRoutes.restoreFromRelays, request), draw)
}

type Found = Output<typeof walletRoutes.restoreFromRelays>

const FATES = [
  ['free', 'to be taken'],
  ['taken', 'taken'],
  ['moving', 'on their way'],
  ['held', 'held or given away by this home already'],
  ['spent', 'spent'],
  ['pending', 'in a payment elsewhere'],
  ['locked', 'locked to other keys'],
  ['left', 'left'],
  ['unknown', 'not known'],
] as const

function draw(found: Found): string {
  const { npub, relays, complete, events, deleted_events, mints, problems, state } = found
  const head = `${npub}: ${events} ${events === 1 ? 'event' : 'events'} with coins on ${relays.length} relays, ${deleted_events} deleted.${complete ? '' : ' Not every relay answered: there may be more.'}`
  const table = drawTable(
    ['MINT', 'COINS ARE', right('SATS')],
    mints.flatMap((at) =>
      FATES.flatMap(([fate, words]) => (at[`${fate}_sats`] > 0n ? [[at.mint_url, words, sats(at[`${fate}_sats`])]] : [])),
    ),
  )
  const reasons = mints.flatMap((at) => at.reasons.map((reason) => `${shorten(at.mint_url, 60)}: ${reason}`))
  const end =
    state === 'quoted'
      ? `Would bring ${sats(found.received_sats)}, for ${sats(found.fee_sats)} of fees at the most.`
      : `Took ${sats(found.received_sats)}, for ${sats(found.fee_sats)} of fees; the wallet holds ${sats(found.balance_sats)}.`
  return plain([head, ...(mints.length === 0 ? ['There are no coins.'] : ['', table, '']), ...reasons, ...problems, end].join('\n'))
}
