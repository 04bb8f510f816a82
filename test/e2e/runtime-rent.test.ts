/** Two nodes on one sandbox: one rents machines out, the other finds, pays, uses and gives them back. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { runtimesRoutes } from '../../src/control/contract/runtimes.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

interface Offer {
  readonly server: string
  readonly runtime_class: string
  readonly price_msats_per_hour: number
  readonly protocols: string[]
}

interface Answer {
  readonly runtime: { runtime_id: string; runtime_class: string; metadata: { lease: { state: string; paid_msats: number } } }
  readonly payload: Record<string, unknown>
  readonly paid_msats: number
}

/** A sat a second. */
const CLASS = '{ name = "small", provider = "local", region = "home", protocols = ["pi", "acp"], price_msats_per_hour = 3600000 }'
const DEAR = '{ name = "dear", provider = "local", price_msats_per_hour = 36000000 }'

/** One pair for all: what a test is about are the rentals and the earnings that came since it began. */
let seller: Rig
let buyer: Rig
let npub: string
beforeAll(async () => {
  seller = new Rig()
  buyer = new Rig()
  seller.configure(`[runtimes]\nallow_unisolated = true\nclasses = [${CLASS}, ${DEAR}]\n`)
  await seller.ok('start', '--sandbox')
  const { identity, sandbox } = await seller.call(nodeRoutes.status, {})
  npub = identity?.npub ?? ''
  await buyer.ok('start', '--sandbox', '--mode', 'host', '--relay', sandbox?.relay_url ?? '', '--mint', sandbox?.mint_url ?? '')
  await buyer.call(walletRoutes.fundWallet, { wallet: 'node', amount_sats: 2000 })
})
afterAll(async () => {
  await Promise.all([seller, buyer].map((rig) => rig[Symbol.asyncDispose]()))
})

let before: { readonly rentals: ReadonlySet<string>; readonly earned: number }
beforeEach(async () => {
  const { rentals } = await buyer.call(runtimesRoutes.listRentals, {})
  before = { rentals: new Set(rentals.map(({ idempotency_key }) => idempotency_key)), earned: await allEarned() }
})

const allEarned = async () => (await seller.ok('earnings', '--json')).json<{ by_source: { lease: number } }>().by_source.lease
const earned = async () => (await allEarned()) - before.earned
const newRentals = async () =>
  (await buyer.call(runtimesRoutes.listRentals, {})).rentals.filter(({ idempotency_key }) => !before.rentals.has(idempotency_key))
const fundsOf = async () => {
  const of = (wallet: string) => buyer.call(walletRoutes.getWallet, { wallet })
  return (await of('node')).balance_sats + (await of('customer')).balance_sats
}

test('a machine is found by its offer, rented by invoice, used and given back; a run is paid by token', async () => {
  const offersOf = async (...filter: string[]) =>
    (await buyer.ok('runtime', 'offers', ...filter, '--json')).json<{ offers: Offer[] }>().offers
  const offered = async () => (await buyer.call(runtimesRoutes.listOffers, {})).offers.map((offer) => offer.runtime_class)
  await expect.poll(offered, { timeout: 30_000 }).toEqual(['small', 'dear'])
  expect((await offersOf()).map((offer) => offer.runtime_class)).toEqual(['small', 'dear'])
  expect(await offersOf('--max-price', '3600', '--region', 'home', '--protocol', 'acp')).toMatchObject([
    { server: npub, runtime_class: 'small' },
  ])
  expect(await offersOf('--region', 'mars')).toEqual([])

  const rent = ['runtime', 'provision', '--server', npub, '--class', 'small', '--command', shellAgent('acp'), '--json']
  const tooDear = await buyer.run([...rent, '--max-sats', '10'])
  expect(tooDear).toMatchObject({ code: 1 })
  expect(tooDear.stderr).toContain('price_too_high')

  const rented = (await buyer.ok(...rent, '--max-sats', '75', '--idempotency-key', 'lease')).json<Answer>()
  expect(rented).toMatchObject({
    paid_msats: 60_000,
    runtime: { runtime_class: 'small', metadata: { lease: { state: 'active', paid_msats: 60_000 } } },
  })
  const id = rented.runtime.runtime_id
  const again = (await buyer.ok(...rent, '--max-sats', '75', '--idempotency-key', 'lease')).json<Answer>()
  expect(again).toMatchObject({ paid_msats: 60_000, runtime: { runtime_id: id } })
  const said = await buyer.ok('runtime', 'prompt', id, 'say paid for', '--server', npub, '--json')
  expect(said.json<Answer>().payload).toMatchObject({ reply: 'paid for' })
  const foreign = await seller.run(['runtime', 'get', id])
  expect(foreign.code, 'the owner of the node is not its tenant').toBe(1)
  expect(foreign.stderr).toContain('runtime_not_found')
  const extended = (await buyer.ok('runtime', 'extend', id, '60', '--server', npub, '--json')).json<Answer>()
  expect(extended.paid_msats).toBe(60_000)
  await buyer.ok('runtime', 'teardown', id, '--server', npub)

  const run = await buyer.run([
    ...['runtime', 'run', '--server', npub, '--class', 'small', '--run-timeout', '60', '--pay-with', 'token', '--json'],
    'echo by token',
  ])
  expect(run).toMatchObject({ code: 0 })
  expect(run.json<Answer>().payload).toMatchObject({ exit_code: 0, stdout: 'by token\n' })

  expect(await earned()).toBe(180_000)
  const balance = (await buyer.ok('wallet', 'balance', '--wallet', 'node', '--json')).json<{ balance_sats: number }>().balance_sats
  const customer = (await buyer.ok('wallet', 'balance', '--wallet', 'customer', '--json')).json<{ balance_sats: number }>().balance_sats
  expect(balance + customer).toBeGreaterThanOrEqual(1800)
  const report = (await seller.ok('doctor', '--json')).json<{ ok: boolean }>()
  expect(report.ok).toBe(true)
})

