/** What doctor says of money that waits. */
import { expect, it, onTestFinished } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { homeAt } from '../../../src/base/paths.ts'
import { examine } from '../../../src/daemon/doctor.ts'
import { all } from '../../../src/store/commands.ts'
import { enqueueEvent, lastMessageId, recordDeliveries } from '../../../src/store/outbox.ts'
import { insertPurchase, movePurchase } from '../../../src/store/purchases.ts'
import { keepRefundToken, noteRefundToken } from '../../../src/store/refund-tokens.ts'
import { Store } from '../../../src/store/store.ts'
import { tempDir } from '../../support/temp.ts'

it('names a refund that waits and why, and is still well', async () => {
  const home = homeAt(tempDir())
  const store = Store.open(home.database)
  onTestFinished(() => store.close())
  const read = { home, network: 'live' as const, store, clock: new ManualClock(), config: () => DEFAULT_CONFIG }
  const refunds = async () => (await examine(read)).checks.find((check) => check.name === 'refunds')
  expect(await refunds()).toMatchObject({ state: 'ok' })
  const at = 1000
  await store.write(
    all(
      insertPurchase({ id: 'p', kind: 5001, order: {}, provider: null, deadlineAt: at, at }),
      movePurchase({ id: 'p', from: ['preparing'], to: 'paid', reason: '', at, paidMsats: msats(5000) }),
      movePurchase({ id: 'p', from: ['paid'], to: 'failed', reason: '', at }),
      keepRefundToken({ causeId: 'p', token: 'cashuB', sender: 'a', at }),
      noteRefundToken({ causeId: 'p', token: 'cashuB', state: 'waiting', reason: 'The mint X is not on the list', amountSats: null }),
    ),
  )
  expect(await refunds()).toEqual({
    name: 'refunds',
    state: 'warning',
    message: 'A refund of the job p waits: The mint X is not on the list',
    next_step: 'pylon wallet mints list',
  })
})

it('counts what relays refused, by relay and reason, with their words', async () => {
  const home = homeAt(tempDir())
  const store = Store.open(home.database)
  onTestFinished(() => store.close())
  const clock = new ManualClock()
  const read = { home, network: 'live' as const, store, clock, config: () => DEFAULT_CONFIG }
  const publishing = async () => (await examine(read)).checks.find((check) => check.name === 'publishing')
  expect(await publishing()).toMatchObject({ state: 'ok' })
  const event = { id: 'a'.repeat(64), pubkey: 'b'.repeat(64), created_at: 1, kind: 6001, tags: [], content: '' }
  const at = clock.now()
  await store.write(enqueueEvent({ key: 'job-result:1', event, relays: ['wss://a.test'], notAfter: at + 1000, at }))
  const refusal = { relay: 'wss://a.test', state: 'rejected' as const, attempts: 0, nextAt: 0 }
  const outcome = { ...refusal, messageId: lastMessageId(store), error: 'invalid: created_at too far ahead', reason: 'invalid' }
  await store.write(recordDeliveries({ outcomes: [outcome], at }))
  expect(await publishing()).toMatchObject({
    state: 'warning',
    message:
      '1 messages of the last day were taken by no relay. wss://a.test refused 1 (invalid), last: invalid: created_at too far ahead.',
    next_step: expect.stringContaining('timedatectl'),
  })
  await clock.advance(2 * 86_400_000)
  expect(await publishing()).toMatchObject({ state: 'ok' })
})
