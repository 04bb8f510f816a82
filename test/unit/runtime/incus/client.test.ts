/** The Incus client against a server that answers as incusd was measured to: operations, refusals, the pinned certificate. */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { describe, expect, onTestFinished, test } from 'vitest'
import { IncusClient } from '../../../../src/runtime/incus/client.ts'
import { codeOf, parseEnvelope } from '../../../../src/runtime/incus/envelope.ts'
import { GuestFiles } from '../../../../src/runtime/incus/guest-files.ts'
import { ensureVolume } from '../../../../src/runtime/incus/incus-volumes.ts'
import { createInstance, getInstance, setDevice, setInstanceState } from '../../../../src/runtime/incus/instances.ts'
import type { IncusEndpoint } from '../../../../src/runtime/incus/transport.ts'
import { RecordingIncus } from '../../../support/recording-incus.ts'
import { testScope } from '../../../support/scope.ts'
import { tempDir } from '../../../support/temp.ts'

async function rig(): Promise<{ server: RecordingIncus; incus: IncusClient }> {
  const server = new RecordingIncus(tempDir())
  server.images.set('x', {})
  await server.listen()
  const incus = clientOf({ socketPath: server.socketPath })
  onTestFinished(() => server.close())
  return { server, incus }
}

function clientOf(endpoint: IncusEndpoint): IncusClient {
  const scope = testScope()
  onTestFinished(() => void scope.close())
  return new IncusClient({ endpoint, project: 'pylon', scope })
}

const tiny = { name: 'a', type: 'container', imageAlias: 'x', profiles: ['default'], config: {}, devices: {} } as const
const pem = (name: string) => readFileSync(join(import.meta.dirname, 'fixtures', name), 'utf8')

describe('operations', () => {
  for (const events of [true, false]) {
    test(`end well and badly, ${events ? 'heard of' : 'asked for'}`, async () => {
      const { server, incus } = await rig()
      server.events = events
      await createInstance(incus, tiny)
      await setInstanceState(incus, 'a', 'start')
      // A failed operation is waited for with status 200, and its path carries ?project=default.
      await expect(setInstanceState(incus, 'a', 'start')).rejects.toMatchObject({
        code: 'incus_conflict',
        message: expect.stringContaining('already running'),
      })
      const waits = server.requests.filter(({ path }) => path.includes('/wait'))
      expect(waits.length).toBe(events ? 0 : 3)
      for (const { path } of waits) expect(path).toMatch(/^\/1\.0\/operations\/[0-9a-f-]{36}\/wait\?project=pylon&timeout=\d+$/)
    })
  }

  test('a wait that ran out of its time is not an end', async () => {
    const { server, incus } = await rig()
    server.events = false
    server.answerOnce('GET', /\/wait/, 200, { type: 'error', error: 'context deadline exceeded', error_code: 500 })
    await createInstance(incus, tiny)
    expect(server.requests.filter(({ path }) => path.includes('/wait')).length).toBe(2)
  })

  test('an operation that was forgotten has an unknown outcome', async () => {
    const { server, incus } = await rig()
    server.events = false
    server.answerOnce('GET', /\/wait/, 404, { type: 'error', error: 'Operation not found', error_code: 404 })
    await expect(createInstance(incus, tiny)).rejects.toMatchObject({ code: 'timeout', message: expect.stringContaining('not known') })
  })

  test('can be given up', async () => {
    const { server, incus } = await rig()
    server.answerOnce('PUT', /state/, 202, {
      type: 'async',
      operation: '/1.0/operations/x',
      metadata: { id: '00000000-0000-0000-0000-000000000000', status: 'Running', status_code: 103, err: '' },
    })
    const giveUp = new AbortController()
    const waiting = setInstanceState(incus, 'a', 'start', { signal: giveUp.signal })
    await expect.poll(() => server.requests.length).toBeGreaterThan(0)
    giveUp.abort()
    await expect(waiting).rejects.toMatchObject({ code: 'cancelled' })
  })
})

describe('requests', () => {
  test('are of the project, and files are octets', async () => {
    const { server, incus } = await rig()
    await createInstance(incus, { ...tiny, target: 'n1' })
    expect(await ensureVolume(incus, { pool: 'p', name: 'v' }, {})).toBe('created')
    expect(await ensureVolume(incus, { pool: 'p', name: 'v' }, {})).toBe('found')
    const files = new GuestFiles(incus, 'a')
    await files.write({ path: '/etc/secret', mode: 0o600, data: 'sesame' })
    expect((await files.read('/etc/secret', 100))?.data.toString()).toBe('sesame')
    expect(await files.read('/etc/secret', 3)).toEqual({ data: Buffer.from('ses'), truncated: true })
    expect(await files.read('/etc/none', 3)).toBeUndefined()
    expect(server.requests.every(({ path }) => path.includes('project=pylon'))).toBe(true)
    const [create] = server.requests.filter(({ method, path }) => method === 'POST' && path.startsWith('/1.0/instances?'))
    expect(create?.path).toContain('target=n1')
    expect(JSON.parse(create?.body ?? '')).toMatchObject({ name: 'a', source: { type: 'image', alias: 'x' } })
    const [write] = server.requests.filter(({ method, path }) => method === 'POST' && path.includes('/files'))
    expect(write?.headers).toMatchObject({ 'content-type': 'application/octet-stream', 'x-incus-mode': '0600', 'x-incus-uid': '0' })
  })

  test('a device takes the place of the one of its name, and of no other', async () => {
    const { incus } = await rig()
    const root = { type: 'disk', path: '/', pool: 'default' }
    await createInstance(incus, { ...tiny, devices: { root, port: { type: 'proxy', listen: 'a' } } })
    await setDevice(incus, 'a', { port: { type: 'proxy', listen: 'b' } })
    expect((await getInstance(incus, 'a'))?.devices).toEqual({ root, port: { type: 'proxy', listen: 'b' } })
  })
})

