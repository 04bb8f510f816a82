/** Budgets of spends: by transaction, tick and UTC day, whatever the clock does. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { holdSpend, settleSpend, spentOnDay } from '../../../../src/store/money/budgets.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

const AGENT = 'ab'.repeat(32)
const limits = { perTxSats: 60n, perTickSats: 60n, perDaySats: 100n }
const path = () => join(tempDir(), 'pylon.db')

it('counts by UTC days: midnight begins a new one, and a clock that goes back finds what its day has spent', async () => {
  const store = openStore(path())
  onTestFinished(() => store.close())
  let made = 0
  const hold = (day: string, amountSats: bigint) =>
    store.write(holdSpend({ operationId: `op-${++made}`, ownerPubkey: AGENT, tickId: `tick-${made}`, day, amountSats, limits }))
  await hold('2026-01-31', 60n)
  await expect(hold('2026-01-31', 41n)).rejects.toMatchObject({ code: 'budget_exceeded', details: { limit: 'per day' } })
  await hold('2026-02-01', 60n)
  await hold('2026-01-31', 40n)
  await expect(hold('2026-01-31', 1n)).rejects.toMatchObject({ code: 'budget_exceeded' })
  // A payment of yesterday that fails today gives back to yesterday.
  await store.write(settleSpend({ operationId: 'op-1', state: 'released', amountSats: 0n }))
  expect(spentOnDay(store, AGENT, '2026-01-31')).toBe(40n)
  expect(spentOnDay(store, AGENT, '2026-02-01')).toBe(60n)
})

it('holds what was begun over a restart, and is settled once', async () => {
  const file = path()
  const before = openStore(file)
  const day = '2026-01-31'
  await before.write(holdSpend({ operationId: 'op', ownerPubkey: AGENT, tickId: 'tick', day, amountSats: 60n, limits }))
  before.close()
  const store = openStore(file)
  onTestFinished(() => store.close())
  const again = { operationId: 'op-2', ownerPubkey: AGENT, tickId: 'tick', day, amountSats: 1n, limits }
  await expect(store.write(holdSpend(again))).rejects.toMatchObject({ code: 'budget_exceeded', details: { limit: 'per tick' } })
  await store.write(settleSpend({ operationId: 'op', state: 'spent', amountSats: 55n }))
  await store.write(settleSpend({ operationId: 'op', state: 'released', amountSats: 0n }))
  expect(spentOnDay(store, AGENT, day)).toBe(55n)
})

it('counts what was spent like what is held, and of one payment also what it cost before', async () => {
  const store = openStore(path())
  onTestFinished(() => store.close())
  const spend = { ownerPubkey: AGENT, tickId: 'tick', day: '2026-01-31', limits }
  await store.write(holdSpend({ ...spend, operationId: 'op', amountSats: 50n }))
  await store.write(settleSpend({ operationId: 'op', state: 'spent', amountSats: 50n }))
  const more = holdSpend({ ...spend, operationId: 'op-2', amountSats: 11n })
  await expect(store.write(more)).rejects.toMatchObject({ details: { limit: 'per tick' } })
  const dear = holdSpend({ ...spend, operationId: 'op-3', tickId: 'other', amountSats: 40n, besidesSats: 21n })
  await expect(store.write(dear)).rejects.toMatchObject({ details: { limit: 'per transaction' } })
})
