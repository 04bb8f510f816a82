/** The mints of this home: the allowlist, what each can do, its keysets, and how it is. */
import { z } from 'zod'
import { type Sats, sats } from '../../base/amounts.ts'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { type KeysetInfo, type KeysetRow, mintsOfKeysets } from '../../store/money/keysets.ts'
import { formerMints, keysetsWithCoins, mintNow, moveMint, renameMint } from '../../store/money/mint-moves.ts'
import {
  deleteMint,
  getMint,
  limitInputs,
  listedMints,
  listMints,
  type MintRow,
  putMint,
  setMintCap,
  setMintHealth,
} from '../../store/money/mints.ts'
import type { Store } from '../../store/store.ts'
import type { MintPublicKeys } from '../ecash/crypto.ts'
import { normaliseMintUrl } from '../ecash/token.ts'
import type { MintInfo } from '../types.ts'
import { MintClient, type MintReply, type MintSays, mintInfoSchema, unwrap } from './client.ts'
import { Keysets } from './keysets.ts'

/** What Pylon cannot do without; 4 and 5 are asked for bolt11 in sats. */
const REQUIRED_NUTS = ['7', '9', '10', '11', '12', '20'] as const

/** Inputs of one request, and proofs of one token: mints take at most a thousand, our own reading of tokens two hundred. */
const MAX_INPUTS = 100
/** No mint takes fewer, unless it says so: a smaller request that is refused for its size is refused for something else. */
const FEWEST_INPUTS = 8

export interface MintsDeps {
  readonly scope: Scope
  /** Ends every call that is under way: its outcome is unknown then, and the next start finds it out. */
  readonly signal: AbortSignal
  readonly store: Store
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'fetch' | 'allow'>
}

export class Mints {
  readonly #deps: MintsDeps
  readonly #clients = new Map<string, MintClient>()
  /** Addresses that the owner gave; any other is a stranger's, and meets the whole guard. */
  readonly #trusted = new Set<string>()
  readonly #keysets: Keysets

  constructor(deps: MintsDeps) {
    this.#deps = deps
    const { scope, store, logger } = deps
    this.#keysets = new Keysets({ scope, store, logger, client: (url) => this.client(url), note: (url, reply) => this.note(url, reply) })
    for (const mint of listMints(deps.store)) this.#trust(mint.url)
  }

