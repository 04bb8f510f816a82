/** What doctor says of money that waits, and of a home that is damaged. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { msats } from '../../../../src/base/amounts.ts'
import { ManualClock } from '../../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../../src/base/config.ts'
import { homeAt } from '../../../../src/base/paths.ts'
import { nodeRoutes } from '../../../../src/control/contract/node.ts'
import { examine } from '../../../../src/daemon/doctor/doctor.ts'
import { callOffline } from '../../../../src/daemon/offline/call.ts'
import { insertPurchase, movePurchase } from '../../../../src/store/buying/purchases.ts'
import { keepRefundToken, noteRefundToken } from '../../../../src/store/buying/refund-tokens.ts'
import { all } from '../../../../src/store/commands.ts'
import { enqueueEvent, lastMessageId, recordDeliveries } from '../../../../src/store/nostr/outbox.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

it('names a refund that waits and why, and is still well', async () => {
  const home = homeAt(tempDir())
  const store = openStore(home.database)
  onTestFinished(() => store.close())
  const read = { home, network: 'live' as const, store, clock: new ManualClock(), config: () => DEFAULT_CONFIG }
  const refunds = async () => (await examine(read)).checks.find((check) => check.name === 'refunds')
  expect(await refunds()).toMatchObject({ state: 'ok' })
  const at = 1000
  await store.write(
    all(
      insertPurchase({ id: 'p', kind: 5001, order: {}, provider: null, deadlineAt: at, at }),
      movePurchase({ id: 'p', from: ['preparing'], to: 'paid', reason: '', at, eventId: 'e', paidMsats: msats(5000) }),
      movePurchase({ id: 'p', from: ['paid'], to: 'failed', reason: '', at }),
      keepRefundToken({ causeId: 'p', token: 'cashuB', sender: 'a', at }),
      noteRefundToken({ causeId: 'p', token: 'cashuB', state: 'waiting', reason: 'The mint X is not on the list', amountSats: null }),
    ),
  )
  expect(await refunds()).toEqual({
    name: 'refunds',
    state: 'warning',
    message: 'A refund of the job e waits: The mint X is not on the list',
    next_step: 'pylon wallet mints list',
  })
})

it('counts what relays refused, by relay and reason, with their words', async () => {
  const home = homeAt(tempDir())
  const store = openStore(home.database)
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

it('reports what it can of a home whose database, configuration and identity are damaged', async () => {
  const home = homeAt(tempDir())
  writeFileSync(home.database, 'this is not a database'.repeat(500))
  writeFileSync(home.config, 'broken = [')
  writeFileSync(home.identity, '{}', { mode: 0o644 })
  const { value } = await callOffline({ home, network: 'live' }, nodeRoutes.doctor, {})
  const states = Object.fromEntries(value.checks.map((check) => [check.name, check.state]))
  expect(states).toMatchObject({
    runtime: 'ok',
    disk: 'ok',
    config: 'failed',
    identity: 'failed',
    database: 'failed',
    ledger: 'skipped',
    mints: 'skipped',
  })
  const step = (name: string) => value.checks.find((check) => check.name === name)?.next_step
  expect([step('identity'), step('database')]).toEqual([`chmod 600 ${home.identity}`, expect.stringContaining('pylon restore')])
  expect(value.ok).toBe(false)
})

it('says of folders in place of files what they are, and of a home without a database that it has none', async () => {
  const home = homeAt(tempDir())
  for (const path of [home.config, home.identity]) mkdirSync(path)
  const { value } = await callOffline({ home, network: 'live' }, nodeRoutes.doctor, {})
  expect(value.checks.filter((check) => check.name === 'home').map((check) => check.message)).toEqual([
    `${home.identity} is a folder where a file belongs.`,
    `${home.config} is a folder where a file belongs.`,
  ])
  expect(value.checks.find((check) => check.name === 'database')).toMatchObject({ state: 'skipped' })
})

it('counts refunds that are out until their customers redeem them', async () => {
  const home = homeAt(tempDir())
  const store = openStore(home.database)
  onTestFinished(() => store.close())
  const read = { home, network: 'live' as const, store, clock: new ManualClock(), config: () => DEFAULT_CONFIG }
  store
    .sql(
      `INSERT INTO jobs (id, transport, kind, customer_pubkey, status, directed, encryption, answer_relays, requested_at_s, deadline,
         price_msats, payment_method, paid_msats, refund_sends, created_at, updated_at)
       VALUES (?, 'nip90', 5001, ?, 'refunding', 1, 'none', '[]', 1, 1, 5000, 'invoice', 5000, 2, 1, 1)`,
    )
    .run('a'.repeat(64), 'b'.repeat(64))
  const refunds = (await examine(read)).checks.find((check) => check.name === 'refunds')
  expect(refunds?.message).toBe('None waits to be made; 1 of 5 sats is sent, until their customers redeem them.')
})

it.each(['sandbox', 'live'] as const)('of a stopped node says how this one (%s) is started', async (network) => {
  const read = { home: homeAt(join(tempDir(), 'none')), network, clock: new ManualClock(), config: () => DEFAULT_CONFIG }
  const store = openStore(join(tempDir(), 'a.db'))
  onTestFinished(() => store.close())
  const { checks } = await examine({ ...read, store })
  const starts = checks.flatMap(({ next_step }) => (next_step?.startsWith('pylon start') ? [next_step] : []))
  expect(new Set(starts)).toEqual(new Set([network === 'sandbox' ? 'pylon start --sandbox' : 'pylon start']))
})
