/** Commands to the machines of a node over a real relay: lost ones are sent again, replies are believed only from the node, each status is told once. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { systemClock, unixSeconds } from '../../../src/base/clock.ts'
import { isPylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { exchange } from '../../../src/customer/machines/exchange.ts'
import type { RuntimeDescriptor } from '../../../src/nostr/control/descriptor.ts'
import {
  CONTROL_CMD_KIND,
  CONTROL_ERROR_KIND,
  CONTROL_RESULT_KIND,
  CONTROL_STATUS_KIND,
  type CommandEnvelope,
  decodeCommand,
  encodeError,
  encodeResult,
  encodeStatus,
  sealEnvelope,
} from '../../../src/nostr/control/envelopes.ts'
import { ControlError } from '../../../src/nostr/control/vocabulary.ts'
import type { LocalSigner } from '../../../src/nostr/types.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'

let sandbox: TestSandbox
let home: TestNostr
let heard: CommandEnvelope[]
let close: () => void

const runtime: RuntimeDescriptor = {
  runtime_id: 'local-0123456789abcdef',
  provider: 'local',
  lifecycle_phase: 'ready',
  protocol_compatibility: [],
}

beforeEach(async () => {
  sandbox = await startSandbox()
  home = startNostr({ relays: [sandbox.relayUrl] })
  heard = []
})

afterEach(async () => {
  close()
  await home.stop()
  await sandbox.stop()
})

type Say = (kind: number, text: string, as?: LocalSigner) => Promise<void>

/** A node that does with each command what the test wants. */
async function node(onCommand: (command: CommandEnvelope, say: Say, nth: number) => Promise<void>): Promise<string> {
  const { nostr, store, keyring } = home
  const signer = keyring.localSigner(keyring.node().pubkey)
  let serial = 0
  const subscription = await nostr.listen({
    filters: [{ kinds: [CONTROL_CMD_KIND], '#p': [signer.pubkey] }],
    onEvent: (event) => {
      const command = decodeCommand(signer.nip44Decrypt(event.pubkey, event.content))
      heard.push(command)
      void onCommand(
        command,
        async (kind, text, as = signer) => {
          const at = systemClock.now()
          const reply = as.sign(await sealEnvelope(as, event.pubkey, kind, text, unixSeconds(systemClock)))
          await store.write(enqueueEvent({ key: `reply:${++serial}`, event: reply, relays: nostr.relays, notAfter: at + 10_000, at }))
          nostr.nudgeOutbox()
        },
        heard.length,
      )
    },
  })
  close = () => subscription.close()
  return signer.pubkey
}

const order = (server: string, more: { timeoutMs?: number } = {}) => ({
  server,
  requestId: 'r1',
  idempotencyKey: 'k1',
  command: () => ({ command: 'get_runtime', runtime_id: runtime.runtime_id }) as const,
  timeoutMs: 20_000,
  ...more,
})

const deps = () => ({ scope: testScope(), store: home.store, clock: systemClock, logger: silentLogger, nostr: home.nostr })

test('a node that says nothing at all is waited for no longer than for its first word; one that works on is', async () => {
  const silent = exchange(deps(), { ...order(home.keyring.account(9).pubkey), timeoutMs: 600_000, firstWordMs: 300 })
  await expect(silent).rejects.toMatchObject({
    code: 'timeout',
    details: { silent: true },
    message: expect.stringContaining('did not answer'),
  })
  const server = await node(async ({ requestId }, say, nth) => {
    if (nth > 1) return
    await say(CONTROL_STATUS_KIND, encodeStatus(requestId, { phase: 'queued', message: 'request queued' }))
    await systemClock.sleep(3000)
    await say(CONTROL_RESULT_KIND, encodeResult(requestId, { runtime, payload: null }))
  })
  expect(await exchange(deps(), { ...order(server), firstWordMs: 2500 })).toMatchObject({ runtime })
})

