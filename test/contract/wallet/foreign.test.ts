/** Tokens of a mint that is not on the list, and moves that the owner asks for: over two real sandbox mints, one of them a stranger. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { purseMoveKey } from '../../../src/store/keys.ts'
import { getPurseMove } from '../../../src/store/money/purse-moves.ts'
import { textsOf } from '../../../src/store/row.ts'
import { readTokenHead, readTokenProofs } from '../../../src/wallet/ecash/token.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

const payerDir = mkdtempSync(join(tmpdir(), 'py-'))
let own: TestSandbox
let stranger: TestSandbox
let payer: TestHome
let lie: ((url: string, text: string) => string | undefined) | undefined
/** What was asked of the stranger as of an address that a stranger named. */
const guarded: string[] = []

/** The guard refuses what is not on the public internet, as this stranger is: it is looked at, and let through. */
const dialer = (real: Dialer): Dialer => ({
  ...real,
  fetch: async (url, { namedByStranger, ...options } = {}) => {
    if (!url.startsWith(stranger.mintUrl)) return await real.fetch(url, { ...options, ...(namedByStranger && { namedByStranger }) })
    if (namedByStranger !== 'mint') throw new Error(`${url} was not guarded`)
    guarded.push(url)
    real.allow(stranger.mintUrl)
    const response = await real.fetch(url, options)
    return { ...response, text: lie?.(url, response.text) ?? response.text }
  },
})

beforeAll(async () => {
  own = await startSandbox()
  stranger = await startSandbox()
  await own.faults({ peers: [stranger.mintUrl] })
  await stranger.faults({ peers: [own.mintUrl] })
  payer = await openHome({ dir: payerDir, mintUrls: [stranger.mintUrl], words: testWords() })
  await fund(payer, payer.node, stranger.mintUrl, 50_000)
})

afterEach(() => {
  lie = undefined
})

afterAll(async () => {
  await payer.close()
  await own.stop()
  await stranger.stop()
  rmSync(payerDir, { recursive: true, force: true })
})

async function openOwner(more: Partial<Parameters<typeof openHome>[0]> = {}): Promise<TestHome> {
  const home = await openHome({ dir: tempDir(), mintUrls: [own.mintUrl], words: testWords(), dialer, ...more })
  onTestFinished(() => home.close())
  return home
}

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const funding = 'node/equity/funding' as const

const tokenOf = async (amount: number, more = {}): Promise<string> =>
  (await payer.node.sendToken({ ...operation(), amountSats: sats(amount), debitAccount: 'node/equity/withdrawal' as const, ...more })).token

const foreignOf = (home: TestHome) => home.wallets.pursesOf(home.node.owner).foreign

describe('coins that were found at a mint that is not on the list', () => {
  const coinsOf = (token: string) => {
    const proofs = readTokenProofs(readTokenHead(token), textsOf(payer.store.sql, 'SELECT id FROM mint_keysets'))
    return proofs.map(({ id, amount, secret, C }) => ({ id, amount, secret, C, mintUrl: stranger.mintUrl }))
  }

  it('stay there with the way out named, and come here for the fee that was told where that is wanted, once', async () => {
    const home = await openOwner()
    const { found } = home.wallets.pursesOf(home.node.owner)
    const coins = coinsOf(await tokenOf(1000))
    guarded.length = 0
    const [left] = await found.take(coins, { keys: [], move: false })
    expect(left?.reasons.join()).toContain('--move')
    expect(new Set(left?.fates.values())).toEqual(new Set(['left']))
    expect(guarded.length).toBeGreaterThan(0)
    const [told] = await found.look(coins, { keys: [], move: true })
    const face = coins.reduce((sum, { amount }) => sum + BigInt(amount), 0n)
    expect(told?.feeSats).toBeGreaterThan(0n)
    await expect(found.take(coins, { keys: [], move: true, maxFeeSats: (told?.feeSats ?? 0n) - 1n })).rejects.toMatchObject({
      code: 'price_too_high',
    })
    expect(home.node.balance().balanceSats).toBe(0n)
    const [taken] = await found.take(coins, { keys: [], move: true, maxFeeSats: told?.feeSats ?? 0n })
    expect(taken).toMatchObject({ feeSats: told?.feeSats, receivedSats: face - (told?.feeSats ?? 0n) })
    const [again] = await found.take(coins, { keys: [], move: true })
    expect(new Set(again?.fates.values())).toEqual(new Set(['spent']))
    expect(home.node.balance().mints.find(({ url }) => url === own.mintUrl)?.balanceSats).toBe(taken?.receivedSats)
    await expectSound(home, own.mintUrl)
    await expectSound(home, stranger.mintUrl)
  })

  it('are not believed of a mint that lies about their states', async () => {
    const home = await openOwner()
    const { found } = home.wallets.pursesOf(home.node.owner)
    const token = await tokenOf(200)
    const coins = coinsOf(token)
    await payer.customer.receiveToken({ ...operation(), token, creditAccount: 'customer/equity/funding' })
    lie = (url, text) => (url.endsWith('/v1/checkstate') ? text.replaceAll('SPENT', 'UNSPENT') : undefined)
    const [taken] = await found.take(coins, { keys: [], move: true })
    expect(taken?.receivedSats).toBe(0n)
    expect(new Set(taken?.fates.values())).toEqual(new Set(['spent']))
    expect(home.node.balance().balanceSats).toBe(0n)
    await expectSound(home, own.mintUrl)
  })
})

