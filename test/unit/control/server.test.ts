/** The control socket over real HTTP: validation, guards, idempotency, tasks, streams, and bytes that are no request at all. */
import { lstatSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'
import { msats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { callRoute, streamRoute } from '../../../src/control/client.ts'
import { type Call, defineRoutes, type Handlers, msatsField, queryInt } from '../../../src/control/route.ts'
import { ControlServer } from '../../../src/control/server.ts'
import { reconcileCalls, StoredTasks, storedClaims } from '../../../src/daemon/calls.ts'
import { Store } from '../../../src/store/store.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

const routes = defineRoutes({
  echo: {
    method: 'POST',
    path: '/v1/echo',
    summary: 'Says it again.',
    request: z.strictObject({ text: z.string().max(10) }),
    response: z.strictObject({ text: z.string(), amount_msats: msatsField }),
    status: 201,
  },
  thing: {
    method: 'GET',
    path: '/v1/things/:name',
    summary: 'A thing.',
    request: z.strictObject({
      name: z.string(),
      limit: queryInt(1, 9).optional(),
      tag: z.union([z.string(), z.array(z.string())]).optional(),
    }),
    response: z.looseObject({}),
  },
  pay: {
    method: 'POST',
    path: '/v1/pay',
    summary: 'Pays.',
    request: z.strictObject({ sats: z.int() }),
    response: z.strictObject({ paid: z.int() }),
    spends: true,
    isOpen: ({ paid }) => paid === 0,
  },
  slowPay: {
    method: 'POST',
    path: '/v1/slow-pay',
    summary: 'Pays slowly.',
    request: z.strictObject({ sats: z.int() }),
    response: z.strictObject({ paid: z.int() }),
    spends: true,
    task: true,
  },
  count: {
    method: 'GET',
    path: '/v1/count',
    summary: 'Counts up.',
    request: z.strictObject({}),
    response: z.strictObject({ n: z.int() }),
    stream: true,
  },
  task: {
    method: 'GET',
    path: '/v1/tasks/:id',
    summary: 'A task.',
    request: z.strictObject({ id: z.string(), wait: queryInt(0, 60).optional() }),
    response: z.looseObject({}),
  },
})

interface Setup {
  readonly socket: string
  readonly store: Store
  readonly server: ControlServer
  readonly paid: string[]
  /** What the paying handlers do. */
  pay: (sats: number, call: Call) => Promise<number>
}

async function setup(dir = tempDir(), store = Store.open(':memory:')): Promise<Setup> {
  const deps = { store, clock: new ManualClock(), logger: silentLogger }
  const tasks = new StoredTasks(deps, testScope())
  const socket = join(dir, 's')
  const paid: string[] = []
  const handlers: Handlers<typeof routes> = {
    echo: ({ text }) => ({ text, amount_msats: msats(2n ** 52n) }),
    thing: (input) => ({ input }),
    pay: async ({ sats }, call) => ({ paid: await made.pay(sats, call) }),
    slowPay: async ({ sats }, call) => ({ paid: await made.pay(sats, call) }),
    count: async function* (_input, { signal }) {
      for (let n = 1; !signal.aborted; n++) {
        yield { n }
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
    task: async ({ id, wait }, { signal }) => ({ ...(await tasks.get(id, (wait ?? 0) * 1000, signal)) }),
  }
  const bound = Object.entries(routes).map(([name, route]) => ({ route, handler: handlers[name as keyof typeof routes] as never }))
  const server = new ControlServer({
    scope: testScope(),
    routes: bound,
    network: 'sandbox',
    claims: storedClaims(deps),
    tasks,
    logger: silentLogger,
  })
  const made: Setup = {
    socket,
    store,
    server,
    paid,
    pay: async (sats, call) => {
      paid.push(call.idempotencyKey)
      return sats
    },
  }
  await server.listen(socket)
  onTestFinished(() => server.close(100))
  return made
}

interface RawReply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Record<string, unknown>
  readonly text: string
}

function raw(
  socket: string,
  method: string,
  path: string,
  options: { headers?: Record<string, string>; body?: string } = {},
): Promise<RawReply> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { socketPath: socket, method, path, agent: false, headers: { Host: 'pylon', ...options.headers } },
      async (response) => {
        let text = ''
        for await (const chunk of response) text += chunk
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: JSON.parse(text) as Record<string, unknown>, text })
      },
    )
    request.on('error', reject)
    request.end(options.body)
  })
}