test('a command that was lost is sent again under its key, and its statuses are told once', async () => {
  const server = await node(async ({ requestId }, say, nth) => {
    const queued = encodeStatus(requestId, { phase: 'queued', message: 'request queued' })
    if (nth <= 2) await say(CONTROL_STATUS_KIND, queued)
    if (nth < 2) return
    await say(CONTROL_STATUS_KIND, encodeStatus(requestId, { phase: 'ready', message: 'runtime ready' }))
    await say(CONTROL_RESULT_KIND, encodeResult(requestId, { runtime, payload: { operation: 'get_runtime' } }))
  })
  const told: string[] = []
  const result = await exchange(deps(), {
    ...order(server),
    onStatus: async ({ message }) => {
      told.push(message ?? '')
      return undefined
    },
  })
  expect(result).toMatchObject({ runtime, payload: { operation: 'get_runtime' } })
  expect(told).toEqual(['request queued', 'runtime ready'])
  expect(heard.map(({ requestId, idempotencyKey }) => [requestId, idempotencyKey])).toEqual([
    ['r1', 'k1'],
    ['r1', 'k1'],
  ])
})

test('a node that shuts down is asked again; its refusals end the command with code, hint and detail', async () => {
  const server = await node(async ({ requestId }, say, nth) => {
    const code = nth === 1 ? 'shutting_down' : 'runtime_class_unavailable'
    await say(CONTROL_ERROR_KIND, encodeError(requestId, new ControlError(code, 'choose another', 'no such class')))
  })
  await expect(exchange(deps(), order(server))).rejects.toSatisfy(
    (error) =>
      isPylonError(error, 'control_refused') &&
      error.details['control_code'] === 'runtime_class_unavailable' &&
      error.message.includes('no such class; choose another'),
  )
  expect(heard).toHaveLength(2)
})

test('replies of others, and about other requests, are nothing', async () => {
  const stranger = home.keyring.account(10)
  const server = await node(async ({ requestId }, say) => {
    await say(CONTROL_RESULT_KIND, encodeResult(requestId, { runtime, payload: { from: 'a stranger' } }), stranger)
    await say(CONTROL_RESULT_KIND, encodeResult('another', { runtime, payload: { from: 'another request' } }))
    await say(CONTROL_RESULT_KIND, 'no json')
    await say(CONTROL_RESULT_KIND, encodeResult(requestId, { runtime, payload: { from: 'the node' } }))
  })
  expect((await exchange(deps(), order(server))).payload).toEqual({ from: 'the node' })
})

test('silence ends as a timeout that says how to go on; a command that changed is sent at once', async () => {
  const silent = await node(async () => undefined)
  await expect(exchange(deps(), order(silent, { timeoutMs: 500 }))).rejects.toSatisfy(
    (error) => isPylonError(error, 'timeout') && error.message.includes(sandbox.relayUrl) && error.message.includes('--idempotency-key'),
  )
  close()
  heard = []
  const server = await node(async ({ requestId, command }, say) => {
    if ('lease_token' in command && command.lease_token !== undefined) await say(CONTROL_RESULT_KIND, encodeResult(requestId, { runtime }))
    else await say(CONTROL_STATUS_KIND, encodeStatus(requestId, { phase: 'queued', message: 'waiting for payment' }))
  })
  let token: string | undefined
  await exchange(deps(), {
    ...order(server),
    command: () => ({ command: 'run', entry_command: 'true', ...(token === undefined ? {} : { lease_token: token }) }),
    onStatus: async () => {
      token = 'cashuB'
      return 'resend' as const
    },
  })
  await vi.waitFor(() => expect(heard).toHaveLength(2))
})

test('a command that could not be paid has ended: what the node asks after that is not heard', async () => {
  const ask = (requestId: string, message: string) => encodeStatus(requestId, { phase: 'queued', message })
  const server = await node(async ({ requestId }, say, nth) => {
    if (nth > 1) return
    await Promise.all([say(CONTROL_STATUS_KIND, ask(requestId, 'pay this')), say(CONTROL_STATUS_KIND, ask(requestId, 'or pay that'))])
  })
  const asked: string[] = []
  const paying = Promise.withResolvers<undefined>()
  const ended = exchange(deps(), {
    ...order(server),
    onStatus: async ({ message }) => {
      asked.push(message ?? '')
      // The second has come by then.
      await systemClock.sleep(1500)
      if (asked.length > 1) paying.resolve(undefined)
      throw new Error('not paid')
    },
  })
  await expect(ended).rejects.toThrow('not paid')
  await Promise.race([paying.promise, systemClock.sleep(2500)])
  expect(asked).toHaveLength(1)
})
