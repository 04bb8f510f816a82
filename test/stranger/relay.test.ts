/** The relay as other people's clients see it: nostr-tools and a raw websocket, nothing of ours. */

import { SimplePool, useWebSocketImplementation as useWebSocketInPool } from 'nostr-tools/pool'
import { finalizeEvent, generateSecretKey, getPublicKey, type NostrEvent } from 'nostr-tools/pure'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

useWebSocketImplementation(WebSocket)
useWebSocketInPool(WebSocket)

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const now = () => Math.floor(Date.now() / 1000)
const sign = (key: Uint8Array, template: Partial<NostrEvent>) =>
  finalizeEvent({ kind: 1, content: '', tags: [], created_at: now(), ...template }, key)

/** A raw connection that keeps every message it was sent. */
async function connect(url = sandbox.relayUrl) {
  const socket = new WebSocket(url)
  const messages: unknown[][] = []
  socket.on('message', (data) => messages.push(JSON.parse(String(data))))
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  const find = (type: string, id?: string) => messages.find((m) => m[0] === type && (id === undefined || m[1] === id))
  return {
    socket,
    messages,
    send: (message: unknown) => socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
    waitFor: (type: string, id?: string) =>
      expect
        .poll(() => find(type, id), { timeout: 5_000 })
        .toBeDefined()
        .then(() => find(type, id) as unknown[]),
    async publish(event: NostrEvent) {
      socket.send(JSON.stringify(['EVENT', event]))
      const [, , accepted, reason] = await this.waitFor('OK', event.id)
      messages.splice(
        messages.findIndex((m) => m[0] === 'OK' && m[1] === event.id),
        1,
      )
      return { accepted, reason: reason as string }
    },
    async query(...filters: object[]): Promise<NostrEvent[]> {
      const id = crypto.randomUUID()
      socket.send(JSON.stringify(['REQ', id, ...filters]))
      await this.waitFor('EOSE', id)
      socket.send(JSON.stringify(['CLOSE', id]))
      return messages.filter((m) => m[0] === 'EVENT' && m[1] === id).map((m) => m[2] as NostrEvent)
    },
    close: () => socket.close(),
  }
}

