/** Tenants who want more than they paid for: longer, larger, more machines, their money back as well, or the node's work for nothing. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { runtimesConfig } from '../../../src/base/config-runtimes.ts'
import { PylonError } from '../../../src/base/errors.ts'
import type { RuntimeClass } from '../../../src/provider/machines/classes.ts'
import { orderProvision } from '../../../src/provider/machines/order.ts'
import { accountBalance, postEntry } from '../../../src/store/money/ledger.ts'
import { getRequest, pruneRequests } from '../../../src/store/selling/control-requests.ts'
import { getLease, leasesIn, leasesOf } from '../../../src/store/selling/leases.ts'
import { getRuntime, listOutputs, runtimesIn } from '../../../src/store/selling/runtimes.ts'
import { fastClock } from '../../support/fast-clock.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { key, owner, PAID_CLASS, type Sent, stranger, type TestNode, World } from './world.ts'

const RENT = { command: 'provision', provider: 'incus', protocol: 'acp', runtime_class: 'small', lease_seconds: 100 } as const
const WAIT = { timeout: 30_000, interval: 20 }
/** Rents for a second. */
const SHORT = { classes: [{ ...PAID_CLASS, min_lease_s: 1 }] }

let world: World
let letGo: () => void

beforeEach(() => {
  world = new World()
  letGo = () => undefined
})
afterEach(async () => {
  letGo()
  await world.close()
})

/** Commands inside instances last until the test is over. */
function holdExec(): void {
  const { promise, resolve } = Promise.withResolvers<void>()
  world.incus.execGate = promise
  letGo = resolve
}

async function leaseAsked(sent: Sent): Promise<string> {
  return await vi.waitFor(() => {
    const status = sent.statuses.find((entry) => entry.message === 'waiting for payment')
    if (status === undefined) throw new Error('not asked yet')
    return (status.progress as { lease_id: string }).lease_id
  }, WAIT)
}

const income = (node: TestNode) => -accountBalance(node.store, 'node/income/lease')
const deposits = (node: TestNode) => [...balancesByPrefix(node.store, 'node/deposit/')]

test('a long command inside a runtime holds up neither the end of its lease nor those of others', async () => {
  const node = await world.start({ runtimes: SHORT })
  holdExec()
  const rent = { ...RENT, lease_seconds: 1 }
  const { runtime } = await node.call(stranger.pubkey, { ...rent, lease_token: world.token(1n) })
  const stuck = ['a', 'b', 'c'].map((name) =>
    node.send(stranger.pubkey, { command: 'exec', runtime_id: runtime.runtime_id, shell: 'sleep 3600', timeout_s: 3600 }, name),
  )
  const other = await node.call(key(7).pubkey, { ...rent, lease_token: world.token(1n) })
  for (const { runtime_id } of [runtime, other.runtime])
    await vi.waitFor(() => expect(getRuntime(node.store, runtime_id)?.state).toBe('gone'), WAIT)
  expect(world.incus.instances.size).toBe(0)
  for (const { result } of stuck)
    await expect(result).rejects.toMatchObject({ code: expect.stringMatching(/operation_failed|runtime_not_ready/) })
}, 30_000)

test('a long command inside a runtime holds up no scheduled snapshot of another', async () => {
  const node = await world.start({ runtimes: { snapshot_every_s: 1 } })
  holdExec()
  const first = await node.call(owner.pubkey, { command: 'provision', provider: 'incus', protocol: 'acp' })
  node.send(owner.pubkey, { command: 'exec', runtime_id: first.runtime.runtime_id, shell: 'sleep 3600' })
  const second = await node.call(owner.pubkey, { command: 'provision', provider: 'incus', protocol: 'acp' })
  await vi.waitFor(() => expect(world.incus.instances.get(second.runtime.runtime_id)?.snapshots).not.toEqual([]), WAIT)
}, 20_000)