describe('a token of a mint that is not on the list', () => {
  it('is refused with the way out named, and no mint is asked', async () => {
    const home = await openOwner()
    guarded.length = 0
    const token = await tokenOf(100)
    await expect(home.node.receiveToken({ ...operation(), token, creditAccount: funding })).rejects.toMatchObject({
      code: 'mint_not_allowed',
      message: expect.stringContaining('pylon wallet receive TOKEN --move'),
    })
    expect(guarded).toEqual([])
  })

  it('comes to a mint of the list for the fee that was told, once', async () => {
    const home = await openOwner()
    const request = { ...operation(), token: await tokenOf(1000), creditAccount: funding }
    const told = await foreignOf(home).quote(request)
    expect(told).toMatchObject({ faceSats: 1000n, fromUrl: stranger.mintUrl, toUrl: own.mintUrl })
    expect(told.netSats + told.feeSats).toBe(1000n)
    expect(home.node.balance().balanceSats).toBe(0n)
    const taken = await foreignOf(home).receive(request)
    expect(taken.last).toMatchObject({ state: 'arrived', amountSats: told.netSats })
    expect(taken.feeSats).toBeLessThanOrEqual(told.feeSats)
    expect((await foreignOf(home).receive(request)).last.id).toBe(taken.last.id)
    const here = home.node.balance().mints.find(({ url }) => url === own.mintUrl)?.balanceSats
    expect(here).toBe(told.netSats)
    // What was reserved for the fee and not needed is change there: ours, and too little to be moved.
    expect(home.node.balance().balanceSats).toBe(1000n - taken.feeSats)
    await expectSound(home, own.mintUrl)
    await expectSound(home, stranger.mintUrl)
  })

  it('takes along what an earlier one left there', async () => {
    const home = await openOwner()
    for (let i = 0; i < 2; i++) await foreignOf(home).receive({ ...operation(), token: await tokenOf(500), creditAccount: funding })
    const there = home.node.balance().balanceSats - (home.node.balance().mints[0]?.balanceSats ?? 0n)
    expect(there).toBeLessThan(10n)
    await expectSound(home, stranger.mintUrl)
  })

  it('stays where it is when it costs more than is allowed, is locked to another, or the mint here is full', async () => {
    const home = await openOwner({ capSats: 300 })
    const token = await tokenOf(500)
    const foreign = foreignOf(home)
    await expect(foreign.receive({ ...operation(), token, creditAccount: funding })).rejects.toMatchObject({
      code: 'token_amount',
      message: expect.stringContaining('above its cap'),
    })
    const dear = { ...operation(), token: await tokenOf(200), creditAccount: funding, maxFeeSats: 1n }
    await expect(foreign.receive(dear)).rejects.toMatchObject({
      code: 'token_amount',
      message: expect.stringContaining('at most 1 are allowed'),
    })
    const locked = await tokenOf(100, { lockTo: payer.customer.lockPubkey })
    await expect(foreign.receive({ ...operation(), token: locked, creditAccount: funding })).rejects.toMatchObject({ code: 'token_locked' })
    expect(home.store.sql('SELECT count(*) AS n FROM operations').get()).toEqual({ n: 0n })
    expect(await payer.node.receiveToken({ ...operation(), token, creditAccount: funding })).toMatchObject({ mintUrl: stranger.mintUrl })
  })
})

it('a mint at a private address is not reached', async () => {
  const home = await openOwner({ dialer: (real) => real })
  const order = { token: await tokenOf(100) }
  await expect(foreignOf(home).quote(order)).rejects.toMatchObject({
    code: 'mint_unreachable',
    message: expect.stringContaining('is refused'),
  })
})

