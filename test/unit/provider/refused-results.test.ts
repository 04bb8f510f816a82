/** A result that relays refuse for good: other relays that the customer named, else the payment goes back, soon. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createNip90Transport } from '../../../src/provider/jobs/nip90.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { recordDeliveries } from '../../../src/store/nostr/outbox.ts'
import { node, request, startNode, type TestNode, World } from './world.ts'

const PRICED = { prices: { '5001': { amount_msats: 2000, unit: 'job' as const } } }

let world: World
let testNode: TestNode

beforeEach(async () => {
  world = new World()
  testNode = await startNode(world, { config: PRICED })
})

afterEach(async () => {
  await testNode.stop()
  world.close()
})

const paidRequest = (tags: string[][] = []) => request(world, { tags: [['cashu', world.token(2n, { lock: `02${node.pubkey}` })], ...tags] })

test('the job fails and is refunded, with words that tell nothing of our relays', async () => {
  world.refuses = (event) => (event.kind === 6001 ? 'blocked: this kind is not taken' : undefined)
  const event = paidRequest()
  await testNode.deliver(event)
  await vi.waitFor(() => expect(testNode.job(event.id).status).toBe('refunding'))
  expect(testNode.job(event.id).error).toContain('blocked: this kind is not taken')
  await vi.waitFor(() => expect(world.feedback(event.id).find(({ status }) => status === 'error')?.refundToken).toBeDefined())
  const error = world.feedback(event.id).find(({ status }) => status === 'error')
  expect(error?.extra).toBe('relay_unreachable')
  expect(error?.content).not.toContain('relay.test')
  await testNode.wallets.claimRefund(event.id)
  await vi.waitFor(() => expect(testNode.job(event.id).status).toBe('refunded'))
  expect(accountBalance(testNode.store, 'node/income/job')).toBe(0n)
})

test('it goes to relays that the customer named and that it was not sent to yet', async () => {
  world.refuses = (event) => (event.kind === 6001 ? 'invalid: created_at is too far off' : undefined)
  const event = paidRequest()
  await testNode.deliver(event)
  await vi.waitFor(() => expect(testNode.job(event.id).status).toBe('refunding'))
  const transport = createNip90Transport({ signer: () => node, clock: world.clock, maxAgeS: () => 3600, maxResultBytes: () => 60_000 })
  const named = request(world, { tags: [['relays', 'wss://one.test', 'wss://two.test', 'ws://10.0.0.1']] })
  const job = { ...testNode.job(event.id), request: named, answerRelays: ['wss://relay.test', 'wss://one.test'] }
  expect(await transport.resultElsewhere(job)).toMatchObject({ relays: ['wss://two.test'], key: `job-result:${event.id}:elsewhere` })
  expect(await transport.resultElsewhere({ ...job, answerRelays: ['wss://one.test', 'wss://two.test'] })).toBeUndefined()
})

test('where one relay refuses and the others cannot be reached, the deadline decides', async () => {
  world.relayUp = false
  const event = paidRequest([['expiration', String(world.nowS() + 600)]])
  await testNode.deliver(event)
  await vi.waitFor(() => expect(testNode.job(event.id).status).toBe('ready'))
  const { store } = testNode
  const row = store.sql(`SELECT id FROM outbox_messages WHERE key = ?`).get(`job-result:${event.id}`)
  const messageId = Number(row?.['id'])
  store.sql(`INSERT INTO outbox_deliveries (message_id, relay) VALUES (?, 'wss://refuses.test')`).run(BigInt(messageId))
  const outcome = { messageId, relay: 'wss://refuses.test', state: 'rejected' as const, attempts: 1, error: 'blocked: no', nextAt: 0 }
  await store.write(recordDeliveries({ outcomes: [outcome], at: world.clock.now() }))
  await world.clock.advance(590_000)
  expect(testNode.job(event.id).status).toBe('ready')
  await world.clock.advance(20_000)
  await vi.waitFor(() => expect(testNode.job(event.id).status).toBe('refunding'))
})
