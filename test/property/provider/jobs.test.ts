/** What holds for every job whatever happens to it: a model of the outside against the provider over a real database. */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { canStep, JOB_STEPS, type JobState, statesOf } from '../../../src/base/states.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { OPEN_STATES } from '../../../src/provider/jobs/states.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { transitionsOf } from '../../../src/store/selling/job-steps.ts'
import { type JobRow, listJobs } from '../../../src/store/selling/jobs.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import {
  customer,
  node,
  RESTING_STATES,
  request,
  scriptedBackend,
  startNode,
  stranger,
  type TestNode,
  World,
} from '../../unit/provider/world.ts'

test('every state is reached from received, every open state leads to rest, rest needs money to move', () => {
  const reach = (from: JobState, seen = new Set<string>()): Set<string> => {
    for (const next of JOB_STEPS[from]) {
      if (seen.has(next)) continue
      seen.add(next)
      reach(next, seen)
    }
    return seen
  }
  expect([...reach('received'), 'received'].sort()).toEqual(statesOf(JOB_STEPS).sort())
  for (const state of OPEN_STATES) expect([...reach(state)].some((next) => RESTING_STATES.includes(next as 'settled'))).toBe(true)
  for (const state of RESTING_STATES) for (const next of JOB_STEPS[state]) expect(['paid', 'refunding']).toContain(next)
  // Money in hand is never left: no way from paid ends but in settled, refunded or a state that refunds.
  for (const end of ['failed', 'cancelled', 'refused'] as const) expect(canStep(JOB_STEPS, end, 'refunding')).toBe(true)
})

type Move =
  | { readonly type: 'order'; readonly how: 'free' | 'invoice' | 'token' | 'bare' | 'fails' }
  | { readonly type: 'again' | 'pay' | 'cancel' | 'foreign-cancel' | 'claim'; readonly index: number }
  | { readonly type: 'restart' | 'relay' | 'mint' | 'events' }
  | { readonly type: 'time'; readonly seconds: number }

const index = fc.nat(2)
const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant('order' as const), how: fc.constantFrom('free', 'invoice', 'token', 'bare', 'fails') }),
  },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('pay' as const), index }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constantFrom('again', 'cancel', 'foreign-cancel', 'claim'), index }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constantFrom('restart', 'relay', 'mint', 'events') }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('time' as const), seconds: fc.integer({ min: 1, max: 2000 }) }) },
)

const CONFIG = {
  invoice_expiry_s: 600,
  max_age_s: 3600,
  prices: {
    '5001': { amount_msats: 2500, unit: 'job' as const },
    '5002': { amount_msats: 0, unit: 'job' as const },
    '5003': { amount_msats: 2500, unit: 'job' as const },
  },
}

/** A refund that no mint would make for long is tried again after an hour at the latest. */
const LONGEST_RETRY_MS = 3_600_000

class Model {
  readonly world = new World()
  readonly events: NostrEvent[] = []
  node!: TestNode

  async start(): Promise<void> {
    this.node = await startNode(this.world, {
      config: CONFIG,
      backends: [
        scriptedBackend((work) => Promise.resolve(work.input), { kind: 5001 }),
        scriptedBackend((work) => Promise.resolve(work.input), { kind: 5002, inline: true }),
        scriptedBackend(() => Promise.reject(new PylonError('backend_failed', 'It broke.')), { kind: 5003 }),
      ],
    })
  }

  async apply(action: Move): Promise<void> {
    const { world } = this
    if (action.type === 'order') {
      const kind = { free: 5002, invoice: 5001, token: 5001, bare: 5001, fails: 5003 }[action.how]
      const lock = action.how === 'bare' ? {} : { lock: `02${node.pubkey}` }
      const tags = [['t', String(this.events.length)]]
      if (action.how === 'token' || action.how === 'bare') tags.push(['cashu', world.token(5n, lock)])
      const event = request(world, { kind, tags })
      this.events.push(event)
      await this.node.deliver(event)
    } else if (action.type === 'time') await world.clock.advance(action.seconds * 1000)
    else if (action.type === 'restart') {
      await this.node.stop()
      await this.start()
    } else if (action.type === 'relay') world.relayUp = !world.relayUp
    else if (action.type === 'mint') world.mintUp = !world.mintUp
    else if (action.type === 'events') await this.node.wallets.announceSettled()
    else if ('index' in action) await this.applyTo(action.type, this.events[action.index])
    this.node.nostr.nudgeOutbox()
    await world.clock.advance(1)
  }

