import { createHmac } from 'node:crypto'
import { expect, test } from 'vitest'
import { decodeHello, HELLO_KIND, helloTemplate, isProven } from '../../../src/session/hello.ts'

const TOKEN = '11'.repeat(32)
const BOT = '22'.repeat(32)
const OWNER = '33'.repeat(32)
const from = { botPubkey: BOT, runtimeId: 'local-0123456789abcdef', token: TOKEN, owner: OWNER, version: '1.0.0', nowS: 1_700_000_000 }

test('a hello proves by the token whose key it is', () => {
  const rumor = helloTemplate(from)
  expect(rumor).toMatchObject({ kind: HELLO_KIND, tags: [['p', OWNER]] })
  const proof = createHmac('sha256', TOKEN).update(`hello\nlocal-0123456789abcdef\n${BOT}`).digest('hex')
  const hello = decodeHello(rumor)
  expect(hello).toEqual({ runtimeId: 'local-0123456789abcdef', proof, version: '1.0.0' })
  if (hello === undefined) throw new Error('no hello')
  expect(isProven(hello, TOKEN, BOT)).toBe(true)
  expect(isProven(hello, TOKEN, OWNER)).toBe(false)
  expect(isProven(hello, '00'.repeat(32), BOT)).toBe(false)
  expect(isProven({ ...hello, proof: '' }, TOKEN, BOT)).toBe(false)
  expect(isProven({ ...hello, runtimeId: 'local-ffffffffffffffff' }, TOKEN, BOT)).toBe(false)
})

test.each([
  [9, JSON.stringify({ schema: 'agent.session.hello.v1', runtime_id: 'a', proof: 'b' })],
  [HELLO_KIND, 'hello'],
  [HELLO_KIND, '[]'],
  [HELLO_KIND, JSON.stringify({ schema: 'agent.session.hello.v2', runtime_id: 'a', proof: 'b' })],
  [HELLO_KIND, JSON.stringify({ schema: 'agent.session.hello.v1', runtime_id: 1, proof: 'b' })],
])('kind %s with %s is no hello', (kind, content) => {
  expect(decodeHello({ kind, content })).toBeUndefined()
})
