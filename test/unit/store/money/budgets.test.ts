/** Budgets of spends: by transaction, tick, hour, day and counterparty, whatever the clock does, and for all whom a spend binds. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { insertAgent } from '../../../../src/store/agents/agents.ts'
import { hear } from '../../../../src/store/agents/heard.ts'
import { holdSpend, type SpendHold, settleSpend, spentInTick, spentSince } from '../../../../src/store/money/budgets.ts'
import type { Store } from '../../../../src/store/store.ts'
import { judgeSpend, type SpendLimits } from '../../../../src/wallet/policy/judge.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

const AGENT = 'ab'.repeat(32)
const FRIEND = 'cd'.repeat(32)
const NOON = Date.UTC(2026, 0, 31, 12)
const HOUR_MS = 3_600_000
const limits: SpendLimits = { perTxSats: 60n, perTickSats: 60n, perDaySats: 100n }

function open(path = join(tempDir(), 'pylon.db')): Store {
  const store = openStore(path)
  onTestFinished(() => store.close())
  return store
}

let made = 0
interface Made {
  readonly subject?: string
  readonly tickId?: string
  readonly counterparty?: string
  readonly at?: number
  readonly amountSats: bigint
  readonly besidesSats?: bigint
  readonly limits?: SpendLimits
}
function hold({ subject = AGENT, tickId = `tick-${made}`, at = NOON, counterparty, amountSats, besidesSats = 0n, ...given }: Made) {
  const verdict = judgeSpend({ amountSats, rail: 'mint', tickId, counterparty, at }, given.limits ?? limits)
  if (!verdict.allowed) throw new Error(verdict.reason)
  const { windows, pair } = verdict
  const held: SpendHold = {
    ...{ operationId: `op-${++made}`, subject, ownerPubkey: AGENT, tickId, counterparty: counterparty ?? '' },
    ...{ rail: 'mint', at, amountSats, besidesSats, windows, ...(pair === undefined ? {} : { pair }) },
  }
  return Object.assign(holdSpend(held), { operationId: held.operationId })
}

it('counts the last 24 hours, not days of a calendar; a clock that goes back finds what was spent', async () => {
  const store = open()
  const first = hold({ amountSats: 60n })
  await store.write(first)
  const lateNight = NOON + 13 * HOUR_MS
  await expect(store.write(hold({ amountSats: 41n, at: lateNight }))).rejects.toMatchObject({
    ...{ code: 'budget_exceeded', details: { limit: 'per day' } },
  })
  await store.write(hold({ amountSats: 40n, at: lateNight }))
  await expect(store.write(hold({ amountSats: 1n, at: NOON - HOUR_MS }))).rejects.toMatchObject({ details: { limit: 'per day' } })
  // What failed gives back to when it was held.
  await store.write(settleSpend({ operationId: first.operationId, state: 'released', amountSats: 0n }))
  expect(spentSince(store, AGENT, NOON)).toBe(40n)
  await store.write(hold({ amountSats: 60n, at: lateNight + 24 * HOUR_MS }))
})

it('holds what was begun over a restart, and is settled once', async () => {
  const file = join(tempDir(), 'pylon.db')
  const before = openStore(file)
  const begun = hold({ tickId: 'tick', amountSats: 60n })
  await before.write(begun)
  before.close()
  const store = open(file)
  await expect(store.write(hold({ tickId: 'tick', amountSats: 1n }))).rejects.toMatchObject({ details: { limit: 'per tick' } })
  await store.write(settleSpend({ operationId: begun.operationId, state: 'spent', amountSats: 55n }))
  await store.write(settleSpend({ operationId: begun.operationId, state: 'released', amountSats: 0n }))
  expect(spentInTick(store, AGENT, 'tick')).toBe(55n)
})

it('counts what was spent like what is held, and of one payment also what it cost before', async () => {
  const store = open()
  const paid = hold({ tickId: 'tick', amountSats: 50n })
  await store.write(paid)
  await store.write(settleSpend({ operationId: paid.operationId, state: 'spent', amountSats: 50n }))
  await expect(store.write(hold({ tickId: 'tick', amountSats: 11n }))).rejects.toMatchObject({ details: { limit: 'per tick' } })
  await expect(store.write(hold({ amountSats: 40n, besidesSats: 21n }))).rejects.toMatchObject({ details: { limit: 'per transaction' } })
})

it('a payment that is split to pass under one limit meets the others', async () => {
  const store = open()
  const split: SpendLimits = { perTxSats: 10n, perTickSats: 100n, perHourSats: 25n, perDaySats: 1000n, perCounterpartySats: 15n }
  const pay = (tickId: string, counterparty: string | undefined, at = NOON) =>
    store.write(hold({ amountSats: 10n, tickId, at, limits: split, ...(counterparty === undefined ? {} : { counterparty }) }))
  await pay('1', FRIEND)
  await expect(pay('2', FRIEND)).rejects.toMatchObject({ details: { limit: 'per counterparty and day' } })
  // Those whom nobody can name are one.
  await pay('3', undefined)
  await expect(pay('4', undefined)).rejects.toMatchObject({ details: { limit: 'per hour' } })
  await expect(pay('5', undefined, NOON + 2 * HOUR_MS)).rejects.toMatchObject({ details: { limit: 'per counterparty and day' } })
  await pay('6', 'ef'.repeat(32), NOON + 2 * HOUR_MS)
})

it('many at once fit together or not at all', async () => {
  const store = open()
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => store.write(hold({ amountSats: 30n }))))
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(3)
  expect(spentSince(store, AGENT, 0)).toBe(90n)
})

it('two that only pay each other rest, in one home and across homes', async () => {
  const store = open()
  const pairing: SpendLimits = { pair: { payments: 3, windowMs: HOUR_MS } }
  const pay = (subject: string, counterparty: string, at = NOON) =>
    store.write(hold({ subject, counterparty, at, amountSats: 1n, limits: pairing }))
  for (let i = 0; i < 3; i++) {
    await pay(AGENT, FRIEND)
    await pay(FRIEND, AGENT)
  }
  await expect(pay(AGENT, FRIEND)).rejects.toMatchObject({ code: 'spend_refused', details: { rule: 'pair' } })
  await expect(pay(FRIEND, AGENT)).rejects.toMatchObject({ code: 'spend_refused' })
  await pay(AGENT, 'ef'.repeat(32))
  await pay(AGENT, FRIEND, NOON + HOUR_MS + 1)
})

it('zaps that came from another home count as what it paid', async () => {
  const store = open()
  const pairing: SpendLimits = { pair: { payments: 2, windowMs: HOUR_MS } }
  const pay = () => store.write(hold({ counterparty: FRIEND, amountSats: 1n, limits: pairing }))
  const described = { about: '', brain: {}, relays: [], heartbeatS: 900, autonomy: 'bounded', dmScheme: 'auto', allow: [] } as const
  const budget = { per_tx_sats: 9, per_tick_sats: 9, per_day_sats: 9 }
  const agent = { ...described, pubkey: AGENT, npub: 'npub1', name: 'ada', accountIndex: 10, budget, tickFeeSats: 0, profile: {} }
  await store.write(insertAgent({ agent, at: NOON }))
  const zap = { agentPubkey: AGENT, type: 'zap', sender: FRIEND, content: '', scheme: null, amountMsats: 1000n, event: null } as const
  const zapped = (id: string, heardAt: number) => store.write(hear({ ...zap, id, wakes: true, createdAt: 0, heardAt }))
  await zapped('long ago', NOON - 2 * HOUR_MS)
  for (let i = 0; i < 2; i++) await pay()
  await zapped('1', NOON)
  await pay()
  await zapped('2', NOON)
  await expect(pay()).rejects.toMatchObject({ details: { rule: 'pair' } })
})
