/** The guarded dialer against real servers on loopback, and against names that resolve to where nobody may go. */
import { createServer, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { createDialer, type Dialer, type Lookup } from '../../../src/base/dialer.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

function dialer(options: Parameters<typeof createDialer>[0] = {}): Dialer {
  const made = createDialer(options)
  cleanups.push(() => made.close())
  return made
}

async function serve(listener: RequestListener): Promise<{ url: string; server: Server }> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

const resolvingTo =
  (...addresses: string[]): Lookup =>
  async () =>
    addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))

describe('addresses of strangers', () => {
  const refused = [
    'https://127.0.0.1/',
    'https://2130706433/',
    'https://0x7f.1/',
    'https://0177.0.0.1/',
    'https://[::1]/',
    'https://[::ffff:10.0.0.1]/',
    'https://10.1.2.3:8443/x',
    'https://169.254.169.254/latest/meta-data',
    'http://example.com/',
    'ftp://example.com/',
    'file:///etc/passwd',
    'https://user:pass@example.com/',
    'not a url',
  ]
  it.each(refused)('refuses %s before any connection', async (url) => {
    const made = dialer({ lookup: () => Promise.reject(new Error('must not be asked')) })
    await expect(made.fetch(url)).rejects.toMatchObject({ code: 'address_refused' })
    const ws = url.replace(/^http/, 'ws')
    expect(() => made.connectWebSocket(ws)).toThrow(expect.objectContaining({ code: 'address_refused' }))
  })

  it.each([['127.0.0.1'], ['8.8.8.8', '192.168.1.1'], ['fd00::1']])('refuses a name that resolves to %s', async (...addresses) => {
    const made = dialer({ lookup: resolvingTo(...addresses) })
    await expect(made.fetch('https://rebinding.example/')).rejects.toMatchObject({
      code: 'address_refused',
      message: expect.stringContaining('https://rebinding.example/'),
    })
    const socket = made.connectWebSocket('wss://rebinding.example/')
    const error = await new Promise((resolve) => socket.on('error', resolve))
    expect(error).toMatchObject({ code: 'address_refused' })
  })

  it('asks for a name once, so that a second answer cannot lead elsewhere', async () => {
    const asked: string[] = []
    const made = dialer({
      lookup: async (hostname) => {
        asked.push(hostname)
        return asked.length === 1 ? [{ address: '127.0.0.1', family: 4 }] : [{ address: '8.8.8.8', family: 4 }]
      },
    })
    await expect(made.fetch('https://rebinding.example/')).rejects.toMatchObject({ code: 'address_refused' })
    expect(asked).toEqual(['rebinding.example'])
  })
})

