/** NUT-17: hears of paid quotes at once where a mint offers a websocket. Only a hint: polling goes on and finds what this misses. */
import type { WebSocket } from '../../base/dialer.ts'
import { messageOf } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { type QuoteRow, watchedQuotes } from '../../store/money/quotes.ts'
import type { WalletContext } from '../context.ts'

interface MintSocket {
  socket: WebSocket | undefined
  /** Quote id to row id, of what the mint was asked to tell. */
  subscribed: ReadonlyMap<string, string>
  lastId: number
  retryAt: number
}

const RETRY_MS = 15_000
/** Quotes of one mint that are listened for; the rest is polled. */
const MAX_FILTERS = 200

export class MintSockets {
  readonly #context: WalletContext
  readonly #onPaid: (quoteRow: string) => void
  readonly #sockets = new Map<string, MintSocket>()

  /** @param onPaid called with the row of a quote that is paid, or may be. */
  constructor(context: WalletContext, onPaid: (quoteRow: string) => void) {
    this.#context = context
    this.#onPaid = onPaid
    context.scope.atEnd('sockets', () => {
      for (const { socket } of this.#sockets.values()) socket?.terminate()
    })
  }

  /** Listens for every quote that may still be paid; call it when one was added. */
  refresh(): void {
    if (this.#context.scope.isClosing) return
    const quotes = watchedQuotes(this.#context.store)
    for (const mint of this.#context.mints.list()) {
      if (!this.#context.mints.supports(mint, '17')) continue
      const own = quotes.filter((quote) => quote.mintUrl === mint.url).slice(0, MAX_FILTERS)
      if (own.length > 0) this.#listen(mint.url, own)
    }
  }

  #listen(mintUrl: string, quotes: readonly QuoteRow[]): void {
    const entry = this.#sockets.get(mintUrl) ?? { socket: undefined, subscribed: new Map(), lastId: 0, retryAt: 0 }
    this.#sockets.set(mintUrl, entry)
    const wanted = new Map(quotes.map((quote) => [quote.quoteId, quote.id]))
    const news = [...wanted.keys()].some((quoteId) => !entry.subscribed.has(quoteId))
    if (entry.socket === undefined) this.#connect(mintUrl, entry, wanted)
    else if (news && entry.socket.readyState === entry.socket.OPEN) this.#subscribe(entry, wanted)
    else if (news) entry.subscribed = wanted
  }

  #connect(mintUrl: string, entry: MintSocket, wanted: ReadonlyMap<string, string>): void {
    const { scope, clock, dialer, logger } = this.#context
    if (clock.now() < entry.retryAt) return
    entry.retryAt = clock.now() + RETRY_MS
    let socket: WebSocket
    try {
      socket = dialer.connectWebSocket(`${mintUrl.replace(/^http/, 'ws')}/v1/ws`, { maxPayloadBytes: 65_536 })
    } catch (error) {
      logger.debug({ mint: mintUrl, err: messageOf(error) }, 'no websocket to the mint')
      return
    }
    entry.socket = socket
    entry.subscribed = wanted
    entry.lastId = 0
    socket.on('open', () => this.#subscribe(entry, entry.subscribed))
    socket.on('message', (data) => this.#hear(entry, parseJson(String(data))))
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      entry.socket = undefined
      scope.after('listen again', RETRY_MS, () => this.refresh())
    })
  }

  #subscribe(entry: MintSocket, wanted: ReadonlyMap<string, string>): void {
    const rpc = (method: string, params: object) =>
      entry.socket?.send(JSON.stringify({ jsonrpc: '2.0', id: ++entry.lastId, method, params }))
    if (entry.lastId > 0) rpc('unsubscribe', { subId: `quotes-${entry.lastId}` })
    entry.subscribed = wanted
    rpc('subscribe', { kind: 'bolt11_mint_quote', subId: `quotes-${entry.lastId + 1}`, filters: [...wanted.keys()] })
  }

  #hear(entry: MintSocket, message: unknown): void {
    const payload = (message as { params?: { payload?: Record<string, unknown> } } | null | undefined)?.params?.payload
    if (typeof payload?.['quote'] !== 'string' || payload['state'] === 'UNPAID') return
    // Without a state the amounts tell.
    if (payload['state'] == null && (payload['amount_paid'] === 0 || payload['paid'] === false)) return
    const row = entry.subscribed.get(payload['quote'])
    if (row !== undefined) this.#onPaid(row)
  }
}