test('an extension that is paid when the run is over gives no refund of a machine that stays', async () => {
  const node = await world.start()
  world.incus.runState = 'ready'
  const run = { command: 'run', runtime_class: 'small', entry_command: 'true', timeout_s: 60, keep: true, lease_seconds: 1000 } as const
  const sent = node.send(stranger.pubkey, { ...run, lease_token: world.token(1000n) })
  const { runtime_id } = await vi.waitFor(() => {
    const [row] = runtimesIn(node.store, ['ready'])
    if (row === undefined) throw new Error('not there yet')
    return { runtime_id: row.id }
  }, WAIT)
  const extension = node.send(stranger.pubkey, { command: 'extend_lease', runtime_id, lease_seconds: 60 })
  const leaseId = await leaseAsked(extension)
  const instance = world.incus.instances.get(runtime_id)
  if (instance === undefined) throw new Error('no instance')
  instance.state = 'completed'
  await sent.result
  expect(getRuntime(node.store, runtime_id)?.state).toBe('ended')
  const before = getRuntime(node.store, runtime_id)?.expiresAt ?? 0
  await node.pay(leaseId)
  await extension.result
  // It is there for a look, and that was prolonged.
  expect(getRuntime(node.store, runtime_id)?.expiresAt).toBe(before + 60_000)
  expect(leasesIn(node.store, ['refunding', 'refunded'])).toEqual([])
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id })
  expect(income(node)).toBe(1_060_000n)
  expect(world.sent.size).toBe(0)
})

test('commands at once do not get more places than a class has, also when all of them pay', async () => {
  const node = await world.start({ runtimes: { classes: [{ ...PAID_CLASS, capacity: 2 }] } })
  const tenants = [11, 12, 13, 14, 15].map((n) => key(n).pubkey)
  const sent = tenants.map((tenant) => node.send(tenant, RENT))
  const ids = await Promise.all(sent.map(leaseAsked))
  await Promise.all(ids.map((id) => node.pay(id)))
  const ends = await Promise.allSettled(sent.map(({ result }) => result))
  expect(ends.filter((end) => end.status === 'fulfilled')).toHaveLength(2)
  for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'capacity_exhausted' })
  expect(world.incus.instances.size).toBe(2)
  await vi.waitFor(() => expect(world.sent.size).toBe(3), WAIT)
  for (const refund of world.sent.values()) expect(refund.amountSats).toBe(100n)
})

test('what a virtual machine is asked to have is limited like everything else', () => {
  const entry = {
    ...runtimesConfig.parse({ classes: [{ ...PAID_CLASS, provider: 'microvm', memory_mib: 512 }] }).classes[0],
  } as RuntimeClass
  const order = (microvm: Record<string, number>, isLeased: boolean) =>
    orderProvision({ command: 'provision', provider: 'microvm', protocol: 'acp', relay_urls: [], keep: false, microvm }, entry, {
      runtimeId: 'microvm-0123456789abcdef',
      owner: stranger.pubkey,
      botPubkey: null,
      requireIsolation: true,
      isLeased,
    })
  const refused = expect.objectContaining({ code: 'invalid_command' })
  expect(() => order({ memory_mb: 513 }, true)).toThrow(refused)
  expect(() => order({ cpu: 16 }, true)).toThrow(refused)
  expect(order({ memory_mb: 512 }, true).input.params).toEqual({ memory_mb: 512 })
  expect(order({ cpu: 16 }, false).input.params).toEqual({ cpu: 16 })
})

test('a flood of commands that fail drives nobody else out of the memory of answers', async () => {
  const node = await world.start()
  await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) }, 'mine')
  for (let i = 0; i < 5; i++)
    await node.call(key(9).pubkey, { command: 'teardown', runtime_id: 'incus-x' }, `flood-${i}`).catch(() => undefined)
  const friends = await node.call(owner.pubkey, { command: 'provision', provider: 'incus', protocol: 'acp' }, 'p')
  for (let i = 0; i < 5; i++) {
    // The last to end is the newest by its millisecond.
    await world.clock.sleep(2)
    await node.call(owner.pubkey, { command: 'exec', runtime_id: friends.runtime.runtime_id, shell: 'true' }, `busy-${i}`)
  }
  await node.store.write(pruneRequests({ before: 0, keep: 2 }))
  expect(getRequest(node.store, stranger.pubkey, 'mine')?.state).toBe('succeeded')
  expect(getRequest(node.store, owner.pubkey, 'busy-4')?.state).toBe('succeeded')
  expect(getRequest(node.store, owner.pubkey, 'busy-3')).toBeUndefined()
})

