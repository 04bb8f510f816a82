/** Payment requests between two homes over a real mint: paid once by letter or POST, kept whatever comes in, whenever a node dies. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { unwrap } from '../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import {
  cancelPaymentRequest,
  getPaymentRequest,
  listRequestSends,
  type PaymentRequestRow,
  paymentsOfRequest,
} from '../../../src/store/money/payment-requests.ts'
import { proofsOfOperation } from '../../../src/store/money/proofs.ts'
import { pendingAfter } from '../../../src/store/nostr/outbox.ts'
import { encodePaymentRequest, parsePaymentRequest, writePayload } from '../../../src/wallet/ecash/payment-request.ts'
import type { RequestOrder } from '../../../src/wallet/requests/made.ts'
import { PaymentRequests } from '../../../src/wallet/requests/requests.ts'
import { Death } from '../../support/death.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { expectSound, fund, openHome, type TestHome, testWords } from './home.ts'

const RELAY = 'wss://relay.example'
const root = mkdtempSync(join(tmpdir(), 'py-'))
let sandbox: TestSandbox

/** A home whose letters lie in `post` until somebody takes them. */
interface Node {
  readonly home: TestHome
  readonly requests: PaymentRequests
  readonly post: NostrEvent[]
  isDead(): boolean
  close(): Promise<void>
}

interface Place {
  readonly dir: string
  readonly words: string
}
const place = (): Place => ({ dir: mkdtempSync(join(root, 'h')), words: testWords() })

/** @param dieAt it dies right after the commit with that label, or before it */
async function open({ dir, words }: Place, dieAt?: string, before = false): Promise<Node> {
  const death = new Death(dieAt, { before })
  const home = await openHome({ dir, words, mintUrls: [sandbox.mintUrl], ...death })
  home.dialer.allow(sandbox.lnurlBaseUrl, true)
  const scope = testScope(undefined, death.isGone)
  const post: NostrEvent[] = []
  const published: ((key: string, id: string) => Promise<void>)[] = []
  let flushed = 0
  const flush = async () => {
    for (const { id, key, event } of death.isDead ? [] : pendingAfter(home.store, flushed, 1000)) {
      flushed = id
      post.push(event as NostrEvent)
      for (const tell of published) await tell(key, event.id)
    }
  }
  const requests = new PaymentRequests({
    ...{ scope, store: home.store, logger: silentLogger, dialer: home.dialer, keyring: home.keyring, wallets: home.wallets },
    nostr: {
      relays: [RELAY],
      dmRelaysOf: async () => undefined,
      nudgeOutbox: () => void setImmediate(() => void flush().catch(() => {})),
      onPublished: (_prefix, handler) => void published.push(handler),
      onGivenUp: () => {},
    },
  })
  requests.start()
  setImmediate(() => void flush().catch(() => {}))
  return {
    ...{ home, requests, post, isDead: () => death.isDead },
    close: async () => {
      await scope.close()
      await home.close()
    },
  }
}

/** All letters of the post to the payee, once. */
async function deliver(from: Node, to: Node): Promise<boolean[]> {
  const taken: boolean[] = []
  for (const wrap of from.post.splice(0)) taken.push(await take(to, wrap))
  return taken
}

async function take(to: Node, wrap: NostrEvent): Promise<boolean> {
  const rumor = await unwrap(to.home.keyring.node(), wrap, createVerifier())
  return await to.requests.made.take({ rumorId: rumor.id, from: rumor.pubkey, content: rumor.content })
}

let payer: Node
let payee: Node

beforeAll(async () => {
  sandbox = await startSandbox()
  payer = await open(place())
  payee = await open(place())
  await fund(payer.home, payer.home.node, sandbox.mintUrl, 3000)
})
beforeEach(() => payer.post.splice(0))
afterEach(async () => {
  for (const { home } of [payer, payee]) expect(auditLedger(home.store).problems).toEqual([])
})
afterAll(async () => {
  await expectSound(payer.home, sandbox.mintUrl)
  await expectSound(payee.home, sandbox.mintUrl)
  await payer.close()
  await payee.close()
  await sandbox.stop()
  rmSync(root, { recursive: true, force: true })
})

const ask = (change: Partial<RequestOrder> = {}, of = payee): Promise<PaymentRequestRow> =>
  of.requests.made.create({
    ...{ idempotencyKey: randomUUID(), owner: of.home.node.owner, amountSats: 50n, singleUse: false, transport: 'nostr', relays: [RELAY] },
    ...change,
  })
const pay = (request: string, key: string = randomUUID(), from = payer, amountSats?: bigint) =>
  from.requests.payments.pay({ idempotencyKey: key, owner: from.home.node.owner, request: parsePaymentRequest(request), amountSats })
