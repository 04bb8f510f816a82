/** Lists of keysets as mints really give them: taken item by item, what vanished signs no more, coins move to what does. */
import { hash, randomUUID } from 'node:crypto'
import { deriveKeysetId } from '@cashu/cashu-ts'
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { listKeysets, oldCoins } from '../../../src/store/money/keysets.ts'
import { getMint } from '../../../src/store/money/mints.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

type Json = Record<string, unknown>
type Listed = { id: string; unit: string; active: boolean; input_fee_ppk?: unknown; final_expiry?: unknown }

let sandbox: TestSandbox
const asked: string[] = []
/** Changes the list, or answers a question for keys. */
let list: (keysets: Listed[]) => unknown[]
let keysOf: (id: string) => { status: number; json: Json } | undefined

const lyingDialer = (real: Dialer): Dialer => ({
  ...real,
  fetch: async (url, options) => {
    const path = new URL(url).pathname
    asked.push(path)
    const keys = path.startsWith('/v1/keys/') ? keysOf(path.slice('/v1/keys/'.length)) : undefined
    const response = await real.fetch(url, options)
    if (keys !== undefined) return { ...response, status: keys.status, text: JSON.stringify(keys.json) }
    if (path !== '/v1/keysets') return response
    return { ...response, text: JSON.stringify({ keysets: list((JSON.parse(response.text) as { keysets: Listed[] }).keysets) }) }
  },
})

beforeAll(async () => {
  sandbox = await startSandbox()
})

beforeEach(() => {
  list = (keysets) => keysets
  keysOf = () => undefined
})

afterAll(() => sandbox.stop())

async function open(words = testWords()): Promise<TestHome> {
  const home = await openHome({ dir: tempDir(), mintUrls: [], words, dialer: lyingDialer })
  onTestFinished(() => home.close())
  return home
}

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const send = (home: TestHome, amount: number) =>
  home.node.sendToken({ ...operation(), amountSats: sats(amount), lockTo: home.agent.lockPubkey, debitAccount: 'node/equity/withdrawal' })

it('one bad item stops nothing: it is set aside and named', async () => {
  const home = await open()
  const gone = '00ad268c4d1f5826'
  list = (keysets) => [
    { id: gone, unit: 'sat', active: false },
    { id: '00ffffffffffffff', unit: 'sat', active: 'yes' },
    { id: '02'.repeat(33), unit: 'sat', active: true },
    { id: 'AbCdEfGhIjKl', unit: 'sat', active: false },
    { id: 7, unit: 'usd', active: true },
    'nothing',
    null,
    ...keysets,
  ]
  keysOf = (id) => (id === gone ? { status: 400, json: { detail: 'keyset not found', code: 12_001 } } : undefined)
  // An end that never comes, written as 0 and hashed into the id.
  const endless = { 1: `02${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}` }
  const endlessId = `01${hash('sha256', `1:${endless[1]}|unit:sat|final_expiry:0`)}`
  const [withoutEndless, goneOnly] = [list, keysOf]
  list = (keysets) => [{ id: endlessId, unit: 'sat', active: false, final_expiry: 0 }, ...withoutEndless(keysets)]
  keysOf = (id) =>
    id === endlessId ? { status: 200, json: { keysets: [{ id, unit: 'sat', final_expiry: 0, keys: endless }] } } : goneOnly(id)
  await home.wallets.addMint(sandbox.mintUrl)
  expect(listKeysets(home.store, sandbox.mintUrl).find(({ id }) => id === endlessId)).toMatchObject({ finalExpiry: null, hasKeys: true })
  await fund(home, home.node, sandbox.mintUrl, 100)
  await send(home, 20)
  expect(
    getMint(home.store, sandbox.mintUrl)
      ?.setAside.map(({ id }) => id)
      .sort(),
  ).toEqual([gone, '00ffffffffffffff', '02'.repeat(33), 'number 7', 'number 8'].sort())
  // Its keys are there, and are of another keyset.
  keysOf = (id) =>
    id === gone ? { status: 200, json: { keysets: [{ id: gone, unit: 'sat', keys: { 1: `02${'ab'.repeat(32)}` } }] } } : undefined
  list = (keysets) => [{ id: gone, unit: 'sat', active: true }, ...keysets]
  await home.wallets.addMint(sandbox.mintUrl)
  expect(getMint(home.store, sandbox.mintUrl)?.setAside).toEqual([{ id: gone, reason: expect.stringContaining('do not belong to it') }])
  await send(home, 20)
  // What is not listed any more is nobody's worry.
  list = (keysets) => keysets
  await home.wallets.addMint(sandbox.mintUrl)
  expect(getMint(home.store, sandbox.mintUrl)?.setAside).toEqual([])
  await expectSound(home, sandbox.mintUrl)
})

