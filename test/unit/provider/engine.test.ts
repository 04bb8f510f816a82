/** The provider over a real database: one request one job, each way of payment, refunds, cancels. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { PylonError } from '../../../src/base/errors.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { saleRefundKey } from '../../../src/store/keys.ts'
import { accountBalance, depositOf, postEntry } from '../../../src/store/money/ledger.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { MINT } from '../../support/memory-mint.ts'
import { customer, key, type NodeOptions, node, request, scriptedBackend, startNode, stranger, type TestNode, World } from './world.ts'

let world: World
let current: TestNode | undefined

beforeEach(() => {
  world = new World()
})

afterEach(async () => {
  await current?.stop()
  current = undefined
  world.close()
})

const FREE = { prices: { '5001': { amount_msats: 0, unit: 'job' as const } } }
const PRICED = { prices: { '5001': { amount_msats: 2500, unit: 'job' as const } } }

async function start(options: NodeOptions = {}): Promise<TestNode> {
  current = await startNode(world, options)
  return current
}

const reached = (testNode: TestNode, event: NostrEvent, status: string) =>
  vi.waitFor(() => expect(testNode.job(event.id).status).toBe(status), { timeout: 30_000 })

test('a free job runs once however often it is delivered, and is settled when a relay took the result', async () => {
  const testNode = await start({ config: FREE })
  const event = request(world)
  await Promise.all([1, 2, 3].map(() => testNode.deliver(event)))
  await testNode.deliver(event)
  await reached(testNode, event, 'settled')
  await testNode.deliver(event)
  expect(testNode.path(event.id)).toEqual(['received', 'queued', 'running', 'ready', 'delivered', 'settled'])
  const [result, ...others] = world.answers(event.id, 6001)
  expect(others).toEqual([])
  expect(result?.content).toContain('sentence')
  expect(result?.tags).toContainEqual(['request', JSON.stringify(event)])
  expect(result?.tags).toContainEqual(['p', customer.pubkey])
  expect(world.feedback(event.id).map((feedback) => feedback.status)).toEqual(['processing'])
  expect(balancesByPrefix(testNode.store, 'node/').size).toBe(0)
})

test('an invoice is named, paid and earned once; the half sat above the price is rounding', async () => {
  const testNode = await start({ config: PRICED })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  await vi.waitFor(() =>
    expect(world.feedback(event.id)).toMatchObject([
      { status: 'payment-required', amountMsats: 3000n, bolt11: `lnbcrt3-job:${event.id}:invoice` },
    ]),
  )
  await testNode.wallets.payInvoice(event.id)
  await testNode.wallets.announceSettled()
  await reached(testNode, event, 'settled')
  await testNode.wallets.announceSettled()
  expect(testNode.path(event.id)).toEqual(['received', 'quoted', 'paid', 'running', 'ready', 'delivered', 'settled'])
  expect(balancesByPrefix(testNode.store, 'node/')).toEqual(
    new Map([
      ['node/income/job', -2500n],
      ['node/income/rounding', -500n],
      [`node/wallet/${MINT}`, 3000n],
    ]),
  )
})

test('a bid below the price is answered with the price', async () => {
  const testNode = await start({ config: PRICED })
  const event = request(world, { tags: [['bid', '1000']] })
  await testNode.deliver(event)
  await vi.waitFor(() => expect(world.feedback(event.id)).toMatchObject([{ status: 'payment-required', extra: 'bid_too_low' }]))
})

test('a locked token pays at once, and what is above the price is a tip', async () => {
  const testNode = await start({ config: PRICED })
  const event = request(world, { tags: [['cashu', world.token(8n, { lock: `02${node.pubkey}` })]] })
  await testNode.deliver(event)
  await reached(testNode, event, 'settled')
  expect(testNode.path(event.id)).toEqual(['received', 'paid', 'running', 'ready', 'delivered', 'settled'])
  expect(accountBalance(testNode.store, 'node/income/job')).toBe(-2500n)
  expect(accountBalance(testNode.store, 'node/income/tip')).toBe(-5000n)
  expect(accountBalance(testNode.store, `node/deposit/job:${event.id}`)).toBe(0n)
})

test.each([
  ['token_bare', () => world.token(8n)],
  ['token_locked', () => world.token(8n, { lock: `02${stranger.pubkey}` })],
  ['mint_not_allowed', () => world.token(8n, { lock: `02${node.pubkey}`, mint: 'https://evil.test' })],
  ['token_amount', () => world.token(2n, { lock: `02${node.pubkey}` })],
  ['token_invalid', () => 'cashuBgarbage'],
])('a bad token is refused with %s and no work is done', async (code, makeToken) => {
  const backend = scriptedBackend(() => Promise.resolve('never'))
  const testNode = await start({ config: PRICED, backends: [backend] })
  const event = request(world, { tags: [['cashu', makeToken()]] })
  await testNode.deliver(event)
  await reached(testNode, event, 'refused')
  await vi.waitFor(() => expect(world.feedback(event.id)).toMatchObject([{ status: 'error', extra: code }]))
  expect(backend.runs).toBe(0)
  expect(balancesByPrefix(testNode.store, 'node/').size).toBe(0)
})

test('a spent token is refused with token_spent', async () => {
  const testNode = await start({ config: PRICED })
  const token = world.token(8n, { lock: `02${node.pubkey}` })
  const first = request(world, { tags: [['cashu', token]] })
  const second = request(world, {
    tags: [
      ['cashu', token],
      ['t', 'again'],
    ],
  })
  await testNode.deliver(first)
  await reached(testNode, first, 'settled')
  await testNode.deliver(second)
  await reached(testNode, second, 'refused')
  expect(testNode.job(second.id).errorCode).toBe('token_spent')
})

test('a token whose outcome is unknown waits, and runs when the wallet says it came', async () => {
  const testNode = await start({ config: PRICED })
  world.receiveUnknown = true
  const event = request(world, { tags: [['cashu', world.token(8n, { lock: `02${node.pubkey}` })]] })
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  // Only an invoice runs out; a token's outcome is waited for.
  await world.clock.advance(1_000_000)
  expect(testNode.job(event.id).status).toBe('quoted')
  world.receiveUnknown = false
  await testNode.wallets.of().receiveToken({
    idempotencyKey: `job:${event.id}:token`,
    cause: { type: 'job', id: event.id },
    token: event.tags.find((tag) => tag[0] === 'cashu')?.[1] ?? '',
    creditAccount: `node/deposit/job:${event.id}`,
  })
  await testNode.wallets.announceSettled()
  await reached(testNode, event, 'settled')
})

test('a token whose outcome is unknown and then was spent elsewhere is refused with that code', async () => {
  const testNode = await start({ config: PRICED })
  world.receiveUnknown = true
  const token = world.token(8n, { lock: `02${node.pubkey}` })
  const event = request(world, { tags: [['cashu', token]] })
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  world.receiveUnknown = false
  const found = world.tokens.get(token)
  if (found !== undefined) found.spentBy = 'somebody else'
  await testNode.wallets.emit({
    type: 'receive_failed',
    cause: { type: 'job', id: event.id },
    owner: { kind: 'node', pubkey: node.pubkey },
    idempotencyKey: `job:${event.id}:token`,
    reason: 'gone',
  })
  expect(testNode.job(event.id)).toMatchObject({ status: 'refused', errorCode: 'token_spent' })
  await vi.waitFor(() => expect(world.feedback(event.id)).toMatchObject([{ status: 'error', extra: 'token_spent' }]))
})

test('an encrypted request with its token inside is answered encrypted, and the result shows nothing of it', async () => {
  const testNode = await start({ config: PRICED })
  const secretText = 'The secret plan is simple. It needs two sentences.'
  const inner = [
    ['i', secretText, 'text'],
    ['cashu', world.token(3n)],
  ]
  const event = customer.sign({
    kind: 5001,
    created_at: world.nowS(),
    tags: [['p', node.pubkey], ['encrypted']],
    content: customer.nip44Encrypt(node.pubkey, JSON.stringify(inner)),
  })
  await testNode.deliver(event)
  await reached(testNode, event, 'settled')
  const [result] = world.answers(event.id, 6001)
  expect(JSON.stringify(result)).not.toContain('secret')
  expect(customer.nip44Decrypt(node.pubkey, result?.content ?? '')).toContain('secret plan')
})

test('an encrypted request by NIP-04 is answered by NIP-04', async () => {
  const testNode = await start({ config: FREE })
  const event = customer.sign({
    kind: 5001,
    created_at: world.nowS(),
    tags: [['p', node.pubkey], ['encrypted']],
    content: customer.nip04Encrypt(node.pubkey, JSON.stringify([['i', 'One thing is said. Another too.', 'text']])),
  })
  await testNode.deliver(event)
  await reached(testNode, event, 'settled')
  expect(customer.nip04Decrypt(node.pubkey, world.answers(event.id, 6001)[0]?.content ?? '')).toContain('thing')
})

test('a paid job that fails is refunded by a token that only the customer can spend, sent until it is claimed', async () => {
  const backend = scriptedBackend(() => Promise.reject(new PylonError('backend_failed', 'The model broke.')))
  const testNode = await start({ config: PRICED, backends: [backend] })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'refunding')
  const refunds = () => world.feedback(event.id).filter((feedback) => feedback.refundToken !== undefined)
  await vi.waitFor(() => expect(refunds()).toMatchObject([{ status: 'error', extra: 'backend_failed' }]))
  expect(world.tokens.get(refunds()[0]?.refundToken ?? '')).toMatchObject({ sats: 3n, lock: `02${customer.pubkey}` })
  expect(world.answers(event.id, 7000).every((answer) => !answer.content.includes('cashuB'))).toBe(true)
  await world.clock.advance(70_000)
  await vi.waitFor(() => expect(refunds()).toHaveLength(2))
  expect(new Set(refunds().map((refund) => refund.refundToken)).size).toBe(1)
  await testNode.wallets.claimRefund(event.id)
  await reached(testNode, event, 'refunded')
  await world.clock.advance(1_000_000)
  expect(refunds()).toHaveLength(2)
  expect(balancesByPrefix(testNode.store, 'node/').size).toBe(0)
  expect(backend.runs).toBe(1)
})

test('a refund waits for a mint that is down', async () => {
  const backend = scriptedBackend(() => Promise.reject(new Error('boom at /home/secret')))
  const testNode = await start({ config: PRICED, backends: [backend] })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  world.mintUp = false
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'refunding')
  await world.clock.advance(10_000)
  expect(world.sent.size).toBe(0)
  // That the job failed is told all the same, once.
  await world.clock.advance(600_000)
  const errors = () => world.feedback(event.id).filter(({ status }) => status === 'error')
  await vi.waitFor(() => expect(errors()).toMatchObject([{ extra: 'internal', refundToken: undefined }]))
  world.mintUp = true
  await world.clock.advance(1_200_000)
  await vi.waitFor(() => expect(world.feedback(event.id).some((feedback) => feedback.refundToken !== undefined)).toBe(true))
  expect(
    world
      .feedback(event.id)
      .map((feedback) => feedback.content)
      .join(),
  ).not.toContain('/home/secret')
})

test('cancelling: before payment nothing is owed, a payment after it goes back', async () => {
  const testNode = await start({ config: PRICED })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  const cancel = (by: typeof customer) =>
    by.sign({
      kind: 5,
      created_at: world.nowS(),
      tags: [
        ['e', event.id],
        ['k', '5001'],
      ],
      content: '',
    })
  await testNode.deliver(cancel(stranger))
  expect(testNode.job(event.id).status).toBe('quoted')
  await testNode.deliver(cancel(customer))
  expect(testNode.job(event.id).status).toBe('cancelled')
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'refunding')
})

test('cancelling a paid job that waits refunds it; one that runs goes on', async () => {
  let finish = (_output: string) => {}
  const backend = scriptedBackend(() => new Promise<string>((resolve) => (finish = resolve)))
  const testNode = await start({ config: { ...PRICED, concurrency: 1 }, backends: [backend] })
  const [runs, waits] = [request(world), request(world, { tags: [['t', 'b']] })]
  for (const event of [runs, waits]) {
    await testNode.deliver(event)
    await reached(testNode, event, 'quoted')
    await testNode.wallets.payInvoice(event.id)
  }
  await reached(testNode, runs, 'running')
  expect(testNode.job(waits.id).status).toBe('paid')
  await world.clock.advance(1000)
  // Only the `e` tag: found by the id of the waiting job.
  for (const event of [runs, waits]) {
    await testNode.deliver(customer.sign({ kind: 5, created_at: world.nowS(), tags: [['e', event.id]], content: '' }))
  }
  await reached(testNode, waits, 'refunding')
  finish('done')
  await reached(testNode, runs, 'settled')
})

test('a cancel request that comes before its job stops it', async () => {
  const backend = scriptedBackend(() => Promise.resolve('never'))
  const testNode = await start({ config: FREE, backends: [backend] })
  const event = request(world)
  await testNode.deliver(
    customer.sign({
      kind: 5,
      created_at: world.nowS(),
      tags: [
        ['e', event.id],
        ['k', '5001'],
      ],
      content: '',
    }),
  )
  await testNode.deliver(event)
  expect(testNode.job(event.id).status).toBe('cancelled')
  expect(backend.runs).toBe(0)
})

test('an invoice runs out; a late payment runs while the request is wanted and goes back after that', async () => {
  const testNode = await start({ config: { ...PRICED, invoice_expiry_s: 60, max_age_s: 600 } })
  const [early, late] = [request(world), request(world, { tags: [['t', 'b']] })]
  for (const event of [early, late]) {
    await testNode.deliver(event)
    await reached(testNode, event, 'quoted')
  }
  await world.clock.advance(70_000)
  await reached(testNode, early, 'expired')
  await testNode.wallets.payInvoice(early.id)
  await reached(testNode, early, 'settled')
  await world.clock.advance(600_000)
  await testNode.wallets.payInvoice(late.id)
  await reached(testNode, late, 'refunding')
  expect(testNode.job(late.id).errorCode).toBe('job_expired')
})

test('what is paid in time and known only after the end of the request goes back', async () => {
  const testNode = await start({ config: { ...PRICED, invoice_expiry_s: 60, max_age_s: 600 } })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  const [name, invoice] = [...world.invoices].find(([key]) => key.includes(event.id)) ?? []
  if (name === undefined || invoice === undefined) throw new Error('no invoice')
  world.invoices.set(name, { ...invoice, state: 'paid' })
  await world.clock.advance(700_000)
  expect(testNode.job(event.id).status).toBe('quoted')
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'refunding')
  expect(testNode.job(event.id).errorCode).toBe('job_expired')
})

test('a payment below the price goes back', async () => {
  const testNode = await start({ config: PRICED })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  const [name, invoice] = [...world.invoices].find(([key]) => key.includes(event.id)) ?? []
  if (name === undefined || invoice === undefined) throw new Error('no invoice')
  world.invoices.set(name, { ...invoice, amountSats: sats(2) })
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'refunding')
  expect(testNode.job(event.id).errorCode).toBe('token_amount')
})

test('what is paid once more for a job that is done goes back, each time by a token of its own', async () => {
  const testNode = await start({ config: PRICED })
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'settled')
  const income = () => accountBalance(testNode.store, 'node/income/job')
  const [cause, earned] = [{ type: 'job', id: event.id } as const, income()]
  for (const [nth, amountMsats] of [4000n, 2000n].entries()) {
    // No event tells of it: the ledger does.
    const postings = [
      { account: `node/wallet/${MINT}`, amountMsats },
      { account: depositOf(cause), amountMsats: -amountMsats },
    ] as const
    await testNode.store.write(postEntry({ id: `again:${nth}`, cause, at: world.clock.now(), postings }))
    await world.clock.advance(6000)
    await reached(testNode, event, 'refunding')
    const refund = await vi.waitUntil(() => world.sent.get(saleRefundKey(cause, nth + 1)))
    expect(refund.amountSats).toBe(amountMsats / 1000n)
    await testNode.wallets.claimRefund(event.id, nth + 1)
    expect(testNode.job(event.id).status).toBe('refunded')
  }
  expect(testNode.job(event.id).paidMsats).toBe(9000n)
  expect(world.sent.size).toBe(2)
  expect(accountBalance(testNode.store, depositOf(cause))).toBe(0n)
  expect(income()).toBe(earned)
})

test('own keys pay into income/internal', async () => {
  const own = key(9)
  const testNode = await start({ config: PRICED })
  const event = request(world, { by: own })
  await testNode.deliver(event)
  await reached(testNode, event, 'quoted')
  await testNode.wallets.payInvoice(event.id)
  await reached(testNode, event, 'settled')
  expect(accountBalance(testNode.store, 'node/income/internal')).toBe(-3000n)
  expect(accountBalance(testNode.store, 'node/income/job')).toBe(0n)
})

test.each<[string, () => NostrEvent]>([
  ['for another provider', () => request(world, { to: stranger.pubkey })],
  ['expired', () => request(world, { tags: [['expiration', String(world.nowS() - 1)]] })],
  ['dated in the future', () => request(world, { ageS: -1000 })],
  ['by the node itself', () => request(world, { by: node })],
  ['encrypted to someone else', () => request(world, { tags: [['encrypted']], content: customer.nip44Encrypt(stranger.pubkey, '[]') })],
  ['of a kind not served, to anyone', () => request(world, { kind: 5100, to: null })],
  ['too old, to anyone', () => request(world, { ageS: 100_000, to: null })],
])('a request %s is passed over without a trace', async (_what, make) => {
  const testNode = await start({ config: FREE })
  const event = make()
  const before = world.published.length
  await testNode.deliver(event)
  await world.clock.advance(1000)
  expect(() => testNode.job(event.id)).toThrow('no job')
  expect(world.published.slice(before).filter((published) => published.kind === 7000)).toEqual([])
})

test.each<[string, string, () => NostrEvent]>([
  ['a kind not served', 'kind_unsupported', () => request(world, { kind: 5100 })],
  ['an old request', 'job_expired', () => request(world, { ageS: 100_000 })],
  ['no input', 'input_invalid', () => request(world, { input: '' })],
  ['one word', 'input_invalid', () => request(world, { input: 'word' })],
  ['an unknown input type', 'input_invalid', () => request(world, { tags: [['i', 'x', 'video']] })],
  ['a bad length', 'param_invalid', () => request(world, { tags: [['param', 'length', '-1']] })],
  ['a bad output', 'param_invalid', () => request(world, { tags: [['output', 'image/png']] })],
  ['too many inputs', 'input_invalid', () => request(world, { tags: Array.from({ length: 60 }, () => ['i', 'x', 'text']) })],
  ['too much input', 'input_invalid', () => request(world, { input: 'many words '.repeat(30_000) })],
])('%s is refused with %s', async (_what, code, make) => {
  const testNode = await start({ config: FREE })
  const event = make()
  await testNode.deliver(event)
  await reached(testNode, event, 'refused')
  await vi.waitFor(() => expect(world.feedback(event.id)).toMatchObject([{ status: 'error', extra: code }]))
  expect(testNode.job(event.id).request).toBeNull()
})

test('a broadcast job is served; what is wrong with one is not answered', async () => {
  const testNode = await start({ config: FREE })
  const good = request(world, { to: null })
  const bad = request(world, { to: null, input: 'word' })
  await testNode.deliver(good)
  await testNode.deliver(bad)
  await reached(testNode, good, 'settled')
  expect(() => testNode.job(bad.id)).toThrow('no job')
  expect(world.answers(bad.id, 7000)).toEqual([])
})

test('without a mint priced kinds are refused and unannounced, free ones sell, and status says why', async () => {
  world.mints = []
  const echo = scriptedBackend((work) => Promise.resolve(work.input), { kind: 5002 })
  const testNode = await start({
    config: { prices: { '5002': { amount_msats: 0, unit: 'job' } } },
    backends: [echo, scriptedBackend(() => Promise.resolve('x'))],
  })
  expect(testNode.provider.status()).toMatchObject({ state: 'degraded', reason: 'no_mint', kinds: [5002] })
  const priced = request(world)
  await testNode.deliver(priced)
  await reached(testNode, priced, 'refused')
  expect(testNode.job(priced.id).errorCode).toBe('no_mint')
  const announcement = world.published.find((event) => event.kind === 31990)
  expect(announcement?.tags.filter((tag) => tag[0] === 'k')).toEqual([['k', '5002']])
  const free = request(world, { kind: 5002 })
  await testNode.deliver(free)
  await reached(testNode, free, 'settled')
})

test('the announcement names kinds, prices, mint and lock key, and a heartbeat follows every 300 s', async () => {
  await start({ config: PRICED })
  await vi.waitFor(() => expect(world.published.some((event) => event.kind === 31990)).toBe(true))
  const announcement = world.published.find((event) => event.kind === 31990)
  expect(announcement?.tags).toContainEqual(['k', '5001'])
  expect(announcement?.tags).toContainEqual(['mint', MINT, 'sat'])
  expect(announcement?.tags).toContainEqual(['pubkey', `02${node.pubkey}`])
  expect(JSON.parse(announcement?.content ?? '{}')).toMatchObject({ pricing: { '5001': { amount_msats: 2500, unit: 'job' } } })
  await vi.waitFor(() => {
    expect(world.published.map((event) => event.kind)).toEqual(expect.arrayContaining([0, 10002, 10050, 11998]))
  })
  await world.clock.advance(650_000)
  expect(world.published.filter((event) => event.kind === 11998)).toHaveLength(3)
  expect(world.published.filter((event) => event.kind === 31990)).toHaveLength(1)
})

test('limits: open jobs of a customer, free jobs of a day, a full queue', async () => {
  const backend = scriptedBackend(() => new Promise(() => undefined))
  const testNode = await start({
    config: { ...FREE, concurrency: 1, queue_limit: 2, per_customer_limit: 2, free_per_day: 3 },
    backends: [backend],
  })
  const burst = [1, 2, 3].map((n) => request(world, { tags: [['t', String(n)]] }))
  await Promise.all(burst.map((event) => testNode.deliver(event)))
  expect(burst.map((event) => testNode.job(event.id).errorCode)).toEqual([null, null, 'rate_limited'])
  const others = [1, 2].map((n) => request(world, { by: stranger, tags: [['t', String(n)]] }))
  for (const event of others) await testNode.deliver(event)
  expect(others.map((event) => testNode.job(event.id).errorCode)).toEqual([null, 'overloaded'])
})

test('free jobs of a day are counted', async () => {
  const testNode = await start({ config: { ...FREE, free_per_day: 2 } })
  const events = [1, 2, 3].map((n) => request(world, { tags: [['t', String(n)]] }))
  for (const event of events) await testNode.deliver(event)
  expect(testNode.job(events[2]?.id ?? '').errorCode).toBe('rate_limited')
})

test('a job that outlives its time is stopped, a result over the limit fails', async () => {
  let seen: AbortSignal | undefined
  const hang = scriptedBackend((_work, signal) => {
    seen = signal
    return new Promise(() => undefined)
  })
  const flood = scriptedBackend(() => Promise.resolve('x'.repeat(100_000)), { kind: 5002 })
  const config = { prices: { ...FREE.prices, '5002': { amount_msats: 0, unit: 'job' as const } }, job_timeout_s: 10 }
  const testNode = await start({ config, backends: [hang, flood] })
  const [slow, large] = [request(world), request(world, { kind: 5002 })]
  await testNode.deliver(slow)
  await testNode.deliver(large)
  await reached(testNode, slow, 'running')
  await world.clock.advance(11_000)
  await reached(testNode, slow, 'failed')
  await reached(testNode, large, 'failed')
  expect(seen?.aborted).toBe(true)
  expect([testNode.job(slow.id).errorCode, testNode.job(large.id).errorCode]).toEqual(['backend_failed', 'output_too_large'])
})

test('inputs of type event and job are fetched, one that is not there is a typed error', async () => {
  const echo = scriptedBackend((work) => Promise.resolve(`${work.inputType}: ${work.input}`))
  const testNode = await start({ config: FREE, backends: [echo] })
  const note = stranger.sign({ kind: 1, created_at: world.nowS(), tags: [], content: 'A note.' })
  world.accept(note)
  const byEvent = request(world, { input: '', tags: [['i', note.id, 'event']] })
  await testNode.deliver(byEvent)
  await reached(testNode, byEvent, 'settled')
  expect(world.answers(byEvent.id, 6001)[0]?.content).toBe('event: A note.')

  const byJob = request(world, {
    input: '',
    tags: [
      ['i', byEvent.id, 'job'],
      ['i', 'more', 'text'],
    ],
  })
  await testNode.deliver(byJob)
  await reached(testNode, byJob, 'settled')
  expect(world.answers(byJob.id, 6001)[0]?.content).toBe('mixed: event: A note.\n\nmore')

  const byUrl = request(world, { input: '', tags: [['i', 'http://127.0.0.1/', 'url']] })
  await testNode.deliver(byUrl)
  await reached(testNode, byUrl, 'failed')
  expect(testNode.job(byUrl.id).errorCode).toBe('address_refused')

  const missing = request(world, { input: '', tags: [['i', '00'.repeat(32), 'event']] })
  await testNode.deliver(missing)
  await reached(testNode, missing, 'failed')
  expect(testNode.job(missing.id).errorCode).toBe('input_invalid')
})

test('the result of another provider’s job is waited for, and only that provider’s counts', async () => {
  const echo = scriptedBackend((work) => Promise.resolve(work.input))
  const testNode = await start({ config: FREE, backends: [echo] })
  const other = request(world, { kind: 5002, to: stranger.pubkey })
  world.accept(other)
  const answer = (by: typeof customer, content: string) =>
    by.sign({
      kind: 6002,
      created_at: world.nowS(),
      tags: [
        ['e', other.id],
        ['p', customer.pubkey],
      ],
      content,
    })
  world.accept(answer(customer, 'forged'))
  world.accept(answer(stranger, 'genuine'))
  const chained = request(world, { input: '', tags: [['i', other.id, 'job']] })
  await testNode.deliver(chained)
  await reached(testNode, chained, 'settled')
  expect(world.answers(chained.id, 6001)[0]?.content).toBe('genuine')
})

test('a dead relay keeps the result; it is delivered when the relay is back', async () => {
  const testNode = await start({ config: FREE })
  world.relayUp = false
  const event = request(world)
  await testNode.deliver(event)
  await reached(testNode, event, 'ready')
  world.relayUp = true
  testNode.nostr.nudgeOutbox()
  await reached(testNode, event, 'settled')
})