describe('a foreign mint that lies', () => {
  it('and asks more than it told: the sats stay ours there, and go when it asks what it told', async () => {
    const home = await openOwner()
    const request = { ...operation(), token: await tokenOf(800), creditAccount: funding }
    let asked = 0
    lie = (url, text) => {
      if (!url.endsWith('/v1/melt/quote/bolt11')) return undefined
      return ++asked === 1 ? text : JSON.stringify({ ...JSON.parse(text), fee_reserve: 300 })
    }
    const taken = await foreignOf(home).receive(request)
    expect(taken.last).toMatchObject({ state: 'planned', amountSats: expect.any(BigInt) })
    expect(getPurseMove(home.store, purseMoveKey(request.idempotencyKey, 1))).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('300'),
    })
    expect(home.node.balance().balanceSats).toBeGreaterThan(780n)
    expect(home.node.balance().mints[0]?.balanceSats).toBe(0n)
    lie = undefined
    home.store.sql('UPDATE purse_moves SET next_try_at = 0 WHERE next_try_at IS NOT NULL').run()
    await home.wallets.pursesOf(home.node.owner).purse.moves.run(taken.last.id)
    await expect.poll(() => getPurseMove(home.store, taken.last.id)?.state, { timeout: 15_000 }).toBe('arrived')
    await expectSound(home, own.mintUrl)
  })

  it('and lists the keysets of a mint of yours gets nothing by it', async () => {
    const home = await openOwner()
    await fund(home, home.node, own.mintUrl, 64)
    const ofOwn = await (await fetch(`${own.mintUrl}/v1/keysets`)).text()
    lie = (url) => (url.endsWith('/v1/keysets') ? ofOwn : undefined)
    await expect(foreignOf(home).quote({ token: await tokenOf(100) })).rejects.toMatchObject({ code: 'token_invalid' })
    expect(home.store.sql('SELECT DISTINCT mint_url FROM mint_keysets').all()).toEqual([{ mint_url: own.mintUrl }])
    await expectSound(home, own.mintUrl)
  })

  it('and changes its keyset while the token is taken: new coins are asked of the new one', async () => {
    const home = await openOwner()
    const request = { ...operation(), token: await tokenOf(600), creditAccount: funding }
    await foreignOf(home).quote(request)
    await stranger.faults({ rotate_keyset: true })
    expect((await foreignOf(home).receive(request)).last.state).toBe('arrived')
    await expectSound(home, stranger.mintUrl)
  })
})

describe('a move that the owner asks for', () => {
  it('costs what was told at the most, and is made once for its key', async () => {
    const home = await openOwner()
    const { purse } = home.wallets.pursesOf(home.node.owner)
    const another = await startSandbox()
    onTestFinished(() => another.stop())
    await own.faults({ peers: [stranger.mintUrl, another.mintUrl] })
    await another.faults({ peers: [own.mintUrl] })
    await home.wallets.addMint(another.mintUrl, sats(250))
    await fund(home, home.node, own.mintUrl, 500)
    const order = { ...operation(), fromUrl: own.mintUrl, toUrl: another.mintUrl, amountSats: 200n }
    const told = await purse.quote(order)
    expect(home.node.balance().mints.map(({ balanceSats }) => balanceSats)).toEqual([500n, 0n])
    const move = await purse.move(order)
    expect(move).toMatchObject({ state: 'arrived', amountSats: 200n })
    expect(await purse.move(order)).toEqual(move)
    expect(purse.costSats(order.idempotencyKey)).toBeLessThanOrEqual(told.feeSats)
    expect(home.node.balance().balanceSats).toBe(500n - purse.costSats(order.idempotencyKey))
    await expect(purse.move({ ...order, amountSats: 201n })).rejects.toMatchObject({ code: 'idempotency_conflict' })
    await expect(purse.quote({ ...order, amountSats: 60n })).rejects.toMatchObject({ code: 'mint_cap_exceeded' })
    await home.wallets.setMintCap(another.mintUrl, sats(1000))
    await expect(purse.quote({ ...order, amountSats: 400n })).rejects.toMatchObject({ code: 'insufficient_funds' })
    await expect(purse.quote({ ...order, amountSats: 60n, maxFeeSats: 0n })).rejects.toMatchObject({ code: 'price_too_high' })
    await expectSound(home, another.mintUrl)
  })
})
