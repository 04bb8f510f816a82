/** kill -9 around the steps of a paid job, by a fault point each, on the real program: one result, one charge or one refund. */
import type { Event } from 'nostr-tools/pure'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { earningsRoutes } from '../../src/control/contract/earnings.ts'
import { jobsRoutes } from '../../src/control/contract/jobs.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { StrangerCustomer } from '../support/stranger-customer.ts'

const KIND = 5999
const PRICE_SATS = 5
const WAIT = { timeout: 60_000, interval: 50 }

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const flags = () => ['--sandbox', '--mode', 'provider', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl]

function writeConfig(rig: Rig): void {
  const exec = `[[provider.exec]]\nkind = ${KIND}\ncommand = ["sh", "-c", "tr a-z A-Z | grep -v BOOM"]\n`
  const price = `[provider.prices]\n${KIND} = { amount_msats = ${PRICE_SATS * 1000} }\n`
  rig.configure(`[provider]\nprobe = false\n${price}${exec}`)
}

/**
 * What only a real end of the process shows; unit/provider/restart.test.ts dies in process before and after every step of every way.
 * The node that goes on with one job is the one that is killed with the next, so the later steps come first: what it finds must not
 * come to its own fault. Where it would, a node without one stands between.
 */
const WAYS = {
  invoice: ['before:settled', 'after:ready', 'before:ready', 'after:paid', 'before:paid', 'after:received', undefined, 'after:running'],
  token: ['after:paid', 'before:paid'],
  refund: ['before:refunded', 'after:refunding', 'before:refunding', undefined, 'after:failed'],
} as const

describe.concurrent('jobs survive kill -9', { timeout: 120_000 }, () => {
  test.each(Object.entries(WAYS))('%s', async (way, faults) => {
    await using rig = new Rig()
    writeConfig(rig)
    const launch = (fault: string | undefined) => rig.launch(flags(), fault?.replace(':', ':transition_job:'))
    let node = await launch(faults[0])
    let done = 0
    for (const [i, fault] of faults.entries()) {
      if (fault === undefined) {
        await rig.call(nodeRoutes.shutdown, {})
        await node.died
        node = await launch(faults[i + 1])
        continue
      }
      using job = await Job.send(rig, way)
      expect(await job.until(node.died), fault).toBe('SIGKILL')
      node = await launch(faults[i + 1])
      done += 1
      await job.untilEnd(done, fault)
    }
    const { checks } = await rig.call(nodeRoutes.doctor, {})
    expect(checks.find((check) => check.name === 'ledger')).toMatchObject({ state: 'ok' })
  })
})

/** One job of a stranger, who pays when asked, and redeems a refund as soon as it can: a refund ends only once it is redeemed. */
class Job implements Disposable {
  readonly #rig: Rig
  readonly #way: string
  readonly #customer: StrangerCustomer
  readonly #request: Event
  #paid = false
  #refunded: number | undefined

  private constructor(rig: Rig, way: string, customer: StrangerCustomer, request: Event) {
    this.#rig = rig
    this.#way = way
    this.#customer = customer
    this.#request = request
  }

  static async send(rig: Rig, way: string): Promise<Job> {
    const provider = (await rig.call(nodeRoutes.status, {})).identity?.pubkey ?? ''
    const customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    const lockKey = async () => (await rig.call(walletRoutes.getWallet, { wallet: 'node' })).lock_pubkey
    const token = way === 'token' ? { token: await customer.makeToken(PRICE_SATS, await lockKey()) } : {}
    const request = customer.build({ kind: KIND, input: way === 'refund' ? 'BOOM' : 'hello', provider, ...token })
    customer.send(request)
    return new Job(rig, way, customer, request)
  }

  async #act(): Promise<void> {
    const asked = this.#customer.about(this.#request, 'payment-required')[0]
    if (asked !== undefined && !this.#paid) {
      this.#paid = true
      await this.#customer.payInvoice(asked)
    }
    const refund = this.#refunds().find((found) => found !== undefined)
    if (refund === undefined || this.#refunded !== undefined) return
    this.#refunded = -1
    this.#refunded = await this.#customer.redeem(refund)
  }

  #refunds() {
    return this.#customer.about(this.#request, 'error').map((event) => this.#customer.refundIn(event))
  }

  /** Acts until the node has died. @returns by which signal */
  async until(died: Promise<NodeJS.Signals | null>): Promise<NodeJS.Signals | null | undefined> {
    let signal: NodeJS.Signals | null | undefined
    void died.then((value) => {
      signal = value
    })
    await vi.waitUntil(async () => {
      await this.#act()
      return signal !== undefined
    }, WAIT)
    return signal
  }

  /** Acts until the job is over, the `done`-th of its node, and expects one result and one charge, or one refund. */
  async untilEnd(done: number, fault: string): Promise<void> {
    const isRefund = this.#way === 'refund'
    await vi.waitUntil(async () => {
      await this.#act()
      const { jobs } = await this.#rig.call(jobsRoutes.listJobs, {})
      if (isRefund && this.#refunded === undefined) return false
      return jobs.length === done && jobs.every(({ status }) => status === (isRefund ? 'refunded' : 'settled'))
    }, WAIT)
    const results = this.#customer.about(this.#request, KIND + 1000)
    const earnings = await this.#rig.call(earningsRoutes.getEarnings, {})
    if (isRefund) {
      expect(results, fault).toHaveLength(0)
      expect(this.#refunded, fault).toBeGreaterThan(0)
      expect(earnings.total_msats, fault).toBe(0n)
      expect(new Set(this.#refunds()).size, fault).toBe(1)
      return
    }
    expect(
      results.map((event) => this.#customer.read(event).trim()),
      fault,
    ).toEqual(['HELLO'])
    expect(earnings, fault).toMatchObject({ total_msats: BigInt(done * PRICE_SATS * 1000), jobs_completed: done })
    expect(this.#customer.about(this.#request, 'payment-required').length, fault).toBeLessThanOrEqual(1)
  }

  [Symbol.dispose](): void {
    this.#customer[Symbol.dispose]()
  }
}
