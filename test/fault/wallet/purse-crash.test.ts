/**
 * A payment that takes sats from two mints, and a token of a foreign mint, die at one step after the other: each is made or taken
 * once, and no sat stays between the mints.
 */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { openOperations } from '../../../src/store/money/operations.ts'
import { openPurseMoves } from '../../../src/store/money/purse-moves.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from '../../contract/wallet/home.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { Crash } from './crash.ts'

const boxes: TestSandbox[] = []
const mintUrls = () => boxes.map((box) => box.mintUrl)

beforeAll(async () => {
  for (let i = 0; i < 2; i++) boxes.push(await startSandbox())
  for (const box of boxes) await box.faults({ peers: mintUrls().filter((url) => url !== box.mintUrl) })
})

afterAll(async () => {
  for (const box of boxes) await box.stop()
})

const cause = ownerCause('crash')
const pay = (home: TestHome, request: string) =>
  home.node.pay({ idempotencyKey: 'pay', cause, request, debitAccount: 'node/expense/job' as const })

function expectNothingBetween(home: TestHome): void {
  const open = [...balancesByPrefix(home.store, '').keys()].filter((account) => /\/(?:held|equity\/moved|expense\/lost)/.test(account))
  expect(open).toEqual([])
}

/** The invoice is of another wallet of the home, at the second mint. */
async function prepare(home: TestHome): Promise<string> {
  const [a = '', b = ''] = mintUrls()
  await fund(home, home.node, a, 300)
  await fund(home, home.node, b, 250)
  const theirs = { idempotencyKey: 'theirs', cause, amountSats: sats(500), mintUrl: b, creditAccount: 'customer/equity/funding' as const }
  return (await home.customer.createInvoice(theirs)).request
}

/** What is dead waits for nothing more. */
async function untilDead(crash: Crash, acting: Promise<unknown>): Promise<void> {
  let isOver = false
  const over = () => {
    isOver = true
  }
  acting.then(over, over)
  await vi.waitUntil(() => isOver || crash.diedAt !== undefined, { timeout: 60_000, interval: 10 })
}

/** Returns where it died, or undefined when it did not. */
async function crashInPayment(step: number): Promise<string | undefined> {
  const crash = new Crash()
  const options = { dir: tempDir(), mintUrls: mintUrls(), words: testWords() }
  const first = await openHome({ ...options, hook: crash.hook, dialer: crash.dialer })
  const request = await prepare(first)
  crash.arm(step)
  await untilDead(crash, pay(first, request))
  await first.close().catch(() => undefined)

  const second = await openHome(options)
  // What was under way ends by itself, before anybody asks again.
  await expect.poll(() => [openOperations(second.store).length, openPurseMoves(second.store).length], { timeout: 30_000 }).toEqual([0, 0])
  expect(await pay(second, request)).toMatchObject({ state: 'paid' })
  await expect.poll(() => second.customer.invoice('theirs')?.state, { timeout: 30_000 }).toBe('settled')
  expect(accountBalance(second.store, 'node/expense/job')).toBe(500_000n)
  for (const url of mintUrls()) await expectSound(second, url)
  expectNothingBetween(second)
  const fees = accountBalance(second.store, 'node/expense/fee') / 1000n
  expect(second.node.balance().balanceSats).toBe(550n - 500n - fees)
  await second.close()
  return crash.diedAt
}

/** The first mint is on the list, the second is the stranger: the guard, which refuses loopback, is looked past. */
const unguarded = (real: Dialer): Dialer => ({
  ...real,
  fetch: (url, { namedByStranger: _, ...options } = {}) => {
    real.allow(url)
    return real.fetch(url, options)
  },
})

async function crashInForeign(payer: TestHome, step: number): Promise<string | undefined> {
  const [own = '', stranger = ''] = mintUrls()
  const crash = new Crash()
  const options = { dir: tempDir(), mintUrls: [own], words: testWords() }
  const first = await openHome({ ...options, hook: crash.hook, dialer: (real) => crash.dialer(unguarded(real)) })
  const given = { idempotencyKey: randomUUID(), cause, amountSats: sats(400), debitAccount: 'node/equity/withdrawal' as const }
  const { token } = await payer.node.sendToken(given)
  const request = { idempotencyKey: 'foreign', cause, token, creditAccount: 'node/equity/funding' as const }
  crash.arm(step)
  const { foreign } = first.wallets.pursesOf(first.node.owner)
  await untilDead(crash, foreign.receive(request))
  await first.close().catch(() => undefined)

  const second = await openHome({ ...options, dialer: unguarded })
  await expect.poll(() => [openOperations(second.store).length, openPurseMoves(second.store).length], { timeout: 30_000 }).toEqual([0, 0])
  const { last, feeSats } = await second.wallets.pursesOf(second.node.owner).foreign.receive(request)
  expect(last.state, `after dying ${crash.diedAt}`).toBe('arrived')
  expect(second.node.balance().balanceSats).toBe(400n - feeSats)
  expectNothingBetween(second)
  for (const url of [own, stranger]) await expectSound(second, url)
  await second.close()
  return crash.diedAt
}

const AT_ONCE = 4
const MOST_STEPS = 80
/** Every second one: which is which differs a little from run to run anyway, by what else the wallet does meanwhile. */
const EVERY = 2

/** Dies at one step after the other until one run does not. */
async function deathsOf(crashAt: (step: number) => Promise<string | undefined>): Promise<string[]> {
  const deaths: string[] = []
  for (let step = 1; step <= MOST_STEPS; step += EVERY * AT_ONCE) {
    const found = await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => crashAt(step + EVERY * i)))
    deaths.push(...found.flatMap((where) => where ?? []))
    if (found.includes(undefined)) return deaths
  }
  throw new Error('it never survived')
}

function expectDeaths(deaths: readonly string[]): void {
  expect(deaths.length, deaths.join('; ')).toBeGreaterThan(6)
  expect(deaths.join('; ')).toMatch(/purse_move/)
}

it('a payment from two mints is made once, wherever it dies', async () => {
  expectDeaths(await deathsOf(crashInPayment))
}, 300_000)

it('a foreign token is taken once and arrives, wherever it dies', async () => {
  const payer = await openHome({ dir: tempDir(), mintUrls: [mintUrls()[1] ?? ''], words: testWords() })
  await fund(payer, payer.node, mintUrls()[1] ?? '', 50_000)
  expectDeaths(await deathsOf((step) => crashInForeign(payer, step)))
  await payer.close()
}, 300_000)
