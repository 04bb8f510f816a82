/** kill -9 at every step of a runtime and its lease: after the restart no orphan, no double instance, no lost money. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import type { ControlCommandInput } from '../../../src/nostr/control/commands.ts'
import type { ControlStatus } from '../../../src/nostr/control/envelopes.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { runtimesIn } from '../../../src/store/selling/runtimes.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { owner, stranger, World } from './world.ts'

const WAIT = { timeout: 30_000, interval: 20 }
const PROVISION = { command: 'provision', provider: 'incus', protocol: 'acp' } as const

let world: World

beforeEach(() => {
  world = new World()
})
afterEach(() => world.close())

const labels = [
  'claim_request',
  'move_runtime:requested',
  'move_runtime:provisioning',
  'patch_runtime',
  'move_runtime:ready',
  'finish_request:succeeded',
]
const times = labels.flatMap((label) => [true, false].map((before) => [label, before] as const))

test.each(times)('provision: dies at %s (before: %s), the repeat gives one runtime', async (dieAt, before) => {
  const first = await world.start({ dieAt, before })
  await first.call(owner.pubkey, PROVISION, 'one').catch(() => undefined)
  await vi.waitFor(() => expect(first.isDead()).toBe(true), WAIT)
  await first.crash()
  const node = await world.start()
  const { runtime } = await vi.waitFor(() => node.call(owner.pubkey, PROVISION, 'one'), WAIT)
  expect(runtime.lifecycle_phase).toBe('ready')
  expect([...world.incus.instances.keys()]).toEqual([runtime.runtime_id])
  await node.call(owner.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
  expect(world.incus.instances.size).toBe(0)
})

test.each(
  ['move_lease:quoted', 'move_lease:paid', 'move_runtime:provisioning', 'move_lease:active'].flatMap((label) =>
    [true, false].map((before) => [label, before] as const),
  ),
)(
  'a paid provision: dies at %s (before: %s), the tenant has one runtime and paid once',
  async (dieAt, before) => {
    const rent: ControlCommandInput = { ...PROVISION, runtime_class: 'small', lease_seconds: 100, lease_token: world.token(100n) }
    const first = await world.start({ dieAt, before })
    await first.call(stranger.pubkey, rent, 'one').catch(() => undefined)
    await vi.waitFor(() => expect(first.isDead()).toBe(true), WAIT)
    await first.crash()
    const node = await world.start()
    const said: ControlStatus[] = []
    const { runtime } = await vi.waitFor(async () => {
      const again = node.send(stranger.pubkey, rent, 'one')
      return await again.result.finally(() => said.push(...again.statuses))
    }, WAIT)
    expect(said.filter((status) => status.message === 'waiting for payment')).toEqual([])
    expect(world.invoices.size).toBe(0)
    expect([...world.incus.instances.keys()]).toEqual([runtime.runtime_id])
    await node.call(stranger.pubkey, { command: 'teardown', runtime_id: runtime.runtime_id })
    expect([...balancesByPrefix(node.store, 'node/deposit/')]).toEqual([])
    expect(-accountBalance(node.store, 'node/income/lease')).toBe(100_000n)
  },
  20_000,
)

test.each(['move_runtime:teardown', 'move_runtime:gone'].flatMap((label) => [true, false].map((before) => [label, before] as const)))(
  'teardown: dies at %s (before: %s), nothing is left',
  async (dieAt, before) => {
    const first = await world.start({ dieAt, before })
    const { runtime } = await first.call(owner.pubkey, PROVISION)
    const down = { command: 'teardown', runtime_id: runtime.runtime_id } as const
    await first.call(owner.pubkey, down, 'down').catch(() => undefined)
    await vi.waitFor(() => expect(first.isDead()).toBe(true), WAIT)
    await first.crash()
    const node = await world.start()
    expect((await node.call(owner.pubkey, down, 'down')).runtime.lifecycle_phase).toBe('teardown')
    expect(world.incus.instances.size).toBe(0)
    expect(runtimesIn(node.store, ['teardown', 'failed', 'ready'])).toEqual([])
  },
)

test.each(
  ['move_runtime:provisioning', 'move_runtime:ready', 'move_runtime:ended', 'move_runtime:teardown', 'finish_request:succeeded'].flatMap(
    (label) => [true, false].map((before) => [label, before] as const),
  ),
)('a one-shot run: dies at %s (before: %s), it ends with its result and leaves nothing', async (dieAt, before) => {
  const run = { command: 'run', provider: 'incus', entry_command: 'true' } as const
  const first = await world.start({ dieAt, before })
  await first.call(owner.pubkey, run, 'one').catch(() => undefined)
  await vi.waitFor(() => expect(first.isDead()).toBe(true), WAIT)
  await first.crash()
  const node = await world.start()
  expect((await vi.waitFor(() => node.call(owner.pubkey, run, 'one'), WAIT)).payload).toMatchObject({ exit_code: 0, stdout: 'out\n' })
  await vi.waitFor(() => expect(world.incus.instances.size).toBe(0), WAIT)
})

test('a command that comes while the node is starting is served, not refused', async () => {
  let early: Promise<unknown> = Promise.reject(new Error('nothing was sent'))
  early.catch(() => undefined)
  await world.start({ early: (send) => (early = send(owner.pubkey, PROVISION, 'early').result) })
  expect(await early).toMatchObject({ runtime: { lifecycle_phase: 'ready' } })
})

test('instances of ours that no record names are removed at the start, records whose instance is gone are ended', async () => {
  const first = await world.start()
  const kept = await first.call(owner.pubkey, PROVISION)
  const lost = await first.call(owner.pubkey, PROVISION)
  await first.stop()
  world.incus.instances.delete(lost.runtime.runtime_id)
  const { input } = [...world.incus.instances.values()][0] ?? {}
  if (input === undefined) throw new Error('no instance')
  const orphan = { ...input, runtimeId: 'incus-ffffffffffffffff' }
  world.incus.instances.set(orphan.runtimeId, { handle: { instance: 'orphan' }, input: orphan, state: 'ready', snapshots: [] })
  const node = await world.start()
  expect([...world.incus.instances.keys()]).toEqual([kept.runtime.runtime_id])
  expect(node.machines.status().counts).toEqual({ ready: 1 })
})

test('what waited for payment waits again after a restart, with the same invoice', async () => {
  const rent = { ...PROVISION, runtime_class: 'small', lease_seconds: 100 } as const
  const first = await world.start()
  const sent = first.send(stranger.pubkey, rent, 'one')
  await vi.waitFor(() => expect(sent.statuses.at(-1)?.message).toBe('waiting for payment'), WAIT)
  const progress = sent.statuses.at(-1)?.progress as { lease_id: string; invoice: string }
  await first.stop()
  await expect(sent.result).rejects.toMatchObject({ code: 'shutting_down' })
  const node = await world.start()
  const again = node.send(stranger.pubkey, rent, 'one')
  await vi.waitFor(
    () => expect(again.statuses.filter((status) => status.message === 'waiting for payment').length).toBeGreaterThan(0),
    WAIT,
  )
  expect(again.statuses.findLast((status) => status.progress !== undefined)?.progress).toMatchObject({ invoice: progress.invoice })
  await node.pay(progress.lease_id)
  expect((await again.result).runtime.lifecycle_phase).toBe('ready')
})

test('a bill that a token has paid is not shown again, also where the node died over it', async () => {
  const rent = { ...PROVISION, runtime_class: 'small', lease_seconds: 100 } as const
  const first = await world.start({ dieAt: 'move_lease:paid' })
  const sent = first.send(stranger.pubkey, rent, 'one')
  sent.result.catch(() => undefined)
  await vi.waitFor(() => expect(sent.statuses.at(-1)?.message).toBe('waiting for payment'), WAIT)
  const paying: ControlCommandInput = { ...rent, lease_token: world.token(100n) }
  await first.call(stranger.pubkey, paying, 'one').catch(() => undefined)
  await vi.waitFor(() => expect(first.isDead()).toBe(true), WAIT)
  await first.crash()
  const node = await world.start()
  const again = await vi.waitFor(async () => {
    const repeat = node.send(stranger.pubkey, paying, 'one')
    await repeat.result
    return repeat
  }, WAIT)
  expect(again.statuses.filter((status) => status.message === 'waiting for payment')).toEqual([])
})

test.each(
  ['move_runtime:provisioning', 'move_runtime:failed', 'move_lease:refunding', 'patch_lease', 'move_runtime:gone', 'post_entry'].flatMap(
    (label) => [true, false].map((before) => [label, before] as const),
  ),
)(
  'a provision that fails after it was paid: dies at %s (before: %s) all of it goes back, once',
  async (dieAt, before) => {
    const rent: ControlCommandInput = { ...PROVISION, runtime_class: 'small', lease_seconds: 100, lease_token: world.token(100n) }
    world.incus.failProvision = new PylonError('incus_failed', 'no')
    const first = await world.start({ dieAt, before })
    await first.call(stranger.pubkey, rent, 'one').catch(() => undefined)
    await vi.waitFor(() => expect(first.isDead()).toBe(true), WAIT)
    await first.crash()
    const node = await world.start()
    await vi.waitFor(() => expect([...world.sent.values()].map((refund) => refund.amountSats)).toEqual([100n]), WAIT)
    await vi.waitFor(() => expect(runtimesIn(node.store, ['gone'])).toHaveLength(1), WAIT)
    expect([...balancesByPrefix(node.store, 'node/deposit/')]).toEqual([])
    expect(accountBalance(node.store, 'node/income/lease')).toBe(0n)
    expect(auditLedger(node.store).problems.filter((problem) => !problem.startsWith('The wallet of'))).toEqual([])
  },
  20_000,
)
