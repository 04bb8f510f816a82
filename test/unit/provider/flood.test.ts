/** Requests that nobody pays for, from keys that are never seen again: what they may cost, and who comes first. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import type { LocalSigner, NostrEvent } from '../../../src/nostr/types.ts'
import { countJobs } from '../../../src/store/selling/jobs.ts'
import { customer, type NodeOptions, node, request, scriptedBackend, startNode, type TestNode, World } from './world.ts'

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

const PRICED = { prices: { '5001': { amount_msats: 2500, unit: 'job' as const } }, unpaid_invoices: 5, pow_bits: 8 }
const FREE = { prices: { '5001': { amount_msats: 0, unit: 'job' as const } } }

async function start(options: NodeOptions = {}): Promise<TestNode> {
  current = await startNode(world, { config: PRICED, ...options })
  return current
}

let keys = 0
const throwaway = (): LocalSigner => createSigner(Buffer.from((++keys).toString(16).padStart(64, '7'), 'hex'))

/** A request with so many bits of work: tried until one has them. */
function worked(bits: number, by: LocalSigner): NostrEvent {
  for (let nonce = 0; ; nonce++) {
    const event = request(world, { by, tags: [['nonce', String(nonce), String(bits)]] })
    if (Number.parseInt(event.id.slice(0, 8), 16) < 2 ** (32 - bits)) return event
  }
}

async function flood(testNode: TestNode, count: number, options: Parameters<typeof request>[1] = {}): Promise<NostrEvent[]> {
  const events = Array.from({ length: count }, () => request(world, { by: throwaway(), ...options }))
  for (const event of events) await testNode.deliver(event)
  return events
}

const errorsOf = (events: readonly NostrEvent[]) =>
  events.flatMap((event) => world.feedback(event.id)).filter(({ status }) => status === 'error')

test('so many invoices are made for strangers and no more; the others are told what is asked, and nothing of theirs is kept', async () => {
  const testNode = await start()
  const events = await flood(testNode, 12)
  await vi.waitFor(() => expect(countJobs(testNode.store)).toEqual({ quoted: 5 }))
  expect(world.invoices.size).toBe(5)
  await vi.waitFor(() => expect(errorsOf(events)).toHaveLength(7))
  expect(world.answers(events[11]?.id ?? '', 7000)[0]?.tags).toContainEqual(['status', 'error', 'overloaded'])
  expect(world.answers(events[11]?.id ?? '', 7000)[0]?.content).toMatch(/8 bits of proof of work \(NIP-13\)|cashu tag/)
})

test('under load a stranger is served who proves work, sends the payment along, or has paid before', async () => {
  const testNode = await start()
  const first = request(world)
  await testNode.deliver(first)
  await vi.waitFor(() => expect(testNode.job(first.id).status).toBe('quoted'))
  await testNode.wallets.payInvoice(first.id)
  await vi.waitFor(() => expect(testNode.job(first.id).status).toBe('settled'))
  await flood(testNode, 10)
  const again = request(world, { tags: [['t', 'again']] })
  const proven = worked(8, throwaway())
  const prepaid = request(world, { by: throwaway(), tags: [['cashu', world.token(8n, { lock: `02${node.pubkey}` })]] })
  for (const event of [again, proven, prepaid]) await testNode.deliver(event)
  await vi.waitFor(() => expect([again, proven].map(({ id }) => testNode.job(id).status)).toEqual(['quoted', 'quoted']))
  await vi.waitFor(() => expect(testNode.job(prepaid.id).status).toBe('settled'))
})

test('while the node is busy its announcement says what it asks, and no longer after that', async () => {
  const testNode = await start()
  const asked = () =>
    world.published.filter(({ kind }) => kind === 31_990).map(({ content }) => (JSON.parse(content) as { pow?: number }).pow)
  await vi.waitFor(() => expect(asked()).toEqual([undefined]))
  await flood(testNode, 12)
  await world.clock.advance(31_000)
  await vi.waitFor(() => expect(asked()).toEqual([undefined, 8]))
  await world.clock.advance(61_000)
  await vi.waitFor(() => expect(asked()).toEqual([undefined, 8, undefined]))
})

