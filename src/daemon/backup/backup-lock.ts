/** Whom a backup is for: as it was asked, else as the configuration says. */
import type { Config } from '../../base/config.ts'
import { PylonError } from '../../base/errors.ts'
import { readPassphraseFile } from '../offline/init.ts'
import type { Lock } from './age.ts'

/** As `POST /v1/backup` and the command line have it. */
export interface AskedLock {
  readonly recipient?: string | undefined
  readonly passphrase?: string | undefined
}

/** @throws usage where neither says, both are asked for, or the file of the passphrase can't be read */
export function lockFor({ recipient, passphrase }: AskedLock, { backup }: Config): Lock {
  if (recipient !== undefined && passphrase !== undefined) {
    throw new PylonError('usage', 'A backup is for a recipient or under a passphrase, not both.')
  }
  if (recipient !== undefined) return { recipient }
  if (passphrase !== undefined) return { passphrase }
  if (backup.recipient !== '') return { recipient: backup.recipient }
  if (backup.passphrase_file !== '') return { passphrase: readPassphraseFile(backup.passphrase_file) }
  throw new PylonError(
    'usage',
    'A backup holds the keys: name whom it is for with --passphrase-file FILE or --recipient age1... (or backup.* in the configuration).',
  )
}