describe('an exception of the owner', () => {
  it('is exact: scheme class, host and port', async () => {
    const { url } = await serve((_request, response) => response.end('hello'))
    const { url: other } = await serve((_request, response) => response.end('secret'))
    const made = dialer({ allowedOrigins: [url] })
    expect(await made.fetch(`${url}/path`)).toMatchObject({ status: 200, text: 'hello' })
    await expect(made.fetch(other)).rejects.toMatchObject({ code: 'address_refused' })
    await expect(made.fetch(url.replace('127.0.0.1', 'localhost'))).rejects.toMatchObject({ code: 'address_refused' })
    expect([made.isAllowed(url.replace('http', 'ws')), made.isAllowed(other)]).toEqual([true, false])
  })

  it('is none for an address that a stranger named, unless strangers may name it, for the same purpose and at the same path', async () => {
    const { url } = await serve((_request, response) => response.end('of the owner'))
    const made = dialer({ allowedOrigins: [url] })
    const relay = url.replace('http', 'ws')
    const refused = { code: 'address_refused' }
    const purposes = ['lnurl', 'relay', 'input'] as const
    for (const namedByStranger of purposes) await expect(made.fetch(url, { namedByStranger })).rejects.toMatchObject(refused)
    expect(() => made.connectWebSocket(relay, { namedByStranger: true })).toThrow('did not configure')
    // A relay: its own address, and the document that stands there (NIP-11). Nothing else of that host, and for no input of a job.
    made.allow(`${relay}/nostr`, true)
    expect(await made.fetch(`${url}/nostr`, { namedByStranger: 'relay' })).toMatchObject({ status: 200 })
    expect([made.isAllowed(`${relay}/nostr/`, true), made.isAllowed(relay, true)]).toEqual([true, false])
    for (const path of ['', '/admin', '/nostr/metrics', '/nostrum'])
      await expect(made.fetch(`${url}${path}`, { namedByStranger: 'relay' })).rejects.toMatchObject(refused)
    for (const namedByStranger of ['input', 'lnurl'] as const)
      await expect(made.fetch(`${url}/nostr`, { namedByStranger })).rejects.toMatchObject(refused)
    // An LNURL server: what is below its address.
    made.allow(`${url}/pay`, true)
    expect(await made.fetch(`${url}/pay/ada/callback?amount=1`, { namedByStranger: 'lnurl' })).toMatchObject({ status: 200 })
    await expect(made.fetch(`${url}/payments`, { namedByStranger: 'lnurl' })).rejects.toMatchObject(refused)
    await expect(made.fetch(`${url}/pay`, { namedByStranger: 'input' })).rejects.toMatchObject(refused)
  })

  it('sends method, headers and body, and gives back any status', async () => {
    const { url } = await serve((request, response) => {
      let body = ''
      request.on('data', (chunk) => (body += String(chunk)))
      request.on('end', () => response.writeHead(418, { 'x-echo': request.headers['x-ask'] }).end(`${request.method} ${body}`))
    })
    const made = dialer({ allowedOrigins: [url] })
    const response = await made.fetch(url, { method: 'POST', headers: { 'x-ask': 'yes' }, body: 'text' })
    expect(response).toMatchObject({ status: 418, text: 'POST text' })
    expect(response.headers['x-echo']).toBe('yes')
  })

  it('follows no redirect, reads no more than allowed, waits no longer than allowed', async () => {
    const { url } = await serve((request, response) => {
      if (request.url === '/redirect') response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()
      if (request.url === '/large') response.end('x'.repeat(100_000))
    })
    const made = dialer({ allowedOrigins: [url] })
    await expect(made.fetch(`${url}/redirect`)).rejects.toMatchObject({
      code: 'fetch_failed',
      message: expect.stringContaining('redirect'),
    })
    await expect(made.fetch(`${url}/large`, { maxBytes: 50_000 })).rejects.toMatchObject({
      code: 'fetch_failed',
      message: expect.stringContaining('50000'),
    })
    await expect(made.fetch(`${url}/silent`, { timeoutMs: 50 })).rejects.toMatchObject({
      code: 'fetch_failed',
      message: expect.stringContaining('50 ms'),
    })
    await expect(made.fetch('http://127.0.0.1:1/')).rejects.toMatchObject({ code: 'address_refused' })
  })

  it('names what cannot be reached', async () => {
    const { url, server } = await serve(() => {})
    await new Promise((resolve) => server.close(resolve))
    const made = dialer({ allowedOrigins: [url] })
    await expect(made.fetch(url)).rejects.toMatchObject({ code: 'fetch_failed', message: expect.stringContaining(url) })
  })

  it('opens web sockets', async () => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
    await new Promise((resolve) => server.once('listening', resolve))
    cleanups.push(() => server.close())
    server.on('connection', (socket) => socket.send('hello'))
    const made = dialer()
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
    expect(() => made.connectWebSocket(url)).toThrow(expect.objectContaining({ code: 'address_refused' }))
    made.allow(url)
    const socket = made.connectWebSocket(url)
    expect(String(await new Promise((resolve) => socket.on('message', resolve)))).toBe('hello')
    socket.close()
  })

  it('gives up on a handshake that never ends', async () => {
    const server = createTcpServer(() => {})
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => server.close())
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
    const made = dialer({ allowedOrigins: [url] })
    const socket = made.connectWebSocket(url, { handshakeTimeoutMs: 100 })
    const error = await new Promise((resolve) => socket.on('error', resolve))
    expect(String(error)).toContain('timed out')
  })
})
