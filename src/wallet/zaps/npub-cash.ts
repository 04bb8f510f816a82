/**
 * Lightning addresses at a service as npub.cash (its API v2): whoever pays <npub>@host pays an invoice of a mint, whose quote is locked to
 * the Nostr key of the payee. The service lists the quotes; each is taken over once, by its id, and minted by us whenever that is.
 */
import { z } from 'zod'
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Dialer, FetchResponse } from '../../base/dialer.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { Backoff, Scope } from '../../base/scope.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { buildHttpAuth } from '../../nostr/nips/nip98.ts'
import type { Keyring } from '../../nostr/types.ts'
import { lnurlKey } from '../../store/keys.ts'
import { quoteByKey } from '../../store/money/quotes.ts'
import { getLnurlAddress, listLnurlAddresses, putLnurlAddress } from '../../store/money/zaps.ts'
import type { Store } from '../../store/store.ts'
import { normaliseMintUrl } from '../ecash/token.ts'
import { encodeLnurl, fetchPayParameters, invalid } from '../lightning/lnurl.ts'
import type { OwnWallets } from '../wallets.ts'

export interface NpubCashDeps {
  /** Owns the polls: they end with it. */
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'fetch' | 'allow'>
  readonly nostr: { readonly keyring: Keyring }
  readonly wallets: Pick<OwnWallets, 'adoptQuote' | 'mints'>
  /** Of the service, without a slash at the end. */
  readonly baseUrl: string
}

/** Versions of the service differ in these names. */
const quoteSchema = z
  .object({
    id: z.string().min(1).max(500).optional(),
    quoteId: z.string().min(1).max(500).optional(),
    amount: z.int().min(1),
    unit: z.string().max(20).nullish(),
    mint: z.string().max(2048).nullish(),
    mintUrl: z.string().max(2048).nullish(),
    paid: z.boolean().nullish(),
    state: z.string().max(20).nullish(),
  })
  .transform(({ id, quoteId, mint, mintUrl, paid, state, ...rest }) => ({
    ...rest,
    quoteId: quoteId ?? id,
    mintUrl: mintUrl ?? mint,
    isPaid: paid === true || /^paid$/i.test(state ?? ''),
  }))
type ServiceQuote = z.output<typeof quoteSchema>
const pageSchema = z.object({
  data: z.union([z.array(z.unknown()), z.object({ quotes: z.array(z.unknown()) }).transform(({ quotes }) => quotes)]),
})

const QUOTES_PATH = '/api/v2/wallet/quotes'
/** Where the mint of invoices is named: as documented, and as other clients do it. */
const MINT_SETTINGS = [
  { method: 'PUT', path: '/api/v2/settings/mint', field: 'mintUrl' },
  { method: 'PATCH', path: '/api/v2/user/mint', field: 'mint_url' },
] as const
const PAGE = 50
const MAX_PAGES = 20
const POLL_MS = 15_000
const AFTER_FAILURE = { minMs: 2 * POLL_MS, maxMs: 900_000 }
/** Asked again this far back: a quote may be paid long after it was made, and clocks differ. */
const OVERLAP_S = 2 * 86_400
/** All are asked for so often, whatever their dates say. */
const WHOLE_MS = 6 * 3_600_000
const RECEIPT_KEY_FRESH_MS = 3_600_000

export class NpubCash {
  readonly #deps: NpubCashDeps
  readonly #backoff: Backoff
  readonly #wholeAt = new Map<string, number>()
  readonly #receiptKeys = new Map<string, { readonly key: string | undefined; readonly at: number }>()
  #cancel: (() => void) | undefined

  constructor(deps: NpubCashDeps) {
    this.#deps = deps
    this.#backoff = deps.scope.backoff(AFTER_FAILURE)
    // The owner chose it, and others name its addresses in profiles.
    deps.dialer.allow(deps.baseUrl, true)
  }

