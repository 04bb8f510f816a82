/** Random and mutated messages to relay and mint: every one is survived, and both serve on afterwards. */
import fc from 'fast-check'
import { finalizeEvent, generateSecretKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, expect, test } from 'vitest'
import WebSocket from 'ws'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const key = generateSecretKey()
const event = finalizeEvent({ kind: 1, created_at: Math.floor(Date.now() / 1000), tags: [['e', 'x']], content: '' }, key)
const field = fc.constantFrom('id', 'pubkey', 'created_at', 'kind', 'tags', 'content', 'sig')
const filterField = fc.constantFrom('ids', 'authors', 'kinds', 'since', 'until', 'limit', '#e', '#p')
const message = fc.oneof(
  fc.string(),
  fc.json(),
  fc.tuple(field, fc.jsonValue()).map(([name, value]) => JSON.stringify(['EVENT', { ...event, [name]: value }])),
  fc
    .tuple(fc.constantFrom('REQ', 'COUNT'), fc.jsonValue(), filterField, fc.jsonValue())
    .map(([type, id, name, value]) => JSON.stringify([type, id, { [name]: value }])),
  fc
    .tuple(fc.constantFrom('EVENT', 'REQ', 'CLOSE', 'AUTH', 'COUNT', 'NEG-OPEN'), fc.array(fc.jsonValue()))
    .map(([type, rest]) => JSON.stringify([type, ...rest])),
)

test('the relay', async () => {
  const socket = new WebSocket(sandbox.relayUrl)
  let closed = false
  const accepted: unknown[] = []
  socket.on('close', () => {
    closed = true
  })
  socket.on('message', (data) => {
    const answer = JSON.parse(String(data)) as unknown[]
    if (answer[0] === 'OK' && answer[2] === true) accepted.push(answer[1])
  })
  await new Promise((resolve) => socket.once('open', resolve))
  fc.assert(
    fc.property(message, (text) => {
      socket.send(text)
    }),
    { numRuns: 2_000 },
  )
  const last = finalizeEvent({ kind: 1, created_at: event.created_at, tags: [], content: 'still here' }, key)
  socket.send(JSON.stringify(['EVENT', last]))
  await expect.poll(() => accepted, { timeout: 20_000 }).toContain(last.id)
  // A mutation that changes nothing is the valid event itself; nothing else may be accepted.
  expect(accepted.filter((id) => id !== last.id && id !== event.id)).toEqual([])
  expect(closed).toBe(false)
  socket.close()
})

test('the mint', async () => {
  const path = fc.constantFrom(
    '/v1/swap',
    '/v1/mint/quote/bolt11',
    '/v1/mint/bolt11',
    '/v1/melt/quote/bolt11',
    '/v1/melt/bolt11',
    '/v1/checkstate',
    '/v1/restore',
    '/sandbox/pay',
  )
  const names = fc.constantFrom('inputs', 'outputs', 'quote', 'amount', 'unit', 'request', 'pubkey', 'signature', 'Ys', 'options')
  const body = fc.oneof(
    fc.json(),
    fc.dictionary(names, fc.jsonValue()).map((value) => JSON.stringify(value)),
  )
  await fc.assert(
    fc.asyncProperty(path, body, async (route, text) => {
      const response = await fetch(sandbox.mintUrl + route, { method: 'POST', body: text })
      const answer = (await response.json()) as { code?: unknown }
      expect([200, 400]).toContain(response.status)
      if (response.status === 400) expect(answer.code).toEqual(expect.any(Number))
    }),
    { numRuns: 400 },
  )
  expect((await fetch(`${sandbox.mintUrl}/v1/info`)).status).toBe(200)
})
