/** All keys of a home, derived from its words or imported and wrapped under them. */
import { isPrivate } from 'tiny-secp256k1'
import { z } from 'zod'
import type { Clock } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { Random } from '../../base/random.ts'
import { listWrappedKeys, putWrappedKey, removeWrappedKey, type WrappedKey } from '../../store/nostr/wrapped-keys.ts'
import type { Store } from '../../store/store.ts'
import { nsecOf, parseSecret } from '../nips/nip19.ts'
import type { Keyring, LocalSigner, Signer } from '../types.ts'
import { deriveBytes, mintBackupSecret, secretOfAccount, seedOfWords } from './mnemonic.ts'
import { seal, unseal } from './sealed.ts'
import { createSigner } from './signer.ts'

const NODE_ACCOUNT = 0
const CUSTOMER_ACCOUNT = 1
export const FIRST_AGENT_ACCOUNT = 10

const bundleSchema = z.object({
  version: z.literal(1),
  nsec: z.string(),
  wallet_seed: z.nullable(z.string().regex(/^[0-9a-f]{128}$/)),
})

const wrappedSchema = z.object({ secret: z.string(), wallet_seed: z.nullable(z.string()) })

export interface KeyringDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  /** Of identity.json: known while locked. */
  readonly nodePubkey: string
  /** Of all its signers; the system's when left out. */
  readonly random?: Random
}

interface Held {
  readonly signer: LocalSigner
  readonly secret: Uint8Array
  /** Where the wallet's seed came with the key instead of being derived here. */
  readonly walletSeed: Uint8Array | undefined
  walletSigner: LocalSigner | undefined
}

interface Opened {
  readonly words: string
  readonly seed: Uint8Array
  readonly wrapKey: Uint8Array
}

/** A keyring that stays locked until `unlock`. */
export class HomeKeyring implements Keyring {
  readonly #deps: KeyringDeps
  readonly #known = new Set<string>()
  readonly #wrapped = new Map<string, WrappedKey>()
  readonly #held = new Map<string, Held>()
  readonly #accounts = new Map<number, LocalSigner>()
  #opened: Opened | undefined

  constructor(deps: KeyringDeps) {
    this.#deps = deps
    this.#known.add(deps.nodePubkey)
    for (const key of listWrappedKeys(deps.store)) {
      this.#known.add(key.pubkey)
      this.#wrapped.set(key.pubkey, key)
    }
  }

  get locked(): boolean {
    return this.#opened === undefined
  }

  /** @param words of `unlockIdentity`. @throws identity_invalid when they are another home's */
  unlock(words: string): void {
    const seed = seedOfWords(words)
    const opened = { words, seed, wrapKey: deriveBytes(seed, 'pylon wrapped keys', 32) }
    const node = this.#derive(seed, NODE_ACCOUNT)
    if (node.signer.pubkey !== this.#deps.nodePubkey) {
      throw new PylonError('identity_invalid', 'These words belong to another identity than that of this home.')
    }
    this.#opened = opened
    this.#keep(NODE_ACCOUNT, node)
    this.account(CUSTOMER_ACCOUNT)
  }

  /** The words, for handing them to the daemon's own successor and to `backup` by the owner. @throws locked */
  words(): string {
    return this.#open().words
  }

  node(): Signer {
    return this.account(NODE_ACCOUNT)
  }

  customer(): LocalSigner {
    return this.account(CUSTOMER_ACCOUNT)
  }

  account(index: number): LocalSigner {
    const signer = this.accountUnseen(index)
    if (index >= CUSTOMER_ACCOUNT) this.#remember({ pubkey: signer.pubkey, account: index })
    return signer
  }

  /** The same for one that may never have been given out: it is not remembered, and stays no key that this home `owns`. @throws locked */
  accountUnseen(index: number): LocalSigner {
    const { seed } = this.#open()
    return this.#accounts.get(index) ?? this.#keep(index, this.#derive(seed, index))
  }

