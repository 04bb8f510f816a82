/** kill -9 around the steps of a paid job, by a fault point each, on the real program: one result, one charge or one refund. */
import { mkdirSync, writeFileSync } from 'node:fs'
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
  mkdirSync(rig.sandboxHome.dir)
  const exec = `[[provider.exec]]\nkind = ${KIND}\ncommand = ["sh", "-c", "tr a-z A-Z | grep -v BOOM"]\n`
  const price = `[provider.prices]\n${KIND} = { amount_msats = ${PRICE_SATS * 1000} }\n`
  writeFileSync(rig.sandboxHome.config, `[provider]\nprobe = false\n${price}${exec}`)
}

/** What only a real end of the process shows; unit/provider/restart.test.ts dies in process before and after every step of every way. */
const RUNS = [
  ['invoice', 'after:transition_job:received'],
  ['invoice', 'before:transition_job:paid'],
  ['invoice', 'after:transition_job:paid'],
  ['invoice', 'after:transition_job:running'],
  ['invoice', 'before:transition_job:ready'],
  ['invoice', 'after:transition_job:ready'],
  ['invoice', 'before:transition_job:settled'],
  ['token', 'before:transition_job:paid'],
  ['token', 'after:transition_job:paid'],
  ['refund', 'after:transition_job:failed'],
  ['refund', 'before:transition_job:refunding'],
  ['refund', 'after:transition_job:refunding'],
  ['refund', 'before:transition_job:refunded'],
] as const

describe.concurrent('a job survives kill -9', { timeout: 120_000 }, () => {
  test.each(RUNS)('%s, %s', async (way, fault) => {
    await using rig = new Rig()
    writeConfig(rig)
    const { died } = await rig.launch(flags(), fault)
    const provider = (await rig.call(nodeRoutes.status, {})).identity?.pubkey ?? ''
    using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    const token =
      way === 'token'
        ? await customer.makeToken(PRICE_SATS, (await rig.call(walletRoutes.getWallet, { wallet: 'node' })).lock_pubkey)
        : undefined
    const request = customer.build({
      kind: KIND,
      input: way === 'refund' ? 'BOOM' : 'hello',
      provider,
      ...(token === undefined ? {} : { token }),
    })
    let paid = false
    const pay = async () => {
      const asked = customer.about(request, 'payment-required')[0]
      if (asked === undefined || paid) return
      paid = true
      await customer.payInvoice(asked)
    }
    // A refund step comes to its end only once the customer redeems: it does so as soon as it can.
    let refunded: number | undefined
    const redeem = async () => {
      const refund = customer
        .about(request, 'error')
        .map((event) => customer.refundIn(event))
        .find((found) => found !== undefined)
      if (refund === undefined || refunded !== undefined) return
      refunded = -1
      refunded = await customer.redeem(refund)
    }
    customer.send(request)
    let signal: NodeJS.Signals | null | undefined
    void died.then((value) => {
      signal = value
    })
    await vi.waitUntil(async () => {
      await pay()
      await redeem()
      return signal !== undefined
    }, WAIT)
    expect(signal).toBe('SIGKILL')

    await rig.launch(flags())
    const states = way === 'refund' ? ['refunded'] : ['settled']
    await vi.waitUntil(async () => {
      await pay()
      await redeem()
      if (way === 'refund' && refunded === undefined) return false
      const { jobs } = await rig.call(jobsRoutes.listJobs, {})
      return jobs.length === 1 && states.includes(jobs[0]?.status ?? '')
    }, WAIT)

    const results = customer.about(request, KIND + 1000)
    const earnings = await rig.call(earningsRoutes.getEarnings, {})
    if (way === 'refund') {
      expect(results).toHaveLength(0)
      expect(refunded).toBeGreaterThan(0)
      expect(earnings.total_msats).toBe(0n)
      const tokens = new Set(customer.about(request, 'error').map((event) => customer.refundIn(event)))
      expect(tokens.size).toBe(1)
    } else {
      expect(results.map((event) => customer.read(event).trim())).toEqual(['HELLO'])
      expect(earnings).toMatchObject({ total_msats: BigInt(PRICE_SATS * 1000), jobs_completed: 1 })
      expect(customer.about(request, 'payment-required').length).toBeLessThanOrEqual(1)
    }
    const { checks } = await rig.call(nodeRoutes.doctor, {})
    expect(checks.find((check) => check.name === 'ledger')).toMatchObject({ state: 'ok' })
  })
})
