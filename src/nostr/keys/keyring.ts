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
import { RemoteSigner } from '../bunker/remote-signer.ts'
import { npubOf, nsecOf, parseSecret } from '../nips/nip19.ts'
import type { BunkerMethod, BunkerUri } from '../nips/nip46.ts'
import { createVerifier, type Verifier } from '../reading/verify.ts'
import type { Keyring, LocalSigner, Signer } from '../types.ts'
import { deriveBytes, mintBackupSecret, NODE_ACCOUNT, secretOfAccount, seedOfWords } from './mnemonic.ts'
import { openConnection, type RemoteKey, remoteKeyOf, remoteKeySchema, type SealedConnection, wrapKeyOf } from './remote-key.ts'
import { seal, unseal } from './sealed.ts'
import { createSigner } from './signer.ts'

const CUSTOMER_ACCOUNT = 1
export const FIRST_AGENT_ACCOUNT = 10

const bundleSchema = z.object({
  version: z.literal(1),
  nsec: z.string(),
  wallet_seed: z.nullable(z.string().regex(/^[0-9a-f]{128}$/)),
})

const localSchema = z.object({ secret: z.string(), wallet_seed: z.nullable(z.string()) })
const wrappedSchema = z.union([localSchema, remoteKeySchema])

/** How a bunker is asked for one of its keys. @throws bunker_unreachable, bunker_refused, bunker_approval, bunker_key_changed */
export type AskBunker = (pubkey: string, method: BunkerMethod, params: readonly string[]) => Promise<string>

export interface KeyringDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  /** Of identity.json: known while locked. */
  readonly nodePubkey: string
  /** Of identity.json too, where a bunker holds the node's key. */
  readonly nodeBunker?: SealedConnection | undefined
  /** Of all its signers; the system's when left out. */
  readonly random?: Random
}

interface Held {
  readonly signer: Signer
  /** Undefined where a bunker holds it. */
  readonly local: { readonly signer: LocalSigner; readonly secret: Uint8Array } | undefined
  readonly bunker?: BunkerUri
  /** Whose wallet it has, where the key itself derives none of these words. */
  readonly walletOf?: string
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
  #askBunker: AskBunker | undefined
  #verifier: Verifier | undefined

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
    const opened = { words, seed, wrapKey: wrapKeyOf(seed) }
    const node = this.#derive(seed, NODE_ACCOUNT)
    const { nodePubkey, nodeBunker } = this.#deps
    const remote = nodeBunker === undefined ? undefined : openConnection(seed, nodePubkey, nodeBunker)
    if (remote !== undefined) this.#held.set(nodePubkey, this.#remote(opened, nodePubkey, remote))
    else if (node.pubkey !== nodePubkey) {
      const wrapped = this.#wrapped.get(nodePubkey)
      if (wrapped === undefined || 'account' in wrapped)
        throw new PylonError('identity_invalid', 'These words belong to another identity than that of this home.')
      this.#held.set(nodePubkey, this.#openWrapped(opened, wrapped))
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
    return this.signer(this.#deps.nodePubkey)
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

  #derive(seed: Uint8Array, index: number): LocalKey {
    return localKey(secretOfAccount(seed, index), this.#deps.random)
  }

  #keep(index: number, key: LocalKey): LocalSigner {
    this.#accounts.set(index, key.signer)
    this.#held.set(key.pubkey, heldOf(key))
    return key.signer
  }

  signer(pubkey: string): Signer {
    return this.#hold(pubkey).signer
  }

  localSigner(pubkey: string): LocalSigner {
    return this.#local(pubkey).signer
  }

  #local(pubkey: string): LocalKey {
    const { local } = this.#hold(pubkey)
    if (local !== undefined) return { pubkey, ...local }
    throw new PylonError('bunker_unable', `The key ${npubOf(pubkey)} is held by a bunker elsewhere: this can only be done where it is.`)
  }

