/** `pylon backup`: database, keys and configuration into one private folder. */
import { resolve } from 'node:path'
import { isPylonError } from '../../base/errors.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { callNode, defineCommand, stoppedHome } from '../command.ts'
import { argument } from '../options.ts'
import { printFacts } from '../terminal/output.ts'
import { pathOf } from '../terminal/values.ts'

export const backupCommand = defineCommand({
  command: 'backup <path>',
  describe: 'Write a backup folder (it contains the keys); the node may run',
  builder: (yargs) => yargs.positional('path', argument('A path that does not exist yet')),
  handler: async (args) => {
    const path = resolve(pathOf(args.path, 'The backup'))
    const { network, bytes } = await backup(args, path)
    const words = `The backup is at ${path} (${bytes} bytes). It contains the keys: whoever has it has the money. Keep it private.`
    printFacts(args, { network, path, bytes }, words)
  },
})

async function backup(args: { sandbox: boolean }, path: string): Promise<{ network: string; bytes: number }> {
  try {
    const answer = await callNode(args, nodeRoutes.backup, { path })
    return { network: answer.network, bytes: answer.value.bytes }
  } catch (error) {
    if (!isPylonError(error, 'not_running')) throw error
    const { home, network } = stoppedHome(args)
    const { backupStoppedHome } = await import('../../daemon/offline/backup.ts')
    return { network, bytes: await backupStoppedHome(home, network, path) }
  }
}
