/** What one relay can make us hold in memory has a bound in bytes, whatever the size of what it sends. */
import { expect, it, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { Dispatcher } from '../../../src/nostr/reading/dispatcher.ts'
import { FrameInbox } from '../../../src/nostr/relay/frame-inbox.ts'
import { FrameRouter } from '../../../src/nostr/relay/frame-router.ts'
import { testScope } from '../../support/scope.ts'

it('the socket is held back while few but huge frames wait, and read on once they are handled', async () => {
  const calls: string[] = []
  let frames = 0
  const clock = systemClock
  const inbox = new FrameInbox({ clock, onFrame: () => frames++, pause: () => calls.push('pause'), resume: () => calls.push('resume') })
  const frame = Buffer.from(JSON.stringify(['NOTICE', 'x'.repeat(1024 * 1024)]))
  for (let n = 0; n < 15; n++) inbox.push(frame)
  expect(calls).toEqual([])
  for (let n = 0; n < 5; n++) inbox.push(frame)
  expect(calls).toEqual(['pause'])
  await vi.waitFor(() => expect(frames).toBe(20), { timeout: 30_000 })
  expect(calls).toEqual(['pause', 'resume'])
  for (let n = 0; n < 15; n++) inbox.push(frame)
  expect(calls).toEqual(['pause', 'resume'])
  inbox.clear()
})

it('events that wait for their handler are counted by their length too, and make room once handled', async () => {
  let release = () => {}
  const gate = new Promise<void>((resolve) => {
    release = resolve
  })
  const scope = testScope()
  const dispatcher = new Dispatcher({ scope, name: 'test', logger: silentLogger, onEvent: () => gate })
  const content = 'x'.repeat(500_000)
  const event = (n: number) => ({
    id: n.toString(16).padStart(64, '0'),
    pubkey: '',
    created_at: 0,
    kind: 1,
    tags: [['t', content]],
    content,
    sig: '',
  })
  let taken = 0
  let handled = 0
  for (let n = 0; n < 300; n++) if (dispatcher.handle(event(n), 'wss://relay.example', () => handled++)) taken++
  expect(taken).toBeGreaterThan(50)
  expect(taken).toBeLessThan(80)
  release()
  await vi.waitFor(() => expect(handled).toBe(taken))
  expect(dispatcher.handle(event(300), 'wss://relay.example', () => {})).toBe(true)
  expect(await scope.close()).toEqual([])
})

it('notices are logged a few times a connection, not without end', () => {
  let logged = 0
  const logger = Object.assign(Object.create(silentLogger) as typeof silentLogger, { info: () => logged++ })
  const router = new FrameRouter({
    url: 'wss://relay.example',
    logger,
    onChallenge: () => {},
    onAnswer: () => {},
    onComplaint: () => {},
    onNotice: () => {},
  })
  for (let n = 0; n < 1000; n++) router.route({ type: 'NOTICE', message: `${n}` })
  expect(logged).toBe(20)
  router.clear()
  router.route({ type: 'NOTICE', message: 'on a new connection' })
  expect(logged).toBe(21)
})