test('what a class does not name is not to be had for its price', async () => {
  const node = await world.start({
    runtimes: {
      classes: [
        { ...PAID_CLASS, vcpu_count: 2 },
        { ...PAID_CLASS, name: 'vm', provider: 'local' },
      ],
    },
  })
  const ask = (resources: Record<string, number>) => node.call(stranger.pubkey, { ...RENT, resources, lease_token: world.token(100n) })
  await expect(ask({ vcpu_count: 3 })).rejects.toMatchObject({ code: 'invalid_command' })
  await expect(ask({ memory_mib: 65_536 })).rejects.toMatchObject({ code: 'invalid_command' })
  await expect(ask({ root_disk_gib: 1000 })).rejects.toMatchObject({ code: 'invalid_command' })
  await ask({ vcpu_count: 1 })
  // The owner has what the machine has.
  await node.call(owner.pubkey, { ...RENT, resources: { memory_mib: 2048 } })
})

test('a token that comes with the repeat of an extension pays for that extension', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  const before = getRuntime(node.store, runtime.runtime_id)?.expiresAt ?? 0
  const extension = (seconds: number) => ({ command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: seconds }) as const
  const short = node.send(stranger.pubkey, extension(60), 'short')
  const long = node.send(stranger.pubkey, extension(600), 'long')
  await Promise.all([leaseAsked(short), leaseAsked(long)])
  await node.call(stranger.pubkey, { ...extension(600), lease_token: world.token(600n) }, 'long')
  expect(getRuntime(node.store, runtime.runtime_id)?.expiresAt).toBe(before + 600_000)
  expect(leasesOf(node.store, runtime.runtime_id).map((lease) => lease.state)).toEqual(['active', 'quoted', 'active'])
})

test('a token that is refused is told to the one who sent it, and what waits goes on waiting', async () => {
  const node = await world.start()
  const sent = node.send(stranger.pubkey, RENT, 'one')
  const leaseId = await leaseAsked(sent)
  await expect(node.call(stranger.pubkey, { ...RENT, lease_token: world.token(99n) }, 'one')).rejects.toMatchObject({
    code: 'payment_failed',
  })
  await node.pay(leaseId)
  expect((await sent.result).runtime.lifecycle_phase).toBe('ready')
})

test('an extension that waits for payment ends when its runtime does', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  const extension = node.send(stranger.pubkey, { command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: 60 })
  const leaseId = await leaseAsked(extension)
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  await expect(extension.result).rejects.toMatchObject({ code: 'lease_expired' })
  await node.pay(leaseId)
  await vi.waitFor(() => expect(world.sent.get(`lease:${leaseId}:refund`)?.amountSats).toBe(60n), WAIT)
  expect(income(node)).toBe(100_000n)
})

test('invoices that nobody pays are limited, also when each is given up at once', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  const limited = async (again: () => Promise<unknown>) => {
    for (let i = 0; i < 100; i++) {
      const code = await again().then(
        () => '',
        (error: { code: string }) => error.code,
      )
      if (code === 'rate_limited') return i
    }
    return 100
  }
  expect(
    await limited(async () => {
      const sent = node.send(stranger.pubkey, { command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: 60 })
      await Promise.race([leaseAsked(sent), sent.result])
    }),
  ).toBeLessThan(100)
  const many = await limited(async () => {
    const sent = node.send(key(9).pubkey, RENT)
    await Promise.race([leaseAsked(sent), sent.result])
    const [row] = runtimesIn(node.store, ['requested'])
    if (row !== undefined) await node.call(key(9).pubkey, { command: 'teardown', runtime_id: row.id })
  })
  expect(many).toBeLessThan(100)
  // Others are not held up by it.
  const other = node.send(key(8).pubkey, RENT)
  await leaseAsked(other)
}, 30_000)

test('a command that brings its token asks the mint for no invoice', async () => {
  const node = await world.start()
  await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  await expect(node.call(stranger.pubkey, { ...RENT, lease_token: 'cashuBnothing' })).rejects.toMatchObject({ code: 'payment_failed' })
  expect(world.invoices.size).toBe(0)
})