const codeOf = ({ status, body }: RawReply) => `${status} ${(body['error'] as { code?: string } | undefined)?.code}`

test('answers with the network first, the version header, and amounts as integers', async () => {
  const { socket } = await setup()
  const reply = await raw(socket, 'POST', '/v1/echo', { body: '{"text":"hi"}' })
  expect(reply.status).toBe(201)
  expect(reply.text).toBe('{"network":"sandbox","text":"hi","amount_msats":4503599627370496}\n')
  expect(reply.headers['pylon-version']).toBeDefined()
  const answer = await callRoute(socket, routes.echo, { text: 'hi' })
  expect(answer.value).toEqual({ text: 'hi', amount_msats: 2n ** 52n })
  expect((lstatSync(socket).mode & 0o777).toString(8)).toBe('600')
})

test('takes params and query, and lists every problem', async () => {
  const { socket } = await setup()
  expect((await raw(socket, 'GET', '/v1/things/a%2Fb?limit=3&tag=x&tag=y')).body['input']).toEqual({
    name: 'a/b',
    limit: 3,
    tag: ['x', 'y'],
  })
  const bad = await raw(socket, 'POST', '/v1/echo', { body: '{"text":7,"more":1}' })
  expect(codeOf(bad)).toBe('400 invalid_request')
  expect((bad.body['error'] as { details: { problems: string[] } }).details.problems).toHaveLength(2)
})

test.each([
  ['GET', '/nothing', {}, '404 not_found'],
  ['GET', '/v1/things/', {}, '404 not_found'],
  ['DELETE', '/v1/echo', {}, '405 method_not_allowed'],
  ['HEAD', '/v1/echo', {}, '405 undefined'],
  ['GET', '/v1/things/%ff', {}, '400 invalid_request'],
  ['GET', '/v1/things/a?name=b', {}, '400 invalid_request'],
  ['GET', '/v1/things/a?limit=ten', {}, '400 invalid_request'],
  ['GET', '//evil/v1/things/a', {}, '400 invalid_request'],
  ['GET', 'http://evil/v1/things/a', {}, '400 invalid_request'],
  ['POST', '/v1/echo', { body: '[]' }, '400 invalid_request'],
  ['POST', '/v1/echo', { body: '{"text":' }, '400 invalid_request'],
  ['POST', '/v1/echo', { body: `{"text":${'['.repeat(100_000)}${']'.repeat(100_000)}}` }, '400 invalid_request'],
  [
    'POST',
    '/v1/pay',
    { headers: { 'Idempotency-Key': 'deep' }, body: `${'{"sats":'.repeat(100_000)}1${'}'.repeat(100_000)}` },
    '400 invalid_request',
  ],
  ['POST', '/v1/echo', { body: '{"__proto__":{"text":"x"}}' }, '400 invalid_request'],
  ['POST', '/v1/echo', { body: `{"text":"${'x'.repeat(2 ** 20)}"}` }, '413 request_too_large'],
  ['GET', '/v1/things/a', { headers: { Origin: 'http://pylon' } }, '403 forbidden_origin'],
  ['GET', '/v1/things/a', { headers: { Referer: 'http://pylon/' } }, '403 forbidden_origin'],
  ['GET', '/v1/things/a', { headers: { Host: 'evil.example' } }, '403 forbidden_origin'],
  ['POST', '/v1/echo', { headers: { Expect: 'tea' }, body: '{}' }, '400 invalid_request'],
  ['POST', '/v1/pay', { body: '{"sats":1}' }, '400 idempotency_key_required'],
  ['POST', '/v1/pay', { headers: { 'Idempotency-Key': 'with space' }, body: '{"sats":1}' }, '400 invalid_request'],
  ['POST', '/v1/slow-pay?wait=forever', { headers: { 'Idempotency-Key': 'k' }, body: '{"sats":1}' }, '400 invalid_request'],
  ['GET', '/v1/tasks/none', {}, '404 task_not_found'],
])('%s %s is refused', async (method, path, options, expected) => {
  const { socket } = await setup()
  if (method === 'HEAD') {
    const status = await new Promise((resolve) =>
      httpRequest({ socketPath: socket, method, path, headers: { Host: 'pylon' } }, (r) => resolve(r.statusCode)).end(),
    )
    expect(status).toBe(405)
    return
  }
  expect(codeOf(await raw(socket, method, path, options))).toBe(expected)
})

