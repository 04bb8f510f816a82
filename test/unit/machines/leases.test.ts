/** Leases: priced, paid by invoice or token, extended, ended with notice, settled in the books and refunded where the node fails. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { PylonError } from '../../../src/base/errors.ts'
import { parseOffer } from '../../../src/nostr/control/offers.ts'
import { earningsSummary } from '../../../src/store/money/earnings.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { getLease, leasesOf, patchLease } from '../../../src/store/selling/leases.ts'
import { getRuntime, runtimesIn } from '../../../src/store/selling/runtimes.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { MINT } from '../../support/memory-mint.ts'
import { key, PAID_CLASS, type Sent, stranger, type TestNode, World } from './world.ts'

const RENT = { command: 'provision', provider: 'incus', protocol: 'acp', runtime_class: 'small', lease_seconds: 100 } as const
const WAIT = { timeout: 30_000, interval: 20 }

let world: World

beforeEach(() => {
  world = new World()
})
afterEach(() => world.close())

const askedShape = z.object({
  lease_id: z.string(),
  amount_msats: z.number(),
  invoice: z.string(),
  mints: z.array(z.string()),
  lock_pubkey: z.string(),
  expires_at: z.number(),
})
type Asked = z.output<typeof askedShape>

async function asked(sent: Sent): Promise<Asked> {
  return await vi.waitFor(() => {
    const status = sent.statuses.find((entry) => entry.message === 'waiting for payment')
    expect(status?.phase).toBe('queued')
    return askedShape.parse(status?.progress)
  }, WAIT)
}

/** What is left in the books must be nothing that is owed by mistake. */
function books(node: TestNode) {
  expect(auditLedger(node.store).problems.filter((problem) => !problem.startsWith('The wallet of'))).toEqual([])
  return { deposits: [...balancesByPrefix(node.store, 'node/deposit/')], income: -accountBalance(node.store, 'node/income/lease') }
}

test('an unpaid provision waits with amount, invoice, mints, lock key and expiry; paid it goes on', async () => {
  const node = await world.start()
  const sent = node.send(stranger.pubkey, RENT)
  const payment = await asked(sent)
  expect(payment).toMatchObject({ amount_msats: 100_000, mints: ['https://mint.test'], lock_pubkey: expect.stringMatching(/^02/) })
  expect(payment.invoice).toContain('lnbcrt')
  expect(payment.expires_at).toBeGreaterThan(Date.now() / 1000)
  expect(world.incus.calls).toEqual([])
  await node.pay(payment.lease_id)
  const { runtime } = await sent.result
  expect(runtime.metadata).toMatchObject({ lease: { state: 'active', paid_msats: 100_000 } })
  expect(getRuntime(node.store, runtime.runtime_id)?.expiresAt).toBeGreaterThan(Date.now() + 90_000)
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(books(node)).toEqual({ deposits: [], income: 100_000n })
  expect(earningsSummary(node.store, { limit: 10 })).toMatchObject({ totalMsats: 100_000n, bySource: { lease: 100_000n } })
})

test('a token in the command pays at once; what is over the price goes back at the end', async () => {
  const node = await world.start()
  const sent = node.send(stranger.pubkey, { ...RENT, lease_token: world.token(130n) })
  const { runtime } = await sent.result
  expect(sent.statuses.map((status) => status.phase)).toEqual(['queued', 'provisioning', 'ready'])
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  const [lease] = leasesOf(node.store, runtime.runtime_id)
  await vi.waitFor(() => expect(world.sent.get(`lease:${lease?.id}:refund`)?.amountSats).toBe(30n), WAIT)
  expect(books(node)).toEqual({ deposits: [], income: 100_000n })
})

test('a token that comes with the repeat of a waiting command pays for it', async () => {
  const node = await world.start()
  const sent = node.send(stranger.pubkey, RENT, 'one')
  await asked(sent)
  const again = node.send(stranger.pubkey, { ...RENT, lease_token: world.token(100n) }, 'one')
  expect((await again.result).runtime.runtime_id).toBe((await sent.result).runtime.runtime_id)
  expect(world.incus.instances.size).toBe(1)
})

test('a bad token is refused before anything is spent, and the key may be used again', async () => {
  const node = await world.start()
  await expect(node.call(stranger.pubkey, { ...RENT, lease_token: 'cashuBnothing' }, 'one')).rejects.toMatchObject({
    code: 'payment_failed',
  })
  await expect(node.call(stranger.pubkey, { ...RENT, lease_token: world.token(99n) }, 'one')).rejects.toMatchObject({
    code: 'payment_failed',
  })
  expect(world.incus.calls).toEqual([])
  await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) }, 'one')
  expect(world.incus.instances.size).toBe(1)
})

