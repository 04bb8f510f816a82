import { describe, expect, it } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { canStep, isPurchaseOver, PURCHASE_STEPS, RENTAL_STEPS, statesBefore, statesOf } from '../../../src/base/states.ts'
import { checkOrder, judgeOffer, type Order, priceLimit } from '../../../src/customer/order.ts'

const order = (patch: Partial<Order> = {}): Order => ({
  kind: 5001,
  inputs: [{ data: 'hello', type: 'text' }],
  params: [],
  encrypt: false,
  pay: 'auto',
  payWith: 'invoice',
  timeoutMs: 1000,
  ...patch,
})

describe('an order', () => {
  it.each([
    [{ kind: 4999 }, 'invalid_request'],
    [{ kind: 6001 }, 'invalid_request'],
    [{ inputs: [] }, 'input_invalid'],
    [{ inputs: [{ data: '', type: 'text' as const }] }, 'input_invalid'],
    [{ inputs: [{ data: 'abc', type: 'event' as const }] }, 'input_invalid'],
    [{ inputs: [{ data: 'ftp://x', type: 'url' as const }] }, 'input_invalid'],
    [{ inputs: [{ data: 'x'.repeat(256_001), type: 'text' as const }] }, 'input_invalid'],
  ])('is refused when malformed: %j', (patch, code) => {
    expect(() => checkOrder(order(patch))).toThrow(expect.objectContaining({ code }))
  })

  it('may cost the lower of bid and limit, and 100 sats where neither is given', () => {
    expect([
      priceLimit(order()),
      priceLimit(order({ bidSats: 5 })),
      priceLimit(order({ bidSats: 5, maxSats: 3 })),
      priceLimit(order({ maxSats: 0 })),
    ]).toEqual([100n, 5n, 3n, 0n])
  })
})

describe('an offer', () => {
  const offer = { amountMsats: msats(5000), bolt11: 'lnbcrt1', invoiceMsats: msats(5000), expired: false }

  it('is paid when it fits', () => {
    expect(judgeOffer(order({ maxSats: 5 }), offer)).toEqual({ usable: true })
  })

  it.each([
    ['over the limit', { maxSats: 4 }, {}],
    ['over the bid', { bidSats: 4, maxSats: 100 }, {}],
    ['no invoice', {}, { bolt11: null, invoiceMsats: null }],
    ['unreadable invoice', {}, { invoiceMsats: null }],
    ['invoice for more', {}, { invoiceMsats: msats(5001) }],
    ['invoice for less', {}, { invoiceMsats: msats(4999) }],
    ['expired', {}, { expired: true }],
  ])('is not paid: %s', (_name, orderPatch, offerPatch) => {
    expect(judgeOffer(order(orderPatch), { ...offer, ...offerPatch })).toMatchObject({ usable: false })
  })
})

describe('the states of a purchase', () => {
  it('lets nothing follow a result or a refund', () => {
    for (const to of statesOf(PURCHASE_STEPS)) {
      expect(canStep(PURCHASE_STEPS, 'completed', to)).toBe(false)
      expect(canStep(PURCHASE_STEPS, 'refunded', to)).toBe(false)
    }
  })

  it('never goes back to asking or paying once it is paid or over', () => {
    for (const from of statesOf(PURCHASE_STEPS).filter((status) => isPurchaseOver(status) || status === 'paid')) {
      for (const to of ['preparing', 'requested', 'offered', 'paying'] as const) expect(canStep(PURCHASE_STEPS, from, to)).toBe(false)
    }
  })

  it('takes a result or a refund however late', () => {
    for (const from of ['failed', 'timeout', 'cancelled'] as const) {
      expect(statesBefore(PURCHASE_STEPS, 'completed')).toContain(from)
      expect(statesBefore(PURCHASE_STEPS, 'refunded')).toContain(from)
    }
  })
})

describe('the states of a rental', () => {
  it('lets a payment begin until there is one, also for what was refused before', () => {
    expect(statesBefore(RENTAL_STEPS, 'paying')).toEqual(['asked', 'paying', 'refused'])
    expect(statesBefore(RENTAL_STEPS, 'paid')).toEqual(['paying'])
    expect(statesBefore(RENTAL_STEPS, 'asked')).toEqual([])
  })

  it('takes an answer of the node in every state', () => {
    for (const to of ['answered', 'refused'] as const) {
      expect(statesBefore(RENTAL_STEPS, to)).toEqual(['asked', 'paying', 'paid', 'answered', 'refused'])
    }
  })
})
