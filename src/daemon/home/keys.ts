/** The identity of a home: made on first use, opened by passphrase file, by the predecessor's pipe, or later by unlock. */
import { closeSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { readFileIfAny } from '../../base/files.ts'
import type { Logger } from '../../base/logger.ts'
import { createIdentity, type Identity, isProtected, readIdentity, unlockIdentity } from '../../nostr/keys/identity.ts'
import { HomeKeyring } from '../../nostr/keys/keyring.ts'
import { listWrappedKeys } from '../../store/nostr/wrapped-keys.ts'
import type { Store } from '../../store/store.ts'
import type { DaemonOptions } from '../launch/run-options.ts'
import { readPassphraseFile } from '../offline/init.ts'

export interface Keys {
  readonly identity: Identity
  readonly keyring: HomeKeyring
}

interface Deps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

/** The keyring is locked afterwards where a passphrase is needed and none came. @throws identity_invalid, passphrase_wrong */
export async function openKeys(options: DaemonOptions, deps: Deps): Promise<Keys> {
  const passphrase = passphraseOf(options)
  const { home } = options
  const existing = readIdentity(home.identity)
  if (existing === undefined && listWrappedKeys(deps.store).length > 0) {
    throw new PylonError(
      'identity_invalid',
      `${home.identity} is missing and this home has keys and sats of it: pylon restore PATH, or pylon init --import.`,
    )
  }
  const identity = existing ?? (await createIdentity(home.identity, deps.clock, passphrase === undefined ? {} : { passphrase })).identity
  if (existing === undefined) deps.logger.info({ npub: identity.npub, protected: isProtected(identity) }, 'a new identity was made')
  const keyring = new HomeKeyring({ ...deps, nodePubkey: identity.pubkey, nodeBunker: identity.bunker })
  const words = wordsFromPredecessor(options)
  if (words !== undefined) keyring.unlock(words)
  else if (!isProtected(identity) || passphrase !== undefined) keyring.unlock(await unlockIdentity(identity, passphrase))
  return { identity, keyring }
}

/** Of `--passphrase-file`, or of the systemd credential `pylon-passphrase`. */
function passphraseOf({ run }: DaemonOptions): string | undefined {
  if (run.passphraseFile !== undefined) return readPassphraseFile(run.passphraseFile)
  const credentials = process.env['CREDENTIALS_DIRECTORY']
  const text = credentials === undefined ? undefined : readFileIfAny(join(credentials, 'pylon-passphrase'))
  return text?.replace(/\r?\n$/, '')
}

function wordsFromPredecessor({ keyFd }: DaemonOptions): string | undefined {
  if (keyFd === undefined) return undefined
  const text = readFileSync(keyFd, 'utf8')
  closeSync(keyFd)
  return text === '' ? undefined : text
}
