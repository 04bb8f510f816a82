/** A customer over a relay and a wallet in memory: no second payment while the first may have happened, no refund left lying. */
import { expect, it } from 'vitest'
import { msats, sats } from '../../../src/base/amounts.ts'
import { PylonError } from '../../../src/base/errors.ts'
import type { Order } from '../../../src/customer/order.ts'
import { buildResult } from '../../../src/nostr/nips/nip90-answers.ts'
import { insertPurchase, movePurchase } from '../../../src/store/buying/purchases.ts'
import { all } from '../../../src/store/commands.ts'
import { insertOperation, moveOperation } from '../../../src/store/money/operations.ts'
import { pendingAfter, recordDeliveries } from '../../../src/store/nostr/outbox.ts'
import { DAY_MS, MINT, me, other, provider, World } from './world.ts'

it('pays no second offer while the first payment may have been made, whatever error came back', async () => {
  const world = new World()
  const { id, eventId } = await world.order()
  world.onPay = async ({ idempotencyKey }) => {
    // The melt went out; then the disk was full.
    world.payments.set(idempotencyKey, { state: 'unknown', operationId: 'melt-1' })
    throw new PylonError('disk_full', 'The disk is full.')
  }
  world.offer(eventId, provider, 10)
  world.offer(eventId, other, 20)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(2))
  await world.until(() => expect(world.asked).toHaveLength(1), 2000)
  await world.clock.advance(120_000)
  expect(world.customer.get(id).status).toBe('paying')
  expect(world.asked).toHaveLength(1)
  const idempotencyKey = world.asked[0]?.idempotencyKey ?? ''
  const owner = { kind: 'customer', pubkey: me.pubkey } as const
  await world.tell({ type: 'payment_settled', cause: { type: 'purchase', id }, owner, idempotencyKey, feeSats: sats(0) })
  expect(world.customer.get(id)).toMatchObject({ status: 'paid', paid_msats: 10_000n })
  expect(world.asked).toHaveLength(1)
})

it('redeems a refund as soon as its mint answers again, without a restart', async () => {
  const world = new World()
  await world.customer.start()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  let failures = 3
  world.onReceive = async () => {
    if (failures-- > 0) throw new PylonError('mint_unreachable', 'no answer')
  }
  const content = JSON.stringify({ error: 'failed', refund_token: 'cashuBrefund' })
  world.answer(eventId, provider, { status: 'error', extra: 'backend_failed', content, encrypt: { signer: provider, scheme: 'nip44' } })
  await world.until(() => expect(failures).toBe(2))
  await world.clock.advance(61_000)
  await world.until(() => expect(failures).toBe(1))
  await world.clock.advance(61_000)
  await world.until(() => expect(failures).toBe(0))
  await world.clock.advance(61_000)
  await world.until(() => expect(world.customer.get(id).status).toBe('refunded'))
  expect(world.redeemed).toEqual(['cashuBrefund'])
})

it('keeps a refund of a mint that is not on the list, says so, and redeems it once it is, also when relays forgot it', async () => {
  const world = new World()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  let listed = false
  world.onReceive = async () => {
    if (!listed) throw new PylonError('mint_not_allowed', 'The mint X is not on the list: add it.')
  }
  const content = JSON.stringify({ error: 'failed', refund_token: 'cashuBrefund' })
  world.answer(eventId, provider, { status: 'error', content, encrypt: { signer: provider, scheme: 'nip44' } })
  await world.until(() => expect(world.customer.get(id).reason).toBe('a refund waits: The mint X is not on the list: add it.'))
  expect(world.customer.get(id).status).toBe('failed')
  listed = true
  // A start: nothing is heard again.
  await world.clock.advance(365 * DAY_MS)
  await world.customer.start()
  await world.until(() => expect(world.customer.get(id).status).toBe('refunded'))
  expect(world.redeemed).toEqual(['cashuBrefund'])
})

it('asks no mint again about a refund that is no money', async () => {
  const world = new World()
  await world.customer.start()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  let asked = 0
  world.onReceive = async () => {
    asked++
    throw new PylonError('token_spent', 'spent')
  }
  const content = JSON.stringify({ error: 'failed', refund_token: 'cashuBspent' })
  world.answer(eventId, provider, { status: 'error', content, encrypt: { signer: provider, scheme: 'nip44' } })
  await world.until(() => expect(asked).toBe(1))
  await world.clock.advance(3_600_000)
  expect(asked).toBe(1)
  expect(world.customer.get(id)).toMatchObject({ status: 'failed', reason: 'the refund is no money: spent' })
})

