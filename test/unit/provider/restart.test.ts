/** The node dies before or after every commit of a job's life and starts again: one result and one charge, or one refund. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { type NodeOptions, node, request, scriptedBackend, startNode, type TestNode, World } from './world.ts'

let world: World

beforeEach(() => {
  world = new World()
})

afterEach(() => world.close())

const PRICED = { prices: { '5001': { amount_msats: 2500, unit: 'job' as const } } }
const FREE = { prices: { '5001': { amount_msats: 0, unit: 'job' as const } } }
const works = () => [scriptedBackend(() => Promise.resolve('the result'), { inline: true })]
const breaks = () => [scriptedBackend(() => Promise.reject(new PylonError('backend_failed', 'It broke.')))]
const quiet = (work: Promise<unknown>) => work.catch(() => undefined)

/** Lets what can happen happen: pays when asked, lets time pass. */
async function play(testNode: TestNode, event: NostrEvent, isOver: () => boolean): Promise<void> {
  await quiet(testNode.deliver(event))
  for (let turn = 0; turn < 40 && !isOver(); turn++) {
    const invoice = world.invoices.get(`job:${event.id}:invoice`)
    const asked = world.feedback(event.id).some((feedback) => feedback.status === 'payment-required')
    if (asked && invoice?.state === 'unpaid') await quiet(testNode.wallets.payInvoice(event.id))
    const refunded = world.feedback(event.id).some((feedback) => feedback.refundToken !== undefined)
    if (refunded) await quiet(testNode.wallets.claimRefund(event.id))
    testNode.nostr.nudgeOutbox()
    await world.clock.advance(50)
  }
}

interface Flow {
  readonly name: string
  readonly labels: readonly string[]
  readonly options: () => NodeOptions
  readonly make: () => NostrEvent
  readonly end: 'settled' | 'refunded'
  readonly earnedMsats: bigint
}

const token = () => ['cashu', world.token(3n, { lock: `02${node.pubkey}` })]
const FLOWS: readonly Flow[] = [
  {
    name: 'free',
    labels: ['received', 'queued', 'running', 'ready', 'delivered', 'settled'],
    options: () => ({ config: FREE, backends: works() }),
    make: () => request(world),
    end: 'settled',
    earnedMsats: 0n,
  },
  {
    name: 'paid by invoice',
    labels: ['received', 'quoted', 'paid', 'running', 'ready', 'delivered', 'settled'],
    options: () => ({ config: PRICED, backends: works() }),
    make: () => request(world),
    end: 'settled',
    earnedMsats: 3000n,
  },
  {
    name: 'paid by token',
    labels: ['received', 'paid', 'running', 'ready', 'delivered', 'settled'],
    options: () => ({ config: PRICED, backends: works() }),
    make: () => request(world, { tags: [token()] }),
    end: 'settled',
    earnedMsats: 3000n,
  },
  {
    name: 'paid and failing',
    labels: ['received', 'quoted', 'paid', 'running', 'failed', 'refunding', 'refunded'],
    options: () => ({ config: PRICED, backends: breaks() }),
    make: () => request(world),
    end: 'refunded',
    earnedMsats: 0n,
  },
]

describe.each(FLOWS)('a job that is $name', (flow) => {
  const cases = flow.labels.flatMap((label) => [true, false].map((before) => ({ label, before, when: before ? 'before' : 'after' })))

  test.each(cases)('survives a death $when it is $label', async ({ label, before }) => {
    const event = flow.make()
    const first = await startNode(world, { ...flow.options(), dieAt: `transition_job:${label}`, before })
    await play(first, event, first.isDead)
    expect(first.isDead()).toBe(true)
    first.crash()
    await quiet(first.stop())

    const second = await startNode(world, flow.options())
    await play(second, event, () => second.job(event.id).status === flow.end)
    await vi.waitFor(() => expect(second.job(event.id).status).toBe(flow.end))
    await second.deliver(event)

    const results = new Set(world.answers(event.id, 6001).map((result) => result.id))
    expect(results.size).toBe(flow.end === 'settled' ? 1 : 0)
    const earned = [...balancesByPrefix(second.store, 'node/income/').values()].reduce((sum, value) => sum - value, 0n)
    expect(earned).toBe(flow.earnedMsats)
    expect(accountBalance(second.store, `node/deposit/job:${event.id}`)).toBe(0n)
    expect(world.sent.size).toBe(flow.end === 'refunded' ? 1 : 0)
    await second.stop()
  })
})

test('a job that is cut off three times is given up and refunded', async () => {
  const hang = () => [scriptedBackend(() => new Promise<string>(() => undefined))]
  const event = request(world, { tags: [token()] })
  for (let start = 0; start < 3; start++) {
    const testNode = await startNode(world, { config: PRICED, backends: hang() })
    await testNode.deliver(event)
    await vi.waitFor(() => expect(testNode.job(event.id)).toMatchObject({ status: 'running', attempts: start + 1 }))
    await testNode.stop()
  }
  const last = await startNode(world, { config: PRICED, backends: hang() })
  await vi.waitFor(() => expect(last.job(event.id).status).toBe('refunding'))
  await last.stop()
})

test('a job sent while the node was down is served if it is still wanted, else refused', async () => {
  const inTime = request(world)
  const late = request(world, { tags: [['t', 'late']] })
  await world.clock.advance(1000)
  const testNode = await startNode(world, { config: { ...FREE, max_age_s: 600 }, backends: works() })
  await testNode.deliver(inTime)
  await world.clock.advance(700_000)
  await testNode.deliver(late)
  await vi.waitFor(() => expect(testNode.job(inTime.id).status).toBe('settled'))
  await vi.waitFor(() => expect(testNode.job(late.id)).toMatchObject({ status: 'refused', errorCode: 'job_expired' }))
  await testNode.stop()
})

test('closing lets a running job finish, within the time given', async () => {
  let finish = (_output: string) => {}
  const slow = scriptedBackend(() => new Promise<string>((resolve) => (finish = resolve)))
  const event = request(world)
  const testNode = await startNode(world, { config: FREE, backends: [slow] })
  await testNode.deliver(event)
  await vi.waitFor(() => expect(testNode.job(event.id).status).toBe('running'))
  const closed = testNode.provider.close(10_000)
  await expect(testNode.provider.status()).toMatchObject({ state: 'off' })
  finish('in time')
  await closed
  expect(testNode.job(event.id).status).toBe('ready')
  await testNode.stop()
})