  #trust(url: string): void {
    this.#trusted.add(url)
    this.#deps.dialer.allow(url)
  }

  list(): MintRow[] {
    return listMints(this.#deps.store)
  }

  /** Whether there is this mint, also under an address that it left; or any. */
  has(url?: string): boolean {
    const { store } = this.#deps
    if (url === undefined) return listedMints(store).length > 0
    return getMint(store, url) !== undefined || mintNow(store, url) !== undefined
  }

  /** The mint of an address, also of one that it left. @throws mint_not_allowed */
  get(url: string): MintRow {
    const mint = getMint(this.#deps.store, url) ?? getMint(this.#deps.store, mintNow(this.#deps.store, url) ?? '')
    if (mint === undefined) {
      throw new PylonError('mint_not_allowed', `The mint ${url} is not on the list: add it with pylon wallet mints add ${url}.`)
    }
    return mint
  }

  client(url: string): MintClient {
    let client = this.#clients.get(url)
    if (client === undefined) {
      const { dialer, signal } = this.#deps
      const fetch: Dialer['fetch'] = (target, options) =>
        dialer.fetch(target, this.#trusted.has(url) ? options : { ...options, namedByStranger: 'mint' })
      client = new MintClient(url, { fetch }, signal)
      this.#clients.set(url, client)
    }
    return client
  }

  /** Whether the mint says that it pays invoices without an amount (NUT-05, 23). */
  paysAmountless({ info }: MintRow): boolean {
    const { methods } = (info as { nuts?: Record<string, { methods?: unknown } | null> }).nuts?.['5'] ?? {}
    return Array.isArray(methods) && methods.some((one) => amountlessSchema.safeParse(one).success)
  }

  /** Whether the mint says it has this NUT. */
  supports(mint: MintRow, nut: string): boolean {
    const nuts = (mint.info as { nuts?: Record<string, unknown> }).nuts ?? {}
    const entry = nuts[nut]
    if (typeof entry !== 'object' || entry === null) return false
    const supported = (entry as { supported?: unknown }).supported
    return supported === true || Array.isArray(supported)
  }

  /** @throws mint_unreachable, mint_incompatible, mint_rejected, address_refused */
  async add(url: string, capSats: Sats): Promise<MintInfo> {
    const { scope, store } = this.#deps
    const mintUrl = normaliseConfiguredUrl(url)
    this.#trust(mintUrl)
    const info = await this.#askInfo(mintUrl)
    await this.#assertNew(mintUrl)
    await this.#keysets.refresh(mintUrl)
    await this.#keysets.active(mintUrl)
    await store.write(putMint({ url: mintUrl, capSats, info, at: scope.clock.now() }))
    // Once more, so that what can't be used is named with the mint.
    await this.#keysets.refresh(mintUrl)
    const { addedAt } = this.get(mintUrl)
    return { url: mintUrl, capSats, addedAt }
  }

  /** @throws mint_unreachable, mint_rejected, mint_incompatible, address_refused */
  async #askInfo(mintUrl: string): Promise<MintSays> {
    const info = unwrap(mintUrl, await this.client(mintUrl).get('/v1/info', mintInfoSchema))
    assertCompatible(mintUrl, info.nuts)
    return info
  }

  /** That a mint which is not on the list can do what is needed to take coins there and to leave it; its keysets are read. @throws as add */
  async meet(mintUrl: string): Promise<void> {
    await this.#askInfo(mintUrl)
    await this.#keysets.refresh(mintUrl)
  }

  /** @throws mint_not_allowed */
  async setCap(url: string, capSats: Sats): Promise<void> {
    await this.#deps.store.write(setMintCap({ url: this.get(normaliseConfiguredUrl(url)).url, capSats }))
  }

  /** An address is not an identity: whoever serves the keysets of a mint of the list is that mint. @throws mint_moved */
  async #assertNew(mintUrl: string): Promise<void> {
    const { keysets } = await this.#keysets.fetchList(mintUrl)
    const ids = keysets.map((keyset) => keyset.id)
    const owner = mintsOfKeysets(this.#deps.store, ids).find((url) => url !== mintUrl && getMint(this.#deps.store, url) !== undefined)
    if (owner === undefined) return
    const command = `pylon wallet mints move ${owner} ${mintUrl}`
    throw new PylonError('mint_moved', `${mintUrl} has the keysets of ${owner}, which is on the list. If the mint has moved: ${command}`, {
      details: { mint_url: owner, next_step: command },
    })
  }

  /** @throws mint_in_use, mint_not_allowed */
  async remove(url: string): Promise<void> {
    const mintUrl = normaliseConfiguredUrl(url)
    this.get(mintUrl)
    await this.#deps.store.write(deleteMint({ url: mintUrl }))
  }

  keysets(url: string): KeysetInfo[] {
    return this.#keysets.list(url)
  }

  /** The keys of one keyset, also of a retired one. @throws mint_unreachable, mint_rejected, mint_incompatible */
  keys(url: string, id: string): Promise<MintPublicKeys> {
    return this.#keysets.keys(url, id)
  }

  /** The keyset to make outputs with. Asks the mint again when our list is old. @throws mint_unreachable, mint_incompatible */
  activeKeyset(url: string, options: { refresh?: boolean } = {}): Promise<KeysetRow> {
    return this.#keysets.active(url, options)
  }

  /** @throws mint_unreachable, mint_rejected */
  refreshKeysets(url: string): Promise<void> {
    return this.#keysets.refresh(url)
  }

  /** Called when a keyset retires that coins may be of. */
  onRetired(listener: () => void): void {
    this.#keysets.onRetired = listener
  }

  /** How many inputs a request to this mint may have. */
  maxInputs(url: string): number {
    return Math.min(MAX_INPUTS, getMint(this.#deps.store, url)?.maxInputs ?? MAX_INPUTS)
  }

  /** A request with so many inputs was refused for its size. @param most what the mint says it takes */
  async noteTooMany(url: string, inputs: number, most: number | undefined): Promise<void> {
    // More than it is known to take: that says nothing new.
    if (inputs > this.maxInputs(url)) return
    const isStated = most !== undefined && most < inputs
    if (!isStated && inputs <= FEWEST_INPUTS) return
    const maxInputs = isStated ? Math.max(1, most) : Math.max(FEWEST_INPUTS, Math.floor(inputs / 2))
    this.#deps.logger.warn({ mint: url, inputs, max_inputs: maxInputs }, 'the mint takes fewer inputs at once')
    await this.#deps.store.write(limitInputs({ url, maxInputs }))
  }

  /**
   * Follows a mint of the list to another address: after the new one has shown that it serves the keysets of the coins that
   * we hold, and of what the old one signed with last.
   * @throws mint_not_allowed, mint_incompatible, mint_unreachable, mint_rejected, address_refused
   */
  async move(oldUrl: string, newUrl: string): Promise<MintInfo> {
    const { store, logger } = this.#deps
    const from = normaliseConfiguredUrl(oldUrl)
    const to = normaliseConfiguredUrl(newUrl)
    const old = this.get(from)
    if (old.url === to) throw new PylonError('invalid_request', `${from} is at ${to} already.`)
    this.#trust(to)
    const info = await this.#askInfo(to)
    await this.#assertSameKeysets(old.url, to)
    await store.write(moveMint({ from: old.url, to, info }))
    logger.info({ from: old.url, to }, 'a mint has moved')
    await this.#keysets.refresh(to)
    const { url, capSats, addedAt } = this.get(to)
    return { url, capSats: sats(capSats), addedAt }
  }

  /** What is under way ends under the name that it began with: all of it gets the new one once that has ended. */
  async renameMoved(): Promise<void> {
    for (const move of formerMints(this.#deps.store)) await this.#deps.store.write(renameMint(move))
  }

  async #assertSameKeysets(from: string, to: string): Promise<void> {
    const { keysets: served } = await this.#keysets.fetchList(to)
    const known = this.keysets(from)
    const withCoins = keysetsWithCoins(this.#deps.store, from)
    const needed = withCoins.length > 0 ? withCoins : known.filter((keyset) => keyset.active).map((keyset) => keyset.id)
    for (const id of needed) {
      const there = served.find((keyset) => keyset.id === id)
      const isOfCoins = withCoins.includes(id)
      const refuse = (why: string) =>
        new PylonError(
          'mint_incompatible',
          `${to} is not ${from} at another address: ${why} ${id}${isOfCoins ? ', which coins that you hold are of' : ''}.`,
        )
      if (there === undefined) throw refuse('it does not list the keyset')
      const theirs = await this.#keysets.fetchKeys(to, there)
      const ours = known.find((keyset) => keyset.id === id)?.hasKeys === true ? await this.keys(from, id) : theirs
      if (JSON.stringify(sortedKeys(theirs)) !== JSON.stringify(sortedKeys(ours))) throw refuse('it has other keys for the keyset')
    }
    if (needed.length === 0)
      throw new PylonError('mint_incompatible', `Nothing is known of ${from} by which ${to} could be recognised: add that one.`)
  }

  /** Asks the mint how it is, by its list of keysets, and remembers both. Never rejects for what the mint does. */
  async probe(url: string): Promise<void> {
    await this.#keysets.refresh(url).catch((error: unknown) => {
      if (!isPylonError(error)) throw error
    })
  }

  /** Remembers how the mint is; written only when it changes. */
  async note(url: string, reply: MintReply<unknown>): Promise<void> {
    const mint = getMint(this.#deps.store, url)
    if (mint === undefined) return
    const state = reply.kind === 'unknown' ? 'down' : 'ok'
    const reason = reply.kind === 'unknown' ? reply.reason.slice(0, 300) : null
    if (mint.state === state) return
    this.#deps.logger.warn({ mint: url, state, reason }, 'mint changed state')
    await this.#deps.store.write(setMintHealth({ url, state, reason }))
  }
}

const sortedKeys = (keys: Readonly<Record<string, string>>): [string, string][] =>
  Object.entries(keys).sort(([a], [b]) => (BigInt(a) < BigInt(b) ? -1 : 1))

/** @throws mint_cap_exceeded */
export function assertUnderCap(mint: MintRow, held: bigint, more: bigint): void {
  if (held + more <= mint.capSats) return
  throw new PylonError(
    'mint_cap_exceeded',
    `${mint.url} would hold ${held + more} sats of this wallet, its cap is ${mint.capSats}: raise it with pylon wallet mints set ${mint.url} --cap SATS, or use another mint.`,
  )
}

const amountlessSchema = z.object({
  method: z.literal('bolt11'),
  unit: z.literal('sat'),
  options: z.object({ amountless: z.literal(true) }),
})

function normaliseConfiguredUrl(url: string): string {
  try {
    return normaliseMintUrl(url)
  } catch {
    throw new PylonError('invalid_request', `${url.slice(0, 200)} is no http(s) URL of a mint.`)
  }
}

function assertCompatible(url: string, nuts: Readonly<Record<string, unknown>>): void {
  const missing: string[] = REQUIRED_NUTS.filter((nut) => (nuts[nut] as { supported?: unknown } | undefined)?.supported !== true)
  for (const nut of ['4', '5']) {
    const entry = nuts[nut] as { methods?: unknown; disabled?: unknown } | undefined
    const methods: unknown[] = Array.isArray(entry?.methods) ? entry.methods : []
    const offered = methods.some(
      (one) => (one as { method?: unknown } | null)?.method === 'bolt11' && (one as { unit?: unknown }).unit === 'sat',
    )
    if (!offered || entry?.disabled === true) missing.push(nut)
  }
  if (missing.length === 0) return
  const names = missing.map((nut) => `NUT-${nut.padStart(2, '0')}`).join(', ')
  throw new PylonError('mint_incompatible', `${url} lacks ${names}, which Pylon needs: choose another mint.`, { details: { missing } })
}
