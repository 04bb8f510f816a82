/** What waits for the owner: kept, done once when approved whatever dies between, refused when denied or too late, and heard of. */
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { readApproval, readApprovals } from '../../../src/host/approvals.ts'
import type { Observation } from '../../../src/host/observation.ts'
import { getTick } from '../../../src/store/agents/ticks.ts'
import { decideApproval, expireApprovals } from '../../../src/store/money/approvals.ts'
import { verifyAudit } from '../../../src/store/money/audit.ts'
import { holdSpend } from '../../../src/store/money/budgets.ts'
import { tempDir } from '../../support/temp.ts'
import { Outside, startWorld, stranger, type World } from './world.ts'

const bob = stranger(0x0b)
const IDLE = { type: 'script' as const, rules: '[[rules]]\non = "tick"\ndo = [{ type = "nothing" }]' }
const DAY_MS = 86_400_000

async function worldOf(spec: Parameters<World['host']['spawn']>[0] = {}, options: Partial<Parameters<typeof startWorld>[0]> = {}) {
  const world = await startWorld({ dir: tempDir(), ...options })
  onTestFinished(() => world.close())
  const { pubkey } = await world.host.spawn({ name: 'ada', brain: IDLE, heartbeat_s: 86_400, autonomy: 'supervised', ...spec })
  await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
  const decide = (id: number, to: 'approved' | 'denied', reason: string | null = null) =>
    world.host.approvals.decide({ id, to, by: 'owner', reason })
  return { world, pubkey, decide }
}

const waiting = (world: World) => readApprovals(world.store, {}).map(({ id }) => id)

it('an action of a supervised agent waits, and is done once, however often it is approved', async () => {
  const { world, pubkey, decide } = await worldOf()
  expect(await world.host.act('ada', 'POST: May I?', 'k')).toMatchObject({
    state: 'waiting',
    reason: expect.stringContaining('approval 1'),
  })
  expect(readApprovals(world.store, {})).toMatchObject([
    { id: 1, agent: 'ada', action: 'post', amount_sats: 0, to: null, summary: 'May I?' },
  ])
  expect(world.outside.ofKind(1, pubkey)).toEqual([])
  await Promise.all([decide(1, 'approved'), decide(1, 'approved')])
  await decide(1, 'approved')
  await vi.waitFor(() => expect(readApproval(world.store, 1)).toMatchObject({ state: 'approved', action_state: 'published' }))
  expect(world.outside.ofKind(1, pubkey)).toHaveLength(1)
  expect(waiting(world)).toEqual([])
  await expect(decide(1, 'denied')).rejects.toMatchObject({ code: 'approval_decided' })
  await expect(decide(9, 'denied')).rejects.toMatchObject({ code: 'approval_not_found' })
  expect(await verifyAudit(world.store)).toEqual({ ok: true, rows: 2 })
})

it('a denied one is refused with the reason, and its agent hears of it once, in its next tick', async () => {
  const { world, pubkey, decide } = await worldOf()
  await world.host.act('ada', { type: 'zap', to: bob.pubkey, sats: 5 }, 'k')
  const observed = async () => {
    const { id } = await world.host.tick('ada')
    const tick = getTick(world.store, id)
    return (tick?.observation as Observation | undefined)?.approvals
  }
  expect(await observed()).toMatchObject([{ id: 1, action: 'zap', to: bob.pubkey, sats: 5, state: 'pending' }])
  await decide(1, 'denied', 'too dear')
  expect(readApproval(world.store, 1)).toMatchObject({ action_state: 'refused', action_reason: 'its owner denied it: too dear' })
  expect(await observed()).toMatchObject([{ state: 'denied', reason: 'too dear' }])
  expect(await observed()).toEqual([])
  expect(world.outside.zaps).toEqual([])
  expect(world.outside.ofKind(1, pubkey)).toEqual([])
})

