/** What opens an encrypted backup: asked for only where it is needed. */
import { readFileSync } from 'node:fs'
import { fileError, PylonError } from '../../base/errors.ts'
import { textOption } from '../options.ts'
import { askSecret } from '../terminal/prompt.ts'
import { pathOf } from '../terminal/values.ts'

export const identityFileOption = textOption('Open it with the age identity (AGE-SECRET-KEY-1...) in this file')

type Key = { readonly identity: string } | { readonly passphrase: string }

/**
 * @param fallback a file with the passphrase where none is named; '' for none
 * @throws usage, restore_refused and backup_damaged where there is nothing to open
 */
export async function keyFor(
  path: string,
  args: { readonly passphraseFile: string | undefined; readonly identityFile: string | undefined },
  fallback = '',
): Promise<Key | undefined> {
  const { keyNeededFor } = await import('../../daemon/offline/read-backup.ts')
  const needed = keyNeededFor(path)
  if (needed === 'none') return undefined
  if (needed === 'identity') {
    if (args.identityFile === undefined)
      throw new PylonError('usage', 'This backup is for an age key: name its identity with --identity-file FILE.')
    return { identity: identityIn(pathOf(args.identityFile, '--identity-file')) }
  }
  const file = args.passphraseFile === undefined ? fallback : pathOf(args.passphraseFile, '--passphrase-file')
  if (file === '') return { passphrase: await askSecret('Passphrase of the backup: ') }
  const { readPassphraseFile } = await import('../../daemon/offline/init.ts')
  return { passphrase: readPassphraseFile(file) }
}

/** The first key of a file as age-keygen writes it. @throws usage */
function identityIn(path: string): string {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new PylonError('usage', fileError(error, path)?.message ?? `${path} can't be read.`)
  }
  const line = text.split(/\r?\n/).find((one) => one.startsWith('AGE-SECRET-KEY-'))
  if (line === undefined) throw new PylonError('usage', `${path} holds no AGE-SECRET-KEY-1...`)
  return line.trim()
}