test('an agent on a rented machine: paid like any lease and within --max-sats, talked to, and the lease ends with it', async () => {
  const rent = ['agent', 'new', '--server', npub, '--provider', 'local', '--runtime-class', 'small', '--command', shellAgent('pi')]
  const held = await fundsOf()
  const dear = await buyer.run([...rent, '--max-sats', '10', '--name', 'dear'], { input: 'say nothing\n' })
  expect(dear).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('asks 60 sats and the limit is 10') })
  expect(dear.stderr).toContain('price_too_high')
  expect((await newRentals()).filter(({ paid_msats }) => paid_msats > 0n)).toEqual([])
  expect(await fundsOf()).toBe(held)

  const hired = await buyer.run([...rent, '--max-sats', '75', '--name', 'hired'], { input: 'say paid for\ntool\n' })
  expect(hired).toMatchObject({ code: 0, stdout: expect.stringMatching(/^paid for\n {2}\[tool\] look/) })
  expect(hired.stderr).toContain('waiting for payment: 60 sats for 60 s')
  expect(hired.stderr).toContain('hired was ended: its runtime is gone')
  const paid = (await newRentals()).filter(({ paid_msats }) => paid_msats > 0n)
  expect(paid).toMatchObject([{ command: 'provision', paid_msats: 60_000n, refunded_msats: 0n }])
  // Who ends a lease before its time has had it: nothing comes back.
  expect(await earned()).toBe(60_000)
  const { payload } = (await buyer.ok('runtime', 'list', '--server', npub, '--phase', 'ready', '--json')).json<Answer>()
  expect(payload).toMatchObject({ count: 0 })
  expect((await seller.ok('doctor', '--json')).json<{ ok: boolean }>().ok).toBe(true)
})

test('a command survives the restart of the one who sent it, and of the one who runs it', async () => {
  const rent = ['runtime', 'provision', '--server', npub, '--provider', 'local', '--class', 'small', '--command', shellAgent('pi')]
  const call = [...rent, '--protocol', 'pi', '--json', '--idempotency-key', 'once']
  const cut = buyer.spawn(call)
  await expect.poll(async () => (await newRentals()).map((rental) => rental.command), { timeout: 20_000 }).toEqual(['provision'])
  await Promise.all([seller.ok('restart', '--sandbox'), buyer.ok('restart', '--sandbox')])
  cut.kill('SIGKILL')
  const { runtime, paid_msats } = (await buyer.ok(...call)).json<Answer>()
  expect(paid_msats).toBe(60_000)
  const { payload } = (await buyer.ok('runtime', 'list', '--server', npub, '--phase', 'ready', '--json')).json<Answer>()
  expect(payload).toMatchObject({ count: 1, runtimes: [{ runtime_id: runtime.runtime_id }] })
  const [rental, ...more] = await newRentals()
  expect(more).toEqual([])
  expect(rental).toMatchObject({ state: 'answered', paid_msats: 60_000n })
  await buyer.ok('runtime', 'teardown', runtime.runtime_id, '--server', npub)
})

test('what was not used of a lease comes back by itself when the machine is lost', async () => {
  const rent = ['runtime', 'provision', '--server', npub, '--provider', 'local', '--class', 'small', '--lease', '600', '--max-sats', '640']
  await seller.ok('config', 'set', 'runtimes.unreachable_after_s', '1', '--sandbox')
  // Ready, and some seconds later everything inside is dead.
  const agent = `( sleep 6; kill -9 -1 ) & ${shellAgent('acp')}`
  const { paid_msats } = (await buyer.ok(...rent, '--command', agent, '--json')).json<Answer>()
  expect(paid_msats).toBe(600_000)
  const refunded = async () => Number((await newRentals())[0]?.refunded_msats ?? 0)
  await expect.poll(refunded, { timeout: 60_000, interval: 500 }).toBeGreaterThan(400_000)
  const kept = await earned()
  expect(kept).toBeLessThan(200_000)
  expect(kept + (await refunded())).toBeGreaterThan(590_000)
})