  /** NUT-27: the key of the list of mints, no other of this home. @throws locked */
  mintBackup(): LocalSigner {
    return createSigner(mintBackupSecret(this.#open().seed), this.#deps.random)
  }

  #derive(seed: Uint8Array, index: number): Held {
    const secret = secretOfAccount(seed, index)
    return { signer: createSigner(secret, this.#deps.random), secret, walletSeed: undefined, walletSigner: undefined }
  }

  #keep(index: number, held: Held): LocalSigner {
    const { signer } = held
    this.#accounts.set(index, signer)
    this.#held.set(signer.pubkey, held)
    return signer
  }

  signer(pubkey: string): Signer {
    return this.#hold(pubkey).signer
  }

  localSigner(pubkey: string): LocalSigner {
    return this.#hold(pubkey).signer
  }

  owns(pubkey: string): boolean {
    return this.#known.has(pubkey)
  }

  walletSeed(pubkey: string): Uint8Array {
    const held = this.#hold(pubkey)
    return held.walletSeed ?? deriveBytes(this.#open().seed, `pylon wallet ${pubkey}`, 64)
  }

  walletSigner(pubkey: string): LocalSigner {
    const held = this.#hold(pubkey)
    held.walletSigner ??= walletSignerOf(this.walletSeed(pubkey), pubkey, this.#deps.random)
    return held.walletSigner
  }

  /** Of the wallet's own P2PK key, for a backup that its owner asked for (NIP-60) only. @throws locked, not_found */
  walletSecret(pubkey: string): Uint8Array {
    return walletSecretOf(this.walletSeed(pubkey), pubkey)
  }

  /** A secret key for one purpose, derived from the words apart from all others, and no key that this home `owns`. @throws locked */
  derivedSecret(purpose: string): Uint8Array {
    return derivedSecretOf(this.#open().seed, `pylon derived ${purpose}`)
  }

  /**
   * Takes a key from elsewhere for good: an nsec, 64 hex digits, or the JSON of a bundle.
   * @throws locked, identity_invalid, agent_exists when this home has the key already
   */
  async importKey(text: string): Promise<LocalSigner> {
    const { wrapKey } = this.#open()
    const { secret, walletSeed } = parseKeyText(text)
    const signer = createSigner(secret, this.#deps.random)
    if (this.owns(signer.pubkey)) throw new PylonError('agent_exists', 'This home has this key already.')
    const plaintext = JSON.stringify({
      secret: Buffer.from(secret).toString('hex'),
      wallet_seed: walletSeed === undefined ? null : Buffer.from(walletSeed).toString('hex'),
    })
    const key = { pubkey: signer.pubkey, ...seal(wrapKey, plaintext) }
    await this.#deps.store.write(putWrappedKey({ key, at: this.#deps.clock.now() }))
    this.#known.add(key.pubkey)
    this.#wrapped.set(key.pubkey, key)
    this.#held.set(key.pubkey, { signer, secret, walletSeed, walletSigner: undefined })
    return signer
  }

  /** Forgets a key that was imported, for ever; an account of the words is none. */
  async forgetKey(pubkey: string): Promise<void> {
    const key = this.#wrapped.get(pubkey)
    if (key === undefined || 'account' in key) return
    await this.#deps.store.write(removeWrappedKey({ pubkey }))
    this.#wrapped.delete(pubkey)
    this.#held.delete(pubkey)
    this.#known.delete(pubkey)
  }

  /** The secrets of one key, for `agent export` only. @throws locked, not_found */
  exportKey(pubkey: string) {
    const held = this.#hold(pubkey)
    return { version: 1 as const, pubkey, nsec: nsecOf(held.secret), wallet_seed: Buffer.from(this.walletSeed(pubkey)).toString('hex') }
  }

  /** The first agent account that was never given out. */
  nextAccount(): number {
    const used = [...this.#wrapped.values()].flatMap((key) => ('account' in key ? [key.account] : []))
    return Math.max(FIRST_AGENT_ACCOUNT - 1, ...used) + 1
  }

  #open(): Opened {
    if (this.#opened === undefined) throw new PylonError('locked', 'The keys are locked; run: pylon unlock.')
    return this.#opened
  }

  #hold(pubkey: string): Held {
    const { wrapKey } = this.#open()
    const held = this.#held.get(pubkey)
    if (held !== undefined) return held
    const wrapped = this.#wrapped.get(pubkey)
    if (wrapped === undefined) throw new PylonError('not_found', 'This home does not hold that key.')
    if ('account' in wrapped) this.account(wrapped.account)
    else this.#held.set(pubkey, openWrapped(wrapKey, wrapped, this.#deps.random))
    const opened = this.#held.get(pubkey)
    if (opened === undefined) throw new PylonError('identity_invalid', 'A remembered account derives to another key.')
    return opened
  }

  /** The derivation is what counts; the row only lets a locked node know its own keys. */
  #remember(key: { pubkey: string; account: number }): void {
    this.#known.add(key.pubkey)
    if (this.#wrapped.has(key.pubkey)) return
    this.#wrapped.set(key.pubkey, key)
    this.#deps.store.write(putWrappedKey({ key, at: this.#deps.clock.now() })).catch((error: unknown) => {
      this.#deps.logger.warn({ error: messageOf(error), account: key.account }, 'an account could not be remembered')
    })
  }
}

function openWrapped(wrapKey: Uint8Array, key: Extract<WrappedKey, { ciphertext: Uint8Array }>, random: Random | undefined): Held {
  const opened = unseal(wrapKey, key)
  const parsed = wrappedSchema.safeParse(opened === undefined ? undefined : parseJson(opened))
  if (!parsed.success) throw new PylonError('identity_invalid', 'An imported key does not open with the words of this home.')
  const secret = new Uint8Array(Buffer.from(parsed.data.secret, 'hex'))
  const seedHex = parsed.data.wallet_seed
  return {
    signer: createSigner(secret, random),
    secret,
    walletSeed: seedHex === null ? undefined : new Uint8Array(Buffer.from(seedHex, 'hex')),
    walletSigner: undefined,
  }
}

function parseKeyText(text: string): { secret: Uint8Array; walletSeed: Uint8Array | undefined } {
  if (!text.trim().startsWith('{')) return { secret: parseSecret(text), walletSeed: undefined }
  const parsed = bundleSchema.safeParse(parseJson(text))
  if (!parsed.success) throw new PylonError('identity_invalid', 'The bundle is not what pylon agent export writes.')
  const { nsec, wallet_seed } = parsed.data
  return { secret: parseSecret(nsec), walletSeed: wallet_seed === null ? undefined : new Uint8Array(Buffer.from(wallet_seed, 'hex')) }
}

const walletSignerOf = (walletSeed: Uint8Array, pubkey: string, random: Random | undefined): LocalSigner =>
  createSigner(walletSecretOf(walletSeed, pubkey), random)

const walletSecretOf = (walletSeed: Uint8Array, pubkey: string): Uint8Array => derivedSecretOf(walletSeed, `pylon wallet key ${pubkey}`)

/** The first candidate is out of range with a chance of 2^-128. */
function derivedSecretOf(seed: Uint8Array, purpose: string): Uint8Array {
  for (let attempt = 0; ; attempt++) {
    const secret = deriveBytes(seed, `${purpose}${attempt === 0 ? '' : ` ${attempt}`}`, 32)
    if (isPrivate(secret)) return secret
  }
}