test('an invoice that nobody pays ends the command; paid too late it goes back', async () => {
  const node = await world.start({ runtimes: { payment_expiry_s: 1 } })
  const sent = node.send(stranger.pubkey, RENT)
  const payment = await asked(sent)
  await expect(sent.result).rejects.toMatchObject({ code: 'payment_required' })
  await node.pay(payment.lease_id)
  await vi.waitFor(() => expect(world.sent.get(`lease:${payment.lease_id}:refund`)?.amountSats).toBe(100n), WAIT)
  expect(world.tokens.get(world.sent.get(`lease:${payment.lease_id}:refund`)?.token ?? '')?.lock).toBe(`02${stranger.pubkey}`)
  await node.claimRefund(payment.lease_id)
  expect(getLease(node.store, payment.lease_id)?.state).toBe('refunded')
  expect(books(node)).toEqual({ deposits: [], income: 0n })
})

test('where the provision fails all of it goes back, and get_runtime has the token', async () => {
  const node = await world.start()
  world.incus.failProvision = new PylonError('incus_failed', 'no')
  const sent = node.send(stranger.pubkey, { ...RENT, lease_token: world.token(100n) }, 'one')
  await expect(sent.result).rejects.toMatchObject({ code: 'provision_failed' })
  const listed = await vi.waitFor(async () => {
    const { payload } = await node.call(stranger.pubkey, { command: 'list_runtimes' })
    const found = (payload as { runtimes: { metadata: { lease: { refund_token?: string; state: string } } }[] }).runtimes[0]?.metadata.lease
    expect(found?.refund_token).toBeDefined()
    return found
  }, WAIT)
  expect(world.tokens.get(listed?.refund_token ?? '')).toMatchObject({ sats: 100n, lock: `02${stranger.pubkey}` })
  expect(node.notices.map((notice) => notice.status.progress)).toContainEqual(expect.objectContaining({ refund: expect.anything() }))
  expect(books(node)).toEqual({ deposits: [], income: 0n })
})

test('an instance that is lost is refunded by the time that was left', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_seconds: 3600, lease_token: world.token(3600n) })
  world.incus.instances.clear()
  const [lease] = leasesOf(node.store, runtime.runtime_id)
  await vi.waitFor(() => expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('gone'), { timeout: 15_000, interval: 50 })
  await vi.waitFor(() => expect(world.sent.get(`lease:${lease?.id}:refund`)).toBeDefined(), WAIT)
  const back = world.sent.get(`lease:${lease?.id}:refund`)?.amountSats ?? 0n
  expect(back).toBeGreaterThan(3500n)
  expect(back).toBeLessThan(3600n)
  const { deposits, income } = books(node)
  expect(deposits).toEqual([])
  expect(income).toBeGreaterThan(0n)
}, 30_000)

/** A thousand sats a second, for a second at least. */
const DEAR = { classes: [{ ...PAID_CLASS, capacity: 10, min_lease_s: 1, price_msats_per_hour: 3_600_000_000 }] }

async function rentFor(node: TestNode, n: number, seconds: number) {
  const lease_token = world.token(BigInt(seconds) * 1000n)
  const { runtime } = await node.call(key(n).pubkey, { ...RENT, lease_seconds: seconds, lease_token })
  const instance = world.incus.instances.get(runtime.runtime_id)
  const [lease] = leasesOf(node.store, runtime.runtime_id)
  if (instance === undefined || lease === undefined) throw new Error('no instance, or no lease')
  return { id: runtime.runtime_id, tenant: key(n).pubkey, leaseId: lease.id, instance }
}

