/** identity.json: the words of this home, in clear or under a passphrase; and how the node's key is reached where a bunker holds that. */
import { randomBytes, scrypt } from 'node:crypto'
import { existsSync, renameSync, statSync } from 'node:fs'
import { z } from 'zod'
import { type Clock, rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import { npubOf } from '../nips/nip19.ts'
import type { BunkerUri } from '../nips/nip46.ts'
import { NODE_ACCOUNT, newWords, parseWords, secretOfAccount, seedOfWords } from './mnemonic.ts'
import { openConnection, remoteKeyOf, sealConnection, sealedConnectionSchema } from './remote-key.ts'
import { seal, unseal } from './sealed.ts'
import { createSigner } from './signer.ts'

const SCRYPT = { logN: 16, r: 8, p: 1 }

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`))

const schema = z.strictObject({
  version: z.literal(1),
  /** The node's key: NIP-06 account 0 of the words, or what the bunker signs for. */
  pubkey: hex(32),
  npub: z.string(),
  created_at: z.string(),
  protection: z.nullable(
    z.strictObject({
      kdf: z.literal('scrypt'),
      log_n: z.int().min(14).max(20),
      r: z.int().min(1).max(16),
      p: z.int().min(1).max(4),
      salt: hex(16),
      cipher: z.literal('xchacha20poly1305'),
      nonce: hex(24),
    }),
  ),
  /** The words; under a passphrase their ciphertext in base64. */
  secret: z.string().min(1),
  /** Where a bunker holds the node's key. */
  bunker: sealedConnectionSchema.optional(),
})

export type Identity = z.infer<typeof schema>

export interface CreateIdentity {
  /** 12 or 24 words as typed; new ones when absent. */
  readonly words?: string
  /** Protects the words; in clear when absent. */
  readonly passphrase?: string
  /** Replaces an identity that is there, which is moved aside first. */
  readonly force?: boolean
  /** Where the node's key is, which stays there. */
  readonly remote?: { readonly pubkey: string; readonly bunker: BunkerUri }
}

/**
 * Writes a new identity file (0600).
 * @returns the identity, its words (to show once), and where an old file went.
 * @throws identity_exists, identity_invalid
 */
export async function createIdentity(
  path: string,
  clock: Clock,
  options: CreateIdentity = {},
): Promise<{ identity: Identity; words: string; movedTo: string | undefined }> {
  refuseExisting(path, options.force)
  const words = options.words === undefined ? newWords() : parseWords(options.words)
  const seed = seedOfWords(words)
  const { remote } = options
  const pubkey = remote?.pubkey ?? createSigner(secretOfAccount(seed, NODE_ACCOUNT)).pubkey
  const identity: Identity = {
    version: 1,
    pubkey,
    npub: npubOf(pubkey),
    created_at: rfc3339(clock.now()),
    ...(options.passphrase === undefined ? { protection: null, secret: words } : await protect(words, options.passphrase)),
    ...(remote === undefined ? {} : { bunker: sealConnection(seed, pubkey, remoteKeyOf(remote.bunker, NODE_ACCOUNT)) }),
  }
  const movedTo = existsSync(path) ? moveAside(path, clock) : undefined
  writeFileAtomic(path, `${JSON.stringify(identity, null, 2)}\n`)
  return { identity, words, movedTo }
}

/** @throws identity_exists */
export function refuseExisting(path: string, force = false): void {
  if (!existsSync(path) || force) return
  throw new PylonError('identity_exists', `There is an identity at ${path} already: --force replaces it after moving the old one aside.`)
}

function moveAside(path: string, clock: Clock): string {
  const target = `${path}.${rfc3339(clock.now()).replace(/[:.]/g, '-')}.old`
  renameSync(path, target)
  return target
}

/** The identity of a home, or undefined where there is none. @throws identity_invalid, also when others may read the file */
export function readIdentity(path: string): Identity | undefined {
  const text = readFileIfAny(path)
  if (text === undefined) return undefined
  const mode = statSync(path).mode & 0o777
  if ((mode & 0o077) !== 0) {
    throw new PylonError('identity_invalid', `Others may read ${path} (mode ${mode.toString(8)}): run chmod 600 ${path}.`)
  }
  const parsed = schema.safeParse(parseJson(text))
  if (!parsed.success) throw new PylonError('identity_invalid', `${path} is not a valid identity file; restore it from a backup.`)
  return parsed.data
}

export const isProtected = (identity: Identity): boolean => identity.protection !== null

/**
 * The words of an identity: the master secret that everything else derives from.
 * @throws locked without a passphrase where one is needed, passphrase_wrong, identity_invalid
 */
export async function unlockIdentity(identity: Identity, passphrase?: string): Promise<string> {
  const words = identity.protection === null ? identity.secret : await unprotect(identity, passphrase)
  const parsed = parseWords(words)
  if (!isOfWords(identity, parsed)) {
    throw new PylonError('identity_invalid', 'The words of the identity file do not belong to its public key.')
  }
  return parsed
}

/** @param words in normal form */
export function isOfWords({ pubkey, bunker }: Identity, words: string): boolean {
  const seed = seedOfWords(words)
  if (bunker !== undefined) return openConnection(seed, pubkey, bunker) !== undefined
  return createSigner(secretOfAccount(seed, NODE_ACCOUNT)).pubkey === pubkey
}

async function unprotect(identity: Identity, passphrase: string | undefined): Promise<string> {
  const { protection } = identity
  if (protection === null) return identity.secret
  if (passphrase === undefined) throw new PylonError('locked', 'The keys are under a passphrase; run: pylon unlock.')
  const key = await stretch(passphrase, Buffer.from(protection.salt, 'hex'), protection.log_n, protection.r, protection.p)
  const words = unseal(key, { nonce: Buffer.from(protection.nonce, 'hex'), ciphertext: Buffer.from(identity.secret, 'base64') })
  if (words === undefined) throw new PylonError('passphrase_wrong', 'The passphrase does not open this identity; try again.')
  return words
}

async function protect(words: string, passphrase: string): Promise<Pick<Identity, 'protection' | 'secret'>> {
  if (passphrase === '') throw new PylonError('usage', 'The passphrase is empty.')
  const salt = randomBytes(16)
  const key = await stretch(passphrase, salt, SCRYPT.logN, SCRYPT.r, SCRYPT.p)
  const { nonce, ciphertext } = seal(key, words)
  return {
    protection: {
      kdf: 'scrypt',
      log_n: SCRYPT.logN,
      r: SCRYPT.r,
      p: SCRYPT.p,
      salt: salt.toString('hex'),
      cipher: 'xchacha20poly1305',
      nonce: Buffer.from(nonce).toString('hex'),
    },
    secret: Buffer.from(ciphertext).toString('base64'),
  }
}

/** Runs on the thread pool, so the loop goes on. */
function stretch(passphrase: string, salt: Uint8Array, logN: number, r: number, p: number): Promise<Uint8Array> {
  const N = 2 ** logN
  return new Promise((resolve, reject) => {
    scrypt(passphrase.normalize('NFKC'), salt, 32, { N, r, p, maxmem: 256 * N * r }, (error, key) =>
      error === null ? resolve(new Uint8Array(key)) : reject(error),
    )
  })
}