test('an encrypted request that turns out to bring no payment needs the place of an invoice', async () => {
  const testNode = await start()
  await flood(testNode, 5)
  const event = customer.sign({
    kind: 5001,
    created_at: world.nowS(),
    tags: [['p', node.pubkey], ['encrypted']],
    content: customer.nip44Encrypt(node.pubkey, JSON.stringify([['i', 'One thing is said. Another too.', 'text']])),
  })
  await testNode.deliver(event)
  await vi.waitFor(() => expect(world.answers(event.id, 7000)[0]?.tags).toContainEqual(['status', 'error', 'overloaded']))
})

test('an invoice that had its minute makes room, and is still good', async () => {
  const testNode = await start()
  const [first] = await flood(testNode, 5)
  await vi.waitFor(() => expect(countJobs(testNode.store)).toEqual({ quoted: 5 }))
  await world.clock.advance(61_000)
  await flood(testNode, 1)
  await vi.waitFor(() => expect(testNode.job(first?.id ?? '').status).toBe('expired'))
  await testNode.wallets.payInvoice(first?.id ?? '')
  await vi.waitFor(() => expect(testNode.job(first?.id ?? '').status).toBe('settled'))
})

test('after a restart the places are as they were', async () => {
  await (await start()).stop()
  await flood(await start(), 5)
  await vi.waitFor(() => expect(countJobs((current as TestNode).store)).toEqual({ quoted: 5 }))
  await current?.stop()
  const testNode = await start()
  const [late] = await flood(testNode, 1)
  await vi.waitFor(() => expect(errorsOf(late === undefined ? [] : [late])).toHaveLength(1))
  expect(world.invoices.size).toBe(5)
})

test('paid work waits behind no unpaid work', async () => {
  const order: string[] = []
  let release = () => {}
  const backend = scriptedBackend(async ({ input }) => {
    order.push(input)
    if (input === 'first') await new Promise<void>((resolve) => (release = resolve))
    return 'done'
  })
  const prices = { '5001': { amount_msats: 0, unit: 'job' as const }, '5002': { amount_msats: 2000, unit: 'job' as const } }
  const both = { ...backend, kinds: () => [5001, 5002] }
  const testNode = await start({ config: { prices, concurrency: 1 }, backends: [both] })
  await flood(testNode, 1, { input: 'first' })
  await flood(testNode, 3, { input: 'unpaid' })
  const paid = request(world, { kind: 5002, input: 'paid', tags: [['cashu', world.token(8n, { lock: `02${node.pubkey}` })]] })
  await testNode.deliver(paid)
  await vi.waitFor(() => expect(testNode.job(paid.id).status).toBe('paid'))
  release()
  await vi.waitFor(() => expect(order).toHaveLength(5))
  expect(order.slice(0, 2)).toEqual(['first', 'paid'])
})

test('what nobody paid for is forgotten soon, with its texts first, and does not come back as new', async () => {
  const testNode = await start({ config: FREE })
  const [free] = await flood(testNode, 1)
  const old = request(world, { by: throwaway(), ageS: 3000, kind: 5050 })
  await testNode.deliver(old)
  if (free === undefined) throw new Error('nothing was sent')
  await vi.waitFor(() => expect(testNode.job(free.id).status).toBe('settled'))
  expect(testNode.job(old.id).status).toBe('refused')
  await world.clock.advance(32 * 60_000)
  await vi.waitFor(() => expect(testNode.job(free.id)).toMatchObject({ status: 'settled', request: null, result: null }))
  expect(() => testNode.job(old.id)).toThrow('no job')
  const messages = testNode.store.sql(`SELECT key FROM outbox_messages WHERE key LIKE 'job-%'`).all()
  await vi.waitFor(() => expect(testNode.store.sql(`SELECT key FROM outbox_messages WHERE key LIKE 'job-%'`).all()).toEqual(messages))
  const answers = world.answers(old.id, 7000).length
  await testNode.deliver(old)
  expect(world.answers(old.id, 7000)).toHaveLength(answers)
  expect(() => testNode.job(old.id)).toThrow('no job')
})
