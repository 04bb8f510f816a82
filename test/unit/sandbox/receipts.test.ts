/** Zap receipts: a publish that fails or is cut off is repeated with the same event, and never after it succeeded. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { systemRandom } from '../../../src/base/random.ts'
import { SandboxDatabase } from '../../../src/sandbox/database.ts'
import { Addresses } from '../../../src/sandbox/lnurl/addresses.ts'
import { ReceiptPublisher } from '../../../src/sandbox/lnurl/receipts.ts'
import { Mint } from '../../../src/sandbox/mint/mint.ts'
import { type NostrEvent, signEvent } from '../../../src/sandbox/nostr-event.ts'

const OWNER = 'a'.repeat(64)
const SENDER_KEY = Buffer.alloc(32, 7)
const clock = new ManualClock()
let dir: string
let database: SandboxDatabase

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pylon-receipts-'))
  database = new SandboxDatabase(join(dir, 'sandbox.db'), systemRandom)
})
afterEach(() => {
  database.close()
  rmSync(dir, { recursive: true, force: true })
})

/** A quote for a zap; returns its invoice. */
function zapQuote(mint: Mint): string {
  const zap = signEvent(
    {
      kind: 9_734,
      created_at: 1,
      content: '',
      tags: [
        ['p', OWNER],
        ['relays', 'ws://x'],
        ['e', 'b'.repeat(64)],
      ],
    },
    SENDER_KEY,
  )
  return mint.atomically(() => {
    const quote = mint.createLockedQuote({
      amount: 5,
      pubkey: `02${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}`,
      descriptionHash: Buffer.alloc(32),
    })
    new Addresses(database).addPayment(quote.id, { pubkey: OWNER, zapRequest: JSON.stringify(zap), comment: '' })
    return quote.request
  })
}

/** A publisher as after a fresh start, whose relay answers by `publish`. */
function publisher(publish: (event: NostrEvent) => Promise<unknown>): ReceiptPublisher {
  return new ReceiptPublisher({
    addresses: new Addresses(database),
    secretKey: database.secret('lnurl_nostr_key'),
    publish,
    clock,
    logger: silentLogger,
    ownRelay: 'ws://127.0.0.1:1',
  })
}

test('nothing is published before the invoice is paid', async () => {
  zapQuote(new Mint(database, clock))
  const sent: NostrEvent[] = []
  const receipts = publisher(async (event) => sent.push(event))
  receipts.publishDue()
  await receipts.idle()
  expect(sent).toEqual([])
})

test('the receipt names zap, sender, recipient, invoice and time of payment', async () => {
  const mint = new Mint(database, clock)
  const request = zapQuote(mint)
  mint.payFromNowhere(request)
  const sent: NostrEvent[] = []
  const receipts = publisher(async (event) => sent.push(event))
  receipts.publishDue()
  await receipts.idle()
  expect(sent).toHaveLength(1)
  expect(sent[0]).toMatchObject({ kind: 9_735, created_at: Math.floor(clock.now() / 1000), content: '' })
  expect(sent[0]?.tags).toEqual(
    expect.arrayContaining([
      ['p', OWNER],
      ['e', 'b'.repeat(64)],
      ['bolt11', request],
    ]),
  )
})

test('cut off between signing and the answer of the relay: the same event again, once', async () => {
  const mint = new Mint(database, clock)
  mint.payFromNowhere(zapQuote(mint))
  const attempts: string[] = []
  const failing = publisher(async (event) => {
    attempts.push(event.id)
    throw new Error('cut off')
  })
  failing.publishDue()
  await failing.idle()
  const working = publisher(async (event) => attempts.push(event.id))
  working.publishDue()
  await working.idle()
  working.publishDue()
  await working.idle()
  expect(attempts).toHaveLength(2)
  expect(new Set(attempts).size).toBe(1)
})

test('payments that arrive while one is being published are published too', async () => {
  const mint = new Mint(database, clock)
  const sent: string[] = []
  const receipts = publisher(async (event) => {
    sent.push(event.id)
    if (sent.length === 1) mint.payFromNowhere(second)
  })
  mint.onChange(() => receipts.publishDue())
  const [first, second] = [zapQuote(mint), zapQuote(mint)]
  mint.payFromNowhere(first)
  await receipts.idle()
  expect(new Set(sent).size).toBe(2)
})