const came = (row: PaymentRequestRow, to = payee) => paymentsOfRequest(to.home.store, row.id, 100)
const settled = (row: PaymentRequestRow, count = 1, to = payee) =>
  vi.waitFor(() => expect(came(row, to).filter(({ state }) => state !== 'claimed')).toHaveLength(count), { timeout: 10_000, interval: 10 })

/** A token of the payer's as the payload of a request, whoever made that. */
async function payloadOf(id: string, amount: number, lockTo?: string): Promise<string> {
  const sent = await payer.home.node.sendToken({
    ...{ idempotencyKey: randomUUID(), cause: { type: 'owner', id }, amountSats: sats(amount), debitAccount: 'node/equity/withdrawal' },
    ...(lockTo === undefined ? {} : { lockTo }),
  })
  const proofs = proofsOfOperation(payer.home.store, sent.operationId, 'sent')
  const given = proofs.map(({ keysetId, amountSats, secret, c, dleq }) => ({
    id: keysetId,
    amount: Number(amountSats),
    secret,
    C: c,
    ...(dleq === null ? {} : { dleq }),
  }))
  return writePayload({ id, mintUrl: sent.mintUrl, proofs: given })
}
const letter = (content: string) => ({ rumorId: randomUUID(), from: 'ab'.repeat(32), content })

describe('a request that is paid by letter', () => {
  it('is paid once under its key, and received once however often the letter comes', async () => {
    const row = await ask()
    const key = randomUUID()
    const paid = await pay(row.request, key)
    expect(paid).toMatchObject({ row: { state: 'delivered', transport: 'nostr' }, sent: { amountSats: 50n } })
    expect((await pay(row.request, key)).sent?.operationId).toBe(paid.sent?.operationId)
    expect(payer.post).toHaveLength(1)
    const [wrap] = payer.post as [NostrEvent]
    // Whoever pays stays unknown to the payee.
    expect((await unwrap(payee.home.keyring.node(), wrap, createVerifier())).pubkey).not.toBe(payer.home.node.owner.pubkey)
    expect(await take(payee, wrap)).toBe(true)
    await settled(row)
    expect(await take(payee, wrap)).toBe(true)
    expect(came(row)).toMatchObject([{ state: 'received', amountSats: 50n, notes: '' }])
    expect(getPaymentRequest(payee.home.store, row.id)?.state).toBe('paid')
  })

  it('keeps what is short, over, late, on a cancelled one, and twice, and says so', async () => {
    const [single, parts, late, dropped] = [await ask({ singleUse: true }), await ask(), await ask({ expiresAt: 1 }), await ask()]
    await payee.home.store.write(cancelPaymentRequest({ id: dropped.id, at: Date.now() }))
    for (const [row, amounts] of [
      [single, [50, 64]],
      [parts, [20, 32]],
      [late, [50]],
      [dropped, [50]],
    ] as const) {
      for (const [nth, amount] of amounts.entries()) {
        expect(await payee.requests.made.take(letter(await payloadOf(row.id, amount)))).toBe(true)
        await settled(row, nth + 1)
      }
    }
    const notes = (row: PaymentRequestRow) =>
      came(row)
        .map((one) => one.notes)
        .reverse()
    expect(notes(single)).toEqual(['', 'over,again'])
    expect(notes(parts)).toEqual(['short', 'over'])
    expect(notes(late)).toEqual(['late'])
    expect(notes(dropped)).toEqual(['cancelled'])
    expect(getPaymentRequest(payee.home.store, parts.id)?.state).toBe('paid')
  })

  it('has its amount chosen by the payer where it names none; where it names one that is the amount', async () => {
    const open = await ask({ amountSats: undefined })
    await expect(pay(open.request)).rejects.toMatchObject({ code: 'amount_invalid' })
    expect((await pay(open.request, randomUUID(), payer, 21n)).sent?.amountSats).toBe(21n)
    const fixed = await ask()
    const before = payer.home.node.balance().balanceSats
    await expect(pay(fixed.request, randomUUID(), payer, 20n)).rejects.toMatchObject({ code: 'amount_invalid' })
    const key = randomUUID()
    await pay(fixed.request, key)
    // The same key with a request that asks for more is another payment.
    const more = await ask({ amountSats: 500n })
    await expect(pay(more.request, key)).rejects.toMatchObject({ code: 'idempotency_conflict' })
    expect(before - payer.home.node.balance().balanceSats).toBeLessThan(60n)
  })

  it('is not paid with what the wallet lacks, and its key is free then', async () => {
    const key = randomUUID()
    const row = await ask({ amountSats: 1_000_000n })
    await expect(pay(row.request, key)).rejects.toMatchObject({ code: 'insufficient_funds' })
    expect((await pay((await ask()).request, key)).row.state).toBe('delivered')
    const strange = encodePaymentRequest({
      id: 'x',
      amountSats: 5n,
      mints: ['https://mint.elsewhere'],
      description: undefined,
      singleUse: false,
      transports: [],
    })
    await expect(pay(strange.creqA)).rejects.toMatchObject({ code: 'mint_not_allowed' })
  })
})

