/** NUT-17: JSON-RPC over a websocket; the current state first, then every change. */
import { type WebSocket, WebSocketServer } from 'ws'
import { z } from 'zod'
import { parseJson, stringify } from '../../base/json.ts'
import type { Mint, MintChange } from './mint.ts'

const MAX_MESSAGE_BYTES = 256 * 1024
const MAX_FILTERS = 1_000
const MAX_SUBSCRIPTIONS = 100

const rpcId = z.union([z.int(), z.string().max(100)])
const requestSchema = z.discriminatedUnion('method', [
  z.object({
    jsonrpc: z.literal('2.0'),
    id: rpcId,
    method: z.literal('subscribe'),
    params: z.object({
      kind: z.enum(['bolt11_mint_quote', 'bolt11_melt_quote', 'proof_state']),
      subId: z.string().min(1).max(100),
      filters: z.array(z.string().max(100)).max(MAX_FILTERS),
    }),
  }),
  z.object({
    jsonrpc: z.literal('2.0'),
    id: rpcId,
    method: z.literal('unsubscribe'),
    params: z.object({ subId: z.string().min(1).max(100) }),
  }),
])

interface Subscription {
  readonly kind: MintChange['kind']
  readonly ids: ReadonlySet<string>
}

type Subscriptions = Map<string, Subscription>

export class MintSubscriptions {
  readonly server = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES, perMessageDeflate: false })
  readonly #mint: Mint
  readonly #clients = new Map<WebSocket, Subscriptions>()

  constructor(mint: Mint) {
    this.#mint = mint
    mint.onChange((change) => this.#broadcast(change))
    this.server.on('connection', (socket) => this.#accept(socket))
  }

  cutAll(): void {
    for (const socket of this.#clients.keys()) socket.terminate()
  }

  #accept(socket: WebSocket): void {
    const subscriptions: Subscriptions = new Map()
    this.#clients.set(socket, subscriptions)
    socket.on('error', () => socket.terminate())
    socket.on('close', () => this.#clients.delete(socket))
    socket.on('message', (data) => this.#receive(socket, subscriptions, parseJson(String(data))))
  }

  #receive(socket: WebSocket, subscriptions: Subscriptions, message: unknown): void {
    const parsed = requestSchema.safeParse(message)
    if (!parsed.success) {
      const id = rpcId.safeParse((message as { id?: unknown } | null | undefined)?.id)
      send(socket, { jsonrpc: '2.0', error: { code: -32_600, message: 'not a NUT-17 request' }, id: id.success ? id.data : null })
      return
    }
    const { id, method, params } = parsed.data
    if (method === 'unsubscribe') {
      const known = subscriptions.delete(params.subId)
      if (known) send(socket, { jsonrpc: '2.0', result: { status: 'OK', subId: params.subId }, id })
      else send(socket, { jsonrpc: '2.0', error: { code: -32_602, message: 'no such subscription' }, id })
      return
    }
    if (subscriptions.size >= MAX_SUBSCRIPTIONS && !subscriptions.has(params.subId)) {
      send(socket, { jsonrpc: '2.0', error: { code: -32_000, message: `at most ${MAX_SUBSCRIPTIONS} subscriptions` }, id })
      return
    }
    subscriptions.set(params.subId, { kind: params.kind, ids: new Set(params.filters) })
    send(socket, { jsonrpc: '2.0', result: { status: 'OK', subId: params.subId }, id })
    for (const filter of new Set(params.filters)) this.#notify(socket, params.subId, { kind: params.kind, id: filter })
  }

  #broadcast(change: MintChange): void {
    for (const [socket, subscriptions] of this.#clients) {
      for (const [subId, { kind, ids }] of subscriptions) {
        if (kind === change.kind && ids.has(change.id)) this.#notify(socket, subId, change)
      }
    }
  }

  #notify(socket: WebSocket, subId: string, change: MintChange): void {
    const payload = this.#stateOf(change)
    if (payload !== undefined) send(socket, { jsonrpc: '2.0', method: 'subscribe', params: { subId, payload } })
  }

  /** The state now; undefined for a quote that does not exist. */
  #stateOf({ kind, id }: MintChange): unknown {
    try {
      if (kind === 'proof_state') return this.#mint.checkState({ Ys: [id] }).states[0]
      return kind === 'bolt11_mint_quote' ? this.#mint.mintQuote(id) : this.#mint.meltQuote(id)
    } catch {
      return undefined
    }
  }
}

function send(socket: WebSocket, message: unknown): void {
  if (socket.readyState === socket.OPEN) socket.send(stringify(message))
}