it('what nobody answers is refused in time, also when it is approved a moment too late', async () => {
  const { world, decide } = await worldOf()
  await world.host.act('ada', 'POST: one', 'k1')
  await world.host.act('ada', 'POST: two', 'k2')
  const late = { id: 2, to: 'approved', by: 'owner', reason: null, at: world.clock.now() + DAY_MS } as const
  expect(await world.store.write(decideApproval(late))).toMatchObject({ state: 'expired' })
  await expect(decide(2, 'approved')).rejects.toMatchObject({ code: 'approval_decided', details: { state: 'expired' } })
  await world.store.write(expireApprovals({ at: late.at }))
  await vi.waitFor(() => expect(readApproval(world.store, 1)).toMatchObject({ state: 'expired', action_state: 'refused' }))
})

it('policy is asked once more when it is approved', async () => {
  const { world, decide } = await worldOf()
  await world.host.act('ada', { type: 'zap', to: bob.pubkey, sats: 5 }, 'k')
  await world.host.set('ada', { budget: { per_tx_sats: 4 } })
  await decide(1, 'approved')
  expect(readApproval(world.store, 1)).toMatchObject({
    action_state: 'refused',
    action_reason: expect.stringContaining('over the budget of 4'),
  })
})

it('a spend over what goes unasked waits, also in parts', async () => {
  const { world, pubkey, decide } = await worldOf({ autonomy: 'autonomous', budget: { approve_above_sats: 20 } })
  const zap = (sats: number, key: string) => world.host.act('ada', { type: 'zap', to: bob.pubkey, sats }, key)
  expect(await zap(15, 'k1')).toMatchObject({ state: 'done' })
  // As the wallet holds it, which is not in this world.
  const hold = { operationId: 'op', subject: pubkey, ownerPubkey: pubkey, tickId: null, counterparty: bob.pubkey, rail: 'mint' }
  await world.store.write(holdSpend({ ...hold, at: world.clock.now(), amountSats: 15n, besidesSats: 0n, windows: [] }))
  expect(await zap(15, 'k2')).toMatchObject({ state: 'waiting' })
  await decide(1, 'approved')
  expect(readApproval(world.store, 1)).toMatchObject({ action_state: 'done', amount_sats: 15 })
  expect(world.outside.zaps).toHaveLength(2)
})

describe('done once when the node dies', () => {
  const deaths = ['ask_approval', 'decide_approval', 'claim_action', 'finish_action'].flatMap((label) =>
    (['before', 'after'] as const).map((side) => [side, label] as const),
  )
  it.each(deaths)('%s %s', async (side, label) => {
    const dir = tempDir()
    const outside = new Outside()
    let isArmed = false
    let died = false
    const strike = (when: 'before' | 'after') => (labels: readonly string[]) => {
      died ||= isArmed && when === side && labels.includes(label)
      if (died) throw new PylonError('shutting_down', 'killed')
    }
    const first = await startWorld({ dir, outside, hook: { beforeCommit: strike('before'), afterCommit: strike('after') } })
    await first.host.spawn({ name: 'ada', brain: IDLE, heartbeat_s: 86_400, autonomy: 'supervised' })
    await vi.waitFor(() => expect(first.host.log('ada')[0]?.state).toBe('done'))
    isArmed = true
    const zap = { type: 'zap', to: bob.pubkey, sats: 5 }
    const approve = (world: World) => world.host.approvals.decide({ id: 1, to: 'approved', by: 'owner', reason: null })
    await first.host
      .act('ada', zap, 'k')
      .then(() => approve(first))
      .catch(() => undefined)
    await vi.waitFor(() => expect(died).toBe(true))
    first.crash()

    const second = await startWorld({ dir, outside, clock: first.clock })
    onTestFinished(() => second.close())
    await second.host.act('ada', zap, 'k')
    await approve(second)
    await vi.waitFor(() => expect(readApproval(second.store, 1).action_state).toBe('done'))
    expect(outside.zaps).toHaveLength(1)
    expect((await verifyAudit(second.store)).ok).toBe(true)
  })
})
