/** What goes on by itself: health, scheduled snapshots with retention, freshness, and jobs of kind 5930 in ephemeral runtimes. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { canStep, LEASE_STEPS, RUNTIME_STEPS, statesOf } from '../../../src/base/states.ts'
import { createRuntimeBackend } from '../../../src/provider/backends/runtime.ts'
import { freshnessOf, surplusSnapshots } from '../../../src/provider/machines/backups.ts'
import { type EndedBy, priceOfEnding } from '../../../src/provider/machines/lease-end.ts'
import { settle } from '../../../src/provider/sale/machine.ts'
import { depositOf } from '../../../src/store/money/ledger.ts'

import { getRuntime } from '../../../src/store/selling/runtimes.ts'
import { owner, World } from './world.ts'

const PROVISION = { command: 'provision', provider: 'incus', protocol: 'acp' } as const
const WAIT = { timeout: 15_000, interval: 50 }

let world: World

beforeEach(() => {
  world = new World()
})
afterEach(() => world.close())

test('a runtime that does not answer is unreachable, and ready when it answers again', async () => {
  const node = await world.start()
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  const entry = world.incus.instances.get(runtime.runtime_id)
  if (entry === undefined) throw new Error('no instance')
  entry.state = 'stopped'
  await vi.waitFor(() => expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('unreachable'), WAIT)
  expect(node.notices.at(-1)?.status.message).toContain('unreachable')
  entry.state = 'ready'
  await vi.waitFor(() => expect(getRuntime(node.store, runtime.runtime_id)?.state).toBe('ready'), WAIT)
  expect(node.notices.at(-1)?.status.message).toBe('reachable again')
}, 40_000)

test('snapshots are made by schedule and the oldest of them go, those of the owner stay', async () => {
  const node = await world.start({ runtimes: { snapshot_every_s: 1, snapshot_keep: 1 } })
  const { runtime } = await node.call(owner.pubkey, PROVISION)
  await node.call(owner.pubkey, { command: 'snapshot', runtime_id: runtime.runtime_id, snapshot: 'mine' })
  const names = () => world.incus.instances.get(runtime.runtime_id)?.snapshots.map((snapshot) => snapshot.name) ?? []
  await vi.waitFor(() => expect(names().filter((name) => name.startsWith('pylon-auto-'))).toHaveLength(1), WAIT)
  const [first] = names()
  await vi.waitFor(() => expect(names()[0]).not.toBe(first), { timeout: 25_000, interval: 100 })
  expect(names().filter((name) => name.startsWith('pylon-auto-'))).toHaveLength(1)
  expect(names()).toContain('mine')
}, 60_000)

test('freshness and surplus of snapshots', () => {
  const at = (createdAt: number) => ({ name: `pylon-auto-${createdAt}`, createdAt })
  expect(freshnessOf(undefined, 100, 10)).toBe('unavailable')
  expect(freshnessOf([], 100, 10)).toBe('missing')
  expect(freshnessOf([at(90)], 100, 10)).toBe('healthy')
  expect(freshnessOf([at(89)], 100, 10)).toBe('stale')
  expect(surplusSnapshots([at(3), { name: 'mine', createdAt: 2 }, at(1), at(0)], 1)).toEqual(['pylon-auto-1', 'pylon-auto-0'])
})

test('a job of kind 5930 runs once in a runtime of its own, and is announced only where one isolates', async () => {
  const node = await world.start()
  const backend = createRuntimeBackend(node.machines, () => 300)
  expect(backend.kinds()).toEqual([5930])
  world.incus.outputs = { stdout: 'hi\n', stderr: 'warn' }
  world.incus.exitCode = 2
  const work = { kind: 5930, input: 'echo hi', inputType: 'text', params: { timeout_s: ['5'] }, output: undefined } as const
  const result = JSON.parse(await backend.run(work, new AbortController().signal)) as unknown
  expect(result).toEqual({ exit_code: 2, stdout: 'hi\n', stderr: 'warn' })
  expect(world.incus.instances.size + world.local.instances.size).toBe(0)
  // No image of this node: said before a price is.
  for (const params of [
    { image: ['somebody/else'] },
    { timeout_s: ['0'] },
    { timeout_s: ['301'] },
    { timeout_s: ['1e3'] },
    { image: ['../x'] },
    { cpu: ['1'] },
  ]) {
    expect(() => backend.check({ ...work, params })).toThrow(expect.objectContaining({ code: 'param_invalid' }))
  }
  expect(() => backend.check({ ...work, input: ' ' })).toThrow(expect.objectContaining({ code: 'input_invalid' }))
  world.incus.failProvision = new PylonError('incus_failed', 'no')
  await expect(backend.run(work, new AbortController().signal)).rejects.toMatchObject({ code: 'backend_failed' })
  world.incus.failProvision = undefined
  world.incus.runState = 'ready'
  const given = new AbortController()
  const running = backend.run(work, given.signal)
  await vi.waitFor(() => expect(world.incus.instances.size).toBe(1), WAIT)
  given.abort(new PylonError('cancelled', 'given up'))
  await expect(running).rejects.toMatchObject({ code: 'cancelled' })
  await vi.waitFor(() => expect(world.incus.instances.size).toBe(0), WAIT)
  for (const machinery of [world.incus, world.local]) machinery.probed = { usable: true, isolated: false }
  await node.machines.reload()
  expect(backend.kinds()).toEqual([])
}, 30_000)

test('a lease that the node failed costs the time that was had, every split balances', () => {
  const lease = { state: 'active', seconds: 100, priceMsats: msats(99_500n), time: { startsAt: 0, endsAt: 100_000 } } as const
  const paidMsats = msats(100_000n)
  const deposit = depositOf({ type: 'lease', id: 'l' })
  const ending = (of: Parameters<typeof priceOfEnding>[0], ...how: [EndedBy, number]) =>
    settle(deposit, paidMsats, { dueMsats: msats(priceOfEnding(of, ...how)), income: 'lease', over: 'back', internal: false })
  expect(ending(lease, 'tenant', 1)).toMatchObject({ earnedMsats: 99_500n, refundMsats: 0n })
  expect(ending(lease, 'node', 50_000)).toMatchObject({ earnedMsats: 49_750n, refundMsats: 50_000n })
  for (const unused of [
    { ...lease, time: { startsAt: 200_000, endsAt: 300_000 } },
    { ...lease, state: 'paid' as const },
  ])
    expect(ending(unused, 'node', 50_000)).toMatchObject({ earnedMsats: 0n, refundMsats: 100_000n, postings: [] })
  for (const by of ['tenant', 'time', 'completed', 'node'] as const) {
    for (const at of [0, 1, 33_333, 99_999, 100_000, 200_000]) {
      const { postings, refundMsats } = ending(lease, by, at)
      expect(postings.reduce((sum, posting) => sum + posting.amountMsats, 0n)).toBe(0n)
      const taken = postings.find((posting) => posting.account === deposit)?.amountMsats ?? 0n
      expect(taken + refundMsats).toBe(paidMsats)
      expect(refundMsats % 1000n).toBe(0n)
    }
  }
})

test('every state but the last leads on, and none leads into the first', () => {
  for (const state of statesOf(RUNTIME_STEPS)) {
    expect(statesOf(RUNTIME_STEPS).some((to) => canStep(RUNTIME_STEPS, state, to))).toBe(state !== 'gone')
    expect(canStep(RUNTIME_STEPS, state, 'requested')).toBe(false)
  }
  for (const state of statesOf(LEASE_STEPS)) {
    // A refunded lease may be paid once more, by a payment that was late: that goes back too.
    expect(statesOf(LEASE_STEPS).some((to) => canStep(LEASE_STEPS, state, to))).toBe(true)
    expect(canStep(LEASE_STEPS, state, 'quoted')).toBe(false)
  }
})
