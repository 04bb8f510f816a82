/**
 * Faults that tests of other parts switch on in a running sandbox, by constructor option or, from loopback,
 * by `POST {mint_url}/sandbox/faults` with any of these fields:
 *
 *   mint   {"drop_response_after_commit": {"path": "/v1/swap", "count": 1}}   do it, commit it, close the socket unanswered
 *          {"delay_ms": {"path": "/v1/swap", "ms": 200, "count": 1}}          answer late
 *          {"fail": {"path": "/v1/swap", "status": 500, "body": {}, "count": 1}}  answer this, do nothing
 *          {"mint_down": true}                                               close every connection but this; false heals
 *          {"rotate_keyset": true}                                           once: a new keyset, the old one goes inactive
 *          {"input_fee_ppk": 1000}                                           once: the same, and each input of it costs this
 *          {"hold_melts": 1}                                                 the next payments stay PENDING, their inputs too
 *          {"release_melts": "paid"}                                         once: those go through; "failed": they are UNPAID again
 *          {"peers": ["http://127.0.0.1:3338"]}                              no fault: it pays the invoices of these sandbox mints too
 *   relay  {"drop_ok": 3}               store the next 3 events but do not send their OK
 *          {"close_subs": true}         once: CLOSED to every open subscription
 *          {"drop_connections": true}   once: cut every connection
 *          {"deliver_duplicates": true} send each live event twice; false heals
 *          {"relay_down": true}         cut and refuse connections; false heals
 *
 * A path also matches what lies below it ("/v1/melt" matches "/v1/melt/bolt11").
 */
import { z } from 'zod'

const path = z.string().startsWith('/').max(200)
const count = z.int().min(1).max(1_000_000).default(1)

export const faultsSchema = z.strictObject({
  drop_response_after_commit: z.strictObject({ path, count }).optional(),
  delay_ms: z.strictObject({ path, ms: z.int().min(0).max(600_000), count }).optional(),
  fail: z.strictObject({ path, status: z.int().min(400).max(599), body: z.unknown(), count }).optional(),
  mint_down: z.boolean().optional(),
  rotate_keyset: z.boolean().optional(),
  input_fee_ppk: z.int().min(0).max(100_000).optional(),
  hold_melts: z.int().min(0).max(1_000_000).optional(),
  release_melts: z.enum(['paid', 'failed']).optional(),
  peers: z.array(z.url().max(200)).max(20).optional(),
  drop_ok: z.int().min(0).max(1_000_000).optional(),
  close_subs: z.boolean().optional(),
  drop_connections: z.boolean().optional(),
  deliver_duplicates: z.boolean().optional(),
  relay_down: z.boolean().optional(),
})

export type FaultOrders = z.input<typeof faultsSchema>

interface Counted {
  path: string
  count: number
}

/** What is wrong with the sandbox right now. Each server asks before it acts. */
export class Faults {
  mintDown = false
  relayDown = false
  deliverDuplicates = false
  #dropOk = 0
  #holdMelts = 0
  #dropResponses: Counted[] = []
  #delays: (Counted & { ms: number })[] = []
  #failures: (Counted & { status: number; body: unknown })[] = []
  #onOrder: (orders: FaultOrders) => void = () => {}

  /** Tells the servers about one-off orders (close_subs, drop_connections, relay_down, rotate_keyset, input_fee_ppk, release_melts, peers). */
  onOrder(listener: (orders: FaultOrders) => void): void {
    this.#onOrder = listener
  }

  /** @throws ZodError when the orders are malformed. */
  apply(value: unknown): void {
    const orders = faultsSchema.parse(value)
    if (orders.drop_response_after_commit !== undefined) this.#dropResponses.push(orders.drop_response_after_commit)
    if (orders.delay_ms !== undefined) this.#delays.push(orders.delay_ms)
    if (orders.fail !== undefined) this.#failures.push(orders.fail)
    this.mintDown = orders.mint_down ?? this.mintDown
    this.relayDown = orders.relay_down ?? this.relayDown
    this.deliverDuplicates = orders.deliver_duplicates ?? this.deliverDuplicates
    this.#dropOk = orders.drop_ok ?? this.#dropOk
    this.#holdMelts = orders.hold_melts ?? this.#holdMelts
    this.#onOrder(orders)
  }

  /** Whether the OK that is about to be sent is lost. */
  takeDropOk(): boolean {
    if (this.#dropOk === 0) return false
    this.#dropOk--
    return true
  }

  /** Whether the payment that is asked for hangs. */
  takeHeldMelt(): boolean {
    if (this.#holdMelts === 0) return false
    this.#holdMelts--
    return true
  }

  takeDropResponse(requestPath: string): boolean {
    return take(this.#dropResponses, requestPath) !== undefined
  }

  takeDelayMs(requestPath: string): number {
    return take(this.#delays, requestPath)?.ms ?? 0
  }

  takeFailure(requestPath: string): { status: number; body: unknown } | undefined {
    return take(this.#failures, requestPath)
  }
}

function take<T extends Counted>(orders: T[], requestPath: string): T | undefined {
  const index = orders.findIndex((order) => requestPath === order.path || requestPath.startsWith(`${order.path}/`))
  const order = orders[index]
  if (order === undefined) return undefined
  order.count--
  if (order.count === 0) orders.splice(index, 1)
  return order
}
