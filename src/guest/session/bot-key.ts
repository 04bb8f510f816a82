/** The key of an agent: made inside its runtime on first use, kept on its volume, never given out. */
import { randomBytes } from 'node:crypto'
import { linkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { PylonError } from '../../base/errors.ts'
import { ensurePrivateDir, readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import type { Keyring, LocalSigner } from '../../nostr/types.ts'

const KEY_FILE = 'bot.key'

/**
 * @param given 64 hex digits, where whoever made the runtime chose the key
 * @throws identity_invalid where the file holds something else
 */
export function loadBotKey(dir: string, given?: string): LocalSigner {
  ensurePrivateDir(dir)
  if (given !== undefined) return signerOf(given, 'The key that the runtime was given')
  const path = join(dir, KEY_FILE)
  const kept = readFileIfAny(path)
  if (kept !== undefined) return signerOf(kept.trim(), path)
  const fresh = `${path}.new`
  writeFileAtomic(fresh, `${randomBytes(32).toString('hex')}\n`)
  try {
    // Never over one that is there.
    linkSync(fresh, path)
  } finally {
    rmSync(fresh, { force: true })
  }
  return loadBotKey(dir)
}

function signerOf(text: string, what: string): LocalSigner {
  if (!/^[0-9a-f]{64}$/.test(text)) throw new PylonError('identity_invalid', `${what} is no key of 64 hex digits; remove it for a new one.`)
  return createSigner(new Uint8Array(Buffer.from(text, 'hex')))
}

/** Of a guest: the one key that it has. */
export class BotKeyring implements Keyring {
  readonly locked = false
  readonly #signer: LocalSigner

  constructor(signer: LocalSigner) {
    this.#signer = signer
  }

  node(): LocalSigner {
    return this.#signer
  }

  customer(): LocalSigner {
    return this.#signer
  }

  account(): LocalSigner {
    return this.#signer
  }

  owns(pubkey: string): boolean {
    return pubkey === this.#signer.pubkey
  }

  signer(pubkey: string): LocalSigner {
    if (this.owns(pubkey)) return this.#signer
    throw new PylonError('not_found', 'This guest has one key, and it is another.')
  }

  localSigner(pubkey: string): LocalSigner {
    return this.signer(pubkey)
  }

  walletSeed(): Uint8Array {
    throw noWallet()
  }

  walletSigner(): LocalSigner {
    throw noWallet()
  }
}

const noWallet = (): PylonError => new PylonError('wallet_not_found', 'A guest has no wallet.')
