/** What several keys say of one purchase: no copy is paid while there is another way, no word is final by being first, noise drives out nobody. */
import { expect, it } from 'vitest'
import { msats, sats } from '../../../src/base/amounts.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { npubOf } from '../../../src/nostr/nips/nip19.ts'
import { parseJobRequest } from '../../../src/nostr/nips/nip90.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { claimAnswer } from '../../../src/store/buying/purchases.ts'
import { all } from '../../../src/store/commands.ts'
import { key, other, provider, World } from './world.ts'

const third = key(5)

function paying(world: World): void {
  world.onPay = async () => ({ state: 'paid', operationId: 'melt-1', preimage: '', feeSats: sats(0) })
}

async function copied(world: World, more: Parameters<World['order']>[0] = {}): Promise<{ id: string; eventId: string }> {
  paying(world)
  const ids = await world.order(more)
  world.offer(ids.eventId, provider, 10)
  world.offer(ids.eventId, other, 10)
  await world.until(() => expect(world.customer.get(ids.id).offers.map((offer) => offer.state)).toEqual(['contested', 'contested']))
  return ids
}

const askedAgain = (world: World, nth: number) =>
  world.until(() => expect(world.again().length).toBeGreaterThan(nth), 500).then(() => world.again()[nth] as NostrEvent)

it('pays no invoice that two keys name: the job is asked again of one of them alone, and that offer is paid', async () => {
  const world = new World()
  const { id, eventId } = await copied(world)
  const again = await askedAgain(world, 0)
  expect(again.tags).toContainEqual(['p', provider.pubkey])
  expect(again.tags.filter((tag) => tag[0] === 'i')).toEqual([])
  expect((await parseJobRequest(again, provider)).inputs).toEqual([{ data: 'text', type: 'text' }])
  expect(world.asked).toEqual([])
  // Not the copy under the key that was not asked, before it or after it.
  const own = world.invoice(11)
  world.offer(again.id, other, 11, own)
  world.offer(eventId, other, 11, own)
  world.offer(again.id, provider, 11, own)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 500)
  expect(world.asked.map((request) => request.request)).toEqual([own])
  world.result(again.id, other, 'RUBBISH')
  world.result(again.id, provider, 'done')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: 'done' }), 500)
})

it('takes the offer of a third key instead, however dear within the limit', async () => {
  const world = new World()
  const { id, eventId } = await copied(world)
  const sure = world.invoice(90)
  world.offer(eventId, third, 90, sure)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 500)
  expect(world.asked.map((request) => request.request)).toEqual([sure])
})

it.each([
  ['says no', (world: World, id: string) => world.answer(id, provider, { status: 'error', extra: 'kind_unsupported' })],
  ['says nothing', () => undefined],
  ['offers the same invoice again', (world: World, id: string) => world.offer(id, provider, 10)],
])('asks the other key where the first one %s, and keeps both results where it pays the invoice at last', async (_how, answer) => {
  const world = new World()
  const { id, eventId } = await copied(world)
  answer(world, (await askedAgain(world, 0)).id)
  expect((await askedAgain(world, 1)).tags).toContainEqual(['p', other.pubkey])
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 1000)
  expect(world.asked).toHaveLength(1)
  world.result(eventId, other, 'RUBBISH')
  await world.until(() => expect(world.customer.get(id).results).toHaveLength(1))
  expect(world.customer.get(id)).toMatchObject({ status: 'paid', result: null })
  world.result(eventId, provider, 'done')
  await world.until(() => expect(world.customer.get(id).status).toBe('completed'))
  expect(world.customer.get(id)).toMatchObject({ result: null, results: [{ content: 'RUBBISH' }, { content: 'done' }] })
})

it('does not ask again when nothing may be asked: a job for one key is not contested by copies', async () => {
  const world = new World()
  paying(world)
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.offer(eventId, other, 10)
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 500)
  expect(world.again()).toEqual([])
  world.result(eventId, other, 'RUBBISH')
  world.result(eventId, provider, 'done')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ result: 'done', results: [{ content: 'done' }] }))
})

