/** Requests as other clients write them, and what is answered rather than passed over. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { customer, node, request, scriptedBackend, startNode, type TestNode, World } from './world.ts'

const PRICED = { prices: { '5001': { amount_msats: 2000, unit: 'job' as const } } }
const TEXT = 'A sentence is here. And another one.'

let world: World
let testNode: TestNode

async function start(options: Parameters<typeof startNode>[1] = { config: PRICED }): Promise<void> {
  testNode = await startNode(world, options)
}

beforeEach(() => {
  world = new World()
})

afterEach(async () => {
  await testNode.stop()
  world.close()
})

async function answered(event: ReturnType<typeof request>, status: string, extra?: string): Promise<void> {
  await testNode.deliver(event)
  await vi.waitFor(() =>
    expect(world.feedback(event.id)).toContainEqual(expect.objectContaining({ status, ...(extra === undefined ? {} : { extra }) })),
  )
}

test('a request without any input, content or parameter is refused before a price is named', async () => {
  await start({ config: PRICED, backends: [scriptedBackend(() => Promise.resolve('never'))] })
  await answered(request(world, { input: '' }), 'error', 'input_invalid')
  expect(world.invoices.size).toBe(0)
  // A kind that works from parameters alone has all it needs.
  await answered(request(world, { input: '', tags: [['param', 'user', customer.pubkey]] }), 'payment-required')
  await answered(request(world, { input: '', content: TEXT }), 'payment-required')
})

test.each<[string, string[][]]>([
  ['a prompt', [['i', TEXT, 'prompt']]],
  [
    'a bid with decimals',
    [
      ['i', TEXT, 'text'],
      ['bid', '5000.0'],
    ],
  ],
  ['an input of 200 KB', [['i', `${TEXT} `.repeat(5400), 'text']]],
])('%s is taken', async (_what, tags) => {
  await start()
  await answered(request(world, { input: '', tags }), 'payment-required')
})

test.each<[string, string[][], string]>([
  ['more than an input may have', [['i', `${TEXT} `.repeat(9000), 'text']], 'input_invalid'],
  ['far more than an input may have', [['i', 'x'.repeat(1_900_000), 'text']], 'input_invalid'],
  ['a thousand tags', Array.from({ length: 1000 }, () => ['t', 'x']), 'input_invalid'],
  [
    'a token without end',
    [
      ['i', TEXT, 'text'],
      ['cashu', 'x'.repeat(70_000)],
    ],
    'token_invalid',
  ],
  [
    'a parameter without end',
    [
      ['i', TEXT, 'text'],
      ['param', 'a', 'x'.repeat(40_000)],
    ],
    'param_invalid',
  ],
])('%s is answered', async (_what, tags, code) => {
  await start()
  await answered(request(world, { input: '', tags }), 'error', code)
})

test('an encrypted list of too many tags is answered', async () => {
  await start()
  const inner = Array.from({ length: 201 }, () => ['param', 'a', 'b'])
  const content = customer.nip44Encrypt(node.pubkey, JSON.stringify(inner))
  await answered(request(world, { input: '', tags: [['encrypted']], content }), 'error', 'input_invalid')
})

test('a node that waits for its first mint lets a customer wait with it', async () => {
  world.mints = []
  await start({ config: PRICED, expectsMint: true })
  const event = request(world)
  const delivered = testNode.deliver(event)
  await new Promise((resolve) => setImmediate(resolve))
  world.mints = ['https://mint.test']
  await world.clock.advance(1000)
  await delivered
  await vi.waitFor(() => expect(world.feedback(event.id)).toMatchObject([{ status: 'payment-required' }]))
})

test('a mint that does not come is a reason to try again, not a node without one', async () => {
  world.mints = []
  await start({ config: PRICED, expectsMint: true })
  const event = request(world)
  const delivered = testNode.deliver(event)
  for (let i = 0; i < 30; i++) await world.clock.advance(200)
  await delivered
  await vi.waitFor(() => expect(world.feedback(event.id)).toMatchObject([{ status: 'error', extra: 'mint_unreachable' }]))
})

test('a token job that is cancelled before its token was taken is answered, and the token left alone', async () => {
  await start()
  const early = request(world, { tags: [['cashu', world.token(2n, { lock: `02${node.pubkey}` })]] })
  const cancel = customer.sign({
    kind: 5,
    created_at: world.nowS(),
    tags: [
      ['e', early.id],
      ['k', '5001'],
    ],
    content: '',
  })
  await testNode.deliver(cancel)
  await answered(early, 'error', 'cancelled')
  expect(testNode.job(early.id).status).toBe('cancelled')
  expect(world.received.size).toBe(0)
})

test('a token that another key of ours opens is not one that is locked to the key in the announcement', async () => {
  await start()
  world.otherKey = `03${node.pubkey}`
  const event = request(world, { tags: [['cashu', world.token(2n, { lock: world.otherKey })]] })
  await answered(event, 'error', 'token_locked')
  expect(world.received.size).toBe(0)
})

test('a refusal tells nothing of the inside', async () => {
  await start({ config: { prices: { '5001': { amount_msats: 0, unit: 'job' } } } })
  const event = request(world, { input: '', tags: [['i', 'https://intranet.example/secret', 'url']] })
  await answered(event, 'error', 'address_refused')
  expect(testNode.job(event.id).error).toContain('10.1.2.3')
  expect(world.feedback(event.id).at(-1)?.content).not.toContain('10.1.2.3')
})