test('paid by token and by invoice as well: each sat goes back or is earned, once', async () => {
  const node = await world.start()
  world.incus.failProvision = new PylonError('incus_failed', 'no')
  const sent = node.send(stranger.pubkey, RENT, 'one')
  const leaseId = await leaseAsked(sent)
  await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) }, 'one').catch(() => undefined)
  await vi.waitFor(() => expect(world.sent.get(`lease:${leaseId}:refund`)?.amountSats).toBe(100n), WAIT)
  await node.pay(leaseId)
  expect(deposits(node)).toEqual([[`node/deposit/lease:${leaseId}`, -100_000n]])
  await node.claimRefund(leaseId)
  await vi.waitFor(() => expect(deposits(node)).toEqual([]), WAIT)
  expect([...world.sent.values()].map((refund) => refund.amountSats)).toEqual([100n, 100n])
  expect(getLease(node.store, leaseId)).toMatchObject({ state: 'refunding', paidMsats: 200_000n, refundMsats: 100_000n })
})

test('what lies in the deposit of a lease that is over goes back, whoever forgot to tell', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  const [lease] = leasesOf(node.store, runtime.runtime_id)
  const postings = [
    { account: 'node/wallet/https://mint.test' as const, amountMsats: 40_000n },
    { account: `node/deposit/lease:${lease?.id}` as const, amountMsats: -40_000n },
  ]
  await node.store.write(postEntry({ id: 'late', cause: { type: 'lease', id: lease?.id ?? '' }, at: Date.now(), postings }))
  await vi.waitFor(() => expect([...world.sent.values()].map((refund) => refund.amountSats)).toEqual([40n]), WAIT)
  expect(deposits(node)).toEqual([])
  expect(income(node)).toBe(100_000n)
})

test('a refund is told also when the command that made the runtime was sent again meanwhile', async () => {
  const node = await world.start()
  world.incus.failProvision = new PylonError('incus_failed', 'no')
  const sent = node.send(stranger.pubkey, RENT, 'one')
  const leaseId = await leaseAsked(sent)
  const runtimeId = getLease(node.store, leaseId)?.runtimeId ?? ''
  await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtimeId })
  await leaseAsked(node.send(stranger.pubkey, RENT, 'one'))
  await node.pay(leaseId)
  await vi.waitFor(() => expect(node.notices).toMatchObject([{ tenant: stranger.pubkey, requestId: runtimeId }]), WAIT)
  expect(node.notices[0]?.status.progress).toMatchObject({ refund: { lease_id: leaseId, amount_msats: 100_000 } })
})

test('what could not be ended when it failed is ended later, and the money goes back', async () => {
  world.clock = fastClock(20)
  const node = await world.start({ failing: { label: 'move_runtime:failed', times: 1 } })
  world.incus.failProvision = new PylonError('incus_failed', 'no')
  await expect(node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })).rejects.toMatchObject({ code: 'provision_failed' })
  expect(runtimesIn(node.store, ['provisioning'])).toHaveLength(1)
  await vi.waitFor(() => expect(runtimesIn(node.store, ['gone'])).toHaveLength(1), WAIT)
  await vi.waitFor(() => expect([...world.sent.values()].map((refund) => refund.amountSats)).toEqual([100n]), WAIT)
  expect(deposits(node)).toEqual([])
})

test('a run whose end could not be written is ended later, and costs its price once', async () => {
  world.clock = fastClock(20)
  const node = await world.start({ failing: { label: 'move_runtime:teardown', times: 2 } })
  const run = { command: 'run', runtime_class: 'small', entry_command: 'true', timeout_s: 60, lease_token: world.token(60n) } as const
  const { payload, runtime } = await node.call(stranger.pubkey, run)
  expect(payload).toMatchObject({ exit_code: 0 })
  expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('ended')
  await vi.waitFor(() => expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('gone'), WAIT)
  expect(income(node)).toBe(60_000n)
  expect(deposits(node)).toEqual([])
})

