/**
 * A shop that is paid by POST (NUT-18) and hands what comes to its node. It takes a payment, sends it away, or asks for patience
 * first; and there is one that takes it and says that it did not.
 */
import type { FetchResponse } from '../../src/base/dialer.ts'
import { parseJson } from '../../src/base/json.ts'
import type { HttpRequest, Host as NetworkHost } from './network.ts'

export type ShopMood = 'takes' | 'is busy' | 'refuses' | 'lies'

interface Order {
  readonly mood: ShopMood
  readonly seen: Set<string>
  busy: number
  /** Until the node has it. */
  hand(payload: string): Promise<void>
}

const BUSY_TIMES = 2

export class Shop implements NetworkHost {
  readonly #orders = new Map<string, Order>()
  /** Payments that its node does not have yet. */
  open = 0

  /** @param id of the request that is paid here */
  expect(id: string, mood: ShopMood, hand: Order['hand']): void {
    this.#orders.set(id, { mood, hand, seen: new Set(), busy: mood === 'is busy' ? BUSY_TIMES : 0 })
  }

  answer({ method, body }: HttpRequest): FetchResponse {
    if (method !== 'POST') return said(200)
    const payload = body.toString()
    const { id } = parseJson(payload) as { readonly id?: string }
    const order = this.#orders.get(id ?? '')
    if (order === undefined || order.mood === 'refuses') return said(400)
    if (order.busy-- > 0) return said(503)
    if (!order.seen.has(payload)) {
      order.seen.add(payload)
      this.open++
      void order.hand(payload).finally(() => this.open--)
    }
    return said(order.mood === 'lies' ? 400 : 200)
  }

  accept: NetworkHost['accept'] = (peer) => {
    peer.cut()
    return { receive: () => undefined, close: () => undefined }
  }
}

const said = (status: number): FetchResponse => ({ status, headers: { 'content-type': 'application/json' }, text: '{}' })