test('a key pays once: replayed, joined while under way, refused with another request', async () => {
  const made = await setup()
  const { socket, paid } = made
  const call = (sats: number, key: string) => callRoute(socket, routes.pay, { sats }, { idempotencyKey: key })
  expect((await call(5, 'a')).value).toEqual({ paid: 5 })
  expect((await call(5, 'a')).value).toEqual({ paid: 5 })
  expect(paid).toEqual(['a'])
  await expect(call(6, 'a')).rejects.toMatchObject({ code: 'idempotency_conflict' })

  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => {
    release = resolve
  })
  made.pay = async (sats, { idempotencyKey }) => {
    paid.push(idempotencyKey)
    await gate
    return sats
  }
  const both = [call(7, 'b'), call(7, 'b')]
  await vi.waitFor(() => expect(paid).toEqual(['a', 'b']))
  release()
  expect((await Promise.all(both)).map((answer) => answer.value)).toEqual([{ paid: 7 }, { paid: 7 }])
  expect(paid).toEqual(['a', 'b'])
})

test('a refusal is an answer for ever, a fault or an unclear outcome may be asked again', async () => {
  const made = await setup()
  const call = (key: string) => callRoute(made.socket, routes.pay, { sats: 1 }, { idempotencyKey: key })
  const attempts: string[] = []
  for (const code of ['insufficient_funds', 'mint_unreachable', 'payment_unknown', 'internal', 'locked'] as const) {
    made.pay = async () => {
      attempts.push(code)
      throw new PylonError(code, 'no')
    }
    await expect(call(code)).rejects.toMatchObject({ code })
    await expect(call(code)).rejects.toMatchObject({ code })
  }
  expect(attempts).toEqual([
    'insufficient_funds',
    ...['mint_unreachable', 'mint_unreachable', 'payment_unknown', 'payment_unknown', 'internal', 'internal', 'locked', 'locked'],
  ])
})

test('an answer that leaves the outcome open is not the last word', async () => {
  const made = await setup()
  const call = async () => (await callRoute(made.socket, routes.pay, { sats: 1 }, { idempotencyKey: 'k' })).value
  made.pay = async () => 0
  expect(await call()).toEqual({ paid: 0 })
  made.pay = async () => 1
  expect(await call()).toEqual({ paid: 1 })
  made.pay = async () => 2
  expect(await call()).toEqual({ paid: 1 })
})

test('a key claimed before a crash is handed to the handler again', async () => {
  const store = Store.open(':memory:')
  const first = await setup(undefined, store)
  let isStuck = true
  first.pay = (sats) => (isStuck ? new Promise<number>(() => undefined) : Promise.resolve(sats))
  void callRoute(first.socket, routes.pay, { sats: 3 }, { idempotencyKey: 'k' }).catch(() => undefined)
  await vi.waitFor(() => expect(store.sql('SELECT key FROM idempotency').all()).toHaveLength(1))
  isStuck = false
  const second = await setup(undefined, store)
  expect((await callRoute(second.socket, routes.pay, { sats: 3 }, { idempotencyKey: 'k' })).value).toEqual({ paid: 3 })
  expect(second.paid).toEqual(['k'])
})

