/** `pylon backup`: database, keys and configuration into one private, encrypted file; `--verify` proves one. */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { wire } from '../../base/amounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { type ArgsOf, callNode, defineCommand, type GlobalOptions, type NodeHome, stoppedHome } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { printFacts } from '../terminal/output.ts'
import { askSecret } from '../terminal/prompt.ts'
import { sats } from '../terminal/table.ts'
import { one, pathOf } from '../terminal/values.ts'
import { identityFileOption, keyFor } from './backup-key.ts'

const MAX_MS = 3_600_000

const addFlags = (yargs: Argv<GlobalOptions>) =>
  yargs
    .positional('path', argument('A file that does not exist yet; with --verify a backup'))
    .option('passphrase-file', textOption('Encrypt it under the passphrase in this file instead of asking'))
    .option('recipient', textOption('Encrypt it for this age key (age1...) instead'))
    .option('identity-file', identityFileOption)
    .option('verify', flagOption('Restore that backup into a scratch folder, check all of it and remove that'))

export const backupCommand = defineCommand({
  command: 'backup <path>',
  describe: 'Write an encrypted backup file (it contains the keys), or verify one; the node may run',
  builder: addFlags,
  handler: async (args) => await (args.verify ? verify(args) : write(args)),
})

async function write(args: ArgsOf<typeof addFlags>): Promise<void> {
  const path = resolve(pathOf(args.path, 'The backup'))
  const lock = await lockOf(args)
  const { network, bytes } = await backup(args, path, lock)
  const words = `The backup is at ${path} (${bytes} bytes), encrypted. It contains the keys: whoever can open it has the money.`
  printFacts(args, { network, path, bytes }, words)
}

async function backup(args: GlobalOptions, path: string, lock: Lock): Promise<{ network: string; bytes: number }> {
  try {
    const answer = await callNode(args, nodeRoutes.backup, { path, ...lock }, { timeoutMs: MAX_MS })
    return { network: answer.network, bytes: answer.value.bytes }
  } catch (error) {
    if (!isPylonError(error, 'not_running')) throw error
    const { home, network } = stoppedHome(args)
    const { backupStoppedHome } = await import('../../daemon/offline/backup.ts')
    return { network, bytes: await backupStoppedHome(home, network, path, lock) }
  }
}

interface Lock {
  readonly recipient?: string
  readonly passphrase?: string
}

/** Empty where the configuration says whom it is for. @throws usage */
async function lockOf(args: ArgsOf<typeof addFlags>): Promise<Lock> {
  if (args.recipient !== undefined) return { recipient: one(args.recipient, '--recipient') }
  if (args.passphraseFile !== undefined) return { passphrase: await passphraseIn(pathOf(args.passphraseFile, '--passphrase-file')) }
  const { loadConfig } = await import('../../base/config.ts')
  const { backup } = loadConfig((await nodeHome(args)).home.config)
  if (backup.recipient !== '' || backup.passphrase_file !== '') return {}
  const passphrase = await askSecret('Passphrase of the backup: ')
  if (passphrase === '') {
    throw new PylonError('usage', 'A backup holds the keys: name whom it is for with --passphrase-file FILE or --recipient age1...')
  }
  if (process.stdin.isTTY && (await askSecret('Once more: ')) !== passphrase)
    throw new PylonError('usage', 'The two differ: nothing was written.')
  return { passphrase }
}

async function passphraseIn(path: string): Promise<string> {
  const { readPassphraseFile } = await import('../../daemon/offline/init.ts')
  return readPassphraseFile(path)
}

/** Of the node that runs, else of the first that ever was. */
async function nodeHome(args: GlobalOptions): Promise<NodeHome> {
  try {
    const { network } = await callNode(args, nodeRoutes.ping, {})
    return stoppedHome({ sandbox: network === 'sandbox' })
  } catch (error) {
    if (!isPylonError(error, 'not_running')) throw error
    return stoppedHome(args)
  }
}

async function verify(args: ArgsOf<typeof addFlags>): Promise<void> {
  const path = resolve(pathOf(args.path, 'The backup'))
  const { home, network } = await nodeHome(args)
  const { loadConfig } = await import('../../base/config.ts')
  const key = await keyFor(path, args, loadConfig(home.config).backup.passphrase_file)
  const { verifyBackup } = await import('../../daemon/offline/verify-backup.ts')
  const found = await verifyBackup(home, network, path, key)
  const { npub, createdAt, version, bytes, rows, balanceSats } = found
  const facts = {
    network,
    path,
    npub,
    is_own: found.isOwn ?? null,
    created_at: createdAt,
    version,
    bytes,
    rows,
    balance_sats: wire(balanceSats),
  }
  const total = Object.values(rows).reduce((sum, one) => sum + one, 0)
  const whose = { true: 'this node', false: 'ANOTHER node', undefined: 'the node' }[`${found.isOwn}`]
  const lines = [
    `The backup of ${createdAt} would come back: ${whose} ${npub}.`,
    `It is whole (${bytes} bytes), its books balance, and it holds ${sats(balanceSats)} and ${total} rows in ${Object.keys(rows).length} tables.`,
  ]
  printFacts(args, facts, lines.join('\n'))
}