  /** Of the service, without a slash at the end. */
  get baseUrl(): string {
    return this.#deps.baseUrl
  }

  /** Fetches what was paid, now and from then on. */
  start(): void {
    this.#pollAfter(0)
  }

  /** Any key has an address there; the service is told at which of our mints its invoices are to be. @throws no_mint, fetch_failed, lnurl_invalid, address_refused, bunker_unable */
  async register(owner: WalletOwner, _name?: string): Promise<{ lnurl: string; lud16: string | undefined }> {
    const { store, baseUrl, wallets, clock, dialer } = this.#deps
    // The service locks what is paid to the Nostr key, and ecash is signed for here.
    this.#deps.nostr.keyring.localSigner(owner.pubkey)
    const known = getLnurlAddress(store, owner.pubkey)
    const mintUrl = wallets.mints()[0]?.url
    if (mintUrl === undefined) throw new PylonError('no_mint', 'No mint is configured: add one with pylon wallet mints add URL.')
    if (known?.baseUrl === baseUrl && wallets.mints().some(({ url }) => url === known.mintUrl)) {
      return { lnurl: known.lnurl, lud16: known.lud16 ?? undefined }
    }
    await this.#nameMint(owner, mintUrl)
    const name = npubOf(owner.pubkey)
    const url = `${baseUrl}/.well-known/lnurlp/${name}`
    const { callback } = await fetchPayParameters(dialer, url)
    const [lnurl, lud16] = [encodeLnurl(url), `${name}@${new URL(baseUrl).host}`]
    await store.write(
      putLnurlAddress({ ownerPubkey: owner.pubkey, baseUrl, name, lnurl, callback, lud16, mintUrl, createdAt: clock.now() }),
    )
    this.start()
    return { lnurl, lud16 }
  }