test('a task answers 202 with its place, is waited for, and outlives the connection', async () => {
  const made = await setup()
  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => {
    release = resolve
  })
  made.pay = async (sats, { idempotencyKey }) => {
    made.paid.push(idempotencyKey)
    await gate
    return sats
  }
  const order = { headers: { 'Idempotency-Key': 't' }, body: '{"sats":9}' }
  const begun = await raw(made.socket, 'POST', '/v1/slow-pay', order)
  expect(begun.status).toBe(202)
  expect(begun.body['state']).toBe('running')
  const location = String(begun.headers.location)
  expect(location).toBe(`/v1/tasks/${begun.body['task_id']}`)
  const joined = callRoute(made.socket, routes.slowPay, { sats: 9 }, { idempotencyKey: 't' })
  release()
  expect((await joined).value).toEqual({ paid: 9 })
  expect((await raw(made.socket, 'GET', location)).body).toMatchObject({
    network: 'sandbox',
    state: 'done',
    result: { paid: 9 },
    error: null,
  })
  const again = await raw(made.socket, 'POST', '/v1/slow-pay', order)
  expect(again.status).toBe(200)
  expect(again.body['result']).toEqual({ paid: 9 })
  expect(made.paid).toEqual(['t'])
})

test('a failed task throws its error at the caller; one lost in a crash says so and may be repeated', async () => {
  const made = await setup()
  made.pay = async () => {
    throw new PylonError('insufficient_funds', 'no sats')
  }
  await expect(callRoute(made.socket, routes.slowPay, { sats: 1 }, { idempotencyKey: 'x' })).rejects.toMatchObject({
    code: 'insufficient_funds',
  })

  made.pay = () => new Promise(() => undefined)
  const begun = await raw(made.socket, 'POST', '/v1/slow-pay', { headers: { 'Idempotency-Key': 'y' }, body: '{"sats":2}' })
  const deps = { store: made.store, clock: new ManualClock(), logger: silentLogger }
  await reconcileCalls(deps)
  const after = await setup(undefined, made.store)
  const lost = await raw(after.socket, 'GET', `/v1/tasks/${begun.body['task_id']}`)
  expect(lost.body).toMatchObject({ state: 'failed', error: { code: 'shutting_down', retryable: true } })
  expect((await callRoute(after.socket, routes.slowPay, { sats: 2 }, { idempotencyKey: 'y' })).value).toEqual({ paid: 2 })
})

test('a stream gives line after line until the reader leaves, and ends with the server', async () => {
  const { socket, server } = await setup()
  const seen: number[] = []
  for await (const { n } of streamRoute(socket, routes.count, {})) {
    seen.push(n)
    if (n === 3) break
  }
  expect(seen).toEqual([1, 2, 3])
  const rest = (async () => {
    for await (const { n } of streamRoute(socket, routes.count, {})) if (n === 2) void server.close(1000)
  })()
  await rest
  await expect(callRoute(socket, routes.echo, { text: 'x' })).rejects.toMatchObject({ code: 'not_running' })
})

test('while draining, changes are refused and reading goes on', async () => {
  const { socket, server } = await setup()
  server.drain()
  expect(codeOf(await raw(socket, 'POST', '/v1/echo', { body: '{"text":"x"}' }))).toBe('503 shutting_down')
  expect((await raw(socket, 'GET', '/v1/things/a')).status).toBe(200)
})

test('two Host headers are no request, in whatever order', async () => {
  const { socket } = await setup()
  for (const hosts of ['Host: pylon\r\nHost: evil', 'host: evil\r\nHOST: pylon', 'Host: pylon\r\nX: y\r\nHost: pylon']) {
    expect(await exchange(socket, Buffer.from(`GET /v1/things/a HTTP/1.1\r\n${hosts}\r\n\r\n`))).toMatch(
      /^HTTP\/1.1 400 .*invalid_request/s,
    )
  }
})

