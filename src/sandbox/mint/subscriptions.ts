/** NUT-17: JSON-RPC over a websocket; the current state first, then every change. */
import { z } from 'zod'
import { parseJson, stringify } from '../../base/json.ts'
import type { Mint, MintChange } from './mint.ts'

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

/** The client's end: what it hears, and how it is let go. */
export interface MintPeer {
  send(text: string): void
  cut(): void
}

interface Client {
  readonly peer: MintPeer
  readonly subscriptions: Map<string, Subscription>
}

export class MintSubscriptions {
  readonly #mint: Mint
  readonly #clients = new Set<Client>()

  constructor(mint: Mint) {
    this.#mint = mint
    mint.onChange((change) => this.#broadcast(change))
  }

  cutAll(): void {
    for (const { peer } of this.#clients) peer.cut()
  }

  /** A client has come: tell what it sends, and when it is gone. */
  connect(peer: MintPeer): { receive(text: string): void; close(): void } {
    const client: Client = { peer, subscriptions: new Map() }
    this.#clients.add(client)
    return { receive: (text) => this.#receive(client, parseJson(text)), close: () => this.#clients.delete(client) }
  }

  #receive({ peer, subscriptions }: Client, message: unknown): void {
    const parsed = requestSchema.safeParse(message)
    if (!parsed.success) {
      const id = rpcId.safeParse((message as { id?: unknown } | null | undefined)?.id)
      send(peer, { jsonrpc: '2.0', error: { code: -32_600, message: 'not a NUT-17 request' }, id: id.success ? id.data : null })
      return
    }
    const { id, method, params } = parsed.data
    if (method === 'unsubscribe') {
      const known = subscriptions.delete(params.subId)
      if (known) send(peer, { jsonrpc: '2.0', result: { status: 'OK', subId: params.subId }, id })
      else send(peer, { jsonrpc: '2.0', error: { code: -32_602, message: 'no such subscription' }, id })
      return
    }
    if (subscriptions.size >= MAX_SUBSCRIPTIONS && !subscriptions.has(params.subId)) {
      send(peer, { jsonrpc: '2.0', error: { code: -32_000, message: `at most ${MAX_SUBSCRIPTIONS} subscriptions` }, id })
      return
    }
    subscriptions.set(params.subId, { kind: params.kind, ids: new Set(params.filters) })
    send(peer, { jsonrpc: '2.0', result: { status: 'OK', subId: params.subId }, id })
    for (const filter of new Set(params.filters)) this.#notify(peer, params.subId, { kind: params.kind, id: filter })
  }

  #broadcast(change: MintChange): void {
    for (const { peer, subscriptions } of this.#clients) {
      for (const [subId, { kind, ids }] of subscriptions) {
        if (kind === change.kind && ids.has(change.id)) this.#notify(peer, subId, change)
      }
    }
  }

  #notify(peer: MintPeer, subId: string, change: MintChange): void {
    const payload = this.#stateOf(change)
    if (payload !== undefined) send(peer, { jsonrpc: '2.0', method: 'subscribe', params: { subId, payload } })
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

function send(peer: MintPeer, message: unknown): void {
  peer.send(stringify(message))
}