describe('what strangers send to a request', () => {
  it('of another mint, locked to another key, spent or made up is refused, with the reason', async () => {
    const row = await ask()
    const good = JSON.parse(await payloadOf(row.id, 8))
    const spent = await payloadOf(row.id, 8)
    await payee.requests.made.take(letter(spent))
    await settled(row)
    const again = { ...JSON.parse(spent), proofs: [...JSON.parse(spent).proofs, ...good.proofs] }
    const hostile = [
      { ...good, mint: 'https://mint.elsewhere' },
      JSON.parse(await payloadOf(row.id, 8, payer.home.agent.lockPubkey)),
      again,
      { ...good, proofs: good.proofs.map((one: object) => ({ ...one, secret: 'made up', dleq: undefined })) },
    ]
    for (const payload of hostile) expect(await payee.requests.made.take(letter(JSON.stringify(payload)))).toBe(true)
    // A mint may be at fault for once: what it calls made up is asked about again, for days.
    await settled(row, 4)
    const refused = came(row).filter(({ state }) => state === 'refused')
    expect(refused.map(({ reason }) => reason).sort()).toEqual([
      expect.stringMatching(/locked to another key/),
      expect.stringMatching(/already spent/),
      expect.stringMatching(/of the mint https:\/\/mint.elsewhere/),
    ])
    expect(came(row).find(({ state }) => state === 'claimed')?.reason).toMatch(/not signed by this mint/)
    // Nothing of it was lost to who sent it.
    expect(came(row).filter(({ state }) => state === 'received')).toHaveLength(1)
  })

  it('and that is for no request of ours is left to others', async () => {
    expect(await payee.requests.made.take(letter('hello'))).toBe(false)
    expect(await payee.requests.made.take(letter(JSON.stringify({ id: 'none', mint: sandbox.mintUrl, unit: 'sat', proofs: [] })))).toBe(
      false,
    )
    expect(await payee.requests.made.take(letter(`{"proofs":"${'x'.repeat(5_000_000)}"}`))).toBe(false)
  })

  it('comes in though its mint refused it once, whatever it said', async () => {
    const row = await ask()
    await sandbox.faults({ fail: { path: '/v1/swap', status: 400, body: { detail: 'too many outputs', code: 11_015 }, count: 2 } })
    await payee.requests.made.take(letter(await payloadOf(row.id, 8)))
    await vi.waitFor(() => expect(came(row)[0]?.tries).toBeGreaterThan(0), { timeout: 10_000, interval: 10 })
    payee.home.store.sql('UPDATE request_payments SET next_try_at = 0 WHERE request_id = ?').run(row.id)
    for (const { id } of came(row)) await payee.requests.made.redeem(id)
    for (const { id } of came(row)) await payee.requests.made.redeem(id)
    expect(came(row)).toMatchObject([{ state: 'received', amountSats: 7n }])
  })

  it('waits while the mint is away, and comes in when it is back', async () => {
    const row = await ask()
    await sandbox.faults({ fail: { path: '/v1/swap', status: 500, body: {}, count: 1 } })
    await payee.requests.made.take(letter(await payloadOf(row.id, 50)))
    await vi.waitFor(() => expect(came(row)[0]?.state).toBe('received'), { timeout: 20_000, interval: 50 })
  })
})

