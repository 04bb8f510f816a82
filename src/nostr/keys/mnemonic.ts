/** The words of a home and the keys that follow from them (BIP-39, NIP-06). */
import { hash, hkdfSync, pbkdf2Sync } from 'node:crypto'
import { generateMnemonic, validateMnemonic } from '@scure/bip39'
import { wordlist } from '@scure/bip39/wordlists/english.js'
import { HARDENED, keyAt } from '../../base/bip32.ts'
import { PylonError } from '../../base/errors.ts'

/** Of the node, or where a bunker holds its key of its wallet alone. */
export const NODE_ACCOUNT = 0

/** Twelve new words. */
export const newWords = (): string => generateMnemonic(wordlist, 128)

/** Words as typed, in normal form: lower case, single spaces. @throws identity_invalid naming the word that is wrong */
export function parseWords(typed: string): string {
  const words = typed.normalize('NFKD').trim().toLowerCase().split(/\s+/)
  if (words.length === 1 && /^(nostr:)?(nsec1[a-z0-9]+|[0-9a-f]{64})$/.test(words[0] ?? '')) {
    throw new PylonError(
      'identity_invalid',
      "That is a single key. A node is made of 12 or 24 words, since its wallets, its customer key and its agents' keys come of them too. Host the key as an agent: pylon agent spawn --import, which keeps its profile.",
    )
  }
  if (words.length !== 12 && words.length !== 24) {
    throw new PylonError('identity_invalid', `Expected 12 or 24 words and got ${words.length === 1 && words[0] === '' ? 0 : words.length}.`)
  }
  const bad = words.findIndex((word) => !wordlist.includes(word))
  if (bad >= 0) {
    throw new PylonError(
      'identity_invalid',
      `Word ${bad + 1} (${JSON.stringify(words[bad]).slice(0, 40)}) is not in the BIP-39 English list: check its spelling.`,
    )
  }
  const text = words.join(' ')
  if (!validateMnemonic(text, wordlist)) {
    throw new PylonError('identity_invalid', 'Every word is known, but the checksum is wrong: check for a wrong word or order.')
  }
  return text
}

/** The 64-byte seed of the words (BIP-39, no extra passphrase). */
export function seedOfWords(words: string): Uint8Array {
  return pbkdf2Sync(words.normalize('NFKD'), 'mnemonic', 2048, 64, 'sha512')
}

/** The secret key of a NIP-06 account: m/44'/1237'/account'/0/0. */
export function secretOfAccount(seed: Uint8Array, account: number): Uint8Array {
  if (!Number.isInteger(account) || account < 0 || account >= 2 ** 31) {
    throw new PylonError('internal', `There is no NIP-06 account ${account}.`)
  }
  return keyAt(seed, [HARDENED + 44, HARDENED + 1237, HARDENED + account, 0, 0]).key
}

/** NUT-27: the key under which any wallet of these words finds the list of its mints. */
export const mintBackupSecret = (seed: Uint8Array): Uint8Array =>
  new Uint8Array(hash('sha256', Buffer.concat([seed, Buffer.from('cashu-mint-backup')]), 'buffer'))

/** HKDF-SHA512 without salt: keys for other uses than Nostr, apart by `info`. */
export function deriveBytes(seed: Uint8Array, info: string, length: number): Uint8Array {
  return new Uint8Array(hkdfSync('sha512', seed, new Uint8Array(0), info, length))
}