  async #nameMint(owner: WalletOwner, mintUrl: string): Promise<void> {
    let answer: FetchResponse | undefined
    for (const { method, path, field } of MINT_SETTINGS) {
      answer = await this.#asked(owner.pubkey, method, path, JSON.stringify({ [field]: mintUrl }))
      if (answer.status < 300) return
      if (answer.status !== 404 && answer.status !== 405) break
    }
    throw invalid(`its service did not take the mint ${mintUrl} (status ${answer?.status ?? 0}): ${answer?.text.slice(0, 200) ?? ''}`)
  }

  /** The key that signs receipts of zaps for this key, or undefined while unknown. */
  async receiptKeyOf(pubkey: string): Promise<string | undefined> {
    const { store, clock, dialer, baseUrl } = this.#deps
    const cached = this.#receiptKeys.get(pubkey)
    if (cached !== undefined && cached.at > clock.now() - RECEIPT_KEY_FRESH_MS) return cached.key
    if (getLnurlAddress(store, pubkey)?.baseUrl !== baseUrl) return undefined
    try {
      const { nostrPubkey: key } = await fetchPayParameters(dialer, `${baseUrl}/.well-known/lnurlp/${npubOf(pubkey)}`)
      this.#receiptKeys.set(pubkey, { key, at: clock.now() })
      return key
    } catch {
      // It is asked again with the next receipt.
      return cached?.key
    }
  }

  /** Takes over what was paid to every address there; resolves when all were asked. */
  poll(): Promise<void> {
    return this.#deps.scope.once('poll', async (signal) => {
      let isWell = true
      for (const { ownerPubkey } of this.#addresses()) {
        if (signal.aborted) return
        isWell = (await this.#tryPoll(ownerPubkey)) && isWell
      }
      if (isWell) this.#backoff.reset()
      this.#pollAfter(isWell ? POLL_MS : this.#backoff.nextMs())
    })
  }

  #addresses() {
    const { store, baseUrl, nostr } = this.#deps
    return listLnurlAddresses(store).filter((address) => address.baseUrl === baseUrl && nostr.keyring.owns(address.ownerPubkey))
  }

  #pollAfter(ms: number): void {
    this.#cancel?.()
    this.#cancel = this.#deps.scope.after('next poll', ms, () => this.poll())
  }

  async #tryPoll(pubkey: string): Promise<boolean> {
    try {
      return await this.#pollOne(pubkey)
    } catch (error) {
      this.#deps.logger.warn({ address: npubOf(pubkey), err: messageOf(error) }, 'could not ask the address service, trying again')
      return false
    }
  }

  /** @returns whether all that was paid could be taken over */
  async #pollOne(pubkey: string): Promise<boolean> {
    const { clock } = this.#deps
    const isWhole = (this.#wholeAt.get(pubkey) ?? 0) < clock.now() - WHOLE_MS
    const since = isWhole ? '' : `&since=${unixSeconds(clock) - OVERLAP_S}`
    let isWell = true
    for (let page = 0; page < MAX_PAGES; page++) {
      const rows = await this.#page(pubkey, `?offset=${page * PAGE}&limit=${PAGE}${since}`)
      for (const row of rows) isWell = (await this.#take(pubkey, row)) && isWell
      // A service without pages answers all at once, each time.
      if (rows.length !== PAGE) break
    }
    if (isWell && isWhole) this.#wholeAt.set(pubkey, clock.now())
    return isWell
  }

  /** @throws fetch_failed */
  async #page(pubkey: string, query: string): Promise<readonly unknown[]> {
    const answer = await this.#asked(pubkey, 'GET', QUOTES_PATH, undefined, query)
    const parsed = pageSchema.safeParse(parseJson(answer.text))
    if (answer.status === 200 && parsed.success) return parsed.data.data
    throw new PylonError('fetch_failed', `The address service answered with status ${answer.status} and no list of quotes.`)
  }

  /** One that cannot be taken holds up no other. @returns whether nothing is left to do about it now */
  async #take(pubkey: string, row: unknown): Promise<boolean> {
    const { data: quote } = quoteSchema.safeParse(row)
    if (quote?.quoteId === undefined || !quote.isPaid || (quote.unit ?? 'sat') !== 'sat') return true
    try {
      await this.#adopt({ kind: this.#kindOf(pubkey), pubkey }, quote, quote.quoteId)
      return true
    } catch (error) {
      this.#deps.logger.warn({ quote: quote.quoteId, err: messageOf(error) }, 'what was paid to an address could not be taken over yet')
      return false
    }
  }

  #kindOf(pubkey: string): WalletOwner['kind'] {
    return pubkey === this.#deps.nostr.keyring.node().pubkey ? 'node' : 'agent'
  }

  async #adopt(owner: WalletOwner, quote: ServiceQuote, quoteId: string): Promise<void> {
    const { store, wallets } = this.#deps
    const idempotencyKey = lnurlKey.of(quoteId)
    if (quoteByKey(store, idempotencyKey) !== undefined) return
    const mintUrl = normaliseMintUrl(quote.mintUrl ?? getLnurlAddress(store, owner.pubkey)?.mintUrl ?? '')
    await wallets.adoptQuote(owner, {
      ...{ idempotencyKey, mintUrl, quoteId, amountSats: BigInt(quote.amount), cause: { type: 'zap', id: quoteId } },
      creditAccount: accountOf(accountOwner(owner), 'income', 'tip'),
    })
  }

  /** NIP-98; what is signed is the address without its query, as the service has it. */
  async #asked(pubkey: string, method: 'GET' | 'PUT' | 'PATCH', path: string, body?: string, query = ''): Promise<FetchResponse> {
    const { nostr, clock, baseUrl, dialer } = this.#deps
    const url = `${baseUrl}${path}`
    const given = body === undefined ? {} : { body }
    const authorization = await buildHttpAuth(nostr.keyring.signer(pubkey), { url, method, nowS: unixSeconds(clock), ...given })
    const headers = { authorization, accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    return await dialer.fetch(`${url}${query}`, { method, headers, ...given })
  }
}
