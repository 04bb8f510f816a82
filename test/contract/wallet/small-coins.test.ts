/** A wallet that earned in small coins: what it sends stays small enough to be taken. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

const COINS = 130
let sandbox: TestSandbox
const inputsSeen: number[] = []
/** How many inputs the mint takes, and how it says so. */
let refusal: { readonly most: number; readonly status: number; readonly body: unknown } | undefined

/** Hears how many inputs each request to the mint has. */
const listening = (real: Dialer): Dialer => ({
  ...real,
  fetch: (url, options) => {
    const body = typeof options?.body === 'string' ? (JSON.parse(options.body) as { inputs?: unknown[]; Ys?: unknown[] }) : {}
    if (body.inputs !== undefined) inputsSeen.push(body.inputs.length)
    if (refusal === undefined || (body.inputs ?? body.Ys ?? []).length <= refusal.most) return real.fetch(url, options)
    return Promise.resolve({ status: refusal.status, headers: {}, text: JSON.stringify(refusal.body) } as Awaited<
      ReturnType<Dialer['fetch']>
    >)
  },
})

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

/** A node that holds so many coins of 2 sats. */
async function home(coins = COINS): Promise<TestHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords(), dialer: listening })
  onTestFinished(() => opened.close())
  for (let i = 0; i < coins; i += 10) await Promise.all(Array.from({ length: 10 }, () => fund(opened, opened.node, sandbox.mintUrl, 2)))
  return opened
}

const move = () => ({ idempotencyKey: randomUUID(), cause: ownerCause(), debitAccount: 'node/equity/withdrawal' as const })

it('gathers them first: no request has more inputs than a mint takes, no token more proofs than its receiver', async () => {
  const h = await home()
  const receiver = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  onTestFinished(() => receiver.close())
  const sent = await h.node.sendToken({ ...move(), amountSats: sats(220) })
  expect(Math.max(...inputsSeen)).toBeLessThanOrEqual(100)
  await expect(
    receiver.node.receiveToken({ ...move(), token: sent.token, creditAccount: 'node/equity/funding' as const }),
  ).resolves.toMatchObject({
    mintUrl: sandbox.mintUrl,
  })
  await expectSound(h, sandbox.mintUrl)
})

it('gathers them also for a payment', async () => {
  const h = await home()
  const payee = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  onTestFinished(() => payee.close())
  inputsSeen.length = 0
  const { request } = await payee.node.createInvoice({ ...move(), amountSats: sats(205), creditAccount: 'node/equity/funding' as const })
  await expect(h.node.pay({ ...move(), request })).resolves.toMatchObject({ state: 'paid' })
  expect(Math.max(...inputsSeen)).toBeLessThanOrEqual(100)
  await expectSound(h, sandbox.mintUrl)
})

it('learns how many a mint takes at once, in whatever words it says so', async () => {
  const detail = [{ type: 'too_long', msg: 'List should have at most 8 items after validation, not 20' }]
  const said = { most: 8, status: 422, body: { detail } }
  const h = await home(20)
  refusal = said
  onTestFinished(() => {
    refusal = undefined
  })
  inputsSeen.length = 0
  await expect(h.node.sendToken({ ...move(), amountSats: sats(30), lockTo: h.agent.lockPubkey })).resolves.toMatchObject({
    state: 'pending',
  })
  expect(await h.wallets.auditCoins()).toMatchObject([{ spent: 0 }])
  const refused = inputsSeen.filter((count) => count > said.most)
  expect(refused.length).toBeGreaterThan(0)
  inputsSeen.length = 0
  await expect(h.node.sendToken({ ...move(), amountSats: sats(4), lockTo: h.agent.lockPubkey })).resolves.toMatchObject({
    state: 'pending',
  })
  expect(Math.max(...inputsSeen)).toBeLessThanOrEqual(said.most)
  refusal = undefined
  await expectSound(h, sandbox.mintUrl)
})

it('does not believe of a small request that it was too large: the next ones stay as they are', async () => {
  const h = await home(10)
  for (let i = 0; i < 2; i++) {
    await sandbox.faults({ fail: { path: '/v1/swap', status: 400, body: { detail: 'too many outputs', code: 11_015 } } })
    await expect(h.node.sendToken({ ...move(), amountSats: sats(5) })).rejects.toMatchObject({ code: 'mint_rejected' })
  }
  await expect(h.node.sendToken({ ...move(), amountSats: sats(15) })).resolves.toMatchObject({ amountSats: 15n })
  await expectSound(h, sandbox.mintUrl)
})

it('a try at another mint gathers there, after one at a mint that refuses to', async () => {
  const other = await startSandbox()
  onTestFinished(() => other.stop())
  const h = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl, other.mintUrl], words: testWords(), dialer: listening })
  onTestFinished(() => h.close())
  for (const { mintUrl } of [sandbox, other])
    for (let i = 0; i < COINS; i += 10) await Promise.all(Array.from({ length: 10 }, () => fund(h, h.node, mintUrl, 2)))
  inputsSeen.length = 0
  await other.faults({ fail: { path: '/v1/swap', status: 400, body: { detail: 'closed', code: 0 }, count: 1000 } })
  const send = { ...move(), amountSats: sats(220), retryFailed: true }
  await expect(h.node.sendToken({ ...send, mintUrl: other.mintUrl })).rejects.toMatchObject({ code: 'mint_rejected' })
  // A mint that says no is not asked a hundred times.
  expect(inputsSeen.length).toBeLessThan(10)
  await expect(h.node.sendToken({ ...send, mintUrl: sandbox.mintUrl })).resolves.toMatchObject({ state: 'pending' })
  await expectSound(h, sandbox.mintUrl)
})