it('a keyset that vanished from the list signs no more; its coins move by themselves, at a small cost', async () => {
  const home = await open()
  await home.wallets.addMint(sandbox.mintUrl)
  await fund(home, home.node, sandbox.mintUrl, 1000)
  await fund(home, home.agent, sandbox.mintUrl, 3)
  const before = home.node.balance().balanceSats
  await sandbox.faults({ rotate_keyset: true })
  list = (keysets) => keysets.filter((keyset) => keyset.active)
  home.store.sql('UPDATE mint_keysets SET fetched_at = 0').run()
  await send(home, 20)
  await expect.poll(() => oldCoins(home.store, 0).map((coins) => coins.ownerPubkey), { timeout: 15_000 }).toEqual([home.agent.owner.pubkey])
  await expect.poll(() => before - home.node.balance().balanceSats, { timeout: 15_000 }).toBeLessThanOrEqual(20n + 3n)
  // Moving three sats would cost one: they stay, and can still be spent.
  await expect(send(home, 20)).resolves.toMatchObject({ state: 'pending' })
  await expectSound(home, sandbox.mintUrl)
})

it('a restore counts what it found in every keyset', async () => {
  const words = testWords()
  const home = await open(words)
  await home.wallets.addMint(sandbox.mintUrl)
  await fund(home, home.agent, sandbox.mintUrl, 3)
  await sandbox.faults({ rotate_keyset: true })
  await home.wallets.addMint(sandbox.mintUrl)
  await fund(home, home.agent, sandbox.mintUrl, 8)
  expect(home.store.sql('SELECT DISTINCT keyset_id FROM proofs').all()).toHaveLength(2)
  const again = await open(words)
  await again.wallets.addMint(sandbox.mintUrl)
  expect(await again.wallets.restoreAll(again.agent.owner)).toEqual({ foundSats: 11n, problems: [] })
  expect(again.agent.balance().balanceSats).toBe(11n)
})

it('fees and expiries are as the list says; what ends soon is left, whatever it costs', async () => {
  const home = await open()
  await home.wallets.addMint(sandbox.mintUrl)
  await fund(home, home.agent, sandbox.mintUrl, 3)
  const endsAt = Math.floor(Date.now() / 1000) + 86_400
  const first = listKeysets(home.store, sandbox.mintUrl).find((keyset) => keyset.active)?.id
  list = (keysets) => keysets.map((keyset) => (keyset.id === first ? { ...keyset, final_expiry: endsAt, input_fee_ppk: 200 } : keyset))
  await home.wallets.addMint(sandbox.mintUrl)
  expect(listKeysets(home.store, sandbox.mintUrl).find(({ id }) => id === first)).toMatchObject({ finalExpiry: endsAt, inputFeePpk: 200 })
  await sandbox.faults({ rotate_keyset: true })
  await home.wallets.addMint(sandbox.mintUrl)
  await expect.poll(() => home.agent.balance().balanceSats, { timeout: 15_000 }).toBe(2n)
  expect(oldCoins(home.store, 0)).toEqual([])
})

it('a thousand keysets cost few questions and leave their keys where they are', async () => {
  const home = await open()
  const keys = (i: number) => ({ 1: `02${i.toString(16).padStart(64, '0')}` })
  const many = Array.from({ length: 1000 }, (_, i) => ({
    id: deriveKeysetId(keys(i), { unit: 'sat', input_fee_ppk: 0, versionByte: 1 }),
    i,
  }))
  const byId = new Map(many.map(({ id, i }) => [id, i]))
  list = (keysets) => [...many.map(({ id }) => ({ id, unit: 'sat', active: false })), ...keysets]
  keysOf = (id) => {
    const i = byId.get(id)
    return i === undefined ? undefined : { status: 200, json: { keysets: [{ id, unit: 'sat', keys: keys(i) }] } }
  }
  asked.length = 0
  await home.wallets.addMint(sandbox.mintUrl)
  expect(asked.filter((path) => path.startsWith('/v1/keys/')).length).toBeLessThan(50)
  expect(listKeysets(home.store, sandbox.mintUrl).length).toBeGreaterThanOrEqual(1001)
  expect(listKeysets(home.store, sandbox.mintUrl)[0]).not.toHaveProperty('keys')
})