it('goes on with a purchase that was left before its request went out', async () => {
  const world = new World()
  await world.customer.start()
  const order: Order = {
    kind: 5001,
    inputs: [{ data: 'text', type: 'text' }],
    params: [],
    encrypt: false,
    pay: 'auto',
    payWith: 'invoice',
    timeoutMs: 600_000,
  }
  const at = world.clock.now()
  const left = (id: string, deadlineAt: number) => insertPurchase({ id, kind: 5001, order, provider: null, deadlineAt, at })
  await world.store.write(all(left('left', at + 600_000), left('late', at + 1000)))
  await world.clock.advance(61_000)
  await world.until(() => expect(world.customer.get('left').status).toBe('requested'))
  await world.until(() => expect(world.customer.get('late').status).toBe('failed'))
})

it('tops up and pays again when another purchase took the sats meanwhile', async () => {
  const world = new World()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.onPay = async () => {
    if (world.asked.length === 1) throw new PylonError('insufficient_funds', 'The wallet holds 1 sat.')
    return { state: 'paid', operationId: 'melt', preimage: '', feeSats: sats(0) }
  }
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(1))
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 1)
  expect(world.asked.map((request) => request.idempotencyKey)).toEqual([world.asked[0]?.idempotencyKey, world.asked[0]?.idempotencyKey])
})

it('ends when a payment fails after the deadline', async () => {
  const world = new World()
  await world.customer.start()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.onPay = async ({ idempotencyKey }) => {
    const unknown = { state: 'unknown', operationId: 'melt' } as const
    world.payments.set(idempotencyKey, unknown)
    return unknown
  }
  world.offer(eventId, provider, 10)
  world.offer(eventId, provider, 11)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(2))
  await world.until(() => expect(world.asked).toHaveLength(1), 1)
  await world.clock.advance(700_000)
  expect(world.customer.get(id).status).toBe('paying')
  const idempotencyKey = world.asked[0]?.idempotencyKey ?? ''
  world.payments.set(idempotencyKey, { state: 'failed', reason: 'no route' })
  const owner = { kind: 'customer', pubkey: me.pubkey } as const
  await world.tell({ type: 'payment_failed', cause: { type: 'purchase', id }, owner, idempotencyKey, reason: 'no route' })
  await world.clock.advance(61_000)
  await world.until(() => expect(world.customer.get(id).status).toBe('timeout'))
  expect(world.asked).toHaveLength(1)
})

it('asks again before it pays the next offer when the owner wants to be asked', async () => {
  const world = new World()
  const { id, eventId } = await world.order({ pay: 'ask' })
  world.offer(eventId, provider, 10)
  world.offer(eventId, other, 20)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(2))
  await expect(world.customer.approve(id)).resolves.toMatchObject({ status: 'offered', reason: 'no route' })
  await world.clock.advance(10_000)
  expect(world.asked.map((request) => request.amountMsats)).toEqual([10_000n])
  expect(world.customer.get(id).offers.map((offer) => offer.state)).toEqual(['failed', 'open'])
  await expect(world.customer.approve(id)).resolves.toMatchObject({ status: 'offered' })
  expect(world.asked.map((request) => request.amountMsats)).toEqual([10_000n, 20_000n])
})

it('asks again also when it learns at a start that the payment under way has failed', async () => {
  const world = new World()
  const { id, eventId } = await world.order({ pay: 'ask' })
  world.offer(eventId, provider, 10)
  world.offer(eventId, other, 20)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(2))
  world.onPay = async ({ idempotencyKey }) => {
    const unknown = { state: 'unknown', operationId: 'melt' } as const
    world.payments.set(idempotencyKey, unknown)
    return unknown
  }
  await expect(world.customer.approve(id)).resolves.toMatchObject({ status: 'paying' })
  world.payments.set(world.asked[0]?.idempotencyKey ?? '', { state: 'failed', reason: 'no route' })
  await world.customer.start()
  await world.until(() => expect(world.customer.get(id).status).toBe('offered'))
  await world.clock.advance(10_000)
  expect(world.asked).toHaveLength(1)
})

/** A purchase that failed and whose token nobody spent. */
async function failedWithToken(world: World): Promise<void> {
  const at = world.clock.now()
  const id = 'old'
  const order = { kind: 5001, inputs: [], params: [], encrypt: false, pay: 'auto', payWith: 'token', timeoutMs: 60_000 }
  const operation = { id: 'op', kind: 'send', owner: { kind: 'customer', pubkey: me.pubkey }, mintUrl: MINT } as const
  const key = { idempotencyKey: `purchase:${id}:token`, requestDigest: '', cause: { type: 'purchase', id } } as const
  const done = { reason: '', at, nextTryAt: null } as const
  await world.store.write(
    all(
      insertPurchase({ id, kind: 5001, order, provider: provider.pubkey, deadlineAt: at + 60_000, at }),
      movePurchase({ id, from: ['preparing'], to: 'paid', reason: '', at, eventId: 'e'.repeat(64), paidMsats: msats(5000) }),
      movePurchase({ id, from: ['paid'], to: 'failed', reason: '', at }),
      insertOperation({ ...operation, ...key, amountSats: 5n, heldSats: 5n, plan: {}, at }),
      moveOperation({ id: 'op', to: 'completed', tokenState: 'pending', ...done }),
    ),
  )
  world.token = { operationId: 'op', token: 'cashuB', amountSats: sats(5), feeSats: sats(0), mintUrl: MINT, state: 'pending' }
}

