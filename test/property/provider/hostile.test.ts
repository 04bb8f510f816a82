/** Whatever a stranger signs: the provider answers with a typed refusal, a price or a result, or stays silent; it never fails. */
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ERRORS } from '../../../src/base/errors.ts'
import { getJob } from '../../../src/store/selling/jobs.ts'
import { customer, node, RESTING_STATES, startNode, type TestNode, World } from '../../unit/provider/world.ts'

let world: World
let testNode: TestNode

beforeAll(async () => {
  world = new World()
  testNode = await startNode(world, {
    config: {
      per_customer_limit: 100_000,
      prices: { '5001': { amount_msats: 0, unit: 'job' }, '5002': { amount_msats: 1, unit: '1k_tokens' } },
      exec: [{ kind: 5002, command: ['cat'], timeout_s: 10, max_output_bytes: 1000 }],
    },
  })
})

afterAll(async () => {
  await testNode.stop()
  world.close()
})

const name = fc.constantFrom('i', 'param', 'bid', 'relays', 'p', 'encrypted', 'cashu', 'output', 'expiration', 'e', 't', '', '__proto__')
const value = fc.oneof(
  fc.string({ maxLength: 40, unit: 'binary' }),
  fc.constantFrom(
    'text',
    'url',
    'event',
    'job',
    'length',
    'max_tokens',
    'NaN',
    '-1',
    '1e400',
    '9'.repeat(30),
    'ws://x',
    'http://[::1]/',
    '0'.repeat(64),
    node.pubkey,
  ),
)
const tag = fc.tuple(name, fc.array(value, { maxLength: 4 })).map(([first, rest]) => [first, ...rest])
const content = fc.oneof(
  value,
  fc.json({ maxDepth: 3 }).map((text) => customer.nip44Encrypt(node.pubkey, text === '' ? ' ' : text)),
  fc.array(tag, { maxLength: 5 }).map((tags) => customer.nip04Encrypt(node.pubkey, JSON.stringify(tags))),
  fc.constant('A?iv=A'),
)

test('hostile requests', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(tag, { maxLength: 8 }),
      content,
      fc.constantFrom(5001, 5002, 5050, 5999),
      fc.boolean(),
      async (tags, text, kind, directed) => {
        const all = directed ? [...tags, ['p', node.pubkey]] : tags
        const event = customer.sign({ kind, created_at: world.nowS(), tags: all, content: text })
        await testNode.deliver(event)
        await world.clock.advance(1)
        const job = getJob(testNode.store, event.id)
        if (job?.status === 'refused') expect(Object.hasOwn(ERRORS, job.errorCode ?? '')).toBe(true)
        if (job !== undefined && RESTING_STATES.includes(job.status)) expect(job.errorCode).not.toBe('internal')
        for (const feedback of world.feedback(event.id)) expect(feedback.status).not.toBe('unknown')
      },
    ),
    { numRuns: 300 },
  )
  expect(testNode.provider.status().state).toBe('ok')
})

test('hostile cancel requests', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(fc.constant('e'), value).map(([first, rest]) => [first, rest]),
        { maxLength: 100 },
      ),
      async (tags) => {
        await testNode.deliver(customer.sign({ kind: 5, created_at: world.nowS(), tags: [...tags, ['p', node.pubkey]], content: '' }))
      },
    ),
    { numRuns: 50 },
  )
})
