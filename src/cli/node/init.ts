/** `pylon init`: makes or imports the keys of a home; `pylon start` does so by itself on first use. */
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { initHome } from '../../daemon/offline/init.ts'
import { defineCommand, homeOf } from '../command.ts'
import { flagOption } from '../options.ts'
import { printFacts, warn } from '../terminal/output.ts'
import { askSecrets } from '../terminal/prompt.ts'
import { many, pathOf, STDIN } from '../terminal/values.ts'
import { restoreWords } from './restore-words.ts'
import { valueOption } from './run-flags.ts'

export const initCommand = defineCommand({
  command: 'init',
  describe: 'Make the keys of a node, or import its 12 or 24 words',
  builder: (yargs) =>
    yargs
      .option('import', flagOption('Ask for the words (or read them from stdin)'))
      .option('restore-words', valueOption('- reads the words from stdin, then finds mints, agents and sats by them alone'))
      .option('relay', { ...valueOption('With --restore-words: a relay that may have the list of mints; repeat for more'), array: true })
      .option('mint', { ...valueOption('With --restore-words: a mint beside those of the list; repeat for more'), array: true })
      .option(
        'bunker',
        valueOption("The node's key stays at a bunker (NIP-46): its bunker:// string; - reads it from stdin, after the words"),
      )
      .option('force', flagOption('Replace an identity; the old one is moved aside'))
      .option('passphrase-file', valueOption('Protect the words with the passphrase in this file')),
  handler: async (args) => {
    const { home, network } = homeOf(args)
    const { initHome, readPassphraseFile } = await import('../../daemon/offline/init.ts')
    const passphrase =
      args.passphraseFile === undefined ? {} : { passphrase: readPassphraseFile(pathOf(args.passphraseFile, '--passphrase-file')) }
    if (args.restoreWords !== undefined && args.restoreWords !== STDIN)
      throw new PylonError('usage', 'Words on the command line can be read by others: give them on standard input, with --restore-words -')
    const { words, bunker } = await secretsOf(args)
    if (args.restoreWords !== undefined) {
      const order = { words: words ?? '', force: args.force, relays: many(args.relay), mints: many(args.mint) }
      return await restoreWords(args, { ...order, ...given({ bunker }), ...passphrase })
    }
    const made = await initHome(home, { ...given({ words, bunker }), ...passphrase, force: args.force })
    const facts = {
      network,
      npub: made.npub,
      pubkey: made.pubkey,
      protected: made.isProtected,
      remote: made.isRemote,
      moved_to: made.movedTo ?? null,
    }
    // Imported words are known to who typed them.
    const answer = args.import ? facts : { ...facts, words: made.words }
    printFacts(args, answer, human(made, args.import))
  },
})

/** What is typed, or comes in lines on standard input: the words first. */
async function secretsOf(args: { import: boolean; restoreWords: string | undefined; bunker: string | undefined }) {
  const asksWords = args.import || args.restoreWords !== undefined
  const asksBunker = args.bunker === STDIN
  const answers = await askSecrets([...(asksWords ? ['The words: '] : []), ...(asksBunker ? ['The bunker:// string: '] : [])])
  const text = asksBunker ? answers.at(asksWords ? 1 : 0) : args.bunker
  const onApproval = (url: string) => warn(`the bunker asks you to allow this node at ${url}`)
  return {
    words: asksWords ? (answers[0] ?? '') : undefined,
    bunker: text === undefined && !asksBunker ? undefined : { text: (text ?? '').trim(), onApproval },
  }
}

function human(made: Awaited<ReturnType<typeof initHome>>, isImport: boolean): string {
  return [
    `The node's key is ${made.npub}${made.isRemote ? ', and stays at the bunker' : ''}.`,
    ...(made.movedTo === undefined ? [] : [`The former identity is at ${made.movedTo}.`]),
    ...(isImport
      ? []
      : [
          '',
          made.isRemote
            ? "These words are this node's money and its other keys. Write them down; they are not shown again:"
            : 'These words are the keys and the money of this node. Write them down; they are not shown again:',
          '',
          `  ${made.words}`,
          '',
        ]),
    made.isProtected
      ? 'They are stored under the passphrase: a start without it is locked until pylon unlock.'
      : 'They are stored in clear in a file that only you can read (--passphrase-file protects them).',
    'Next: pylon start',
  ].join('\n')
}