it.each([
  ['the result', 'completed'],
  ['an error', 'failed'],
])('counts what was paid also where %s came before the payment was known', async (what, status) => {
  const world = new World()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.onPay = async ({ idempotencyKey }) => {
    const unknown = { state: 'unknown', operationId: 'melt' } as const
    world.payments.set(idempotencyKey, unknown)
    return unknown
  }
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(1))
  await world.until(() => expect(world.asked).toHaveLength(1), 1)
  const request = { ...me.sign({ kind: 5001, created_at: 1, tags: [], content: '' }), id: eventId }
  if (what === 'the result') world.hear(provider.sign(buildResult({ request, content: 'done', createdAtS: 2 })))
  else world.answer(eventId, provider, { status: 'error', extra: 'backend_failed' })
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status, paid_msats: 0n }))
  const owner = { kind: 'customer', pubkey: me.pubkey } as const
  const idempotencyKey = world.asked[0]?.idempotencyKey ?? ''
  await world.tell({ type: 'payment_settled', cause: { type: 'purchase', id }, owner, idempotencyKey, feeSats: sats(0) })
  expect(world.customer.get(id)).toMatchObject({ status, paid_msats: 10_000n, offers: [{ state: 'paid' }] })
})

it('takes back a token that nobody spent, also when the node was down for a year', async () => {
  const world = new World()
  await failedWithToken(world)
  await world.clock.advance(365 * DAY_MS)
  await world.customer.start()
  await world.clock.advance(61_000)
  await world.until(() => expect(world.customer.get('old')).toMatchObject({ status: 'refunded', reason: '5 sats came back' }))
})

it('hears a refund of what it paid that comes weeks later', async () => {
  const world = new World()
  await failedWithToken(world)
  world.token = undefined
  await world.clock.advance(30 * DAY_MS)
  await world.customer.start()
  const content = JSON.stringify({ error: 'failed', refund_token: 'cashuBrefund' })
  world.answer('e'.repeat(64), provider, { status: 'error', content, encrypt: { signer: provider, scheme: 'nip44' } })
  await world.until(() => expect(world.customer.get('old').status).toBe('refunded'))
})

it('ends at once, in the words of the relays, when none takes the request', async () => {
  const world = new World()
  const { id } = await world.order()
  const sent = pendingAfter(world.store, 0, 10).find(({ key }) => key === `purchase:${id}:request`)
  if (sent === undefined) throw new Error('no request')
  const refusal = { relay: 'wss://relay.test', state: 'rejected' as const, attempts: 0, error: 'blocked: kind 5001', nextAt: 0 }
  await world.store.write(recordDeliveries({ outcomes: [{ messageId: sent.id, ...refusal }], at: world.clock.now() }))
  await world.givenUp.get('purchase:')?.(sent.key, 'wss://relay.test: blocked: kind 5001')
  expect(world.customer.get(id)).toMatchObject({
    status: 'failed',
    error: { code: 'relay_refused', message: expect.stringContaining('wss://relay.test: blocked: kind 5001') },
  })
})

it('says that no relay was reached, where that is why nobody answered', async () => {
  const world = new World()
  const { id } = await world.order({ timeoutMs: 60_000 })
  await world.clock.advance(61_000)
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'timeout', error: { code: 'relay_unreachable' } }))
})

it('pays nobody else while the one it paid is at work', async () => {
  const world = new World()
  world.onPay = async () => ({ state: 'paid', operationId: 'melt-1', preimage: '', feeSats: sats(0) })
  const { id, eventId } = await world.order()
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 100)
  world.answer(eventId, provider, { status: 'processing' })
  await world.until(() => expect(world.customer.get(id).status).toBe('processing'), 100)
  world.offer(eventId, other, 5)
  await world.clock.advance(5000)
  expect(world.asked).toHaveLength(1)
  expect(world.customer.get(id).status).toBe('processing')
})

it('asks again for the answer to what it paid: a relay may have sent it and it got lost', async () => {
  const world = new World()
  world.onPay = async () => ({ state: 'paid', operationId: 'op', preimage: 'aa'.repeat(32), feeSats: sats(0) })
  await world.customer.start()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 2000)
  world.stored = [world.resultOf(eventId, provider, 'done')]
  await world.until(() => expect(world.customer.get(id).status).toBe('completed'), 60_000)
})
