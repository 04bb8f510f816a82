/**
 * NIP-60 read back: the wallet of one key as relays have it, whichever program put it there. What its events say is what some program
 * knew once; whether a coin is there only its mint knows.
 */
import { setImmediate } from 'node:timers/promises'
import { isPylonError } from '../../base/errors.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import { isHex64 } from '../../nostr/nips/nip01.ts'
import { DELETION_KIND } from '../../nostr/nips/nip09.ts'
import { parseWallet, parseWalletToken, type ReadWalletToken, WALLET_KIND, WALLET_TOKEN_KIND } from '../../nostr/nips/nip60.ts'
import type { LocalSigner, NostrEvent } from '../../nostr/types.ts'
import { normaliseMintUrl } from '../ecash/token.ts'
import type { FoundCoin } from '../purse/found-coins.ts'

export interface RelayWallet {
  readonly mints: readonly string[]
  /** Of its own, which tokens may be locked to. */
  readonly keys: readonly LocalSigner[]
  /** Each once, however many events have it. */
  readonly coins: readonly FoundCoin[]
  /** Those that stand, and the coins of each that could be read to the end; of others undefined. */
  readonly tokens: readonly { readonly id: string; readonly del: readonly string[]; readonly coins: readonly FoundCoin[] | undefined }[]
  /** How many events are there no more, as their author says. */
  readonly deleted: number
  /** What was left out, each as a sentence. */
  readonly problems: readonly string[]
}

/** Of one key: what is more is no wallet of a person. */
const MAX_TOKEN_EVENTS = 5000
const MAX_WALLET_EVENTS = 20
const MAX_COINS = 10_000
const MAX_KEYS = 20
/** Decrypted before others may run. */
const AT_ONCE = 20

/** @param events of relays, in any order: those of others, and of other kinds, are left out */
export async function readRelayWallet(signer: LocalSigner, events: readonly NostrEvent[]): Promise<RelayWallet> {
  const own = [...events]
    .filter(({ pubkey }) => pubkey === signer.pubkey)
    .sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1))
  const { mints, keys } = readWallets(
    signer,
    own.filter(({ kind }) => kind === WALLET_KIND),
  )
  const found = own.filter(({ kind }) => kind === WALLET_TOKEN_KIND)
  const gone = new Set(
    own
      .filter(({ kind }) => kind === DELETION_KIND)
      .flatMap(({ tags }) => tags.flatMap(([name, id]) => (name === 'e' && isHex64(id) ? [id] : []))),
  )
  const read: { readonly id: string; readonly token: ReadWalletToken | undefined }[] = []
  for (const [i, event] of found.slice(0, MAX_TOKEN_EVENTS).entries()) {
    const text = decrypted(signer, event.content)
    read.push({ id: event.id, token: text === undefined ? undefined : parseWalletToken(text) })
    if (i % AT_ONCE === AT_ONCE - 1) await setImmediate()
  }
  // Also of those that are gone themselves: what they took the place of stays gone.
  for (const { id, token } of read) for (const replaced of token?.del ?? []) if (replaced !== id) gone.add(replaced)
  const standing = read.filter(({ id }) => !gone.has(id))
  const problems = new Problems()
  if (found.length > MAX_TOKEN_EVENTS) problems.add(`The oldest events are not read: there are more than ${MAX_TOKEN_EVENTS}.`)
  const { coins, tokens } = gather(standing, problems)
  return { mints, keys, coins, tokens, deleted: read.length - standing.length, problems: problems.said() }
}

function readWallets(signer: LocalSigner, events: readonly NostrEvent[]): { mints: readonly string[]; keys: readonly LocalSigner[] } {
  const wallets = events.slice(0, MAX_WALLET_EVENTS).flatMap(({ content }) => parseWallet(decrypted(signer, content) ?? '') ?? [])
  // An older one may be all that a relay has, and coins are locked to the key that was told then.
  const secrets = [...new Set(wallets.flatMap(({ privkeys }) => privkeys))].slice(0, MAX_KEYS)
  return { mints: wallets[0]?.mints ?? [], keys: [signer, ...secrets.flatMap((secret) => keyOf(secret) ?? [])] }
}

function gather(
  standing: readonly { readonly id: string; readonly token: ReadWalletToken | undefined }[],
  problems: Problems,
): Pick<RelayWallet, 'coins' | 'tokens'> {
  const coins = new Map<string, FoundCoin>()
  const tokens: RelayWallet['tokens'][number][] = []
  for (const { id, token } of standing) {
    const mintUrl = token === undefined ? undefined : mintUrlIn(token.mintUrl)
    if (token === undefined || mintUrl === undefined) {
      problems.count((n) => `${n} ${n === 1 ? 'event' : 'events'} can't be read.`)
      tokens.push({ id, del: [], coins: undefined })
      continue
    }
    const { unit, malformed, del } = token
    if (unit !== 'sat') {
      problems.add(`Coins at ${mintUrl} are in ${JSON.stringify(unit)}: only sat is taken.`)
      tokens.push({ id, del, coins: undefined })
      continue
    }
    if (malformed > 0) problems.count((n) => `${n} ${n === 1 ? 'coin is' : 'coins are'} malformed.`, malformed)
    const here = token.proofs.flatMap((proof) => {
      const key = JSON.stringify([mintUrl, proof.secret])
      // The newest event has the word.
      const coin = coins.get(key) ?? { ...proof, mintUrl }
      if (!coins.has(key) && coins.size >= MAX_COINS) return []
      coins.set(key, coin)
      return [coin]
    })
    if (here.length < token.proofs.length) problems.add(`The oldest coins are not read: there are more than ${MAX_COINS}.`)
    tokens.push({ id, del, coins: malformed === 0 && here.length === token.proofs.length ? here : undefined })
  }
  return { coins: [...coins.values()], tokens }
}

/** Sentences, each once, and those that count. */
class Problems {
  readonly #said = new Set<string>()
  readonly #counts = new Map<string, { n: number; say: (n: number) => string }>()

  add(sentence: string): void {
    if (this.#said.size < 50) this.#said.add(sentence)
  }

  /** @param say of how many in all */
  count(say: (n: number) => string, more = 1): void {
    const name = say(0)
    this.#counts.set(name, { n: (this.#counts.get(name)?.n ?? 0) + more, say })
  }

  said(): string[] {
    return [...[...this.#counts.values()].map(({ n, say }) => say(n)), ...this.#said]
  }
}

function decrypted(signer: LocalSigner, content: string): string | undefined {
  try {
    return signer.nip44Decrypt(signer.pubkey, content)
  } catch (error) {
    if (isPylonError(error, 'decrypt_failed')) return undefined
    throw error
  }
}

function keyOf(secret: string): LocalSigner | undefined {
  try {
    return createSigner(new Uint8Array(Buffer.from(secret, 'hex')))
  } catch (error) {
    if (isPylonError(error, 'identity_invalid')) return undefined
    throw error
  }
}

function mintUrlIn(text: string): string | undefined {
  try {
    return normaliseMintUrl(text)
  } catch (error) {
    if (isPylonError(error, 'token_invalid')) return undefined
    throw error
  }
}
