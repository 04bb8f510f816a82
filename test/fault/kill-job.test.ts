/** kill -9 at every stored step of a job, by a fault point each, on the real program: one result, one charge or one refund. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { StrangerCustomer } from '../support/stranger-customer.ts'

const KIND = 5999
const PRICE_SATS = 5
const COMMAND = 'provider.exec'
const WAIT = { timeout: 60_000, interval: 50 }
/** Where each look starts a process. */
const SLOW_WAIT = { timeout: 60_000, interval: 1000 }

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

interface Status {
  readonly running: boolean
  readonly identity: { readonly pubkey: string }
}

async function prepare(rig: Rig): Promise<string> {
  await rig.ok('start', '--sandbox', '--mode', 'provider', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl)
  await rig.ok('config', 'set', `provider.prices.${KIND}`, `{ amount_msats = ${PRICE_SATS * 1000} }`, '--sandbox')
  await rig.ok('config', 'set', COMMAND, `[{ kind = ${KIND}, command = ["sh", "-c", "tr a-z A-Z | grep -v BOOM"] }]`, '--sandbox')
  const { pubkey } = (await rig.ok('status', '--json')).json<Status>().identity
  await rig.ok('stop')
  return pubkey
}

/** Starts the node with a fault, or without one; resolves when its socket answers or it is dead already. */
async function launch(rig: Rig, fault?: string): Promise<{ died: Promise<NodeJS.Signals | null> }> {
  const child = rig.spawn(['daemon', '--sandbox', '--mode', 'provider', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl], {
    env: fault === undefined ? {} : { PYLON_FAULT: fault },
  })
  let dead = false
  const died = new Promise<NodeJS.Signals | null>((resolve) =>
    child.once('close', (_code, signal) => {
      dead = true
      resolve(signal)
    }),
  )
  await vi.waitUntil(async () => dead || (await rig.run(['status', '--json'])).code === 0, { ...WAIT, interval: 200 })
  return { died }
}

async function lockKey(rig: Rig): Promise<string> {
  return (await rig.ok('wallet', 'balance', '--json')).json<{ lock_pubkey: string }>().lock_pubkey
}

type Way = 'invoice' | 'token' | 'refund'

const STEPS: Record<Way, readonly string[]> = {
  invoice: [
    'transition_job:received',
    'transition_job:quoted',
    'transition_job:paid',
    'transition_job:running',
    'transition_job:ready',
    'transition_job:delivered',
    'transition_job:settled',
  ],
  token: ['transition_job:received', 'transition_job:paid', 'transition_job:running', 'transition_job:ready', 'transition_job:settled'],
  refund: ['transition_job:failed', 'transition_job:refunding', 'transition_job:refunded'],
}
const RUNS = (Object.keys(STEPS) as Way[]).flatMap((way) =>
  (STEPS[way] ?? []).flatMap((step) => (['before', 'after'] as const).map((side) => ({ way, fault: `${side}:${step}` }))),
)

describe.concurrent('a job survives kill -9', { timeout: 120_000 }, () => {
  test.each(RUNS)('$way, $fault', async ({ way, fault }) => {
    await using rig = new Rig()
    const provider = await prepare(rig)
    const { died } = await launch(rig, fault)
    using customer = await StrangerCustomer.create([sandbox.relayUrl], sandbox.mintUrl)
    const token = way === 'token' ? await customer.makeToken(PRICE_SATS, await lockKey(rig)) : undefined
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

    await launch(rig)
    const states = way === 'refund' ? ['refunded'] : ['settled']
    await vi.waitUntil(async () => {
      await pay()
      await redeem()
      if (way === 'refund' && refunded === undefined) return false
      const { jobs } = (await rig.ok('jobs', 'list', '--json')).json<{ jobs: { status: string }[] }>()
      return jobs.length === 1 && states.includes(jobs[0]?.status ?? '')
    }, SLOW_WAIT)

    const results = customer.about(request, KIND + 1000)
    const earnings = (await rig.ok('earnings', '--json')).json<{ total_msats: number; jobs_completed: number }>()
    if (way === 'refund') {
      expect(results).toHaveLength(0)
      expect(refunded).toBeGreaterThan(0)
      expect(earnings.total_msats).toBe(0)
      const tokens = new Set(customer.about(request, 'error').map((event) => customer.refundIn(event)))
      expect(tokens.size).toBe(1)
    } else {
      expect(results.map((event) => customer.read(event).trim())).toEqual(['HELLO'])
      expect(earnings).toMatchObject({ total_msats: PRICE_SATS * 1000, jobs_completed: 1 })
      expect(customer.about(request, 'payment-required').length).toBeLessThanOrEqual(1)
    }
    expect(
      (await rig.run(['doctor', '--json']))
        .json<{ checks: { name: string; state: string }[] }>()
        .checks.find((check) => check.name === 'ledger'),
    ).toMatchObject({
      state: 'ok',
    })
  })
})
