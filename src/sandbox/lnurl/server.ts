/** LNURL-pay (LUD-06, 12, 16) with zaps (NIP-57): an address for each registered key, paid into the mint, locked to its owner. */
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { bech32 } from '@scure/base'
import { isPoint, xOnlyPointFromScalar } from 'tiny-secp256k1'
import { z } from 'zod'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { SandboxDatabase } from '../database.ts'
import { listen, readBody, sendJson } from '../http.ts'
import { MintError } from '../mint/errors.ts'
import type { Mint } from '../mint/mint.ts'
import { MAX_AMOUNT } from '../mint/requests.ts'
import type { NostrEvent } from '../nostr-event.ts'
import { type Address, Addresses } from './addresses.ts'
import { checkAuthorization } from './authorization.ts'
import { ReceiptPublisher } from './receipts.ts'
import { parseZapRequest } from './zaps.ts'

export interface LnurlServerOptions {
  readonly database: SandboxDatabase
  readonly mint: Mint
  readonly host: string
  readonly port: number
  readonly clock: Clock
  readonly logger: Logger
  /** Resolves when the relay of the sandbox has the event. */
  readonly publish: (event: NostrEvent) => Promise<unknown>
  /** The relay of the sandbox. */
  readonly ownRelay: string
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

const MAX_BODY_BYTES = 16 * 1024
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

/** Starts the server and publishes receipts that a crash left behind. @throws port_taken */
export async function startLnurlServer(options: LnurlServerOptions): Promise<LnurlServer> {
  const server = new LnurlServer(options)
  await server.open()
  return server
}

export class LnurlServer {
  /** `http://127.0.0.1:PORT` */
  url = ''
  port = 0
  readonly #options: LnurlServerOptions
  readonly #addresses: Addresses
  readonly #receipts: ReceiptPublisher
  readonly #receiptPubkey: string
  #close: () => Promise<void> = async () => {}

  constructor(options: LnurlServerOptions) {
    this.#options = options
    this.#addresses = new Addresses(options.database)
    const secretKey = options.database.secret('lnurl_nostr_key')
    this.#receiptPubkey = Buffer.from(xOnlyPointFromScalar(secretKey)).toString('hex')
    this.#receipts = new ReceiptPublisher({
      addresses: this.#addresses,
      secretKey,
      publish: options.publish,
      clock: options.clock,
      logger: options.logger,
      ownRelay: options.ownRelay,
    })
  }

  async open(): Promise<void> {
    const { host, port, mint } = this.#options
    const listening = await listen({
      name: 'LNURL server',
      host,
      port,
      onRequest: (request, response) => void this.#serve(request, response),
    })
    this.port = listening.port
    this.url = `http://${host}:${listening.port}`
    this.#close = listening.close
    mint.onChange(({ kind }) => {
      if (kind === 'bolt11_mint_quote') this.#receipts.publishDue()
    })
    this.#receipts.publishDue()
  }

  async close(): Promise<void> {
    await this.#close()
    await this.#receipts.idle()
  }

  #now(): number {
    return unixSeconds(this.#options.clock)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const body = await readBody(request, MAX_BODY_BYTES)
      if (body === undefined) {
        response.setHeader('connection', 'close')
        return sendJson(response, 413, { status: 'ERROR', reason: 'the request is too large' })
      }
      if (request.method === 'OPTIONS') return sendJson(response, 200, {})
      sendJson(response, 200, this.#route(request, body))
    } catch (error) {
      if (error instanceof LnurlError) {
        const code = error.code === undefined ? {} : { code: error.code }
        return sendJson(response, error.status, { status: 'ERROR', reason: error.message, ...code })
      }
      this.#options.logger.error({ err: messageOf(error) }, 'LNURL fault')
      if (!response.headersSent) sendJson(response, 500, { status: 'ERROR', reason: 'internal error' })
    }
  }

  #route(request: IncomingMessage, body: Buffer): unknown {
    const url = URL.parse(request.url ?? '/', this.url)
    if (url === null) throw new LnurlError('not a URL', 400)
    const route = `${request.method} ${url.pathname}`
    if (route === 'POST /sandbox/register') return this.#register(request, body)
    if (route === 'GET /sandbox/quotes') return { quotes: this.#addresses.paidQuotes(this.#caller(request, body)) }
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
  #caller(request: IncomingMessage, body: Buffer): string {
    const nowSeconds = this.#now()
    const checked = checkAuthorization({
      header: request.headers.authorization,
      url: `${this.url}${request.url}`,
      method: request.method ?? 'GET',
      body,
      nowSeconds,
    })
    if (typeof checked === 'string') throw new LnurlError(checked, 401, 'unauthorized')
    if (request.method !== 'GET' && !this.#addresses.useAuthorization(checked.id, checked.expiresAt, nowSeconds)) {
      throw new LnurlError('this authorization was used before, sign a new one', 401, 'replayed')
    }
    return checked.pubkey
  }

  #register(request: IncomingMessage, body: Buffer): unknown {
    const pubkey = this.#caller(request, body)
    const parsed = registrationSchema.safeParse(parseJson(body.toString()))
    if (!parsed.success) throw new LnurlError(parsed.error.issues[0]?.message ?? 'malformed request', 400, 'invalid_request')
    const { name, quote_pubkey } = parsed.data
    if (!this.#addresses.register({ name, pubkey, quote_pubkey })) {
      throw new LnurlError(`the name ${name} belongs to another key, choose another one`, 409, 'name_taken')
    }
    const words = bech32.toWords(new TextEncoder().encode(`${this.url}/.well-known/lnurlp/${name}`))
    return { name, lnurl: bech32.encode('lnurl', words, false), callback: this.#callbackUrl(name), lud16: this.#lud16(name) }
  }

  #callbackUrl(name: string): string {
    return `${this.url}/lnurlp/${name}/callback`
  }

  #lud16(name: string): string {
    return `${name}@${new URL(this.url).host}`
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
      return this.#options.mint.atomically(() => {
        const quote = this.#options.mint.createLockedQuote({ amount: amountMsats / 1_000, pubkey: address.quote_pubkey, descriptionHash })
        this.#addresses.addPayment(quote.id, { pubkey: address.pubkey, zapRequest, comment })
        return quote.request
      })
    } catch (error) {
      throw error instanceof MintError ? new LnurlError(error.message) : error
    }
  }
}
