/** Both modes at once: jobs in numbers while agents tick, and what still works, and is told, when parts around are dead. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Event } from 'nostr-tools/pure'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { Output } from '../../src/control/client.ts'
import { agentsRoutes } from '../../src/control/contract/agents.ts'
import { earningsRoutes } from '../../src/control/contract/earnings.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { StrangerCustomer } from '../support/stranger-customer.ts'

const PAID = 5999
const FREE = 5998
const MISSING = 5997
const PRICE_SATS = 5
const DEAD_RELAY = 'ws://127.0.0.1:9'
const WAIT = { timeout: 90_000, interval: 100 }

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

type Status = Output<typeof nodeRoutes.status>

const statusOf = (rig: Rig) => rig.call(nodeRoutes.status, {})
const ticksOf = (status: Status) => status.host.agents.map((agent) => agent.tick_count)

function configure(rig: Rig, rest = ''): void {
  mkdirSync(rig.sandboxHome.dir, { recursive: true })
  const run = `input=$(cat); echo "$input" >> ${join(rig.dir, 'runs')}; echo "$input" | tr a-z A-Z`
  const exec = (kind: number) => `[[provider.exec]]\nkind = ${kind}\ncommand = ["sh", "-c", ${JSON.stringify(run)}]\n`
  const prices = `[provider.prices]\n${PAID} = { amount_msats = ${PRICE_SATS * 1000} }\n${FREE} = { amount_msats = 0 }\n`
  const settings = '[host]\nthink_timeout_s = 2\n[provider]\nprobe = false\nopenai_base_url = "http://127.0.0.1:9/v1"\n'
  writeFileSync(rig.sandboxHome.config, `${settings}${prices}${exec(PAID)}${exec(FREE)}${rest}`)
}

const start = (rig: Rig, relays: readonly string[], mints: readonly string[]) =>
  rig.ok('start', '--sandbox', ...relays.flatMap((url) => ['--relay', url]), ...mints.flatMap((url) => ['--mint', url]))

const lockKeyOf = async (rig: Rig) => (await rig.call(walletRoutes.getWallet, { wallet: 'node' })).lock_pubkey
const resultsOf = (customer: StrangerCustomer, request: Event) =>
  customer.about(request, request.kind + 1000).map((event) => customer.read(event).trim())

test('64 jobs at once, free and paid, while three agents tick: every result once, and no tick is lost', { timeout: 240_000 }, async () => {
  await using rig = new Rig()
  configure(rig)
  await start(rig, [sandbox.relayUrl], [sandbox.mintUrl])
  for (const name of ['ada', 'bob', 'cyd']) await rig.ok('agent', 'spawn', '--name', name, '--heartbeat', '2')
  const before = await statusOf(rig)
  const provider = before.identity?.pubkey ?? ''
  using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
  const lockKey = await lockKeyOf(rig)
  const tokens: string[] = []
  for (let i = 0; i < 16; i++) tokens.push(await customer.makeToken(PRICE_SATS, lockKey))
  const requests = Array.from({ length: 64 }, (_, i) => {
    const token = tokens[i]
    return customer.build({ kind: i < 32 ? PAID : FREE, input: `job ${i}`, provider, ...(token === undefined ? {} : { token }) })
  })
  for (const request of requests) customer.send(request)
  const paid = new Set<string>()
  await vi.waitUntil(async () => {
    for (const request of requests) {
      const [asked] = customer.about(request, 'payment-required')
      if (asked === undefined || paid.has(request.id)) continue
      paid.add(request.id)
      await customer.payInvoice(asked)
    }
    return requests.every((request) => resultsOf(customer, request).length > 0)
  }, WAIT)
  await vi.waitUntil(async () => {
    const now = await statusOf(rig)
    return now.provider.jobs['settled'] === 64 && ticksOf(now).every((count, i) => count >= (ticksOf(before)[i] ?? 0) + 3)
  }, WAIT)

  expect(paid.size).toBe(16)
  expect(requests.map((request) => resultsOf(customer, request))).toEqual(requests.map((_, i) => [`JOB ${i}`]))
  const runs = readFileSync(join(rig.dir, 'runs'), 'utf8').trimEnd().split('\n')
  expect(runs.toSorted()).toEqual(requests.map((_, i) => `job ${i}`).toSorted())
  const { jobs_completed, total_msats } = await rig.call(earningsRoutes.getEarnings, {})
  expect({ jobs_completed, isPaid: total_msats >= BigInt(32 * PRICE_SATS * 1000) }).toEqual({ jobs_completed: 64, isPaid: true })
  expect(await statusOf(rig)).toMatchObject({ host: { state: 'ok' }, wallet: { state: 'ok' } })
  for (const name of ['ada', 'bob', 'cyd']) {
    const { ticks } = await rig.call(agentsRoutes.getLog, { name, limit: '1000' })
    expect(ticks.filter((tick) => tick.state === 'failed')).toEqual([])
    expect(ticks.map((tick) => tick.number)).toEqual(ticks.map((_, i) => ticks.length - i))
  }
  const { checks } = await rig.call(nodeRoutes.doctor, {})
  expect(checks).toContainEqual(expect.objectContaining({ name: 'ledger', state: 'ok' }))
})

test('dead parts one by one: the rest goes on, and status says which and why', { timeout: 240_000 }, async () => {
  await using rig = new Rig()
  const doomed = await startSandbox()
  configure(rig, `[[provider.exec]]\nkind = ${MISSING}\ncommand = ["/nonexistent/no-such-worker"]\n`)
  await start(rig, [sandbox.relayUrl, DEAD_RELAY], [sandbox.mintUrl, doomed.mintUrl])
  const provider = (await statusOf(rig)).identity?.pubkey ?? ''
  using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
  const lockKey = await lockKeyOf(rig)

  /** A free and a paid job, and a tick of the agent that is well. */
  const expectWork = async (input: string) => {
    const ticked = async () => (await statusOf(rig)).host.agents.find((agent) => agent.name === 'ada')?.tick_count ?? 0
    const before = await ticked()
    const free = customer.build({ kind: FREE, input, provider })
    const paid = customer.build({ kind: PAID, input, provider, token: await customer.makeToken(PRICE_SATS, lockKey) })
    customer.send(free)
    customer.send(paid)
    await vi.waitUntil(() => [free, paid].every((request) => resultsOf(customer, request).length > 0), WAIT)
    await vi.waitUntil(async () => (await ticked()) > before, WAIT)
  }
  const spawn = (name: string, ...flags: string[]) => rig.ok('agent', 'spawn', '--name', name, '--heartbeat', '2', ...flags)

  // The relay in the list that never was, and the model server that is named and does not answer.
  await spawn('ada')
  await expectWork('one')
  await vi.waitUntil(async () => (await statusOf(rig)).relays.some((relay) => relay.state === 'down'), WAIT)
  const first = await statusOf(rig)
  expect(first.relays).toEqual([
    expect.objectContaining({ url: sandbox.relayUrl, state: 'connected' }),
    expect.objectContaining({ url: DEAD_RELAY, state: 'down', reason: expect.stringMatching(/\w{4}/) }),
  ])
  expect(first.provider).toMatchObject({ state: 'degraded', reason: expect.stringMatching(/127\.0\.0\.1:9|no-such-worker/) })
  expect(first.provider.backends).toContainEqual(
    expect.objectContaining({ name: 'openai', state: 'degraded', reason: expect.stringContaining('127.0.0.1:9') }),
  )
  expect(first.provider.kinds).toEqual(expect.arrayContaining([FREE, PAID]))
  for (const absent of [5050, MISSING]) expect(first.provider.kinds).not.toContain(absent)

  // A command that is not there: the customer is told, and the token stays theirs or comes back.
  const hopeless = customer.build({ kind: MISSING, input: 'x', provider, token: await customer.makeToken(PRICE_SATS, lockKey) })
  customer.send(hopeless)
  await vi.waitUntil(() => customer.about(hopeless, 'error').length > 0, WAIT)
  const [error] = customer.about(hopeless, 'error')
  expect(error?.tags).toContainEqual(['status', 'error', 'backend_unavailable'])
  if (error !== undefined && customer.refundIn(error) !== undefined) {
    expect(await customer.redeem(customer.refundIn(error) ?? '')).toBeGreaterThan(0)
  }

  // A mint that dies.
  await doomed.stop()
  await vi.waitUntil(async () => (await statusOf(rig)).wallet.state === 'degraded', WAIT)
  const second = await statusOf(rig)
  expect(second.wallet.reason).toContain(doomed.mintUrl)
  expect(second.wallet.mints.toSorted((a) => (a.state === 'ok' ? -1 : 1))).toEqual([
    expect.objectContaining({ url: sandbox.mintUrl, state: 'ok' }),
    expect.objectContaining({ url: doomed.mintUrl, state: 'down', reason: expect.stringMatching(/\w{4}/) }),
  ])
  await expectWork('two')

  // Brains that crash and hang.
  await spawn('crash', '--brain', 'exec', '--command', 'echo some words >&2; exit 1')
  await spawn('hang', '--brain', 'exec', '--command', 'sleep 1000')
  const isFailing = (agent: Status['host']['agents'][number]) => agent.reason?.includes('failed') === true
  await vi.waitUntil(async () => (await statusOf(rig)).host.agents.filter(isFailing).length === 2, WAIT)
  const third = await statusOf(rig)
  expect(third.host).toMatchObject({ state: 'degraded', reason: expect.stringMatching(/crash: .*hang: /) })
  const reasonOf = (name: string) => third.host.agents.find((agent) => agent.name === name)?.reason
  expect(reasonOf('ada')).toBeUndefined()
  expect(reasonOf('crash')).toMatch(/exited with 1/)
  expect(reasonOf('hang')).toMatch(/2 s|time/)
  await expectWork('three')
  const log = await rig.call(agentsRoutes.getLog, { name: 'ada' })
  expect(log.ticks.filter((tick) => tick.state === 'failed')).toEqual([])

  // The only mint that is left dies too: free work and agents go on, and it heals.
  await sandbox.faults({ mint_down: true })
  const free = customer.build({ kind: FREE, input: 'four', provider })
  customer.send(free)
  await vi.waitUntil(() => resultsOf(customer, free).length > 0, WAIT)
  const unpaid = customer.build({ kind: PAID, input: 'five', provider })
  customer.send(unpaid)
  await vi.waitUntil(async () => (await statusOf(rig)).wallet.mints.every((mint) => mint.state === 'down'), WAIT)
  await sandbox.faults({ mint_down: false })
  await expectWork('six')
  await vi.waitUntil(async () => (await statusOf(rig)).wallet.mints.some((mint) => mint.state === 'ok'), WAIT)
})