test('a run that takes all of its time is answered, not cut off by the end of its lease', async () => {
  const node = await world.start({ runtimes: SHORT })
  world.incus.runState = 'ready'
  const sent = node.send(stranger.pubkey, {
    ...{ command: 'run', runtime_class: 'small', entry_command: 'sleep 2', timeout_s: 1 },
    lease_token: world.token(1n),
  })
  const row = await vi.waitFor(() => {
    const [found] = runtimesIn(node.store, ['ready'])
    if (found === undefined) throw new Error('not there yet')
    return found
  }, WAIT)
  await vi.waitFor(
    () => expect(Date.now()).toBeGreaterThan((leasesOf(node.store, row.id)[0]?.time?.endsAt ?? Number.POSITIVE_INFINITY) + 1500),
    WAIT,
  )
  const instance = world.incus.instances.get(row.id)
  if (instance !== undefined) instance.state = 'completed'
  expect((await sent.result).payload).toMatchObject({ exit_code: 0 })
  expect(income(node)).toBe(1000n)
}, 20_000)

test('an unpaid extension says nothing about the lease that runs', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  await leaseAsked(node.send(stranger.pubkey, { command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: 60 }))
  const seen = await node.call(stranger.pubkey, { command: 'get_runtime', runtime_id: runtime.runtime_id })
  expect(seen.runtime.metadata).toMatchObject({ lease: { state: 'active', paid_msats: 100_000 } })
})

test('while one lease of a runtime is refunded the descriptor says so, whatever became of the last', async () => {
  const node = await world.start()
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(130n) })
  await node.call(stranger.pubkey, {
    ...{ command: 'extend_lease', runtime_id: runtime.runtime_id, lease_seconds: 60 },
    lease_token: world.token(60n),
  })
  const down = await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(leasesOf(node.store, runtime.runtime_id).map((lease) => lease.state)).toEqual(['refunding', 'ended'])
  expect(down.runtime.metadata).toMatchObject({ lease: { state: 'refunding', refund_msats: 30_000 } })
  expect(node.machines.status().leases).toMatchObject([{ state: 'refunding', amountMsats: 30_000n }])
})

test('a command of the tenant that never gets ready is their time; one of the node costs nothing', async () => {
  const node = await world.start({ runtimes: { provision_timeout_s: 2 } })
  world.incus.firstState = 'starting'
  const fails = async (command: Partial<typeof RENT> & { entry_command?: string }) => {
    world.sent.clear()
    const call = node.call(stranger.pubkey, { ...RENT, ...command, lease_token: world.token(100n) })
    await expect(call).rejects.toMatchObject({ code: 'timeout' })
    await vi.waitFor(() => expect(world.sent.size).toBe(1), WAIT)
    return [...world.sent.values()][0]?.amountSats ?? 0n
  }
  expect(await fails({})).toBe(100n)
  expect(income(node)).toBe(0n)
  const back = await fails({ entry_command: 'mine; sleep 1000' })
  expect(back).toBeGreaterThan(80n)
  expect(back).toBeLessThan(99n)
  expect(income(node)).toBeGreaterThan(1000n)
  expect(deposits(node)).toEqual([])
  expect(world.incus.instances.size).toBe(0)
}, 20_000)

test('what a lease keeps counts in its quota: snapshots are refused beyond it, and none is made unasked', async () => {
  const node = await world.start({ runtimes: { snapshot_every_s: 1 } })
  const { runtime } = await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(100n) })
  const own = await node.call(owner.pubkey, { command: 'provision', provider: 'incus', protocol: 'acp' })
  expect(world.incus.instances.get(runtime.runtime_id)?.input.spec.labels['leased']).toBe('true')
  expect(world.incus.instances.get(own.runtime.runtime_id)?.input.spec.labels['leased']).toBeUndefined()
  world.incus.failSnapshot = new PylonError('overloaded', 'no room')
  const snapshot = (who: string, runtime_id: string) => node.call(who, { command: 'snapshot', runtime_id })
  await expect(snapshot(stranger.pubkey, runtime.runtime_id)).rejects.toMatchObject({ code: 'capacity_exhausted' })
  await snapshot(owner.pubkey, own.runtime.runtime_id)
  const taken = (id: string) => world.incus.instances.get(id)?.snapshots.filter(({ name }) => name.startsWith('pylon-auto-')) ?? []
  await vi.waitFor(() => expect(taken(own.runtime.runtime_id)).not.toEqual([]), WAIT)
  expect(taken(runtime.runtime_id)).toEqual([])
})