  private async applyTo(type: string, event: NostrEvent | undefined): Promise<void> {
    if (event === undefined) return
    const { world } = this
    if (type === 'again') await this.node.deliver(event)
    if (type === 'pay' && world.invoices.get(`job:${event.id}:invoice`)?.state === 'unpaid') await this.node.wallets.payInvoice(event.id)
    if (type === 'claim' && world.sent.get(`job:${event.id}:refund`)?.state === 'pending') await this.node.wallets.claimRefund(event.id)
    if (type === 'cancel' || type === 'foreign-cancel') {
      const by = type === 'cancel' ? customer : stranger
      await this.node.deliver(
        by.sign({
          kind: 5,
          created_at: world.nowS(),
          tags: [
            ['e', event.id],
            ['k', String(event.kind)],
          ],
          content: '',
        }),
      )
    }
  }

  /** Everything comes up and time passes: what can end has ended. */
  async calm(): Promise<void> {
    this.world.relayUp = true
    this.world.mintUp = true
    await this.node.wallets.announceSettled()
    for (let i = 0; i < 6; i++) await this.pass(70_000)
    const owed = listJobs(this.node.store, { limit: 1000 }).filter((job) => job.status === 'refunding')
    if (owed.some((job) => !this.world.sent.has(`job:${job.id}:refund`))) await this.pass(LONGEST_RETRY_MS)
  }

  private async pass(ms: number): Promise<void> {
    this.node.nostr.nudgeOutbox()
    await this.world.clock.advance(ms)
  }

  check(job: JobRow): void {
    const { store } = this.node
    const steps = transitionsOf(store, job.id)
    expect(steps[0]).toMatchObject({ from: null, to: 'received' })
    for (const [at, step] of steps.entries()) {
      if (step.from === null) continue
      expect(step.from).toBe(steps[at - 1]?.to)
      expect(canStep(JOB_STEPS, step.from, step.to)).toBe(true)
    }
    expect(steps.at(-1)?.to).toBe(job.status)
    const results = new Set(this.world.answers(job.id, job.kind + 1000).map((event) => event.id))
    const settled = steps.filter((step) => step.to === 'settled').length
    expect(results.size).toBeLessThanOrEqual(1)
    expect(settled).toBeLessThanOrEqual(1)
    if (settled === 1) expect(results.size).toBe(1)
    // Never paid without a result or a refund.
    if (job.paidMsats > 0n) expect(['settled', 'refunding', 'refunded']).toContain(job.status)
    const refund = this.world.sent.get(`job:${job.id}:refund`)
    expect(refund !== undefined && settled === 1).toBe(false)
    if (job.status === 'refunding' || job.status === 'refunded') {
      expect(refund?.amountSats).toBe(job.paidMsats / 1000n)
      expect(this.world.feedback(job.id).some((feedback) => feedback.refundToken === refund?.token)).toBe(true)
    }
    expect(accountBalance(store, `node/deposit/job:${job.id}`)).toBe(0n)
  }
}

test('never paid without a result or a refund, one result, one charge, whatever comes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(move, { minLength: 5, maxLength: 25 }), async (moves) => {
      const model = new Model()
      try {
        await model.start()
        for (const action of moves) await model.apply(action)
        await model.calm()
        const jobs = listJobs(model.node.store, { limit: 1000 })
        for (const job of jobs) model.check(job)
        const settledPaid = jobs.filter((job) => job.status === 'settled' && job.paidMsats > 0n)
        const earned = [...balancesByPrefix(model.node.store, 'node/income/').values()].reduce((sum, value) => sum - value, 0n)
        expect(earned).toBe(settledPaid.reduce((sum, job) => sum + job.paidMsats, 0n))
      } finally {
        await model.node.stop()
        model.world.close()
      }
    }),
    { numRuns: 40 },
  )
}, 300_000)