/** The copy was heard alone, and paid. */
async function paidTheCopy(world: World): Promise<{ id: string; eventId: string }> {
  paying(world)
  const ids = await world.order()
  world.offer(ids.eventId, other, 10)
  await world.until(() => expect(world.customer.get(ids.id).status).toBe('paid'), 1000)
  return ids
}

it('keeps the result of a key that names the invoice after it was paid, before and after the first result', async () => {
  const world = new World()
  const { id, eventId } = await paidTheCopy(world)
  world.offer(eventId, provider, 10)
  world.result(eventId, other, 'RUBBISH')
  await world.until(() => expect(world.customer.get(id).results).toHaveLength(1))
  expect(world.customer.get(id).status).toBe('paid')
  // Another stranger has no say.
  world.result(eventId, third, 'more RUBBISH')
  world.result(eventId, provider, 'done')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: null }))
  expect(world.customer.get(id).results.map(({ content }) => content)).toEqual(['RUBBISH', 'done'])
})

it('shows what comes late beside what completed it, whatever comes first: the result or the offer that it belongs to', async () => {
  const world = new World()
  const { id, eventId } = await paidTheCopy(world)
  world.result(eventId, other, 'RUBBISH')
  await world.until(() => expect(world.customer.get(id).status).toBe('completed'))
  world.result(eventId, provider, 'done')
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).results.map(({ content }) => content)).toEqual(['RUBBISH', 'done']))
})

it('ends at the deadline with the one result that came, and says nothing else', async () => {
  const world = new World()
  await world.customer.start()
  const { id, eventId } = await paidTheCopy(world)
  world.offer(eventId, provider, 10)
  world.result(eventId, provider, 'done')
  await world.until(() => expect(world.customer.get(id).results).toHaveLength(1))
  expect(world.customer.get(id).status).toBe('paid')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: 'done' }), 60_000)
})

it('is ended by no error and no small refund of a key that copied', async () => {
  const world = new World()
  const { id, eventId } = await paidTheCopy(world)
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).offers).toHaveLength(2))
  const content = JSON.stringify({ error: 'sorry', refund_token: 'cashuBsmall' })
  world.answer(eventId, other, { status: 'error', content, encrypt: { signer: other, scheme: 'nip44' } })
  await world.until(() => expect(world.customer.get(id).refunds).toMatchObject([{ state: 'redeemed', amount_sats: 5n }]))
  expect(world.customer.get(id).status).toBe('paid')
  world.result(eventId, provider, 'done')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: 'done' }))
})

it('keeps and tries every refund that comes: one that cannot be redeemed blocks none, and none is lost to an end', async () => {
  const world = new World()
  await world.customer.start()
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.onReceive = async (token) => {
    if (token === 'cashuBfar') throw new PylonError('mint_not_allowed', 'The mint X is not on the list.')
    if (token === 'cashuBspent') throw new PylonError('token_spent', 'spent')
  }
  const refund = (token: string) =>
    world.answer(eventId, provider, {
      status: 'error',
      content: JSON.stringify({ error: 'x', refund_token: token }),
      encrypt: { signer: provider, scheme: 'nip44' },
    })
  for (const token of ['cashuBfar', 'cashuBspent', 'cashuBgood', 'cashuBgood', 'cashuBmore']) refund(token)
  await world.until(() =>
    expect(world.customer.get(id).refunds.map(({ state }) => state)).toEqual(['waiting', 'refused', 'redeemed', 'redeemed']),
  )
  expect(world.customer.get(id).status).toBe('refunded')
  expect(world.redeemed).toEqual(['cashuBgood', 'cashuBmore'])
  world.onReceive = async () => {}
  await world.clock.advance(61_000)
  await world.until(() => expect(world.redeemed).toEqual(['cashuBgood', 'cashuBmore', 'cashuBfar']))
})

