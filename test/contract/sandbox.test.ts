/** The sandbox as a whole: ports that stay, files that are private, faults that do what they say, authentication for messages. */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { finalizeEvent, generateSecretKey, getPublicKey, type NostrEvent } from 'nostr-tools/pure'
import { afterEach, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { ManualClock } from '../../src/base/clock.ts'
import { isPylonError } from '../../src/base/errors.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

const started: TestSandbox[] = []
async function start(options: Parameters<typeof startSandbox>[0] = {}): Promise<TestSandbox> {
  const sandbox = await startSandbox(options)
  started.push(sandbox)
  return sandbox
}
afterEach(async () => {
  for (const sandbox of started.splice(0)) await sandbox.stop()
})

const sign = (key: Uint8Array, template: Partial<NostrEvent> = {}) =>
  finalizeEvent({ kind: 1, content: '', tags: [], created_at: Math.floor(Date.now() / 1000), ...template }, key)

async function connect(url: string) {
  const socket = new WebSocket(url)
  const messages: unknown[][] = []
  socket.on('message', (data) => messages.push(JSON.parse(String(data))))
  socket.on('error', () => {})
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  return {
    socket,
    messages,
    send: (message: unknown) => socket.send(JSON.stringify(message)),
    of: (type: string, id?: string) => messages.filter((m) => m[0] === type && (id === undefined || m[1] === id)),
  }
}

describe('ports', () => {
  test('are chosen once and stay', async () => {
    const first = await startSandbox()
    await first.stop({ keep: true })
    const second = await start({ dir: first.dir })
    expect([second.relayUrl, second.mintUrl, second.lnurlBaseUrl]).toEqual([first.relayUrl, first.mintUrl, first.lnurlBaseUrl])
  })

  test.each(['relayUrl', 'mintUrl', 'lnurlBaseUrl'] as const)(
    'a taken one (%s) is a clear error that leaves nothing running',
    async (which) => {
      const first = await startSandbox()
      await first.stop({ keep: true })
      const port = Number(new URL(first[which]).port)
      const blocker = createServer()
      await new Promise<void>((resolve) => blocker.listen(port, '127.0.0.1', resolve))
      const error: unknown = await startSandbox({ dir: first.dir }).catch((caught: unknown) => caught)
      expect(isPylonError(error, 'port_taken')).toBe(true)
      expect(String(error)).toContain(String(port))
      await new Promise((resolve) => blocker.close(resolve))
      await start({ dir: first.dir })
    },
  )
})

test('every file is readable by its owner only', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'pylon-private-'))
  await start({ dir: join(dir, 'sandbox') })
  expect(statSync(join(dir, 'sandbox')).mode & 0o777).toBe(0o700)
  const files = readdirSync(join(dir, 'sandbox'))
  expect(files).toEqual(expect.arrayContaining(['ports.json', 'relay.db', 'sandbox.db']))
  for (const file of files) expect(statSync(join(dir, 'sandbox', file)).mode & 0o077, file).toBe(0)
  rmSync(dir, { recursive: true, force: true })
})

describe('relay faults', () => {
  test('drop_ok stores the event and stays silent', async () => {
    const sandbox = await start({ faults: { drop_ok: 1 } })
    const client = await connect(sandbox.relayUrl)
    const [lost, told] = [sign(generateSecretKey()), sign(generateSecretKey())]
    client.send(['EVENT', lost])
    client.send(['EVENT', told])
    await expect.poll(() => client.of('OK', told.id)).toHaveLength(1)
    expect(client.of('OK', lost.id)).toEqual([])
    client.send(['REQ', 'x', { ids: [lost.id] }])
    await expect.poll(() => client.of('EVENT', 'x')).toHaveLength(1)
  })

  test('close_subs, deliver_duplicates, drop_connections and relay_down', async () => {
    const sandbox = await start()
    const client = await connect(sandbox.relayUrl)
    client.send(['REQ', 'x', { kinds: [1] }])
    await expect.poll(() => client.of('EOSE', 'x')).toHaveLength(1)
    await sandbox.faults({ deliver_duplicates: true })
    client.send(['EVENT', sign(generateSecretKey())])
    await expect.poll(() => client.of('EVENT', 'x')).toHaveLength(2)
    await sandbox.faults({ deliver_duplicates: false, close_subs: true })
    await expect.poll(() => client.of('CLOSED', 'x')).toHaveLength(1)
    const closed = new Promise((resolve) => client.socket.once('close', resolve))
    await sandbox.faults({ drop_connections: true })
    await closed
    await sandbox.faults({ relay_down: true })
    await expect(connect(sandbox.relayUrl)).rejects.toThrow()
    await sandbox.faults({ relay_down: false })
    await connect(sandbox.relayUrl)
  })
})

