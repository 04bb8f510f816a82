/** Two nodes on one sandbox: one sells, the other buys by invoice, by token, encrypted, and gets its money back. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { earningsRoutes } from '../../src/control/contract/earnings.ts'
import { jobsRoutes } from '../../src/control/contract/jobs.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'

interface Purchase {
  readonly network: string
  readonly job_id: string
  readonly status: string
  readonly provider: string
  readonly paid_msats: number
  readonly result: string | null
  readonly error: { code: string } | null
  readonly events: readonly { event_id: string; kind: number; summary: string }[]
}

interface Job {
  readonly id: string
  readonly status: string
  readonly payment_method: string
  readonly encryption: string
  readonly paid_msats: number
  readonly transitions?: readonly { to: string; reason: string }[]
}

const PRICE_MSATS = 5000

/** Whether a job at its seller is in this state. */
const isSold = async (seller: Rig, id: string, status: string) =>
  (await seller.call(jobsRoutes.listJobs, {})).jobs.some((job) => job.id === id && job.status === status)

/** Capitals, and a failure on what is nothing but BOOM. */
async function startSeller(rig: Rig) {
  const exec = '[[provider.exec]]\nkind = 5999\ncommand = ["sh", "-c", "tr a-z A-Z | grep -v BOOM"]\n'
  rig.configure(`[provider]\nprobe = false\n[provider.prices]\n5999 = { amount_msats = ${PRICE_MSATS} }\n${exec}`)
  await rig.ok('start', '--sandbox')
  const { identity, sandbox } = await rig.call(nodeRoutes.status, {})
  return { npub: identity?.npub ?? '', relay_url: sandbox?.relay_url ?? '', mint_url: sandbox?.mint_url ?? '' }
}

/** One pair for both tests. */
let seller: Rig
let buyer: Rig
let npub: string
beforeAll(async () => {
  seller = new Rig()
  buyer = new Rig()
  const started = await startSeller(seller)
  npub = started.npub
  await buyer.ok('start', '--sandbox', '--mode', 'host', '--relay', started.relay_url, '--mint', started.mint_url)
  await buyer.call(walletRoutes.fundWallet, { wallet: 'node', amount_sats: 200 })
})
afterAll(async () => {
  await Promise.all([seller, buyer].map((rig) => rig[Symbol.asyncDispose]()))
})

