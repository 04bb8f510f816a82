/** A service as npub.cash, after the documents of its API v2, over a real mint: what it lists is minted once, whatever it says besides. */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { verifyEvent } from 'nostr-tools/pure'
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { NpubCash } from '../../../src/wallet/zaps/npub-cash.ts'
import { Death } from '../../support/death.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, faucet, openHome, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

/** Who signed a request, by NIP-98; the address is signed without its query. */
function signerOf(header: string | undefined, url: string, method: string): string | undefined {
  const event = JSON.parse(Buffer.from(header?.replace(/^Nostr /, '') ?? '', 'base64').toString() || '{}')
  const tag = (name: string) => event.tags?.find((one: string[]) => one[0] === name)?.[1]
  const isRight = event.kind === 27_235 && tag('u') === url && tag('method') === method && verifyEvent(event)
  return isRight ? event.pubkey : undefined
}

/** @param shape of its answers: as documented, or as other clients have it */
async function service(shape: 'documented' | 'nested' = 'documented') {
  const quotes: Record<string, unknown>[] = []
  const mints: unknown[] = []
  let base = ''
  const http = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => (body += String(chunk)))
    request.on('end', () => {
      const url = new URL(request.url ?? '', base)
      const say = (status: number, value: unknown) => void response.writeHead(status).end(JSON.stringify(value))
      if (url.pathname.startsWith('/.well-known/lnurlp/'))
        return say(200, { tag: 'payRequest', callback: `${base}/cb`, minSendable: 1000, maxSendable: 1_000_000, metadata: '[]' })
      const from = signerOf(request.headers.authorization, `${base}${url.pathname}`, request.method ?? '')
      if (from === undefined) return say(401, { error: true, message: 'Invalid authentication token' })
      if (url.pathname === '/api/v2/wallet/quotes')
        return say(200, shape === 'nested' ? { data: { quotes }, metadata: { total: quotes.length } } : { error: false, data: quotes })
      const settings = shape === 'nested' ? ['/api/v2/user/mint', 'PATCH'] : ['/api/v2/settings/mint', 'PUT']
      if (url.pathname !== settings[0] || request.method !== settings[1]) return say(404, {})
      mints.push(JSON.parse(body))
      say(200, { error: false, data: {} })
    })
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void http.close())
  base = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
  return { base, quotes, mints }
}

/** As the service asks the mint for whoever pays: locked to the Nostr key of the payee. */
async function quoteFor(pubkey: string, amount: number, isPaid = true) {
  const body = JSON.stringify({ amount, unit: 'sat', pubkey: `02${pubkey}` })
  const made = (await (await fetch(`${sandbox.mintUrl}/v1/mint/quote/bolt11`, { method: 'POST', body })).json()) as {
    quote: string
    request: string
  }
  if (isPaid) await faucet(sandbox.mintUrl, made.request)
  return made.quote
}

function claiming(h: TestHome, baseUrl: string, isGone: () => boolean = () => false) {
  const scope = testScope(undefined, isGone)
  const { store, dialer, wallets, keyring } = h
  const addresses = new NpubCash({ scope, store, clock: systemClock, logger: silentLogger, dialer, wallets, nostr: { keyring }, baseUrl })
  return { addresses, close: () => scope.close() }
}
const tips = (h: TestHome) => -accountBalance(h.store, `agent:${h.agent.owner.pubkey}/income/tip`) / 1000n

it.each(['documented', 'nested'] as const)('what was paid is minted once, with the key that it is locked to (%s)', async (shape) => {
  const at = await service(shape)
  const h = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  const { addresses, close } = claiming(h, at.base)
  const { pubkey } = h.agent.owner
  const { lud16 } = await addresses.register(h.agent.owner)
  expect(lud16).toMatch(/^npub1[02-9a-z]{58}@127\.0\.0\.1:\d+$/)
  expect(at.mints).toEqual([shape === 'nested' ? { mint_url: sandbox.mintUrl } : { mintUrl: sandbox.mintUrl }])
  const entry = (id: string, amount: number, change: object = {}) =>
    shape === 'nested'
      ? { quoteId: id, amount, mintUrl: sandbox.mintUrl, state: 'PAID', ...change }
      : { id, amount, mint: sandbox.mintUrl, paid: true, ...change }
  const good = await quoteFor(pubkey, 40)
  at.quotes.push(
    entry(await quoteFor(pubkey, 7), 70),
    entry(await quoteFor('ab'.repeat(32), 8), 8),
    entry(randomUUID(), 9, { mint: 'https://mint.elsewhere', mintUrl: 'https://mint.elsewhere' }),
    { nonsense: true },
    entry(good, 40),
    entry(good, 40),
    entry(await quoteFor(pubkey, 5, false), 5),
  )
  await addresses.poll()
  await addresses.poll()
  await vi.waitFor(() => expect(tips(h)).toBe(40n), { timeout: 10_000, interval: 20 })
  expect(h.agent.balance().balanceSats).toBe(40n)
  await expectSound(h, sandbox.mintUrl)
  await close()
  await h.close()
})

it.each(['insert_quote', 'insert_operation'])('a node that dies (%s) has it after the next start, once', async (label) => {
  const at = await service()
  const [dir, words] = [tempDir(), testWords()]
  const death = new Death(label)
  const dying = await openHome({ dir, words, mintUrls: [sandbox.mintUrl], ...death })
  const first = claiming(dying, at.base, death.isGone)
  await first.addresses.register(dying.agent.owner)
  at.quotes.push({ id: await quoteFor(dying.agent.owner.pubkey, 33), amount: 33, mint: sandbox.mintUrl, paid: true })
  await first.addresses.poll().catch(() => {})
  await vi.waitFor(() => expect(death.isDead).toBe(true), 10_000)
  await first.close().catch(() => {})
  await dying.close().catch(() => {})
  const h = await openHome({ dir, words, mintUrls: [sandbox.mintUrl] })
  const again = claiming(h, at.base)
  await again.addresses.poll()
  await vi.waitFor(() => expect(tips(h)).toBe(33n), { timeout: 10_000, interval: 20 })
  await again.addresses.poll()
  expect(h.agent.balance().balanceSats).toBe(33n)
  expect(auditLedger(h.store).problems).toEqual([])
  await expectSound(h, sandbox.mintUrl)
  await again.close()
  await h.close()
})
