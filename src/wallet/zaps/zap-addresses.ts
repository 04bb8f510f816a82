/** Addresses at which agents can be zapped: registered at an LNURL server, their paid quotes fetched and minted, once each. */
import { z } from 'zod'
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { Backoff, Scope } from '../../base/scope.ts'
import { buildHttpAuth } from '../../nostr/nips/nip98.ts'
import type { Keyring, Signer } from '../../nostr/types.ts'
import { lnurlKey } from '../../store/keys.ts'
import { getLnurlAddress, type LnurlAddressRow, listLnurlAddresses, putLnurlAddress } from '../../store/money/zaps.ts'
import type { Store } from '../../store/store.ts'
import { decodeLnurl, fetchPayParameters, invalid } from '../lightning/lnurl.ts'
import type { OwnWallets } from '../wallets.ts'

export interface ZapAddressesDeps {
  /** Owns the polls: they end with it. */
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Dialer
  readonly nostr: { readonly keyring: Keyring }
  readonly wallets: Pick<OwnWallets, 'of' | 'adoptQuote'>
  /** Of the LNURL server, without a slash at the end. */
  readonly baseUrl: string
  /** The mint that the server takes quotes from. */
  readonly mintUrl: string
}

const registeredSchema = z.object({
  name: z.string().max(64),
  lnurl: z.string().max(2000),
  callback: z.string().max(2000),
  lud16: z.string().max(320).nullish(),
})
const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const quotesSchema = z.object({
  quotes: z
    .array(
      z.object({
        quote: z.string().min(1).max(500),
        amount_sats: z.int().min(1),
        zap_request_id: hex64.nullish(),
        sender_pubkey: hex64.nullish(),
      }),
    )
    .max(1000),
})

const POLL_MS = 3000
const AFTER_FAILURE = { minMs: 2 * POLL_MS, maxMs: 60_000 }
const RECEIPT_KEY_FRESH_MS = 3_600_000

export class ZapAddresses {
  readonly #deps: ZapAddressesDeps
  readonly #receiptKeys = new Map<string, { key: string | undefined; at: number }>()
  readonly #backoff: Backoff
  #cancel: (() => void) | undefined

  constructor(deps: ZapAddressesDeps) {
    this.#deps = deps
    this.#backoff = deps.scope.backoff(AFTER_FAILURE)
  }

  /** Of the service, without a slash at the end. */
  get baseUrl(): string {
    return this.#deps.baseUrl
  }

  /** Fetches what was paid, now and from then on. */
  start(): void {
    this.#pollAfter(0)
  }

  /** Registers the agent's key under a name, or one like it where the name is taken. @throws fetch_failed, lnurl_invalid, address_refused */
  async register(owner: WalletOwner, name: string): Promise<{ lnurl: string; lud16: string | undefined }> {
    const { store, baseUrl, mintUrl, clock } = this.#deps
    const known = getLnurlAddress(store, owner.pubkey)
    if (known?.baseUrl === baseUrl && known.mintUrl === mintUrl) return { lnurl: known.lnurl, lud16: known.lud16 ?? undefined }
    const plain = name
      .toLowerCase()
      .replace(/[^a-z0-9_-]/g, '-')
      .slice(0, 25)
    const registered = (await this.#register(owner, plain)) ?? (await this.#register(owner, `${plain}-${owner.pubkey.slice(0, 6)}`))
    if (registered === undefined) throw invalid(`the names ${plain} and ${plain}-${owner.pubkey.slice(0, 6)} are taken at ${baseUrl}`)
    const { lnurl, callback } = registered
    await store.write(
      putLnurlAddress({
        ownerPubkey: owner.pubkey,
        baseUrl,
        name: registered.name,
        lnurl,
        callback,
        lud16: registered.lud16 ?? null,
        mintUrl,
        createdAt: clock.now(),
      }),
    )
    this.start()
    return { lnurl, lud16: registered.lud16 ?? undefined }
  }

  /** Undefined when the name belongs to another key. */
  async #register(owner: WalletOwner, name: string): Promise<z.output<typeof registeredSchema> | undefined> {
    const { nostr, dialer, wallets } = this.#deps
    const body = JSON.stringify({ name, quote_pubkey: wallets.of(owner).lockPubkey })
    const answer = await this.#authorised(nostr.keyring.signer(owner.pubkey), 'POST', '/sandbox/register', dialer, body)
    if (answer.status === 409) return undefined
    const parsed = registeredSchema.safeParse(parseJson(answer.text))
    if (!parsed.success) throw invalid(`its server did not register the name ${name} (status ${answer.status})`)
    return parsed.data
  }