describe('mint faults', () => {
  const info = (sandbox: TestSandbox) => fetch(`${sandbox.mintUrl}/v1/info`).then((response) => response.status)

  test('fail answers as told, as often as told', async () => {
    const sandbox = await start({ faults: { fail: { path: '/v1/info', status: 503, body: { detail: 'x', code: 1 }, count: 2 } } })
    expect([await info(sandbox), await info(sandbox), await info(sandbox)]).toEqual([503, 503, 200])
  })

  test('mint_down cuts every request until it heals', async () => {
    const sandbox = await start()
    await sandbox.faults({ mint_down: true })
    await expect(info(sandbox)).rejects.toThrow()
    await sandbox.faults({ mint_down: false })
    expect(await info(sandbox)).toBe(200)
  })

  test('delay_ms answers later', async () => {
    const sandbox = await start({ faults: { delay_ms: { path: '/v1/info', ms: 1_000, count: 1 } } })
    const order: string[] = []
    await Promise.all([
      info(sandbox).then(() => order.push('delayed')),
      fetch(`${sandbox.mintUrl}/v1/keysets`).then(() => order.push('direct')),
    ])
    expect(order).toEqual(['direct', 'delayed'])
  })

  test('a browser page cannot switch faults on', async () => {
    const sandbox = await start()
    const init = { method: 'POST', body: '{"mint_down":true}', headers: { origin: 'https://example.com' } }
    expect((await fetch(`${sandbox.mintUrl}/sandbox/faults`, init)).status).toBe(403)
    expect(await info(sandbox)).toBe(200)
  })
})

test('authForDms serves private kinds to their author and addressee only, after AUTH', async () => {
  const sandbox = await start({ authForDms: true })
  const [owner, stranger] = [generateSecretKey(), generateSecretKey()]
  const wrap = sign(generateSecretKey(), { kind: 1059, tags: [['p', getPublicKey(owner)]] })
  const writer = await connect(sandbox.relayUrl)
  writer.send(['EVENT', wrap])
  await expect.poll(() => writer.of('OK', wrap.id)).toHaveLength(1)

  async function ask(key: Uint8Array): Promise<unknown[]> {
    const client = await connect(sandbox.relayUrl)
    client.send(['REQ', 'early', { kinds: [1059] }])
    await expect.poll(() => client.of('CLOSED', 'early')).toHaveLength(1)
    expect(client.of('CLOSED', 'early')[0]?.[2]).toMatch(/^auth-required:/)
    const tags = [
      ['relay', sandbox.relayUrl],
      ['challenge', String(client.of('AUTH')[0]?.[1])],
    ]
    const auth = sign(key, { kind: 22_242, tags })
    client.send(['AUTH', auth])
    await expect.poll(() => client.of('OK', auth.id)).toHaveLength(1)
    client.send(['REQ', 'late', { kinds: [1059] }])
    await expect.poll(() => client.of('EOSE', 'late')).toHaveLength(1)
    return client.of('EVENT', 'late')
  }
  expect(await ask(owner)).toHaveLength(1)
  expect(await ask(stranger)).toHaveLength(0)
})

test('an event is no longer served or counted once it has expired', async () => {
  const clock = new ManualClock(Date.now())
  const sandbox = await start({ clock })
  const seconds = () => Math.floor(clock.now() / 1000)
  const brief = sign(generateSecretKey(), { created_at: seconds(), tags: [['expiration', String(seconds() + 60)]] })
  const client = await connect(sandbox.relayUrl)
  client.send(['EVENT', brief])
  client.send(['REQ', 'before', { ids: [brief.id] }])
  await expect.poll(() => client.of('EOSE', 'before')).toHaveLength(1)
  expect(client.of('EVENT', 'before')).toHaveLength(1)
  await clock.advance(60_000)
  client.send(['REQ', 'after', { ids: [brief.id] }])
  client.send(['COUNT', 'count', { ids: [brief.id] }])
  await expect.poll(() => client.of('COUNT', 'count')).toEqual([['COUNT', 'count', { count: 0 }]])
  expect(client.of('EVENT', 'after')).toEqual([])
})