test('who failed decides about the money, in a lease shorter than unreachable_after_s too, and whoever ends it', async () => {
  const node = await world.start({ runtimes: DEAR })
  const [byItself, byHost, away, back, left] = await Promise.all([11, 12, 13, 14, 15].map((n) => rentFor(node, n, 4)))
  if (byItself === undefined || byHost === undefined || away === undefined || back === undefined || left === undefined) throw new Error()
  Object.assign(byItself.instance, { state: 'failed', byGuest: true })
  byHost.instance.state = 'stopped'
  away.instance.state = 'unreachable'
  back.instance.state = 'unreachable'
  left.instance.state = 'failed'
  const outage = (id: string) => getRuntime(node.store, id)?.away?.cause
  await vi.waitFor(() => {
    expect([byItself, byHost, away, back, left].map(({ id }) => outage(id))).toEqual(['guest', 'host', 'network', 'network', 'host'])
  }, WAIT)
  const { runtime } = await node.call(away.tenant, { command: 'get_runtime', runtime_id: away.id })
  expect(runtime.metadata).toMatchObject({ state: 'unreachable', outage: { cause: 'network', since: expect.any(String) } })
  back.instance.state = 'ready'
  await vi.waitFor(() => expect(getRuntime(node.store, back.id)).toMatchObject({ state: 'ready', away: null }), WAIT)
  // Its tenant is the first to act: that makes it nobody else's failure.
  await node.call(left.tenant, { command: 'teardown', runtime_id: left.id })
  for (const { id } of [byItself, byHost, away, back])
    await vi.waitFor(() => expect(getRuntime(node.store, id)?.state).toBe('gone'), { timeout: 30_000, interval: 50 })
  const refunded = ({ leaseId }: { leaseId: string }) => world.sent.get(`lease:${leaseId}:refund`)?.amountSats
  await vi.waitFor(() => expect(world.sent.size).toBe(3), WAIT)
  for (const lease of [byHost, away, left]) expect(refunded(lease)).toBeGreaterThan(2000n)
  for (const lease of [byItself, back]) expect(refunded(lease)).toBeUndefined()
  expect(books(node).deposits).toEqual([])
}, 30_000)

test('a machine that died unseen just before its lease ends was not had to its end', async () => {
  const node = await world.start({ runtimes: DEAR, healthEveryMs: 3_600_000 })
  const { id, leaseId } = await rentFor(node, 11, 2)
  const lost = await rentFor(node, 12, 2)
  world.incus.instances.delete(lost.id)
  for (const one of [id, lost.id])
    await vi.waitFor(() => expect(getRuntime(node.store, one)?.state).toBe('gone'), { timeout: 30_000, interval: 50 })
  expect(getRuntime(node.store, lost.id)).toMatchObject({ away: { cause: 'host' } })
  expect(getLease(node.store, leaseId)?.state).toBe('ended')
  // Nobody saw it since it was ready.
  await vi.waitFor(() => expect(world.sent.get(`lease:${lost.leaseId}:refund`)?.amountSats).toBeGreaterThan(1900n), WAIT)
  expect(books(node).deposits).toEqual([])
}, 20_000)

test('one that ended by itself is never given up by the node: its tenant may start it again while the lease runs', async () => {
  const node = await world.start({ runtimes: { ...DEAR, unreachable_after_s: 1 } })
  const { id, tenant, instance } = await rentFor(node, 11, 4)
  const lost = await rentFor(node, 12, 100)
  Object.assign(instance, { state: 'completed', byGuest: true })
  lost.instance.state = 'unreachable'
  await vi.waitFor(() => expect(getRuntime(node.store, lost.id)?.state).toBe('gone'), { timeout: 30_000, interval: 50 })
  await vi.waitFor(() => expect(world.sent.get(`lease:${lost.leaseId}:refund`)?.amountSats).toBeGreaterThan(98_000n), WAIT)
  expect(getRuntime(node.store, id)).toMatchObject({ state: 'unreachable', away: { cause: 'guest' } })
  await node.call(tenant, { command: 'recover', runtime_id: id })
  expect(getRuntime(node.store, id)).toMatchObject({ state: 'ready', away: null })
}, 20_000)

