/** Whatever tenants do and whenever the node dies: each sat that they paid is earned or goes back, once. */

import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { LEASE_STEPS, statesOf } from '../../../src/base/states.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { leasesIn } from '../../../src/store/selling/leases.ts'
import { runtimesIn } from '../../../src/store/selling/runtimes.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { key, type Sent, type TestNode, World } from '../../unit/machines/world.ts'

const WAIT = { timeout: 30_000, interval: 5 }
const LIVE = ['requested', 'provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown'] as const
const TENANTS = [21, 22, 23].map((n) => key(n).pubkey)

const tenant = fc.constantFrom(...TENANTS)
/** Beside the price: too little, exact, too much. */
const over = fc.constantFrom(-1n, 0n, 0n, 7n)
const action = fc.oneof(
  fc.record({ does: fc.constant('rent' as const), tenant, seconds: fc.integer({ min: 60, max: 100 }), over, fails: fc.boolean() }),
  fc.record({ does: fc.constant('ask' as const), tenant }),
  fc.record({ does: fc.constant('payInvoice' as const), nth: fc.nat(5) }),
  fc.record({ does: fc.constant('extend' as const), tenant, over, byToken: fc.boolean() }),
  fc.record({ does: fc.constant('tearDown' as const), tenant }),
  fc.record({ does: fc.constant('claim' as const), nth: fc.nat(5) }),
  fc.record({ does: fc.constant('crash' as const) }),
)
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never

const RENT = { command: 'provision', provider: 'incus', protocol: 'acp', runtime_class: 'small' } as const

/** Until it ends, or waits for payment. */
async function settled(sent: Sent): Promise<void> {
  let isOver = false
  const end = () => {
    isOver = true
  }
  void sent.result.then(end, end)
  await vi.waitFor(() => expect(isOver || sent.statuses.some(({ message }) => message === 'waiting for payment')).toBe(true), WAIT)
}

class Story {
  readonly world = new World()
  readonly #claims = new Map<string, number>()
  readonly #failing = new PylonError('incus_failed', 'no')
  node: TestNode
  #serial = 0

  constructor(node: TestNode, world: World) {
    this.node = node
    this.world = world
  }

  /** Spends what a lease gives back, once its token is made. */
  async claim(leaseId: string): Promise<void> {
    const nth = (this.#claims.get(leaseId) ?? 0) + 1
    const name = `lease:${leaseId}:refund${nth > 1 ? `:${nth}` : ''}`
    await vi.waitFor(() => expect(this.world.sent.has(name)).toBe(true), WAIT)
    this.#claims.set(leaseId, nth)
    await this.node.claimRefund(leaseId, nth)
  }

  runtimeOf(pubkey: string): string | undefined {
    return runtimesIn(this.node.store, ['ready', 'requested']).find((row) => row.ownerPubkey === pubkey)?.id
  }

  async act(step: Action): Promise<void> {
    const { node, world } = this
    const name = `a${++this.#serial}`
    switch (step.does) {
      case 'rent':
        world.incus.failProvision = step.fails ? this.#failing : undefined
        await settled(
          node.send(
            step.tenant,
            { ...RENT, lease_seconds: step.seconds, lease_token: world.token(BigInt(step.seconds) + step.over) },
            name,
          ),
        )
        world.incus.failProvision = undefined
        return
      case 'ask':
        return await settled(node.send(step.tenant, { ...RENT, lease_seconds: 80 }, name))
      case 'payInvoice': {
        const waiting = leasesIn(node.store, ['quoted', 'expired', 'active', 'ended', 'refunding']).filter((lease) => lease.bill !== null)
        const lease = waiting[step.nth % Math.max(1, waiting.length)]
        if (lease !== undefined) await node.pay(lease.id)
        return
      }
      case 'extend': {
        const id = this.runtimeOf(step.tenant)
        if (id === undefined) return
        const token = step.byToken ? { lease_token: world.token(60n + step.over) } : {}
        return await settled(node.send(step.tenant, { command: 'extend_lease', runtime_id: id, lease_seconds: 60, ...token }, name))
      }
      case 'tearDown': {
        const id = this.runtimeOf(step.tenant)
        if (id !== undefined) await settled(node.send(step.tenant, { command: 'teardown', runtime_id: id }, name))
        return
      }
      case 'claim': {
        const due = leasesIn(node.store, ['refunding'])
        const lease = due[step.nth % Math.max(1, due.length)]
        if (lease !== undefined) await this.claim(lease.id)
        return
      }
      case 'crash':
        await node.crash()
        this.node = await world.start()
    }
  }

  /** All of it comes to its end. */
  async end(): Promise<void> {
    for (const row of runtimesIn(this.node.store, LIVE))
      await this.node.call(row.ownerPubkey, { command: 'teardown', runtime_id: row.id }).catch(() => undefined)
    await vi.waitFor(() => {
      expect(runtimesIn(this.node.store, LIVE)).toEqual([])
      expect(leasesIn(this.node.store, ['quoted', 'paid', 'active'])).toEqual([])
    }, WAIT)
    // What was paid for a second time goes back when the first was spent.
    for (;;) {
      const [lease] = leasesIn(this.node.store, ['refunding'])
      if (lease === undefined) return
      await this.claim(lease.id)
    }
  }
}

test('each sat that was paid is earned or goes back, once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 3, maxLength: 14 }), async (steps) => {
      const world = new World()
      const story = new Story(await world.start(), world)
      try {
        for (const step of steps) await story.act(step)
        await story.end()
        const { store } = story.node
        const paid = [...world.received.values()].reduce((sum, amount) => sum + amount, 0n) + paidInvoices(world)
        const back = [...world.sent.values()].reduce((sum, { amountSats }) => sum + amountSats, 0n)
        const earned = -accountBalance(store, 'node/income/lease')
        const prices = leasesIn(store, statesOf(LEASE_STEPS)).flatMap((lease) => (lease.time === null ? [] : [lease.priceMsats]))
        expect([...balancesByPrefix(store, 'node/deposit/')]).toEqual([])
        expect(earned).toBe((paid - back) * 1000n)
        // Nobody leaves a lease that the node could keep, and all prices are whole sats.
        expect(earned).toBe(prices.reduce((sum, price) => sum + price, 0n))
        expect(auditLedger(store).problems.filter((problem) => !problem.startsWith('The wallet of'))).toEqual([])
        expect(world.incus.instances.size).toBe(0)
      } finally {
        await world.close()
      }
    }),
    { numRuns: 20 },
  )
}, 120_000)

function paidInvoices(world: World): bigint {
  return [...world.invoices.values()].filter(({ state }) => state === 'settled').reduce((sum, { amountSats }) => sum + amountSats, 0n)
}
