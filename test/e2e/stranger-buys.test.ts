/** A customer with none of our code buys from the real program: each thing once, hostile requests get what the rules say. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Event, finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { earningsRoutes } from '../../src/control/contract/earnings.ts'
import { jobsRoutes } from '../../src/control/contract/jobs.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { ScriptedRelay } from '../support/scripted-relay.ts'
import { StrangerCustomer } from '../support/stranger-customer.ts'

const PAID = 5999
const FREE = 5998
const PRICE_SATS = 5
/** Of one that the customer brought about: the mint takes a sat when the token is made, and one when it is redeemed. */
const FEES_OF_REFUND = 2
const WAIT = { timeout: 60_000, interval: 50 }

let sandbox: TestSandbox
/** A relay that the node also uses, and a mint that it does not. */
let other: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
  other = await startSandbox()
})
afterAll(async () => {
  await sandbox.stop()
  await other.stop()
})

const nowS = () => Math.floor(Date.now() / 1000)
const jobsOf = async (rig: Rig) => (await rig.call(jobsRoutes.listJobs, {})).jobs
const jobOf = async (rig: Rig, request: Event) => (await jobsOf(rig)).find((job) => job.id === request.id)
const earningsOf = async (rig: Rig) => {
  const { total_msats, jobs_completed } = await rig.call(earningsRoutes.getEarnings, {})
  return { total_msats: Number(total_msats), jobs_completed }
}

/** A provider on the relays; its command notes each run in `runs` and waits while `gate` exists. */
class Shop {
  readonly rig: Rig
  readonly runs: string
  readonly gate: string
  readonly #flags: string[]
  pubkey = ''
  lockKey = ''

  constructor(rig: Rig, relays: readonly string[], settings = '') {
    this.rig = rig
    this.runs = join(rig.dir, 'runs')
    this.gate = join(rig.dir, 'gate')
    this.#flags = ['--sandbox', '--mode', 'provider', ...relays.flatMap((url) => ['--relay', url]), '--mint', sandbox.mintUrl]
    writeFileSync(this.runs, '')
    const script = `input=$(cat); echo "$input" >> ${this.runs}; while [ -e ${this.gate} ]; do sleep 0.1; done; echo "$input" | tr a-z A-Z`
    const exec = (kind: number) => `[[provider.exec]]\nkind = ${kind}\ncommand = ["sh", "-c", ${JSON.stringify(script)}]\n`
    const prices = `[provider.prices]\n${PAID} = { amount_msats = ${PRICE_SATS * 1000} }\n${FREE} = { amount_msats = 0 }\n`
    mkdirSync(rig.sandboxHome.dir, { recursive: true })
    writeFileSync(rig.sandboxHome.config, `[provider]\nprobe = false\n${settings}${prices}${exec(PAID)}${exec(FREE)}`)
  }

  static async open(rig: Rig, relays: readonly string[], settings = ''): Promise<Shop> {
    const shop = new Shop(rig, relays, settings)
    await shop.start()
    shop.pubkey = (await shop.status()).identity?.pubkey ?? ''
    // So that it can pay the fee of a refund.
    await vi.waitUntil(async () => (await shop.status()).wallet.mints.length > 0, WAIT)
    await rig.call(walletRoutes.fundWallet, { wallet: 'node', amount_sats: 50 })
    shop.lockKey = (await rig.call(walletRoutes.getWallet, { wallet: 'node' })).lock_pubkey
    return shop
  }

