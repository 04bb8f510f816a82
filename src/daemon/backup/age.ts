/**
 * Backups are files of age (age-encryption.org/v1): for a passphrase, or for the owner of an `age1...` key. `age -d` opens them too.
 * The passphrase is stretched by Node's scrypt, since the library's would hold up the whole process for a second.
 */
import { randomBytes, scrypt } from 'node:crypto'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { base64nopad } from '@scure/base'
import { Decrypter, Encrypter, type Identity, type Recipient, Stanza } from 'age-encryption'
import { messageOf, PylonError } from '../../base/errors.ts'

/** Whom a backup is for. */
export type Lock = { readonly recipient: string } | { readonly passphrase: string }
/** What opens one: of an `age1...` key its `AGE-SECRET-KEY-1...`. */
export type Key = { readonly identity: string } | { readonly passphrase: string }

export type Bytes = ReadableStream<Uint8Array>

const MAGIC = 'age-encryption.org/v1\n'
/** A head is a few hundred bytes; what has no end of one within this is none. */
export const MAX_HEAD_BYTES = 65_536
const SALT_LABEL = Buffer.from('age-encryption.org/v1/scrypt')
/** What age itself uses and the most that we reckon with: 1 GiB of memory. */
const WORK_FACTOR = 18
const MAX_WORK_FACTOR = 20
const ZERO_NONCE = new Uint8Array(12)

/** @throws usage when the recipient is none, or the passphrase is empty */
export async function encrypt(plain: Bytes, lock: Lock, workFactor = WORK_FACTOR): Promise<Bytes> {
  const encrypter = new Encrypter()
  if ('passphrase' in lock) {
    if (lock.passphrase === '') throw new PylonError('usage', 'The passphrase of a backup must not be empty.')
    encrypter.addRecipient(new Passphrase(lock.passphrase, workFactor))
  } else addRecipient(encrypter, lock.recipient)
  return await encrypter.encrypt(plain)
}

function addRecipient(encrypter: Encrypter, recipient: string): void {
  try {
    encrypter.addRecipient(recipient)
  } catch {
    throw new PylonError('usage', 'The recipient of a backup must be an age public key (age1...), as age-keygen prints it.')
  }
}

/** The words of the stream fail with what `damaged` makes where they are not what was written. @throws passphrase_wrong, backup_damaged, usage */
export async function decrypt(cipher: Bytes, key: Key): Promise<Bytes> {
  const decrypter = new Decrypter()
  if ('passphrase' in key) decrypter.addIdentity(new Passphrase(key.passphrase, WORK_FACTOR))
  else {
    try {
      decrypter.addIdentity(key.identity)
    } catch {
      throw new PylonError('usage', 'The identity of a backup must be an age secret key (AGE-SECRET-KEY-1...), as age-keygen writes it.')
    }
  }
  try {
    return await decrypter.decrypt(cipher)
  } catch (error) {
    if (!messageOf(error).startsWith('no identity matched')) throw damaged(`its head is not whole (${messageOf(error)})`)
    const what = 'passphrase' in key ? 'passphrase' : 'identity'
    throw new PylonError(
      'passphrase_wrong',
      `This ${what} does not open the backup: it is for another, or the head of the file was changed.`,
    )
  }
}

/** What opens a file that begins so; undefined where it is none of age. @throws backup_damaged */
export function lockOf(head: Uint8Array): 'passphrase' | 'identity' | undefined {
  const text = Buffer.from(head).toString('latin1')
  if (!text.startsWith(MAGIC)) return undefined
  if (!text.includes('\n--- ')) throw damaged('its head does not end')
  return text.startsWith(`${MAGIC}-> scrypt `) ? 'passphrase' : 'identity'
}

export const damaged = (why: string) =>
  new PylonError('backup_damaged', `The backup was changed or is not whole: ${why}. Nothing was touched; use another one.`)

/** The recipient and identity of a passphrase (age-encryption.org/v1, "The scrypt recipient type"). */
class Passphrase implements Recipient, Identity {
  readonly #passphrase: string
  readonly #workFactor: number

  constructor(passphrase: string, workFactor: number) {
    this.#passphrase = passphrase
    this.#workFactor = workFactor
  }

  async wrapFileKey(fileKey: Uint8Array): Promise<Stanza[]> {
    const salt = randomBytes(16)
    const body = chacha20poly1305(await this.#stretch(salt, this.#workFactor), ZERO_NONCE).encrypt(fileKey)
    return [new Stanza(['scrypt', base64nopad.encode(salt), String(this.#workFactor)], body)]
  }

  async unwrapFileKey(stanzas: Stanza[]): Promise<Uint8Array | null> {
    const [stanza, ...more] = stanzas
    if (stanza?.args[0] !== 'scrypt' || more.length > 0) return null
    const [, salt = '', factor = '', ...rest] = stanza.args
    if (rest.length > 0 || !/^[1-9]\d?$/.test(factor) || Number(factor) > MAX_WORK_FACTOR || stanza.body.length !== 32)
      throw new Error('invalid scrypt stanza')
    const key = await this.#stretch(base64nopad.decode(salt), Number(factor))
    try {
      return chacha20poly1305(key, ZERO_NONCE).decrypt(stanza.body)
    } catch {
      // Another passphrase: the caller says so.
      return null
    }
  }

  async #stretch(salt: Uint8Array, workFactor: number): Promise<Uint8Array> {
    if (salt.length !== 16) throw new Error('invalid scrypt stanza')
    const options = { N: 2 ** workFactor, r: 8, p: 1, maxmem: 2 ** (workFactor + 11) }
    return await new Promise((resolve, reject) => {
      scrypt(this.#passphrase, Buffer.concat([SALT_LABEL, salt]), 32, options, (error, key) =>
        error === null ? resolve(key) : reject(error),
      )
    })
  }
}
