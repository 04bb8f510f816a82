/** What the customer lacks comes from the node's wallet, at the mint where it is needed. */
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { type TopUp, topUp } from '../../../src/customer/funding.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { fund, openHome, type TestHome, testWords } from '../wallet/home.ts'

let small: TestSandbox
let large: TestSandbox

beforeAll(async () => {
  ;[small, large] = await Promise.all([startSandbox(), startSandbox()])
})

afterAll(() => Promise.all([small.stop(), large.stop()]))

async function home(): Promise<TestHome> {
  const opened = await openHome({ dir: tempDir(), mintUrls: [small.mintUrl, large.mintUrl], words: testWords() })
  onTestFinished(() => opened.close())
  return opened
}

const held = (h: TestHome, mintUrl: string) => h.customer.balance().mints.find((mint) => mint.url === mintUrl)?.balanceSats ?? 0n
const order = (id: number, needed: number, mintUrl?: string): TopUp => ({
  cause: { type: 'purchase', id: String(id) },
  neededSats: sats(needed),
  ...(mintUrl === undefined ? {} : { mintUrl }),
})
const deps = (h: TestHome) => ({ nostr: { keyring: h.keyring }, wallets: h.wallets, config: () => DEFAULT_CONFIG })

it('at the mint that was asked for, though another is fuller', async () => {
  const h = await home()
  await fund(h, h.node, small.mintUrl, 100)
  await fund(h, h.node, large.mintUrl, 500)
  await topUp(deps(h), order(1, 60, small.mintUrl))
  expect(held(h, small.mintUrl)).toBeGreaterThanOrEqual(60n)
  await expect(topUp(deps(h), order(2, 300, small.mintUrl))).rejects.toMatchObject({ code: 'insufficient_funds' })
  expect(held(h, large.mintUrl)).toBe(0n)
})

it('at one mint, so that one payment can spend it, also where another purchase asked for less before', async () => {
  const h = await home()
  await fund(h, h.customer, small.mintUrl, 40)
  await fund(h, h.node, small.mintUrl, 30)
  await fund(h, h.node, large.mintUrl, 500)
  await topUp(deps(h), order(3, 90))
  expect(held(h, large.mintUrl)).toBeGreaterThanOrEqual(90n)
  await topUp(deps(h), order(3, 200))
  expect(held(h, large.mintUrl)).toBeGreaterThanOrEqual(200n)
})
