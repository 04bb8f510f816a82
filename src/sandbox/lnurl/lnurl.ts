/** LNURL-pay (LUD-06, 12, 16) with zaps (NIP-57), requests in and answers out: an address for each registered key, paid into the mint, locked to its owner. */
import { hash } from 'node:crypto'
import { bech32 } from '@scure/base'
import { isPoint, xOnlyPointFromScalar } from 'tiny-secp256k1'
import { z } from 'zod'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { SandboxDatabase } from '../database.ts'
import { MintError } from '../mint/errors.ts'
import type { Mint } from '../mint/mint.ts'
import { MAX_AMOUNT } from '../mint/requests.ts'
import type { NostrEvent } from '../nostr-event.ts'
import { type Address, Addresses } from './addresses.ts'
import { checkAuthorization } from './authorization.ts'
import type { deliver } from './deliver.ts'
import { ReceiptPublisher } from './receipts.ts'
import { parseZapRequest } from './zaps.ts'

export interface LnurlDeps {
  readonly database: SandboxDatabase
  readonly mint: Mint
  /** Where it is served: `http://127.0.0.1:PORT` */
  url(): string
  readonly clock: Clock
  readonly logger: Logger
  /** Resolves when the relay of the sandbox has the event. */
  readonly publish: (event: NostrEvent) => Promise<unknown>
  /** The relay of the sandbox. */
  readonly ownRelay: string
  /** To another relay that a zap request names; over a socket by default. */
  readonly deliver?: typeof deliver
}

export interface LnurlRequest {
  readonly method: string
  /** With its query. */
  readonly target: string
  readonly authorization: string | undefined
  readonly body: Buffer
}

export interface LnurlAnswer {
  readonly status: number
  readonly body: unknown
}

/** What LNURL clients show: HTTP 200 by LUD-06, other statuses for the routes that are ours. */
class LnurlError extends Error {
  readonly status: number
  readonly code: string | undefined

  constructor(reason: string, status = 200, code?: string) {
    super(reason)
    this.status = status
    this.code = code
  }
}

const COMMENT_ALLOWED = 255
const MIN_SENDABLE_MSATS = 1_000
const MAX_SENDABLE_MSATS = MAX_AMOUNT * 1_000
const NAME = /^[a-z0-9_-]{1,32}$/

const registrationSchema = z.object({
  name: z.string().regex(NAME, 'a name is 1 to 32 of a-z, 0-9, - and _'),
  quote_pubkey: z
    .string()
    .regex(/^0[23][0-9a-f]{64}$/, 'quote_pubkey is a compressed key in lowercase hex')
    .refine((hex) => isPoint(Buffer.from(hex, 'hex')), 'quote_pubkey is not a point on the curve'),
})

export class Lnurl {
  readonly #deps: LnurlDeps
  readonly #addresses: Addresses
  readonly #receipts: ReceiptPublisher
  readonly #receiptPubkey: string