  /** Keys that bunkers hold, and which. @throws locked */
  remotes(): { readonly pubkey: string; readonly bunker: BunkerUri }[] {
    const { nodePubkey } = this.#deps
    const mayBe = [...this.#wrapped.values()].flatMap((key) => ('account' in key || key.pubkey === nodePubkey ? [] : [key.pubkey]))
    return [nodePubkey, ...mayBe].flatMap((pubkey) => {
      const { bunker } = this.#hold(pubkey)
      return bunker === undefined ? [] : [{ pubkey, bunker }]
    })
  }

  /** By whom keys at bunkers are asked for; until then they are silent. */
  askBunkersBy(ask: AskBunker): void {
    this.#askBunker = ask
  }

  /** The key by which a bunker knows this home: the same for the same string, so that one that was cut off is known again. @throws locked */
  bunkerClient({ signerPubkey, secret }: BunkerUri): LocalSigner {
    const key = localKey(this.derivedSecret(`bunker client ${signerPubkey} ${secret}`), this.#deps.random)
    const known = this.#held.get(key.pubkey)?.local
    if (known !== undefined) return known.signer
    // Shown to relays that want to know who asks.
    this.#held.set(key.pubkey, heldOf(key))
    this.#known.add(key.pubkey)
    return key.signer
  }

  /**
   * Takes an identity whose key a bunker holds; the same again does nothing.
   * @param walletAccount the NIP-06 account whose wallet it has: its sats come back by the words alone
   * @throws locked, agent_exists when this home holds the key itself, or by another bunker
   */
  async keepRemote(pubkey: string, bunker: BunkerUri, walletAccount: number): Promise<Signer> {
    const opened = this.#open()
    if (this.owns(pubkey)) {
      const known = this.#hold(pubkey)
      if (JSON.stringify(known.bunker) === JSON.stringify(bunker)) return known.signer
      throw new PylonError('agent_exists', 'This home has this key already.')
    }
    const key = { pubkey, ...seal(opened.wrapKey, JSON.stringify(remoteKeyOf(bunker, walletAccount))) }
    await this.#deps.store.write(putWrappedKey({ key, at: this.#deps.clock.now() }))
    this.#known.add(pubkey)
    this.#wrapped.set(pubkey, key)
    return this.#hold(pubkey).signer
  }

  owns(pubkey: string): boolean {
    return this.#known.has(pubkey)
  }

  walletSeed(pubkey: string): Uint8Array {
    const { walletSeed, walletOf = pubkey } = this.#hold(pubkey)
    return walletSeed ?? deriveBytes(this.#open().seed, `pylon wallet ${walletOf}`, 64)
  }

  walletSigner(pubkey: string): LocalSigner {
    const held = this.#hold(pubkey)
    held.walletSigner ??= createSigner(this.walletSecret(pubkey), this.#deps.random)
    return held.walletSigner
  }

  /** Of the wallet's own P2PK key, for a backup that its owner asked for (NIP-60) only. @throws locked, not_found */
  walletSecret(pubkey: string): Uint8Array {
    return derivedSecretOf(this.walletSeed(pubkey), `pylon wallet key ${this.#hold(pubkey).walletOf ?? pubkey}`)
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
    this.#held.set(key.pubkey, heldOf({ pubkey: key.pubkey, signer, secret }, walletSeed))
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
    const { secret } = this.#local(pubkey)
    return { version: 1 as const, pubkey, nsec: nsecOf(secret), wallet_seed: Buffer.from(this.walletSeed(pubkey)).toString('hex') }
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
    const open = this.#open()
    const held = this.#held.get(pubkey)
    if (held !== undefined) return held
    const wrapped = this.#wrapped.get(pubkey)
    if (wrapped === undefined) throw new PylonError('not_found', 'This home does not hold that key.')
    if ('account' in wrapped) this.account(wrapped.account)
    else this.#held.set(pubkey, this.#openWrapped(open, wrapped))
    const opened = this.#held.get(pubkey)
    if (opened === undefined) throw new PylonError('identity_invalid', 'A remembered account derives to another key.')
    return opened
  }

  #openWrapped(open: Opened, key: Extract<WrappedKey, { ciphertext: Uint8Array }>): Held {
    const opened = unseal(open.wrapKey, key)
    const parsed = wrappedSchema.safeParse(opened === undefined ? undefined : parseJson(opened))
    if (!parsed.success) throw new PylonError('identity_invalid', 'An imported key does not open with the words of this home.')
    const { data } = parsed
    if (!('secret' in data)) return this.#remote(open, key.pubkey, data)
    const seedHex = data.wallet_seed
    const walletSeed = seedHex === null ? undefined : new Uint8Array(Buffer.from(seedHex, 'hex'))
    return heldOf(localKey(new Uint8Array(Buffer.from(data.secret, 'hex')), this.#deps.random), walletSeed)
  }

  #remote({ seed }: Pick<Opened, 'seed'>, pubkey: string, { bunker, wallet_account }: RemoteKey): Held {
    const { signer_pubkey: signerPubkey, relays, secret } = bunker
    const wallet = this.#derive(seed, wallet_account)
    return {
      signer: this.#remoteSigner(pubkey, wallet.signer.random),
      local: undefined,
      bunker: { signerPubkey, relays, secret },
      walletOf: wallet.pubkey,
      walletSeed: undefined,
      walletSigner: undefined,
    }
  }

  #remoteSigner(pubkey: string, random: Random): Signer {
    this.#verifier ??= createVerifier()
    const ask = async (method: BunkerMethod, params: readonly string[]): Promise<string> => {
      if (this.#askBunker === undefined) throw new PylonError('bunker_unreachable', 'The bunker is not asked yet: the node is starting.')
      return await this.#askBunker(pubkey, method, params)
    }
    return new RemoteSigner({ pubkey, random, verifier: this.#verifier, ask })
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

interface LocalKey {
  readonly pubkey: string
  readonly signer: LocalSigner
  readonly secret: Uint8Array
}

function localKey(secret: Uint8Array, random: Random | undefined): LocalKey {
  const signer = createSigner(secret, random)
  return { pubkey: signer.pubkey, signer, secret }
}

const heldOf = ({ signer, secret }: LocalKey, walletSeed?: Uint8Array): Held => ({
  signer,
  local: { signer, secret },
  walletSeed,
  walletSigner: undefined,
})

function parseKeyText(text: string): { secret: Uint8Array; walletSeed: Uint8Array | undefined } {
  if (!text.trim().startsWith('{')) return { secret: parseSecret(text), walletSeed: undefined }
  const parsed = bundleSchema.safeParse(parseJson(text))
  if (!parsed.success) throw new PylonError('identity_invalid', 'The bundle is not what pylon agent export writes.')
  const { nsec, wallet_seed } = parsed.data
  return { secret: parseSecret(nsec), walletSeed: wallet_seed === null ? undefined : new Uint8Array(Buffer.from(wallet_seed, 'hex')) }
}

/** The first candidate is out of range with a chance of 2^-128. */
function derivedSecretOf(seed: Uint8Array, purpose: string): Uint8Array {
  for (let attempt = 0; ; attempt++) {
    const secret = deriveBytes(seed, `${purpose}${attempt === 0 ? '' : ` ${attempt}`}`, 32)
    if (isPrivate(secret)) return secret
  }
}
