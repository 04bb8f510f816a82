/** Makes or imports the identity of a home that no node holds. */
import { existsSync, readFileSync, renameSync } from 'node:fs'
import { systemClock } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Home } from '../../base/paths.ts'
import { createIdentity, refuseExisting } from '../../nostr/keys/identity.ts'
import { newWords, parseWords } from '../../nostr/keys/mnemonic.ts'
import { parseBunkerUri } from '../../nostr/nips/nip46.ts'
import { pubkeyAtBunker } from './bunker-connection.ts'
import { withHome } from './with-home.ts'

/** Where the node's key is, and stays. */
export interface BunkerOrder {
  /** As the bunker gives it out; good for one connection. */
  readonly text: string
  /** Told where the owner is to allow the connection. */
  onApproval(url: string): void
}

export interface InitOrder {
  readonly words?: string
  readonly passphrase?: string
  readonly force: boolean
  readonly bunker?: BunkerOrder
}

/**
 * @param options.words to import; new ones when absent.
 * @param options.force replaces an identity; it and the database of its keys are moved aside, never deleted.
 * @param options.bunker is connected to first: nothing is written where it does not answer.
 * @throws identity_exists, identity_invalid, already_running; bunker_invalid, bunker_unreachable, bunker_refused, bunker_approval,
 * bunker_answer_invalid
 */
export async function initHome(home: Home, { bunker: order, ...wanted }: InitOrder) {
  const bunker = order === undefined ? undefined : parseBunkerUri(order.text)
  return await withHome(home, async () => {
    const { words: typed, force } = wanted
    // Before the string is used, which is good once.
    refuseExisting(home.identity, force)
    const options = { ...wanted, words: typed === undefined ? newWords() : parseWords(typed) }
    const remote =
      bunker === undefined || order === undefined
        ? undefined
        : { bunker, pubkey: await pubkeyAtBunker(home, options.words, bunker, order.onApproval) }
    const { identity, words, movedTo } = await createIdentity(home.identity, systemClock, { ...options, ...given({ remote }) })
    // The wallets and agents in it belong to the former keys.
    if (movedTo !== undefined) moveDatabase(home, movedTo)
    // The words are to be shown once; `movedTo` is where the former identity went.
    return {
      npub: identity.npub,
      pubkey: identity.pubkey,
      words,
      isProtected: identity.protection !== null,
      isRemote: remote !== undefined,
      movedTo,
    }
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