test('what is collected from the runs of strangers has a bound in all; the oldest goes first', async () => {
  const node = await world.start({ runtimes: { outputs_kept_mib: 64 } })
  world.incus.outputs = { artifacts: [{ path: 'big', data: Buffer.alloc(30 * 2 ** 20) }] }
  const run = { command: 'run', runtime_class: 'small', entry_command: 'true', timeout_s: 60 } as const
  const ids: string[] = []
  for (const n of [11, 12, 13]) ids.push((await node.call(key(n).pubkey, { ...run, lease_token: world.token(60n) })).runtime.runtime_id)
  const outputs = ids.map((id) => listOutputs(node.store, id).filter(({ name }) => name === 'artifact:big').length)
  expect(outputs).toEqual([0, 1, 1])
})

test('nothing is sold from a pool that did not hold its sizes when it was tried, until it does', async () => {
  const node = await world.start()
  world.incus.loose = { reason: 'it let a guest write more', nextStep: 'make another' }
  await node.machines.proveSizes()
  const offer = () => node.machines.status().offers.find(({ runtimeClass }) => runtimeClass === 'small')
  expect(offer()?.published).toBe(false)
  expect(node.machines.status().substrates[0]).toMatchObject({ isolated: false, reason: 'it let a guest write more' })
  await expect(node.call(stranger.pubkey, RENT)).rejects.toMatchObject({ code: 'provision_unauthorized' })
  world.incus.loose = undefined
  await node.machines.proveSizes()
  expect(offer()?.published).toBe(true)
})

test('a lease leaves no volume behind, and not more snapshots than the disk bears', async () => {
  const node = await world.start()
  const rent = (more: { keep?: boolean }) => ({ ...RENT, name: 'brain', ...more, lease_token: world.token(100n) })
  await expect(node.call(stranger.pubkey, rent({ keep: true }))).rejects.toMatchObject({ code: 'invalid_command' })
  const { runtime } = await node.call(stranger.pubkey, rent({}))
  const on = { runtime_id: runtime.runtime_id }
  await expect(node.call(stranger.pubkey, { command: 'teardown', ...on, keep_volume: true })).rejects.toMatchObject({
    code: 'invalid_command',
  })
  for (let i = 0; i < 16; i++) await node.call(stranger.pubkey, { command: 'snapshot', ...on, snapshot: `s${i}` })
  await expect(node.call(stranger.pubkey, { command: 'snapshot', ...on, snapshot: 'one-more' })).rejects.toMatchObject({
    code: 'capacity_exhausted',
  })
  await expect(node.call(stranger.pubkey, { command: 'snapshot', ...on, snapshot: 'pylon-auto-2' })).rejects.toMatchObject({
    code: 'invalid_command',
  })
  await node.call(stranger.pubkey, { command: 'teardown', ...on })
  expect(world.incus.volumes.size).toBe(0)
})

test('a token worth far more than the price is not taken: it would fill the mint of the node', async () => {
  const node = await world.start()
  const token = world.token(10_000n)
  await expect(node.call(stranger.pubkey, { ...RENT, lease_token: token })).rejects.toMatchObject({ code: 'payment_failed' })
  expect(world.tokens.get(token)?.spentBy).toBeUndefined()
  await node.call(stranger.pubkey, { ...RENT, lease_token: world.token(200n) })
})

test('long lists of outputs fit into an answer', async () => {
  const node = await world.start()
  world.incus.outputs = {
    stdout: 'ok',
    artifacts: Array.from({ length: 60 }, (_, i) => ({ path: `${String(i).padStart(4, '0')}/${'x'.repeat(2000)}`, data: Buffer.alloc(0) })),
  }
  const sent = await node.call(owner.pubkey, { command: 'run', provider: 'incus', entry_command: 'true' })
  expect(Buffer.byteLength(JSON.stringify(sent))).toBeLessThan(60_000)
  const listed = await node.call(owner.pubkey, { command: 'collect', runtime_id: sent.runtime.runtime_id })
  expect(Buffer.byteLength(JSON.stringify(listed))).toBeLessThan(60_000)
})