test('a socket that was deleted is made again, one of somebody else is left alone', async () => {
  const { socket, server } = await setup()
  expect(server.socketState()).toBe('ours')
  rmSync(socket)
  expect(server.socketState()).toBe('gone')
  await server.listenAgain()
  expect((await raw(socket, 'GET', '/v1/things/a')).status).toBe(200)
  rmSync(socket)
  writeFileSync(socket, 'of a successor')
  expect(server.socketState()).toBe('foreign')
  await server.close(100)
  expect(readFileSync(socket, 'utf8')).toBe('of a successor')
})

test('a node that takes a call and says nothing is named within seconds, whatever the call allows', async () => {
  const path = join(tempDir(), 's')
  const silent = createServer(() => undefined)
  await new Promise<void>((resolve) => silent.listen(path, resolve))
  onTestFinished(() => void silent.close())
  const call = callRoute(path, routes.pay, { sats: 1 }, { timeoutMs: 600_000 })
  await expect(call).rejects.toMatchObject({ code: 'timeout', message: expect.stringContaining('stopped or hung') })
})

test('a path that is too long for a socket is said to be', async () => {
  const path = join(tempDir(), 'x'.repeat(120))
  await expect(callRoute(path, routes.thing, { name: 'a' })).rejects.toMatchObject({ code: 'home_unusable' })
})

test('a file in the place of the socket is not removed', async () => {
  const dir = tempDir()
  writeFileSync(join(dir, 's'), 'mine')
  await expect(setup(dir)).rejects.toMatchObject({ code: 'home_unusable' })
})

test('whatever bytes come, the answer is a JSON error or the end of the connection, and the server lives', async () => {
  const { socket } = await setup()
  const garbage = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc
      .tuple(
        fc.constantFrom('GET', 'POST', 'PUT', 'CONNECT', 'PRI', 'get', ''),
        fc.oneof(fc.constantFrom('/v1/echo', '/v1/things/a', '*', 'http://x', '/v1/pay', '/v1/../x', '/%00'), fc.string({ maxLength: 40 })),
        fc.constantFrom('HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/9', ''),
        fc.array(
          fc.constantFrom(
            'Host: pylon',
            'Host:',
            'Content-Length: 5',
            'Content-Length: -1',
            'Content-Length: 99999999999999999999',
            'Transfer-Encoding: chunked',
            'Upgrade: websocket',
            'Connection: upgrade',
            'Idempotency-Key: k',
            'Expect: 100-continue',
            'X: \u0000',
          ),
          { maxLength: 5 },
        ),
        fc.oneof(fc.json(), fc.string({ maxLength: 60 })),
      )
      .map(([method, path, version, headers, body]) =>
        Buffer.from(`${method} ${path} ${version}\r\n${headers.join('\r\n')}\r\n\r\n${body}`),
      ),
  )
  await fc.assert(
    fc.asyncProperty(garbage, async (bytes) => {
      const answer = await exchange(socket, bytes)
      const body = answer.slice(answer.indexOf('\r\n\r\n') + 4)
      if (answer !== '' && /^HTTP\/1\.1 [45]/.test(answer))
        expect(JSON.parse(body.split('\r\n').find((line) => line.startsWith('{')) ?? '')).toHaveProperty('error.code')
    }),
    { numRuns: 300 },
  )
  expect((await raw(socket, 'GET', '/v1/things/alive')).status).toBe(200)
})

/** Sends the bytes, ends, and gives all that came back. */
function exchange(path: string, bytes: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(path)
    let text = ''
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
    })
    socket.on('error', () => resolve(text))
    socket.on('close', () => resolve(text))
    socket.end(bytes)
  })
}