describe('publish and subscribe', () => {
  test('a published note reaches a live subscriber of nostr-tools once', async () => {
    const key = generateSecretKey()
    const reader = await Relay.connect(sandbox.relayUrl)
    const writer = await Relay.connect(sandbox.relayUrl)
    const seen: string[] = []
    await new Promise<void>((resolve) =>
      reader.subscribe([{ kinds: [1], authors: [getPublicKey(key)] }], { onevent: (event) => seen.push(event.id), oneose: resolve }),
    )
    const event = sign(key, { content: 'hello' })
    await writer.publish(event)
    await expect.poll(() => seen).toEqual([event.id])
    reader.close()
    writer.close()
  })

  test('a pool of nostr-tools publishes, queries and follows', async () => {
    const pool = new SimplePool()
    const key = generateSecretKey()
    const filter = { kinds: [1], authors: [getPublicKey(key)] }
    const events = [sign(key, { content: 'a', created_at: now() - 1 }), sign(key, { content: 'b' })]
    const followed: string[] = []
    pool.subscribe([sandbox.relayUrl], filter, { onevent: (event) => followed.push(event.id) })
    for (const event of events) await Promise.all(pool.publish([sandbox.relayUrl], event))
    expect((await pool.querySync([sandbox.relayUrl], filter)).map((e) => e.id).toSorted()).toEqual(events.map((e) => e.id).toSorted())
    expect((await pool.get([sandbox.relayUrl], filter))?.id).toBe(events[1]?.id)
    await expect.poll(() => followed.toSorted()).toEqual(events.map((e) => e.id).toSorted())
    pool.close([sandbox.relayUrl])
  })

  test('stored events come newest first, ties by lowest id, within limit, since and until', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const base = now() - 100
    const events = [0, 0, 0, 1, 2].map((offset, i) => sign(key, { created_at: base + offset, content: String(i) }))
    for (const event of events) expect((await client.publish(event)).accepted).toBe(true)
    const expected = events.toSorted((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1)).map((e) => e.id)
    const authors = [getPublicKey(key)]
    expect((await client.query({ authors })).map((e) => e.id)).toEqual(expected)
    expect((await client.query({ authors, limit: 3 })).map((e) => e.id)).toEqual(expected.slice(0, 3))
    expect((await client.query({ ids: expected, limit: 4 })).map((e) => e.id)).toEqual(expected.slice(0, 4))
    expect((await client.query({ authors, since: base + 1, until: base + 1 })).map((e) => e.id)).toEqual([expected[1]])
    expect(await client.query({ authors, limit: 0 })).toEqual([])
    client.close()
  })

  test('tag filters need every named tag; several filters are joined without repeats', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const topic = crypto.randomUUID()
    const both = sign(key, {
      tags: [
        ['t', topic],
        ['x', '1'],
      ],
    })
    const one = sign(key, {
      tags: [
        ['t', topic],
        ['x', '2'],
      ],
    })
    await client.publish(both)
    await client.publish(one)
    expect((await client.query({ '#t': [topic], '#x': ['1'] })).map((e) => e.id)).toEqual([both.id])
    expect(await client.query({ '#t': [topic] }, { ids: [one.id] })).toHaveLength(2)
    expect(await client.query({ '#t': ['none'] })).toEqual([])
    client.close()
  })

  test('a duplicate is answered true with the duplicate prefix and not delivered again', async () => {
    const client = await connect()
    const key = generateSecretKey()
    client.send(['REQ', 'live', { authors: [getPublicKey(key)] }])
    await client.waitFor('EOSE', 'live')
    const event = sign(key, {})
    expect(await client.publish(event)).toEqual({ accepted: true, reason: '' })
    const again = await client.publish(event)
    expect(again.accepted).toBe(true)
    expect(again.reason).toMatch(/^duplicate:/)
    await client.query({ ids: [event.id] })
    expect(client.messages.filter((m) => m[0] === 'EVENT' && m[1] === 'live')).toHaveLength(1)
    client.close()
  })
})