test('jobs are bought in every way, each once, and a failed one is refunded', async () => {
  const buy = async (input: string, ...flags: string[]): Promise<{ code: number | null; job: Purchase }> => {
    const run = await buyer.run([
      ...['job', 'submit', '--kind', '5999', '--input', input, '--provider', npub, '--timeout', '40', '--wait', '--json'],
      ...flags,
    ])
    return { code: run.code, job: run.json<Purchase>() }
  }

  const byInvoice = await buy('by invoice')
  expect(byInvoice).toMatchObject({
    code: 0,
    job: { network: 'sandbox', status: 'completed', provider: npub, paid_msats: PRICE_MSATS, result: 'BY INVOICE', error: null },
  })
  expect(byInvoice.job.events.map((event) => event.kind)).toEqual(expect.arrayContaining([7000, 6999]))

  const byToken = await buy('by token', '--pay-with', 'token')
  expect(byToken).toMatchObject({ code: 0, job: { status: 'completed', result: 'BY TOKEN' } })

  const encrypted = await buy('for your eyes', '--encrypt', '--pay-with', 'token')
  expect(encrypted).toMatchObject({ code: 0, job: { status: 'completed', result: 'FOR YOUR EYES' } })

  const failed = await buy('boom', '--pay-with', 'token')
  expect(failed).toMatchObject({ code: 1, job: { status: 'refunded', result: null } })
  expect(failed.job.error).not.toBeNull()

  const tooDear = await buyer.run([
    ...['job', 'submit', '--kind', '5999', '--input', 'x', '--provider', npub, '--max-sats', '1', '--timeout', '20', '--wait', '--json'],
  ])
  expect(tooDear.code).toBe(1)
  expect(tooDear.json<Purchase>()).toMatchObject({ status: 'failed', paid_msats: 0, error: { code: 'price_too_high' } })

  const { jobs } = (await seller.ok('jobs', 'list', '--json')).json<{ jobs: Job[] }>()
  const bought = (job: Purchase) => jobs.find(({ id }) => id === job.job_id)
  expect(bought(byInvoice.job)).toMatchObject({ payment_method: 'invoice', encryption: 'none', paid_msats: PRICE_MSATS })
  expect(bought(byToken.job)).toMatchObject({ payment_method: 'token', encryption: 'none' })
  expect(bought(encrypted.job)).toMatchObject({ payment_method: 'token', encryption: 'nip44' })
  await expect.poll(() => isSold(seller, failed.job.job_id, 'refunded'), { timeout: 20_000 }).toBe(true)
  expect((await seller.ok('jobs', 'show', failed.job.job_id, '--json')).json<Job>().status).toBe('refunded')
  const shown = (await seller.ok('jobs', 'show', byInvoice.job.job_id.slice(0, 16), '--json')).json<Job>()
  expect(shown.transitions?.map((step) => step.to)).toEqual(['received', 'quoted', 'paid', 'running', 'ready', 'delivered', 'settled'])

  // Three jobs were paid for and kept; the books of both sides say so, also while the nodes are stopped.
  const earnings = { total_msats: 3 * PRICE_MSATS, jobs_completed: 3, internal_msats: 0 }
  const day = new Date().toISOString().slice(0, 10)
  await expect.poll(async () => (await seller.call(earningsRoutes.getEarnings, {})).jobs_completed, { timeout: 20_000 }).toBe(3)
  expect((await seller.ok('earnings', '--json')).json()).toMatchObject({
    network: 'sandbox',
    ...earnings,
    by_source: { job: 3 * PRICE_MSATS, zap: 0, lease: 0, tip: 0, other: 0 },
    by_kind: [{ kind: 5999, msats: 3 * PRICE_MSATS, jobs: 3 }],
    by_day: [{ day, msats: 3 * PRICE_MSATS }],
  })
  const before = (await seller.ok('earnings', '--json')).json<{ recent: { job_id: string; amount_msats: number; earned_at: string }[] }>()
  expect(before.recent).toHaveLength(3)
  expect(before.recent.every(({ amount_msats }) => amount_msats === PRICE_MSATS)).toBe(true)
  expect((await buyer.ok('doctor', '--json')).json()).toMatchObject({ ok: true })
  await seller.ok('stop')
  expect((await seller.ok('earnings', '--json')).json()).toEqual(before)
  expect((await seller.ok('jobs', 'list', '--json')).json<{ jobs: Job[] }>().jobs).toHaveLength(jobs.length)
  const csv = (await seller.ok('earnings', '--csv')).stdout.trim().split('\n')
  expect(csv.filter((line) => !line.includes(',cost:'))).toHaveLength(4)
  // The fee of the refund that the seller brought about.
  expect(csv.find((line) => line.includes(',cost:fee,'))).toMatch(/,cost:fee,-\d+,,home,/)
  expect((await seller.ok('earnings', '--limit', '1')).stdout).toContain('█')

  const { purchases } = (await buyer.ok('job', 'list', '--json')).json<{ purchases: Purchase[] }>()
  expect(purchases).toHaveLength(5)
  expect((await buyer.ok('job', 'show', byToken.job.job_id)).stdout).toContain('BY TOKEN')
})

test('a free job is done without a sat, and --pay ask leaves the choice to the owner', async () => {
  // The test before has stopped it.
  await seller.ok('start', '--sandbox')
  await seller.ok('config', 'set', 'provider.prices.5001', '{ amount_msats = 0 }', '--sandbox')
  const text = 'Relays carry events. Events are signed. Nobody owns the relays, and everybody can read the events that they carry.'
  const free = await buyer.run(['job', 'submit', '--kind', '5001', '--input', '-', '--provider', npub, '--wait', '--json'], { input: text })
  expect(free.json<Purchase>()).toMatchObject({ status: 'completed', paid_msats: 0, result: expect.stringMatching(/./) })

  const asked = await buyer.run(['job', 'submit', '--kind', '5999', '--input', 'please', '--provider', npub, '--pay', 'ask', '--json'])
  expect(asked.code).toBe(0)
  const offered = asked.json<Purchase & { offers: { amount_msats: number; state: string }[] }>()
  expect(offered).toMatchObject({ status: 'offered', paid_msats: 0, offers: [{ amount_msats: PRICE_MSATS, state: 'open' }] })
  await buyer.ok('job', 'pay', offered.job_id)
  await expect
    .poll(async () => (await buyer.ok('job', 'show', offered.job_id, '--json')).json<Purchase>(), { timeout: 20_000 })
    .toMatchObject({ status: 'completed', result: 'PLEASE', paid_msats: PRICE_MSATS })

  const regretted = await buyer.run(['job', 'submit', '--kind', '5999', '--input', 'no', '--provider', npub, '--pay', 'ask', '--json'])
  const cancelled = await buyer.ok('job', 'cancel', regretted.json<Purchase>().job_id, '--json')
  expect(cancelled.json<Purchase>()).toMatchObject({ status: 'cancelled', paid_msats: 0 })
  const { job_id } = regretted.json<Purchase>()
  await expect.poll(() => isSold(seller, job_id, 'cancelled'), { timeout: 20_000 }).toBe(true)
  const { jobs } = (await seller.ok('jobs', 'list', '--state', 'cancelled', '--json')).json<{ jobs: Job[] }>()
  expect(jobs).toMatchObject([{ id: job_id }])
})