  constructor(deps: LnurlDeps) {
    this.#deps = deps
    this.#addresses = new Addresses(deps.database)
    const secretKey = deps.database.secret('lnurl_nostr_key')
    this.#receiptPubkey = Buffer.from(xOnlyPointFromScalar(secretKey)).toString('hex')
    this.#receipts = new ReceiptPublisher({
      addresses: this.#addresses,
      secretKey,
      publish: deps.publish,
      clock: deps.clock,
      logger: deps.logger,
      ownRelay: deps.ownRelay,
      ...given({ deliver: deps.deliver }),
    })
  }

  /** Publishes receipts from now on, and first those that a crash left behind. */
  start(): void {
    this.#deps.mint.onChange(({ kind }) => {
      if (kind === 'bolt11_mint_quote') this.#receipts.publishDue()
    })
    this.#receipts.publishDue()
  }

  /** Resolves when no receipt is on its way. */
  idle(): Promise<void> {
    return this.#receipts.idle()
  }

  answer(request: LnurlRequest): LnurlAnswer {
    try {
      return { status: 200, body: this.#route(request) }
    } catch (error) {
      if (error instanceof LnurlError) {
        const code = error.code === undefined ? {} : { code: error.code }
        return { status: error.status, body: { status: 'ERROR', reason: error.message, ...code } }
      }
      this.#deps.logger.error({ err: messageOf(error) }, 'LNURL fault')
      return { status: 500, body: { status: 'ERROR', reason: 'internal error' } }
    }
  }

  get #url(): string {
    return this.#deps.url()
  }

  #now(): number {
    return unixSeconds(this.#deps.clock)
  }

  #route(request: LnurlRequest): unknown {
    const url = URL.parse(request.target, this.#url)
    if (url === null) throw new LnurlError('not a URL', 400)
    const route = `${request.method} ${url.pathname}`
    if (route === 'POST /sandbox/register') return this.#register(request)
    if (route === 'GET /sandbox/quotes') return { quotes: this.#addresses.paidQuotes(this.#caller(request)) }
    const [, wellKnown] = /^GET \/\.well-known\/lnurlp\/([^/]+)$/.exec(route) ?? []
    if (wellKnown !== undefined) return this.#payRequest(this.#find(wellKnown))
    const [, name] = /^GET \/lnurlp\/([^/]+)\/callback$/.exec(route) ?? []
    if (name !== undefined) return this.#callback(this.#find(name), url.searchParams)
    throw new LnurlError('no such route', 404)
  }

  #find(name: string): Address {
    const address = this.#addresses.byName(name)
    if (address === undefined) throw new LnurlError('there is no such address', 404)
    return address
  }

  /**
   * The pubkey that signed the request (NIP-98). What changes something takes each authorization once; reads don't, since
   * two reads within one second are the same event.
   */
  #caller({ method, target, authorization, body }: LnurlRequest): string {
    const nowSeconds = this.#now()
    const checked = checkAuthorization({ header: authorization, url: `${this.#url}${target}`, method, body, nowSeconds })
    if (typeof checked === 'string') throw new LnurlError(checked, 401, 'unauthorized')
    if (method !== 'GET' && !this.#addresses.useAuthorization(checked.id, checked.expiresAt, nowSeconds)) {
      throw new LnurlError('this authorization was used before, sign a new one', 401, 'replayed')
    }
    return checked.pubkey
  }

  #register(request: LnurlRequest): unknown {
    const pubkey = this.#caller(request)
    const parsed = registrationSchema.safeParse(parseJson(request.body.toString()))
    if (!parsed.success) throw new LnurlError(parsed.error.issues[0]?.message ?? 'malformed request', 400, 'invalid_request')
    const { name, quote_pubkey } = parsed.data
    if (!this.#addresses.register({ name, pubkey, quote_pubkey })) {
      throw new LnurlError(`the name ${name} belongs to another key, choose another one`, 409, 'name_taken')
    }
    const words = bech32.toWords(new TextEncoder().encode(`${this.#url}/.well-known/lnurlp/${name}`))
    return { name, lnurl: bech32.encode('lnurl', words, false), callback: this.#callbackUrl(name), lud16: this.#lud16(name) }
  }

  #callbackUrl(name: string): string {
    return `${this.#url}/lnurlp/${name}/callback`
  }

  #lud16(name: string): string {
    return `${name}@${new URL(this.#url).host}`
  }

  #metadata(name: string): string {
    return JSON.stringify([
      ['text/plain', `Sats for ${name}`],
      ['text/identifier', this.#lud16(name)],
    ])
  }

  #payRequest({ name }: Address): unknown {
    return {
      tag: 'payRequest',
      callback: this.#callbackUrl(name),
      minSendable: MIN_SENDABLE_MSATS,
      maxSendable: MAX_SENDABLE_MSATS,
      metadata: this.#metadata(name),
      commentAllowed: COMMENT_ALLOWED,
      allowsNostr: true,
      nostrPubkey: this.#receiptPubkey,
    }
  }

  #callback(address: Address, query: URLSearchParams): unknown {
    const amountText = query.get('amount') ?? ''
    const amountMsats = /^\d{1,15}$/.test(amountText) ? Number(amountText) : 0
    if (amountMsats < MIN_SENDABLE_MSATS || amountMsats > MAX_SENDABLE_MSATS) {
      throw new LnurlError(`amount must be ${MIN_SENDABLE_MSATS} to ${MAX_SENDABLE_MSATS} millisats`)
    }
    if (amountMsats % 1_000 !== 0) throw new LnurlError('amount must be a whole number of sats (a multiple of 1000 millisats)')
    const comment = query.get('comment') ?? ''
    if (comment.length > COMMENT_ALLOWED) throw new LnurlError(`the comment is longer than ${COMMENT_ALLOWED} characters`)
    const zapRequest = query.get('nostr') ?? undefined
    if (zapRequest !== undefined) {
      const expected = { recipient: address.pubkey, amountMsats, receiptPubkey: this.#receiptPubkey }
      const zap = parseZapRequest(zapRequest, expected)
      if (typeof zap === 'string') throw new LnurlError(zap)
    }
    return { pr: this.#invoice(address, amountMsats, zapRequest, comment), routes: [] }
  }

  /** The invoice of a new quote, locked to the owner of the address; what it is for is stored with it. */
  #invoice(address: Address, amountMsats: number, zapRequest: string | undefined, comment: string): string {
    const descriptionHash = hash('sha256', zapRequest ?? this.#metadata(address.name), 'buffer')
    try {
      return this.#deps.mint.atomically(() => {
        const quote = this.#deps.mint.createLockedQuote({ amount: amountMsats / 1_000, pubkey: address.quote_pubkey, descriptionHash })
        this.#addresses.addPayment(quote.id, { pubkey: address.pubkey, zapRequest, comment })
        return quote.request
      })
    } catch (error) {
      throw error instanceof MintError ? new LnurlError(error.message) : error
    }
  }
}
