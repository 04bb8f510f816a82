/** The end of the layer: in order, with what is known recorded, nobody left behind, and the late ones named. */
import { expect, it, vi } from 'vitest'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { cursorOf } from '../../../src/store/nostr/cursors.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node } = nostrBench()
const until = (check: () => void) => vi.waitFor(check, { timeout: 30_000, interval: 10 })
const nowS = () => Math.floor(Date.now() / 1000)
const isTestReq = (frame: unknown[]) => frame[0] === 'REQ' && JSON.stringify(frame).includes('"kinds":[1]')

it('writes cursors and outcomes, tells who wants to know, lets the peer go, and nothing runs any more', async () => {
  const one = await relay()
  const at = node({ relays: [one.url] })
  const told: string[] = []
  at.nostr.onPublished('note:', async (key) => {
    told.push(key)
  })
  const before = Date.now()
  at.nostr.subscribe({ name: 'test', filters: [{ kinds: [1] }], backfillS: 60, onEvent: async () => {} })
  await until(() => expect(one.frames.some(isTestReq)).toBe(true))
  await until(() => expect(cursorOf(at.store, one.url, 'test')).toBeDefined())
  const event = identify(at.keyring.node().pubkey, { kind: 1, created_at: nowS(), tags: [], content: 'last words' })
  await at.store.write(enqueueEvent({ key: 'note:1', event, relays: [one.url], notAfter: Date.now() + 60_000, at: Date.now() }))
  at.nostr.nudgeOutbox()
  await until(() => expect(one.received('EVENT').some((frame) => JSON.stringify(frame).includes('last words'))).toBe(true))
  // The answer is on its way, and is recorded only after a while.
  await new Promise((resolve) => setTimeout(resolve, 10))
  expect(await at.scope.close(2000)).toEqual([])
  expect(at.scope.running()).toEqual([])
  expect(deliveriesOf(at.store, 'note:1').map(({ state }) => state)).toEqual(['accepted'])
  expect(told).toEqual(['note:1'])
  expect(cursorOf(at.store, one.url, 'test')).toBeGreaterThan(before - 1)
  await until(() => expect(one.connections.size).toBe(0))
})

it('names the handler that does not end, and closes all the same', async () => {
  const one = await relay()
  one.stored.push(testSigner(3).sign({ kind: 1, created_at: nowS(), tags: [], content: 'hello' }))
  const at = node({ relays: [one.url] })
  let isCalled = false
  const onEvent = () => {
    isCalled = true
    return new Promise<void>(() => {})
  }
  at.nostr.subscribe({ name: 'test', filters: [{ kinds: [1] }], backfillS: 60, onEvent })
  await until(() => expect(isCalled).toBe(true))
  const late = await at.scope.close(100)
  expect(late.map(({ path }) => path)).toEqual(['nostr/subscriptions/test/handler'])
  await until(() => expect(one.connections.size).toBe(0))
  await expect(at.nostr.query([{ kinds: [1] }])).rejects.toMatchObject({ code: 'shutting_down' })
})