  /** The key that signs receipts for this agent, or undefined while unknown. */
  async receiptKeyOf(pubkey: string): Promise<string | undefined> {
    const { store, clock, dialer } = this.#deps
    const cached = this.#receiptKeys.get(pubkey)
    if (cached?.key !== undefined && cached.at > clock.now() - RECEIPT_KEY_FRESH_MS) return cached.key
    const address = getLnurlAddress(store, pubkey)
    if (address === undefined) return undefined
    try {
      const { nostrPubkey } = await fetchPayParameters(dialer, decodeLnurl(address.lnurl))
      this.#receiptKeys.set(pubkey, { key: nostrPubkey, at: clock.now() })
      return nostrPubkey
    } catch {
      return cached?.key
    }
  }

  /** Fetches and mints what was paid to every address of this server; resolves when all were asked. */
  poll(): Promise<void> {
    return this.#deps.scope.once('poll', async (signal) => {
      const isWell = await this.#pollAll(signal)
      if (isWell) this.#backoff.reset()
      this.#pollAfter(isWell ? POLL_MS : this.#backoff.nextMs())
    })
  }

  #pollAfter(ms: number): void {
    this.#cancel?.()
    this.#cancel = this.#deps.scope.after('next poll', ms, () => this.poll())
  }

  /** @returns whether each address could be asked */
  async #pollAll(signal: AbortSignal): Promise<boolean> {
    const { store, baseUrl, logger, nostr } = this.#deps
    const addresses = listLnurlAddresses(store).filter((address) => address.baseUrl === baseUrl && nostr.keyring.owns(address.ownerPubkey))
    let isWell = true
    for (const address of addresses) {
      if (signal.aborted) break
      try {
        await this.#pollOne(address)
      } catch (error) {
        isWell = false
        logger.warn({ lnurl: address.name, err: messageOf(error) }, 'could not fetch paid zaps, trying again')
      }
    }
    return isWell
  }

  async #pollOne(address: LnurlAddressRow): Promise<void> {
    const { nostr, dialer } = this.#deps
    const answer = await this.#authorised(nostr.keyring.signer(address.ownerPubkey), 'GET', '/sandbox/quotes', dialer)
    const parsed = quotesSchema.safeParse(parseJson(answer.text))
    if (!parsed.success)
      throw new PylonError('fetch_failed', `The LNURL server answered with status ${answer.status} and no list of quotes.`)
    for (const quote of parsed.data.quotes) await this.#adopt(address, quote)
  }

  async #adopt(address: LnurlAddressRow, quote: z.output<typeof quotesSchema>['quotes'][number]): Promise<void> {
    const { wallets, nostr } = this.#deps
    const isNode = address.ownerPubkey === nostr.keyring.node().pubkey
    const owner: WalletOwner = { kind: isNode ? 'node' : 'agent', pubkey: address.ownerPubkey }
    const sender = quote.sender_pubkey ?? undefined
    const income = sender === undefined ? 'tip' : nostr.keyring.owns(sender) ? 'internal' : 'zap'
    await wallets.adoptQuote(owner, {
      idempotencyKey: lnurlKey.of(quote.quote),
      mintUrl: address.mintUrl,
      quoteId: quote.quote,
      amountSats: BigInt(quote.amount_sats),
      creditAccount: accountOf(accountOwner(owner), 'income', income),
      cause: { type: 'zap', id: quote.zap_request_id ?? quote.quote },
    })
  }

  /** NIP-98. */
  async #authorised(signer: Signer, method: 'GET' | 'POST', path: string, dialer: Dialer, body?: string) {
    const url = `${this.#deps.baseUrl}${path}`
    const authorization = await buildHttpAuth(signer, {
      url,
      method,
      nowS: unixSeconds(this.#deps.clock),
      ...(body === undefined ? {} : { body }),
    })
    const headers = { authorization, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    return await dialer.fetch(url, { method, headers, ...(body === undefined ? {} : { body }) })
  }
}