describe('a request that is paid by POST', () => {
  const bodies: string[] = []
  let answer: (response: ServerResponse, request: IncomingMessage) => void
  const http = createServer((request, response) => {
    if (request.method === 'HEAD') return void response.writeHead(405).end()
    let body = ''
    request.on('data', (chunk) => (body += String(chunk)))
    request.on('end', () => {
      bodies.push(body)
      answer(response, request)
    })
  })
  let url = ''
  beforeAll(async () => {
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
    url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/pay`
    payer.home.dialer.allow(url, true)
  })
  beforeEach(() => void bodies.splice(0))
  afterAll(() => void http.close())
  const request = (target = url, id = 'shop') =>
    encodePaymentRequest({
      id,
      amountSats: 40n,
      mints: [sandbox.mintUrl],
      description: undefined,
      singleUse: true,
      transports: [{ type: 'post', url: target }],
    }).creqA

  it('arrives, and a server that takes it and breaks off gets the same token again and no other', async () => {
    const row = await ask()
    answer = (response) => void response.writeHead(200).end('{}')
    expect((await pay(request(url, row.id))).row.state).toBe('delivered')
    expect(await payee.requests.made.take(letter(bodies.splice(0)[0] ?? ''))).toBe(true)

    answer = (response) => {
      if (bodies.length === 1) response.socket?.destroy()
      else response.writeHead(200).end('{}')
    }
    const key = randomUUID()
    const first = await pay(request(), key)
    expect(first).toMatchObject({ row: { state: 'sending', tries: 1 }, sent: { state: 'pending' } })
    await vi.waitFor(() => expect(payer.requests.payments.view(first.row.id).row.state).toBe('delivered'), {
      timeout: 10_000,
      interval: 20,
    })
    expect(bodies).toHaveLength(2)
    expect(bodies[0]).toBe(bodies[1])
    expect((await pay(request(), key)).sent?.operationId).toBe(first.sent?.operationId)
  })

  it('was paid where the server took the token, broke off, and refuses it the second time', async () => {
    const row = await ask()
    answer = (response) => {
      if (bodies.length > 1) return void response.writeHead(400).end('spent')
      payee.requests.made.take(letter(bodies[0] ?? '')).then(
        () => settled(row).then(() => response.socket?.destroy()),
        () => response.socket?.destroy(),
      )
    }
    const paid = await pay(request(url, row.id))
    await vi.waitFor(() => expect(payer.requests.payments.view(paid.row.id).row.state).toBe('delivered'), { timeout: 10_000, interval: 20 })
    expect(payer.requests.payments.view(paid.row.id).sent?.state).toBe('claimed')
  })

  it('that is refused leaves the token to be taken back', async () => {
    answer = (response) => void response.writeHead(400).end('not for me')
    const before = payer.home.node.balance().balanceSats
    const refused = await pay(request())
    expect(refused).toMatchObject({
      row: { state: 'undelivered', reason: expect.stringContaining('not for me') },
      sent: { state: 'pending' },
    })
    const back = await payer.home.node.reclaim(`creq:${refused.row.idempotencyKey}`)
    expect(back.state).toBe('reclaimed')
    expect(before - payer.home.node.balance().balanceSats).toBeLessThan(5n)
  })

  it('at a private address, or one that is not there, is refused before anything is spent', async () => {
    const count = listRequestSends(payer.home.store, { limit: 1000 }).length
    const before = payer.home.node.balance().balanceSats
    for (const target of ['http://127.0.0.1:9/x', 'https://192.168.1.1/x', 'https://[::1]/x']) {
      await expect(pay(request(target))).rejects.toMatchObject({ code: 'address_refused' })
    }
    expect(payer.home.node.balance().balanceSats).toBe(before)
    expect(listRequestSends(payer.home.store, { limit: 1000 })).toHaveLength(count)
  })
})

describe('a node that dies', () => {
  const commits = ['claim_request_send', 'insert_operation', 'move_request_send:sending']
  it.each(
    commits.flatMap(
      (label) =>
        [
          [label, 'after'],
          [label, 'before'],
        ] as const,
    ),
  )('while it pays (%s, %s) pays once', async (label, when) => {
    const here = place()
    const first = await open(here)
    await fund(first.home, first.home.node, sandbox.mintUrl, 100)
    await first.close()
    const row = await ask()
    const dying = await open(here, label, when === 'before')
    await pay(row.request, 'once', dying).catch(() => {})
    expect(dying.isDead()).toBe(true)
    await dying.close().catch(() => {})
    const again = await open(here)
    onTestFinished(() => again.close())
    // The caller asks again under the same key, and the node goes on by itself.
    const paid = await pay(row.request, 'once', again)
    expect(paid.row.state).toBe('delivered')
    await vi.waitFor(() => expect(again.post.length).toBeGreaterThan(0), 5000)
    await deliver(again, payee)
    await settled(row)
    expect(came(row)).toMatchObject([{ state: 'received', amountSats: 50n }])
    expect(again.home.node.balance().balanceSats).toBeGreaterThanOrEqual(45n)
    await expectSound(again.home, sandbox.mintUrl)
  })

  it.each([
    ['claim_request_payment', false],
    ['insert_operation', false],
    ['receive_request_payment', true],
    ['receive_request_payment', false],
  ])('while it receives (%s, before: %s) has it once', async (label, before) => {
    const here = place()
    const first = await open(here)
    const row = await ask({}, first)
    await first.close()
    const wrap = letter(await payloadOf(row.id, 50))
    const dying = await open(here, label, before)
    await dying.requests.made.take(wrap).catch(() => {})
    await vi.waitFor(() => expect(dying.isDead()).toBe(true), 10_000)
    await dying.close().catch(() => {})
    const again = await open(here)
    onTestFinished(() => again.close())
    // The letter comes again, too.
    await again.requests.made.take(wrap)
    await settled(row, 1, again)
    expect(came(row, again)).toMatchObject([{ state: 'received', amountSats: 49n }])
    expect(again.home.node.balance().balanceSats).toBe(49n)
    await expectSound(again.home, sandbox.mintUrl)
  })
})