it('asks an owner who wants to be asked about no contested offer, and about the last way that is left', async () => {
  const world = new World()
  const { id } = await copied(world, { pay: 'ask' })
  await askedAgain(world, 0)
  await expect(world.customer.approve(id)).rejects.toMatchObject({ code: 'conflict' })
  expect(world.asked).toEqual([])
  await world.until(() => expect(world.customer.get(id).offers.map((offer) => offer.state)).toContain('open'), 2000)
  await expect(world.customer.approve(id)).resolves.toMatchObject({ status: 'paid' })
})

it('lets no noise of many keys push the honest offer out', async () => {
  const world = new World()
  paying(world)
  const { id, eventId } = await world.order()
  const strangers = Array.from({ length: 100 }, (_, n) => n.toString(16).padStart(64, '0'))
  const noise = (n: number) =>
    claimAnswer({
      eventId: String(n),
      purchaseId: id,
      kind: 7000,
      pubkey: strangers[n % 100] ?? '',
      summary: 'processing',
      at: world.clock.now(),
    })
  await world.store.write(all(...Array.from({ length: 600 }, (_, n) => noise(n))))
  world.answer(eventId, third, { status: 'processing' })
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 100)
  expect(world.customer.get(id).events).toHaveLength(601)
})

it('keeps of one key no more than its share, be it noise or offers that could be paid', async () => {
  const world = new World()
  const { id, eventId } = await world.order({ pay: 'ask' })
  for (let n = 0; n < 22; n++) world.answer(eventId, third, { status: 'processing', extra: String(n) })
  for (let n = 0; n < 7; n++) world.offer(eventId, third, 20 + n)
  world.offer(eventId, provider, 10)
  await world.until(() =>
    expect(world.customer.get(id).offers.filter((offer) => offer.provider === npubOf(provider.pubkey))).toHaveLength(1),
  )
  expect(world.customer.get(id).offers).toHaveLength(6)
  expect(world.customer.get(id).events).toHaveLength(26)
})

it('takes a good offer of the one key that was asked after one that nobody could pay', async () => {
  const world = new World()
  paying(world)
  const { id, eventId } = await world.order({ provider: provider.pubkey })
  world.answer(eventId, provider, { status: 'payment-required', price: { amountMsats: msats(10_000) } })
  await world.until(() => expect(world.customer.get(id).reason).toBe('carries no invoice'))
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 10)
})

it('is not ended by an offer of a stranger where it is not to be paid at all', async () => {
  const world = new World()
  const { id, eventId } = await world.order({ pay: 'never' })
  world.offer(eventId, other, 10)
  world.result(eventId, provider, 'for nothing')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: 'for nothing' }), 500)
})

it('is not ended by a result that nobody paid for while an offer can be paid, and shows both', async () => {
  const world = new World()
  paying(world)
  const { id, eventId } = await world.order()
  world.result(eventId, other, 'RUBBISH')
  world.offer(eventId, provider, 10)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 500)
  world.result(eventId, provider, 'done')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: 'done' }))
})

it('goes on to the other key where the one that was asked alone sends work that nobody paid for', async () => {
  const world = new World()
  const { id } = await copied(world)
  world.result((await askedAgain(world, 0)).id, provider, 'RUBBISH')
  const again = await askedAgain(world, 1)
  world.offer(again.id, other, 11)
  await world.until(() => expect(world.customer.get(id).status).toBe('paid'), 500)
  world.result(again.id, other, 'done')
  await world.until(() => expect(world.customer.get(id)).toMatchObject({ status: 'completed', result: 'done' }))
})

it('makes two jobs of the same order in the same second', async () => {
  const world = new World()
  const order = {
    kind: 5001,
    inputs: [{ data: 'text', type: 'text' }],
    params: [],
    encrypt: false,
    pay: 'auto',
    payWith: 'invoice',
    timeoutMs: 1000,
  } as const
  const views = await Promise.all(['a', 'b', 'c'].map((id) => world.customer.submit(order, id)))
  expect(new Set(views.map((view) => view.job_id)).size).toBe(3)
})