describe('kinds', () => {
  test('replaceable: the newest wins, an older one changes nothing, equal times keep the lowest id', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const authors = [getPublicKey(key)]
    const at = now() - 50
    const [a, b] = [sign(key, { kind: 10_002, created_at: at, content: 'a' }), sign(key, { kind: 10_002, created_at: at, content: 'b' })]
    const lowest = a.id < b.id ? a : b
    await client.publish(a)
    await client.publish(b)
    expect((await client.query({ authors, kinds: [10_002] })).map((e) => e.id)).toEqual([lowest.id])
    const newer = sign(key, { kind: 10_002, created_at: at + 1 })
    await client.publish(newer)
    await client.publish(sign(key, { kind: 10_002, created_at: at - 1 }))
    expect((await client.query({ authors, kinds: [10_002] })).map((e) => e.id)).toEqual([newer.id])
    client.close()
  })

  test('addressable: one per d tag', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const at = now() - 50
    const make = (d: string, created_at: number) => sign(key, { kind: 31_990, created_at, tags: [['d', d]] })
    const [one, two, newerOne] = [make('1', at), make('2', at), make('1', at + 5)]
    for (const event of [one, two, newerOne]) await client.publish(event)
    const ids = (await client.query({ kinds: [31_990], authors: [getPublicKey(key)] })).map((e) => e.id)
    expect(ids).toEqual([newerOne.id, two.id])
    client.close()
  })

  test('ephemeral: forwarded, never stored', async () => {
    const client = await connect()
    const key = generateSecretKey()
    client.send(['REQ', 'live', { kinds: [24_910], authors: [getPublicKey(key)] }])
    await client.waitFor('EOSE', 'live')
    const event = sign(key, { kind: 24_910 })
    expect((await client.publish(event)).accepted).toBe(true)
    expect(((await client.waitFor('EVENT', 'live'))[2] as NostrEvent).id).toBe(event.id)
    expect(await client.query({ ids: [event.id] })).toEqual([])
    client.close()
  })

  test('deletion: by the author only, by e and by a, and a deleted id does not come back', async () => {
    const client = await connect()
    const [key, stranger] = [generateSecretKey(), generateSecretKey()]
    const note = sign(key, { content: 'regret' })
    const article = sign(key, { kind: 30_023, created_at: now() - 10, tags: [['d', 'x']] })
    await client.publish(note)
    await client.publish(article)
    await client.publish(
      sign(stranger, {
        kind: 5,
        tags: [
          ['e', note.id],
          ['a', `30023:${getPublicKey(key)}:x`],
        ],
      }),
    )
    expect(await client.query({ ids: [note.id, article.id] })).toHaveLength(2)
    const request = sign(key, {
      kind: 5,
      created_at: now() - 5,
      tags: [
        ['e', note.id],
        ['a', `30023:${getPublicKey(key)}:x`],
      ],
    })
    expect((await client.publish(request)).accepted).toBe(true)
    expect(await client.query({ ids: [note.id, article.id] })).toEqual([])
    expect(await client.query({ ids: [request.id] })).toHaveLength(1)
    const again = await client.publish(note)
    expect(again.accepted).toBe(false)
    expect(again.reason).toMatch(/^blocked:/)
    expect((await client.publish(article)).accepted).toBe(false)
    const rewritten = sign(key, { kind: 30_023, created_at: now(), tags: [['d', 'x']] })
    expect((await client.publish(rewritten)).accepted).toBe(true)
    client.close()
  })

  test('a deletion that arrives before its target is remembered', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const note = sign(key, { content: 'late' })
    await client.publish(sign(key, { kind: 5, tags: [['e', note.id]] }))
    expect((await client.publish(note)).accepted).toBe(false)
    client.close()
  })

  test('expired events are refused on arrival, others are served until then', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const refused = await client.publish(sign(key, { tags: [['expiration', String(now() - 1)]] }))
    expect(refused.accepted).toBe(false)
    const lasting = sign(key, { tags: [['expiration', String(now() + 3_600)]] })
    expect((await client.publish(lasting)).accepted).toBe(true)
    expect(await client.query({ ids: [lasting.id] })).toHaveLength(1)
    client.close()
  })

  test('protected events are taken from their authenticated author only', async () => {
    const client = await connect()
    const key = generateSecretKey()
    const event = sign(key, { tags: [['-']] })
    expect((await client.publish(event)).reason).toMatch(/^auth-required:/)
    const [, challenge] = await client.waitFor('AUTH')
    const tags = [
      ['relay', sandbox.relayUrl],
      ['challenge', challenge as string],
    ]
    client.send([
      'AUTH',
      sign(key, {
        kind: 22_242,
        tags: [
          ['relay', sandbox.relayUrl],
          ['challenge', 'wrong'],
        ],
      }),
    ])
    const auth = sign(key, { kind: 22_242, tags })
    client.send(['AUTH', auth])
    expect((await client.waitFor('OK', auth.id))[2]).toBe(true)
    expect((await client.publish(event)).accepted).toBe(true)
    client.close()
  })
})

describe('COUNT and NIP-11', () => {
  test('counts each matching event once', async () => {
    const client = await connect()
    const key = generateSecretKey()
    for (let i = 0; i < 3; i++) await client.publish(sign(key, { content: String(i) }))
    client.send(['COUNT', 'c', { authors: [getPublicKey(key)] }, { authors: [getPublicKey(key)], kinds: [1] }])
    expect((await client.waitFor('COUNT', 'c'))[2]).toEqual({ count: 3 })
    client.close()
  })

  test('the relay document says what is supported and what the limits are', async () => {
    const response = await fetch(sandbox.relayUrl.replace('ws:', 'http:'), { headers: { accept: 'application/nostr+json' } })
    const document = (await response.json()) as { supported_nips: number[]; limitation: Record<string, number> }
    expect(document.supported_nips).toEqual(expect.arrayContaining([1, 9, 11, 40, 42, 45, 70]))
    expect(document.limitation['max_limit']).toBe(500)
    expect(document.limitation['max_message_length']).toBe(512 * 1024)
  })
})