describe('refusals', () => {
  test.each([
    [
      500,
      'Failed checking if instance creation allowed: Reached maximum number of instances of type "container" in project "pylon"',
      'incus_limit_reached',
    ],
    [500, 'Reached maximum aggregate value "1GiB" for "limits.memory"', 'incus_limit_reached'],
    [500, 'User does not have permissions for project "default"', 'incus_forbidden'],
    [403, 'Certificate is restricted', 'incus_forbidden'],
    [500, 'Privileged containers are forbidden', 'incus_forbidden'],
    [500, 'Disk source path "/etc" not allowed', 'incus_forbidden'],
    [500, "Server isn't ready yet", 'incus_unreachable'],
    [500, 'Unable to connect to: 127.0.0.1:8444', 'incus_unreachable'],
    [409, 'Volume by that name already exists', 'incus_conflict'],
    [400, 'Failed creating instance record: UNIQUE constraint failed: instances.project_id, instances.name', 'incus_conflict'],
    [400, 'The storage volume is still in use', 'incus_conflict'],
    [400, 'The instance is already running', 'incus_conflict'],
    [412, "ETag doesn't match: a vs b", 'incus_conflict'],
    [500, 'bind: address already in use', 'incus_conflict'],
    [404, 'Instance not found', 'incus_not_found'],
    [404, 'Image alias "x" not found', 'incus_image_missing'],
    [500, 'write /x: no space left on device', 'incus_no_space'],
    [500, 'Missing source path "/nope"', 'incus_failed'],
    [418, 'something new', 'incus_failed'],
  ])('%i %s is %s', (status, words, code) => {
    expect(codeOf(status, words)).toBe(code)
  })

  test('what is no answer of Incus is named', () => {
    expect(() => parseEnvelope('<html>', 'GET /1.0')).toThrow(expect.objectContaining({ code: 'incus_failed' }))
    expect(() => parseEnvelope('{"type":"async","operation":"x"}', 'GET /1.0')).toThrow(expect.objectContaining({ code: 'incus_failed' }))
  })

  test('a socket that is not there is named, with what to do', async () => {
    const incus = clientOf({ socketPath: '/nonexistent/incus.socket' })
    await expect(incus.call('GET', '/1.0')).rejects.toMatchObject({
      code: 'incus_unreachable',
      message: expect.stringMatching(/unix:\/nonexistent\/incus.socket.*daemon/),
    })
    await expect(incus.run('POST', '/1.0/instances', { body: {} })).rejects.toMatchObject({ code: 'incus_unreachable' })
  })

  test('a server that is silent is a timeout', async () => {
    const { server, incus } = await rig()
    const silent = createServer({ key: pem('server.key'), cert: pem('server.crt') }, () => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      silent.closeAllConnections()
      silent.close()
    })
    const tls = { clientCert: pem('client.crt'), clientKey: pem('client.key'), serverCert: pem('server.crt') }
    const slow = clientOf({ url: `https://127.0.0.1:${(silent.address() as AddressInfo).port}`, tls })
    await expect(slow.call('GET', '/1.0', { timeoutMs: 50 })).rejects.toMatchObject({ code: 'timeout' })
    expect(incus.name).toBe(`unix:${server.socketPath}`)
  })
})

describe('https', () => {
  async function httpsRig(present: string) {
    const seen: (string | undefined)[] = []
    const server = createServer(
      { key: pem(`${present}.key`), cert: pem(`${present}.crt`), requestCert: true, rejectUnauthorized: false, ca: pem('client.crt') },
      (request, response) => {
        const certificate = (request.socket as TLSSocket).getPeerCertificate()
        seen.push(String(certificate.subject?.CN))
        response.end(JSON.stringify({ type: 'sync', metadata: { auth: 'trusted' } }))
      },
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const tls = { clientCert: pem('client.crt'), clientKey: pem('client.key'), serverCert: pem('server.crt') }
    const incus = clientOf({ url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, tls })
    return { incus, seen }
  }

  test('the pinned certificate is enough, whatever its names, and ours is shown', async () => {
    const { incus, seen } = await httpsRig('server')
    expect((await incus.call('GET', '/1.0')).metadata).toEqual({ auth: 'trusted' })
    expect(seen).toEqual(['client'])
  })

  test('any other certificate is refused before a request is sent', async () => {
    const { incus, seen } = await httpsRig('other')
    await expect(incus.call('GET', '/1.0')).rejects.toMatchObject({ code: 'incus_untrusted' })
    expect(seen).toEqual([])
  })

  test('only https and only an origin', () => {
    const tls = { clientCert: pem('client.crt'), clientKey: pem('client.key'), serverCert: pem('server.crt') }
    for (const url of ['http://127.0.0.1:1', 'https://u@h:1', 'https://h:1/x', 'nothing']) {
      expect(() => clientOf({ url, tls })).toThrow(expect.objectContaining({ code: 'usage' }))
    }
    const bad = { ...tls, serverCert: 'no pem' }
    expect(() => clientOf({ url: 'https://h:1', tls: bad })).toThrow(expect.objectContaining({ code: 'config_invalid' }))
  })
})
