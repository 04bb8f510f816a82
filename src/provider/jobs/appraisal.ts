/** What a request costs here, and all else that admission decides on. */
import { type Msats, msats } from '../../base/amounts.ts'
import { PylonError, toPylonError } from '../../base/errors.ts'
import { countFreeJobsSince, countRefundsCaused, wasCancelled } from '../../store/selling/jobs.ts'
import { maxTokensOf } from '../backends/openai.ts'
import { priceOf, quote, REFERENCED_INPUT_CHARS } from '../pricing.ts'
import type { OrderFacts, Refusal } from './admission.ts'
import type { EngineDeps } from './context.ts'
import { givenText } from './inputs.ts'
import { PAYERS_CODES } from './job-product.ts'
import type { Order } from './order.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000

/** @param here what only memory knows: this customer's open jobs and claims under way, and how many jobs wait in all */
export function factsOf(deps: EngineDeps, order: Order, here: { open: number; claims: number; waiting: number }): OrderFacts {
  const { store, scope } = deps
  const { provider } = deps.config()
  const { customerPubkey } = order
  const health = deps.backendFor(order.kind)?.health()
  const priced = priceFor(deps, order)
  const priceMsats = 'priceMsats' in priced ? priced.priceMsats : msats(0)
  const isFree = priceMsats === 0n
  const now = scope.clock.now()
  const freeToday = () => countFreeJobsSince(store, customerPubkey, now - (now % DAY_MS)) + here.claims
  const refundsCaused = () => countRefundsCaused(store, { customerPubkey, since: now - HOUR_MS, codes: PAYERS_CODES })
  return {
    nowMs: now,
    backend: health === undefined ? 'none' : health.state === 'ok' ? 'ok' : { down: health.reason ?? 'unknown' },
    fault: 'fault' in priced ? priced.fault : undefined,
    priceMsats,
    hasMint: !isFree && deps.hasMint(),
    expectsMint: deps.expectsMint(),
    cancelled: wasCancelled(store, order.id, customerPubkey),
    openOfCustomer: here.open,
    freeToday: provider.free_per_day > 0 ? freeToday() : 0,
    refundsCaused: isFree ? 0 : refundsCaused(),
    waiting: here.waiting,
    perCustomerLimit: provider.per_customer_limit,
    freePerDay: provider.free_per_day,
    queueLimit: provider.queue_limit,
  }
}

/** What the order costs, or what is wrong with it. */
function priceFor(deps: EngineDeps, order: Order): { priceMsats: Msats } | { fault: Refusal } {
  const config = deps.config()
  const input = givenText(order)
  try {
    if (order.inputs.length === 0 && Object.keys(order.params).length === 0) {
      throw new PylonError('input_invalid', 'There is no input: send an i tag, or the text as content.')
    }
    if (input !== undefined && Buffer.byteLength(input) > config.provider.max_input_bytes) {
      throw new PylonError('input_invalid', `The inputs are over ${config.provider.max_input_bytes} bytes together.`)
    }
    deps.backendFor(order.kind)?.check({ kind: order.kind, params: order.params, output: order.output, input })
    const price = priceOf(config, order.kind)
    const inputChars = order.inputs.reduce((sum, i) => sum + (i.type === 'text' ? i.data.length : REFERENCED_INPUT_CHARS), 0)
    return { priceMsats: quote(price, { inputChars, maxOutputTokens: price.unit === '1k_tokens' ? maxTokensOf(order.params) : 0 }) }
  } catch (error) {
    const { code, message } = toPylonError(error)
    return { fault: { code, message } }
  }
}
