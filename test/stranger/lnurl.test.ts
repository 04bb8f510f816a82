/** Addresses and zaps as other people's clients see them: nostr-tools, cashu-ts and fetch, nothing of ours. */
import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import { Wallet } from '@cashu/cashu-ts'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { decode } from 'light-bolt11-decoder'
import { getZapEndpoint, makeZapRequest, validateZapRequest } from 'nostr-tools/nip57'
import { getToken } from 'nostr-tools/nip98'
import { finalizeEvent, generateSecretKey, getPublicKey, type NostrEvent, verifyEvent } from 'nostr-tools/pure'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import WebSocket from 'ws'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { ScriptedRelay } from '../support/scripted-relay.ts'

useWebSocketImplementation(WebSocket)

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

interface Answer {
  status: number
  body: Record<string, unknown>
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const randomQuoteKey = () => secp256k1.utils.randomSecretKey()
const quotePubkey = (key = randomQuoteKey()) => hex(secp256k1.getPublicKey(key, true))

async function read(response: Response): Promise<Answer> {
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

/** A request with an authorization made by nostr-tools. */
async function signed(key: Uint8Array, method: 'GET' | 'POST', path: string, payload?: Record<string, unknown>) {
  const base = sandbox.lnurlBaseUrl
  const token = await getToken(base + path, method, (event) => finalizeEvent(event, key), true, payload)
  const init = { method, headers: { authorization: token }, ...(payload === undefined ? {} : { body: JSON.stringify(payload) }) }
  return { send: async () => read(await fetch(base + path, init)), token }
}

interface Agent {
  key: Uint8Array
  pubkey: string
  name: string
  lnurl: string
  callback: string
  quoteKey: Uint8Array
}

async function register(name: string): Promise<Agent> {
  const [key, quoteKey] = [generateSecretKey(), randomQuoteKey()]
  const body = { name, quote_pubkey: quotePubkey(quoteKey), mint_url: sandbox.mintUrl }
  const answer = await (await signed(key, 'POST', '/sandbox/register', body)).send()
  expect(answer.status).toBe(200)
  const { lnurl, callback } = answer.body as { lnurl: string; callback: string }
  return { key, quoteKey, pubkey: getPublicKey(key), name, lnurl, callback }
}

const profileOf = (agent: Agent) =>
  finalizeEvent({ kind: 0, created_at: 1, tags: [], content: JSON.stringify({ name: agent.name, lud06: agent.lnurl }) }, agent.key)

function zapRequest(agent: Agent, amount: number, sender = generateSecretKey()): NostrEvent {
  return finalizeEvent(makeZapRequest({ pubkey: agent.pubkey, amount, comment: 'well done', relays: [sandbox.relayUrl] }), sender)
}

async function callback(agent: Agent, query: Record<string, string>): Promise<Record<string, unknown>> {
  return (await read(await fetch(`${agent.callback}?${new URLSearchParams(query)}`))).body
}

const pay = (request: string) => fetch(`${sandbox.mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request }) })

/** Pays as a sender with ecash does: by a melt at the mint. */
async function melt(request: string): Promise<void> {
  const wallet = new Wallet(sandbox.mintUrl, { unit: 'sat' })
  await wallet.loadMint()
  const funding = await wallet.createMintQuoteBolt11(100)
  await pay(funding.request)
  const proofs = await wallet.mintProofsBolt11(100, funding)
  await wallet.meltProofsBolt11(await wallet.createMeltQuoteBolt11(request), proofs)
}

async function receiptsFor(pubkey: string): Promise<NostrEvent[]> {
  const relay = await Relay.connect(sandbox.relayUrl)
  const events: NostrEvent[] = []
  await new Promise<void>((resolve) =>
    relay.subscribe([{ kinds: [9735], '#p': [pubkey] }], { onevent: (event) => events.push(event), oneose: resolve }),
  )
  relay.close()
  return events
}

const tagOf = (event: NostrEvent, name: string) => event.tags.find((tag) => tag[0] === name)?.[1]

describe('zaps', () => {
  test('the receipt goes to the relays that the zap request names, where they are on this machine', async () => {
    const other = await ScriptedRelay.start()
    onTestFinished(() => other.stop())
    const agent = await register('rita')
    const relays = ['ws://127.0.0.1:9', 'ws://192.0.2.1', 'nonsense', other.url]
    const zap = finalizeEvent(makeZapRequest({ pubkey: agent.pubkey, amount: 1000, comment: '', relays }), generateSecretKey())
    const { pr } = (await callback(agent, { amount: '1000', nostr: JSON.stringify(zap) })) as { pr: string }
    await pay(pr)
    await expect.poll(() => other.received('EVENT').map((frame) => (frame[1] as NostrEvent).kind)).toEqual([9735])
    expect(await receiptsFor(agent.pubkey)).toHaveLength(1)
  })

  test('end to end: profile, invoice that commits to the request, payment, one receipt, ecash for the owner only', async () => {
    const agent = await register('ada')
    const endpoint = await getZapEndpoint(profileOf(agent))
    expect(endpoint).toBe(agent.callback)
    const sender = generateSecretKey()
    const request = JSON.stringify(zapRequest(agent, 21_000, sender))
    const { pr } = (await callback(agent, { amount: '21000', nostr: request, lnurl: agent.lnurl })) as { pr: string }
    const sections = Object.fromEntries(decode(pr).sections.map((s) => [s.name, 'value' in s ? s.value : undefined]))
    expect(sections['amount']).toBe('21000')
    expect(decode(pr).sections.some((s) => s.name === 'description')).toBe(false)
    expect(await receiptsFor(agent.pubkey)).toEqual([])

    await melt(pr)
    await expect.poll(() => receiptsFor(agent.pubkey)).toHaveLength(1)
    const [receipt] = (await receiptsFor(agent.pubkey)) as [NostrEvent]
    const info = (await read(await fetch(`${sandbox.lnurlBaseUrl}/.well-known/lnurlp/ada`))).body
    expect(verifyEvent(receipt)).toBe(true)
    expect(receipt.pubkey).toBe(info['nostrPubkey'])
    expect(tagOf(receipt, 'bolt11')).toBe(pr)
    expect(tagOf(receipt, 'P')).toBe(getPublicKey(sender))
    expect(tagOf(receipt, 'description')).toBe(request)
    expect(validateZapRequest(tagOf(receipt, 'description') ?? '')).toBeNull()
    const preimage = Buffer.from(tagOf(receipt, 'preimage') ?? '', 'hex')
    expect(createHash('sha256').update(preimage).digest('hex')).toBe(sections['payment_hash'])

    const { body } = await (await signed(agent.key, 'GET', '/sandbox/quotes')).send()
    const [quote, ...others] = body['quotes'] as {
      quote: string
      amount_sats: number
      sender_pubkey: string
      zap_request_id: string
      request: string
    }[]
    expect(others).toEqual([])
    expect(quote).toMatchObject({
      amount_sats: 21,
      request: pr,
      sender_pubkey: getPublicKey(sender),
      zap_request_id: JSON.parse(request).id,
    })
    const wallet = new Wallet(sandbox.mintUrl, { unit: 'sat' })
    await wallet.loadMint()
    const mintQuote = await wallet.checkMintQuoteBolt11(quote?.quote ?? '')
    const outputs = await wallet.prepareMint('bolt11', 21, { quote: mintQuote.quote })
    await expect(wallet.completeMint(outputs)).rejects.toMatchObject({ code: 20_008 })
    expect(await wallet.mintProofsBolt11(21, mintQuote, { privkey: hex(agent.quoteKey) })).not.toEqual([])
    expect((await (await signed(agent.key, 'GET', '/sandbox/quotes')).send()).body).toEqual({ quotes: [] })
    expect(await receiptsFor(agent.pubkey)).toHaveLength(1)
  })

  test('the description hash is that of the request as it was sent', async () => {
    const agent = await register('hash')
    const request = JSON.stringify(zapRequest(agent, 5_000), null, 1)
    const { pr } = (await callback(agent, { amount: '5000', nostr: request })) as { pr: string }
    // The decoder leaves the hash out, so look for its field: `h`, 52 words, then the hash.
    const words = [...pr.slice(pr.lastIndexOf('1') + 1)].map((c) => 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'.indexOf(c))
    const wanted = createHash('sha256').update(request).digest()
    const bits = [...wanted]
      .map((byte) => byte.toString(2).padStart(8, '0'))
      .join('')
      .padEnd(260, '0')
    expect(words.map((word) => word.toString(2).padStart(5, '0')).join('')).toContain(bits)
  })

  test.each([
    ['another recipient', (agent: Agent) => zapRequest({ ...agent, pubkey: getPublicKey(generateSecretKey()) }, 5_000)],
    ['another amount', (agent: Agent) => zapRequest(agent, 6_000)],
    ['a broken signature', (agent: Agent) => ({ ...zapRequest(agent, 5_000), sig: '0'.repeat(128) })],
    [
      'two p tags',
      (agent: Agent) =>
        finalizeEvent(
          {
            kind: 9734,
            created_at: 1,
            content: '',
            tags: [
              ['p', agent.pubkey],
              ['p', agent.pubkey],
              ['relays', 'ws://x'],
            ],
          },
          generateSecretKey(),
        ),
    ],
    [
      'no relays',
      (agent: Agent) => finalizeEvent({ kind: 9734, created_at: 1, content: '', tags: [['p', agent.pubkey]] }, generateSecretKey()),
    ],
    [
      'two e tags',
      (agent: Agent) =>
        finalizeEvent(
          {
            kind: 9734,
            created_at: 1,
            content: '',
            tags: [
              ['p', agent.pubkey],
              ['relays', 'ws://x'],
              ['e', 'a'.repeat(64)],
              ['e', 'b'.repeat(64)],
            ],
          },
          generateSecretKey(),
        ),
    ],
    [
      'another kind',
      (agent: Agent) =>
        finalizeEvent(
          {
            kind: 1,
            created_at: 1,
            content: '',
            tags: [
              ['p', agent.pubkey],
              ['relays', 'ws://x'],
            ],
          },
          generateSecretKey(),
        ),
    ],
    ['no event at all', () => 'nonsense'],
  ])('a zap request with %s is refused', async (_name, make) => {
    const agent = await register(`bad-${crypto.randomUUID().slice(0, 8)}`)
    const answer = await callback(agent, { amount: '5000', nostr: JSON.stringify(make(agent)) })
    expect(answer).toMatchObject({ status: 'ERROR', reason: expect.any(String) })
  })

  test('a payment without a zap request carries its comment and makes no receipt', async () => {
    const agent = await register('plain')
    const { pr } = (await callback(agent, { amount: '3000', comment: 'for coffee' })) as { pr: string }
    await pay(pr)
    const { body } = await (await signed(agent.key, 'GET', '/sandbox/quotes')).send()
    expect(body['quotes']).toMatchObject([{ amount_sats: 3, comment: 'for coffee', zap_request_id: null, sender_pubkey: null }])
    expect(await receiptsFor(agent.pubkey)).toEqual([])
  })
})

describe('registration (NIP-98)', () => {
  test('an authorization is used once', async () => {
    const body = { name: 'once', quote_pubkey: quotePubkey() }
    const request = await signed(generateSecretKey(), 'POST', '/sandbox/register', body)
    expect((await request.send()).status).toBe(200)
    expect(await request.send()).toMatchObject({ status: 401, body: { code: 'replayed' } })
  })

  test('a name belongs to one key; its owner may change the name and the quote key', async () => {
    const owner = await register('mine')
    const quote_pubkey = quotePubkey()
    const other = await (await signed(generateSecretKey(), 'POST', '/sandbox/register', { name: 'mine', quote_pubkey })).send()
    expect(other).toMatchObject({ status: 409, body: { code: 'name_taken' } })
    const renamed = await (await signed(owner.key, 'POST', '/sandbox/register', { name: 'mine-2', quote_pubkey })).send()
    expect(renamed).toMatchObject({ status: 200, body: { name: 'mine-2', lud16: expect.stringContaining('mine-2@') } })
    expect((await fetch(`${sandbox.lnurlBaseUrl}/.well-known/lnurlp/mine`)).status).toBe(404)
  })

  test('url, method, body, time, signature and shape are checked', async () => {
    const key = generateSecretKey()
    const path = '/sandbox/register'
    const body = JSON.stringify({ name: 'x', quote_pubkey: quotePubkey() })
    const now = Math.floor(Date.now() / 1000)
    const good = {
      kind: 27_235,
      created_at: now,
      content: '',
      tags: [
        ['u', sandbox.lnurlBaseUrl + path],
        ['method', 'POST'],
        ['payload', createHash('sha256').update(body).digest('hex')],
      ],
    }
    const send = async (event: object | string, text = body) => {
      const authorization = typeof event === 'string' ? event : `Nostr ${btoa(JSON.stringify(event))}`
      return (await fetch(sandbox.lnurlBaseUrl + path, { method: 'POST', headers: { authorization }, body: text })).status
    }
    const sign = (change: object) => finalizeEvent({ ...good, ...change }, key)
    expect(await send(sign({ created_at: now - 120 }))).toBe(401)
    expect(await send(sign({ created_at: now + 120 }))).toBe(401)
    expect(await send(sign({ kind: 1 }))).toBe(401)
    expect(await send(sign({ tags: good.tags.with(0, ['u', `${sandbox.mintUrl}${path}`]) }))).toBe(401)
    expect(await send(sign({ tags: good.tags.with(1, ['method', 'GET']) }))).toBe(401)
    expect(await send(sign({ tags: good.tags.slice(0, 2) }))).toBe(401)
    expect(await send(sign({}), `${body} `)).toBe(401)
    expect(await send({ ...sign({}), sig: '0'.repeat(128) })).toBe(401)
    for (const header of ['', 'Nostr', 'Nostr !!!', 'Nostr e30=', 'Bearer x']) expect(await send(header)).toBe(401)
    expect(await send(sign({}))).toBe(200)
  })

  test('bad names and keys are refused', async () => {
    const quote_pubkey = quotePubkey()
    for (const body of [
      { name: '../x', quote_pubkey },
      { name: '', quote_pubkey },
      { name: 'ok' },
      { name: 'ok', quote_pubkey: `02${'f'.repeat(64)}` },
    ]) {
      expect((await (await signed(generateSecretKey(), 'POST', '/sandbox/register', body)).send()).status).toBe(400)
    }
  })
})

test('amounts out of range, fractions of a sat, long comments and unknown names are LNURL errors', async () => {
  const agent = await register('errors')
  const queries: Record<string, string>[] = [
    {},
    { amount: '' },
    { amount: '-1' },
    { amount: '999' },
    { amount: '1500' },
    { amount: '1e6' },
    { amount: '999999999999999' },
    { amount: '1000', comment: 'x'.repeat(256) },
  ]
  for (const query of queries) expect(await callback(agent, query)).toMatchObject({ status: 'ERROR', reason: expect.any(String) })
  const unknown = await read(await fetch(`${sandbox.lnurlBaseUrl}/.well-known/lnurlp/nobody`))
  expect(unknown).toMatchObject({ status: 404, body: { status: 'ERROR' } })
})

test('hostile requests are answered and the server goes on', async () => {
  const url = sandbox.lnurlBaseUrl
  expect((await fetch(`${url}/%ff`)).status).toBe(404)
  expect((await fetch(`${url}//`)).status).toBeGreaterThanOrEqual(400)
  expect((await fetch(`${url}/sandbox/quotes`)).status).toBe(401)
  expect(
    (await fetch(`${url}/sandbox/register`, { method: 'POST', body: 'x'.repeat(100_000) }).catch(() => ({ status: 413 }))).status,
  ).toBe(413)
  expect((await fetch(`${url}/sandbox/register`, { method: 'DELETE' })).status).toBe(404)
  expect((await register('alive')).callback).toContain(url)
})

test('two Host headers are no request, at none of the servers', async () => {
  for (const base of [sandbox.lnurlBaseUrl, sandbox.mintUrl, sandbox.relayUrl]) {
    const { hostname, port } = new URL(base)
    const socket = connect(Number(port), hostname)
    const upgrade =
      'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
    socket.end(`GET / HTTP/1.1\r\nHost: ${hostname}\r\n${base.startsWith('ws') ? upgrade : ''}Host: evil.example\r\n\r\n`)
    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1.1 400 /)
  }
})