describe('hostile input', () => {
  test('garbage is answered, nothing crashes, and the same connection goes on', async () => {
    const client = await connect()
    const [valid, broken] = [sign(generateSecretKey(), {}), sign(generateSecretKey(), {})]
    const garbage: unknown[] = [
      '',
      '{',
      'null',
      '[]',
      '[1]',
      '["EVENT"]',
      '["EVENT",null]',
      '["REQ"]',
      '["REQ","x"]',
      '["REQ",1,{}]',
      '["CLOSE"]',
      '["AUTH",{}]',
      '["COUNT","x",[]]',
      '["WHAT"]',
      '["REQ","x",[{}]]',
      `["REQ","${'x'.repeat(65)}",{}]`,
      '["REQ","x",{"kinds":["1"]}]',
      '["REQ","x",{"ids":["zz"]}]',
      '["REQ","x",{"limit":-1}]',
      '["REQ","x",{"#e":{"a":1}}]',
      '["REQ","x",{"authors":null}]',
      ['EVENT', { ...broken, id: '0'.repeat(64) }],
      ['EVENT', { ...broken, sig: '0'.repeat(128) }],
      ['EVENT', { ...broken, pubkey: 'f'.repeat(64) }],
      ['EVENT', { ...broken, tags: [[1]] }],
      ['EVENT', { ...broken, kind: 1.5 }],
      ['EVENT', { ...broken, created_at: '1' }],
    ]
    for (const message of garbage) client.send(message)
    client.socket.send(Buffer.from([0xff, 0xfe]))
    expect((await client.publish(valid)).accepted).toBe(true)
    expect(client.messages.filter((m) => m[0] === 'OK' && m[2] === true)).toEqual([])
    const answers = client.messages.filter((m) => ['NOTICE', 'OK', 'CLOSED'].includes(String(m[0])))
    expect(answers.length).toBeGreaterThanOrEqual(garbage.length)
    client.close()
  })

  test('an oversized message closes that connection only', async () => {
    const [client, other] = [await connect(), await connect()]
    const closed = new Promise((resolve) => client.socket.once('close', resolve))
    client.send(`["EVENT",{"content":"${'x'.repeat(600 * 1024)}"}]`)
    await closed
    expect((await other.publish(sign(generateSecretKey(), {}))).accepted).toBe(true)
    other.close()
  })

  test('a created_at far in the future, bad ids and too many subscriptions are refused', async () => {
    const client = await connect()
    const future = await client.publish(sign(generateSecretKey(), { created_at: now() + 3_600 }))
    expect(future.reason).toMatch(/^invalid:/)
    for (let i = 0; i < 65; i++) client.send(['REQ', `s${i}`, { kinds: [1], limit: 0 }])
    expect((await client.waitFor('CLOSED', 's64'))[2]).toMatch(/^rate-limited:/)
    client.close()
  })
})

test('what was accepted is still there after the relay was closed and opened again, on the same port', async () => {
  const first = await startSandbox()
  const event = sign(generateSecretKey(), { content: 'kept' })
  const client = await connect(first.relayUrl)
  await client.publish(event)
  client.close()
  await first.stop({ keep: true })
  const second = await startSandbox({ dir: first.dir })
  expect(second.relayUrl).toBe(first.relayUrl)
  const again = await connect(second.relayUrl)
  expect(await again.query({ ids: [event.id] })).toEqual([JSON.parse(JSON.stringify(event))])
  again.close()
  await second.stop()
})
