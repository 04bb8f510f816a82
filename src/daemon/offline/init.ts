/** Makes or imports the identity of a home that no node holds. */
import { existsSync, readFileSync, renameSync } from 'node:fs'
import { systemClock } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { createIdentity } from '../../nostr/keys/identity.ts'
import { withHome } from './with-home.ts'

/**
 * @param options.words to import; new ones when absent.
 * @param options.force replaces an identity; it and the database of its keys are moved aside, never deleted.
 * @throws identity_exists, identity_invalid, already_running
 */
export async function initHome(home: Home, options: { words?: string; passphrase?: string; force: boolean }) {
  return await withHome(home, async () => {
    const { identity, words, movedTo } = await createIdentity(home.identity, systemClock, options)
    // The wallets and agents in it belong to the former keys.
    if (movedTo !== undefined) moveDatabase(home, movedTo)
    // The words are to be shown once; `movedTo` is where the former identity went.
    return { npub: identity.npub, pubkey: identity.pubkey, words, isProtected: identity.protection !== null, movedTo }
  })
}

function moveDatabase(home: Home, identityMovedTo: string): void {
  const suffix = identityMovedTo.slice(home.identity.length)
  for (const ending of ['', '-wal', '-shm']) {
    if (existsSync(home.database + ending)) renameSync(home.database + ending, `${home.database}${suffix}${ending}`)
  }
}

/** The text of a passphrase file without its line end. @throws usage */
export function readPassphraseFile(path: string): string {
  try {
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    throw new PylonError('usage', `The passphrase file ${path} can't be read: ${messageOf(error)}`)
  }
}
