/** `pylon restore`: a backup back into a stopped home. */
import { resolve } from 'node:path'
import { defineCommand, homeOf } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { printFacts } from '../terminal/output.ts'
import { pathOf } from '../terminal/values.ts'
import { identityFileOption, keyFor } from './backup-key.ts'

export const restoreCommand = defineCommand({
  command: 'restore <path>',
  describe: 'Put a backup back; the node must be stopped',
  builder: (yargs) =>
    yargs
      .positional('path', argument('A file that pylon backup wrote, or a folder of an earlier one'))
      .option('passphrase-file', textOption('Open it with the passphrase in this file instead of asking'))
      .option('identity-file', identityFileOption)
      .option('force', flagOption('Also over an existing node, which is moved aside')),
  handler: async (args) => {
    const { home, network } = homeOf(args)
    const { restoreHome } = await import('../../daemon/offline/restore.ts')
    const from = resolve(pathOf(args.path, 'The backup'))
    const restored = await restoreHome({ home, network, from, key: await keyFor(from, args), force: args.force })
    const facts = { network, npub: restored.npub, created_at: restored.createdAt, moved_to: restored.movedTo ?? null }
    const lines = [
      `The backup of ${restored.createdAt} is back (${restored.npub}).`,
      ...(restored.movedTo === undefined ? [] : [`What was there is in ${restored.movedTo}.`]),
      'The next start asks the mints what is still unspent before anything is paid. Never run two nodes with these keys.',
    ]
    printFacts(args, facts, lines.join('\n'))
  },
})