  start = () => this.rig.ok('start', ...this.#flags)
  status = () => this.rig.call(nodeRoutes.status, {})
  /** Inputs that were worked on, in order. */
  worked = () => readFileSync(this.runs, 'utf8').split('\n').slice(0, -1)

  /** Whatever was sent before it has been looked at once this free job is back. */
  async passBy(customer: StrangerCustomer, input: string): Promise<void> {
    const request = customer.build({ kind: FREE, input, provider: this.pubkey })
    customer.send(request)
    await vi.waitUntil(() => customer.about(request, FREE + 1000).length > 0, WAIT)
  }
}

async function paidByInvoice(customer: StrangerCustomer, request: Event): Promise<void> {
  customer.send(request)
  await vi.waitUntil(() => customer.about(request, 'payment-required').length > 0, WAIT)
  const [asked] = customer.about(request, 'payment-required')
  if (asked === undefined) throw new Error('no offer')
  await customer.payInvoice(asked)
}

const resultsOf = (customer: StrangerCustomer, request: Event) =>
  customer.about(request, request.kind + 1000).map((event) => customer.read(event).trim())

async function refundOf(customer: StrangerCustomer, request: Event): Promise<number> {
  const find = () => customer.about(request, 'error').map((event) => customer.refundIn(event))
  await vi.waitUntil(() => find().some((token) => token !== undefined), WAIT)
  const token = find().find((found) => found !== undefined)
  return customer.redeem(token ?? '')
}

describe('a stranger buys', { timeout: 180_000 }, () => {
  test('by invoice, by locked token and encrypted: one result and one charge each, however often the request comes', async () => {
    await using rig = new Rig()
    const shop = await Shop.open(rig, [sandbox.relayUrl, other.relayUrl])
    await sandbox.faults({ deliver_duplicates: true })
    await other.faults({ deliver_duplicates: true })
    using customer = await StrangerCustomer.create([sandbox.relayUrl, other.relayUrl], sandbox.mintUrl)
    using onFirst = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    using onSecond = await StrangerCustomer.create([other.relayUrl], sandbox.mintUrl)

    const byInvoice = customer.build({ kind: PAID, input: 'by invoice', provider: shop.pubkey })
    await paidByInvoice(customer, byInvoice)
    const token = await customer.makeToken(PRICE_SATS, shop.lockKey)
    const byToken = customer.build({ kind: PAID, input: 'by token', provider: shop.pubkey, token })
    customer.send(byToken)
    const bare = await customer.makeToken(PRICE_SATS)
    const encrypted = customer.build({ kind: PAID, input: 'for your eyes', provider: shop.pubkey, token: bare, encrypted: true })
    // The second relay hears of this one only after the restart.
    onFirst.send(encrypted)
    const requests = [byInvoice, byToken, encrypted]
    await vi.waitUntil(() => requests.every((request) => resultsOf(customer, request).length > 0), WAIT)

    // Both relays sent each twice; now the first sends what it has again, and again after the restart.
    await sandbox.faults({ drop_connections: true })
    await shop.passBy(onSecond, 'one')
    await rig.ok('stop')
    await shop.start()
    onSecond.send(encrypted)
    using onFirstAgain = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    for (const request of requests) onFirstAgain.send(request)
    await shop.passBy(onFirstAgain, 'two')
    await shop.passBy(onSecond, 'three')

    expect(requests.map((request) => resultsOf(customer, request))).toEqual([['BY INVOICE'], ['BY TOKEN'], ['FOR YOUR EYES']])
    expect(requests.map((request) => customer.about(request, 'payment-required').length)).toEqual([1, 0, 0])
    expect(shop.worked().toSorted()).toEqual(['by invoice', 'by token', 'for your eyes', 'one', 'three', 'two'])
    await vi.waitUntil(async () => (await jobsOf(rig)).every((job) => job.status === 'settled'), WAIT)
    expect(await jobsOf(rig)).toHaveLength(6)
    expect((await earningsOf(rig)).total_msats).toBeGreaterThanOrEqual(3 * PRICE_SATS * 1000)
    // What a token held for fees that were not needed is kept as a tip: less than another price.
    expect((await earningsOf(rig)).total_msats).toBeLessThan(4 * PRICE_SATS * 1000)
    expect(resultsOf(customer, encrypted)).not.toContain(customer.about(encrypted, PAID + 1000)[0]?.content)
  })

  test('what is forged, for another, expired or dated ahead is ignored and moves no cursor', async () => {
    await using rig = new Rig()
    const relay = await ScriptedRelay.start()
    const shop = await Shop.open(rig, [relay.url])
    using customer = await StrangerCustomer.create([relay.url], sandbox.mintUrl)
    const ahead = nowS() + 200
    const { sig: _sig, ...unsigned } = customer.build({ kind: FREE, input: 'forged', provider: shop.pubkey, createdAt: ahead })
    const forged = { ...unsigned, sig: 'ab'.repeat(64) }
    const foreign = customer.build({ kind: FREE, input: 'foreign', provider: getPublicKey(generateSecretKey()), createdAt: ahead })
    const expired = customer.build({
      ...{ kind: FREE, input: 'expired', provider: shop.pubkey, createdAt: ahead },
      tags: [['expiration', String(nowS() - 5)]],
    })
    const future = customer.build({ kind: FREE, input: 'future', provider: shop.pubkey, createdAt: nowS() + 31_536_000 })
    const bad = [forged, foreign, expired, future]
    const reqsBefore = relay.received('REQ').length
    for (const event of bad) {
      relay.stored.push(event)
      relay.push(event)
    }
    await shop.passBy(customer, 'while up')
    await rig.ok('stop')
    const missed = customer.build({ kind: FREE, input: 'while down', provider: shop.pubkey, createdAt: nowS() - 3 })
    customer.send(missed)
    await vi.waitUntil(() => relay.stored.some((event) => event.id === missed.id), WAIT)
    await shop.start()
    await vi.waitUntil(() => resultsOf(customer, missed).length > 0, WAIT)
    await shop.passBy(customer, 'after')

    expect(relay.received('REQ').length).toBeGreaterThan(reqsBefore)
    expect(shop.worked()).toEqual(['while up', 'while down', 'after'])
    for (const event of bad) expect(customer.answers.filter(({ tags }) => tags.some((tag) => tag[1] === event.id))).toEqual([])
    expect(await jobsOf(rig)).toHaveLength(3)
    await relay.stop()
  })

  test('with a token that cannot pay: a clear error, no work, and the token stays whole', async () => {
    await using rig = new Rig()
    const shop = await Shop.open(rig, [sandbox.relayUrl])
    using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    using elsewhere = await StrangerCustomer.create([sandbox.relayUrl], other.mintUrl)
    const offer = { kind: PAID, provider: shop.pubkey }
    const good = await customer.makeToken(PRICE_SATS, shop.lockKey)
    const first = customer.build({ ...offer, input: 'good', token: good })
    customer.send(first)
    await vi.waitUntil(() => resultsOf(customer, first).length > 0, WAIT)

    const bare = await customer.makeToken(PRICE_SATS)
    const toThief = await customer.makeToken(PRICE_SATS, `02${getPublicKey(generateSecretKey())}`)
    const cases: [string, Event][] = [
      ['mint_not_allowed', customer.build({ ...offer, input: 'a', token: await elsewhere.makeToken(PRICE_SATS, shop.lockKey) })],
      ['token_locked', customer.build({ ...offer, input: 'b', token: toThief })],
      ['token_bare', customer.build({ ...offer, input: 'c', token: bare })],
      ['token_spent', customer.build({ ...offer, input: 'd', token: good })],
      ['token_amount', customer.build({ ...offer, input: 'e', token: await customer.makeToken(PRICE_SATS - 2, shop.lockKey) })],
      ['token_invalid', customer.build({ ...offer, input: 'f', token: 'cashuBrubbish' })],
    ]
    for (const [, request] of cases) customer.send(request)
    for (const [code, request] of cases) {
      await vi.waitUntil(() => customer.about(request, 'error').length > 0, WAIT)
      const [error] = customer.about(request, 'error')
      expect({ code: error?.tags.find((tag) => tag[0] === 'status')?.[2], words: error?.content }).toEqual({
        code,
        words: expect.stringMatching(/\w+ \w+ \w+/),
      })
    }
    expect(shop.worked()).toEqual(['good'])
    // What the provider refused without touching it is still the customer's.
    const again = customer.build({ ...offer, input: 'in private', token: bare, encrypted: true })
    customer.send(again)
    await vi.waitUntil(() => resultsOf(customer, again).length > 0, WAIT)
    for (const [code, request] of cases) expect(await jobOf(rig, request)).toMatchObject({ status: 'refused', error_code: code })
    expect((await earningsOf(rig)).jobs_completed).toBe(2)
  })

  test('and cancels: before payment, after payment, and too late', async () => {
    await using rig = new Rig()
    const shop = await Shop.open(rig, [sandbox.relayUrl], 'concurrency = 1\n')
    using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    const offer = { kind: PAID, provider: shop.pubkey }

    const unpaid = customer.build({ ...offer, input: 'unpaid' })
    customer.send(unpaid)
    await vi.waitUntil(() => customer.about(unpaid, 'payment-required').length > 0, WAIT)
    // A stranger's deletion is nothing.
    customer.send(finalizeEvent({ kind: 5, created_at: nowS(), content: '', tags: [['e', unpaid.id]] }, generateSecretKey()))
    await shop.passBy(customer, 'between')
    expect((await jobOf(rig, unpaid))?.status).toBe('quoted')
    customer.cancel(unpaid)
    await vi.waitUntil(async () => (await jobOf(rig, unpaid))?.status === 'cancelled', WAIT)
    const [asked] = customer.about(unpaid, 'payment-required')
    if (asked !== undefined) await customer.payInvoice(asked)
    expect(await refundOf(customer, unpaid)).toBeGreaterThanOrEqual(PRICE_SATS - FEES_OF_REFUND)

    // One place, and it is taken: the second waits and can be cancelled, the first cannot any more.
    writeFileSync(shop.gate, '')
    const runs = customer.build({ ...offer, input: 'runs', token: await customer.makeToken(PRICE_SATS, shop.lockKey) })
    customer.send(runs)
    await vi.waitUntil(() => shop.worked().includes('runs'), WAIT)
    const waits = customer.build({ ...offer, input: 'waits' })
    await paidByInvoice(customer, waits)
    await vi.waitUntil(async () => (await jobOf(rig, waits))?.status === 'paid', WAIT)
    customer.cancel(waits)
    customer.cancel(runs)
    expect(await refundOf(customer, waits)).toBeGreaterThanOrEqual(PRICE_SATS - FEES_OF_REFUND)
    rmSync(shop.gate)
    await vi.waitUntil(() => resultsOf(customer, runs).length > 0, WAIT)
    await vi.waitUntil(async () => (await jobOf(rig, waits))?.status === 'refunded', WAIT)
    await vi.waitUntil(async () => (await jobOf(rig, unpaid))?.status === 'refunded', WAIT)
    expect(shop.worked()).toEqual(['between', 'runs'])
    expect([unpaid, waits].flatMap((request) => resultsOf(customer, request))).toEqual([])
    expect((await earningsOf(rig)).total_msats).toBeLessThan(2 * PRICE_SATS * 1000)
  })

  test('while the node is down: what is still in time is served after the start, else refused or refunded by rule', async () => {
    await using rig = new Rig()
    const shop = await Shop.open(rig, [sandbox.relayUrl])
    using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    const offer = { kind: PAID, provider: shop.pubkey }
    const until = nowS() + 15
    const quoted = customer.build({ ...offer, input: 'quoted' })
    const hurried = customer.build({ ...offer, input: 'hurried', tags: [['expiration', String(until)]] })
    for (const request of [quoted, hurried]) customer.send(request)
    const offers = () => [quoted, hurried].flatMap((request) => customer.about(request, 'payment-required'))
    await vi.waitUntil(() => offers().length === 2, WAIT)
    await rig.ok('stop')
    for (const asked of offers()) await customer.payInvoice(asked)
    const inTime = customer.build({ ...offer, kind: FREE, input: 'in time' })
    const tooOld = customer.build({ ...offer, kind: FREE, input: 'too old', createdAt: nowS() - 7200 })
    const lapsed = customer.build({ ...offer, kind: FREE, input: 'lapsed', tags: [['expiration', String(until)]] })
    for (const request of [inTime, tooOld, lapsed]) customer.send(request)
    await vi.waitUntil(() => nowS() > until, { timeout: 40_000, interval: 200 })
    await shop.start()

    await vi.waitUntil(() => resultsOf(customer, quoted).length > 0 && resultsOf(customer, inTime).length > 0, WAIT)
    expect(await refundOf(customer, hurried)).toBeGreaterThanOrEqual(PRICE_SATS - FEES_OF_REFUND)
    await vi.waitUntil(async () => (await jobOf(rig, hurried))?.status === 'refunded', WAIT)
    expect(shop.worked().toSorted()).toEqual(['in time', 'quoted'])
    expect([hurried, tooOld, lapsed].flatMap((request) => resultsOf(customer, request))).toEqual([])
    expect(await earningsOf(rig)).toMatchObject({ total_msats: PRICE_SATS * 1000 })
  })

  test('a SIGTERM during a paid job: one result and one charge after the restart', async () => {
    await using rig = new Rig()
    const shop = await Shop.open(rig, [sandbox.relayUrl])
    using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    writeFileSync(shop.gate, '')
    const request = customer.build({ kind: PAID, input: 'slow', provider: shop.pubkey })
    await paidByInvoice(customer, request)
    await vi.waitUntil(() => shop.worked().length > 0, WAIT)
    process.kill((await shop.status()).pid, 'SIGTERM')
    await vi.waitUntil(() => rig.processes().length === 0, WAIT)
    expect(resultsOf(customer, request)).toEqual([])
    expect(existsSync(rig.sandboxHome.socket)).toBe(false)
    rmSync(shop.gate)
    await shop.start()
    await vi.waitUntil(async () => (await jobOf(rig, request))?.status === 'settled', WAIT)
    expect(resultsOf(customer, request)).toEqual(['SLOW'])
    expect(await earningsOf(rig)).toMatchObject({ total_msats: PRICE_SATS * 1000, jobs_completed: 1 })
  })
})