test('a run that the host lost, or never reached again, costs what was had of it; one that failed costs its time', async () => {
  const node = await world.start({ runtimes: { ...DEAR, watchdog_grace_s: 1 } })
  world.incus.runState = 'ready'
  const run = { command: 'run', runtime_class: 'small', entry_command: 'true', timeout_s: 3 } as const
  const sent = [11, 12, 13].map((n) => node.send(key(n).pubkey, { ...run, lease_token: world.token(3000n) }))
  const rows = await vi.waitFor(() => {
    const found = runtimesIn(node.store, ['ready'])
    expect(found).toHaveLength(3)
    return found.sort((a, b) => (a.ownerPubkey === key(11).pubkey ? -1 : b.ownerPubkey === key(11).pubkey ? 1 : 0))
  }, WAIT)
  const of = (n: number) => rows.find((row) => row.ownerPubkey === key(n).pubkey)?.id ?? ''
  Object.assign(world.incus.instances.get(of(11)) ?? {}, { state: 'failed', byGuest: true })
  Object.assign(world.incus.instances.get(of(12)) ?? {}, { state: 'failed' })
  Object.assign(world.incus.instances.get(of(13)) ?? {}, { state: 'unreachable' })
  await Promise.allSettled(sent.map(({ result }) => result))
  const refunded = (n: number) => world.sent.get(`lease:${leasesOf(node.store, of(n))[0]?.id}:refund`)?.amountSats
  await vi.waitFor(() => expect(world.sent.size).toBe(2), WAIT)
  expect(refunded(11)).toBeUndefined()
  for (const n of [12, 13]) expect(refunded(n)).toBeGreaterThan(1500n)
  expect(books(node).deposits).toEqual([])
}, 20_000)

test('a lease that an earlier version left active, with its mint noted, is settled and refunded as it was sold', async () => {
  const before = await world.start()
  const { runtime } = await before.call(stranger.pubkey, { ...RENT, lease_token: world.token(130n) })
  const [lease] = leasesOf(before.store, runtime.runtime_id)
  if (lease === undefined) throw new Error('no lease')
  expect(lease).toMatchObject({ state: 'active', paidMsats: 130_000n })
  await before.store.write(patchLease({ id: lease.id, patch: { mintUrl: MINT }, at: lease.updatedAt }))
  await before.crash()
  const node = await world.start()
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  await vi.waitFor(() => expect(world.sent.get(`lease:${lease.id}:refund`)?.amountSats).toBe(30n), WAIT)
  await node.claimRefund(lease.id)
  expect(getLease(node.store, lease.id)).toMatchObject({ state: 'refunded', refundMsats: 30_000n })
  expect(books(node)).toEqual({ deposits: [], income: 100_000n })
})

test('a lease ends with notice, is torn down, and is income', async () => {
  const node = await world.start({
    runtimes: {
      classes: [
        { name: 'small', provider: 'incus', protocols: ['acp'], acp_command: 'a', price_msats_per_hour: 3_600_000, min_lease_s: 1 },
      ],
    },
  })
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_seconds: 3, lease_token: world.token(3n) })
  await vi.waitFor(() => expect(node.notices[0]?.status.message).toContain('ends soon'), WAIT)
  await vi.waitFor(() => expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('gone'), { timeout: 30_000, interval: 50 })
  expect(world.incus.instances.size).toBe(0)
  expect(books(node)).toEqual({ deposits: [], income: 3000n })
}, 20_000)

test('a lease is extended by invoice or token, from where it ends', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  const before = getRuntime(node.store, runtime.runtime_id)?.expiresAt ?? 0
  const extension = { command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: 60 } as const
  await node.call(stranger.pubkey, { ...extension, lease_token: world.token(60n) })
  expect(getRuntime(node.store, runtime.runtime_id)?.expiresAt).toBe(before + 60_000)
  const sent = node.send(stranger.pubkey, extension)
  const payment = await asked(sent)
  await node.pay(payment.lease_id)
  await sent.result
  expect(getRuntime(node.store, runtime.runtime_id)?.expiresAt).toBe(before + 120_000)
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(books(node)).toEqual({ deposits: [], income: 220_000n })
})

test('lengths beyond what the class rents for are refused', async () => {
  const node = await world.start()
  await expect(node.call(stranger.pubkey, { ...RENT, lease_seconds: 5 })).rejects.toMatchObject({ code: 'invalid_command' })
})

test('offers say what is free now, change with it, and are withdrawn', async () => {
  world.incus.probed = { usable: true, isolated: true, network: 'bridge' }
  const node = await world.start()
  const offers = () => node.published().flatMap((event) => parseOffer(event) ?? [])
  expect(offers()).toMatchObject([
    { runtimeClass: 'small', provider: 'incus', region: 'lab', protocols: ['pi', 'acp'], priceMsatsPerHour: 3_600_000n, isolated: true },
  ])
  expect(offers()[0]?.capacity).toEqual({ free: 3, total: 3 })
  expect(offers()[0]?.policyConstraints).toMatchObject({ network: 'bridge' })
  await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  await vi.waitFor(() => expect(offers().at(-1)?.capacity.free).toBe(2), WAIT)
  await node.machines.close()
  expect(node.published().some((event) => event.kind === 5)).toBe(true)
})
