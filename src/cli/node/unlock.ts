/** `pylon unlock`: opens the keys of a locked node. */
import { nodeRoutes } from '../../control/contract/node.ts'
import { ask, callNode, defineCommand } from '../command.ts'
import { askSecret } from '../terminal/prompt.ts'
import { pathOf } from '../terminal/values.ts'
import { valueOption } from './run-flags.ts'

export const unlockCommand = defineCommand({
  command: 'unlock',
  describe: 'Open the keys with the passphrase',
  builder: (yargs) => yargs.option('passphrase-file', valueOption('Read it from this file instead of asking')),
  handler: async (args) => {
    const status = await callNode(args, nodeRoutes.status, {})
    const passphrase = status.value.locked ? await passphraseFrom(args.passphraseFile) : ''
    await ask(args, nodeRoutes.unlock, { passphrase }, () => (status.value.locked ? 'The keys are open.' : 'The keys were open already.'))
  },
})

async function passphraseFrom(path: string | undefined): Promise<string> {
  if (path === undefined) return await askSecret('Passphrase: ')
  const { readPassphraseFile } = await import('../../daemon/offline/init.ts')
  return readPassphraseFile(pathOf(path, '--passphrase-file'))
}
