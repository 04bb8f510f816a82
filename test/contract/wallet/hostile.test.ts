/** What strangers and lying mints may send: each gets its own error, nothing is spent, nothing is believed. */
import { hash, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Amount, getDecodedToken, getEncodedToken, type Token } from '@cashu/cashu-ts'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { accountOf, accountOwner } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { spentInTick, spentSince } from '../../../src/store/money/budgets.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

const dir = mkdtempSync(join(tmpdir(), 'py-'))
let sandbox: TestSandbox
let alice: TestHome
let bob: TestHome
/** Changes what Bob hears from the mint; undefined leaves it. */
let lie: ((method: string, path: string, json: Record<string, unknown>) => Record<string, unknown> | undefined) | undefined

const lyingDialer = (real: Dialer): Dialer => ({
  ...real,
  fetch: async (url, options) => {
    const response = await real.fetch(url, options)
    const json = JSON.parse(response.text) as Record<string, unknown>
    const changed = lie?.(options?.method ?? 'GET', new URL(url).pathname, json)
    return changed === undefined ? response : { ...response, text: JSON.stringify(changed) }
  },
})

beforeAll(async () => {
  sandbox = await startSandbox()
  const mintUrls = [sandbox.mintUrl]
  alice = await openHome({ dir: mkdtempSync(join(dir, 'a-')), mintUrls, words: testWords() })
  bob = await openHome({ dir: mkdtempSync(join(dir, 'b-')), mintUrls, words: testWords(), dialer: lyingDialer, capSats: 5000 })
  await fund(alice, alice.node, sandbox.mintUrl, 3000)
  await fund(bob, bob.node, sandbox.mintUrl, 1000)
})

afterAll(async () => {
  await alice.close()
  await bob.close()
  await sandbox.stop()
  rmSync(dir, { recursive: true, force: true })
})

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const tokenOf = async (amount: number, lockTo?: string) =>
  (
    await alice.node.sendToken({
      ...operation(),
      amountSats: sats(amount),
      debitAccount: 'node/equity/withdrawal' as const,
      ...(lockTo === undefined ? {} : { lockTo }),
    })
  ).token
const receive = (token: string, more: { minNetSats?: bigint; requireLock?: boolean } = {}) =>
  bob.node.receiveToken({
    ...operation(),
    token,
    creditAccount: 'node/deposit/job:hostile' as const,
    ...(more.minNetSats === undefined ? {} : { minNetSats: sats(more.minNetSats) }),
    ...(more.requireLock === undefined ? {} : { requireLock: more.requireLock }),
  })

async function keysetIds(): Promise<string[]> {
  const { keysets } = (await (await fetch(`${sandbox.mintUrl}/v1/keysets`)).json()) as { keysets: { id: string }[] }
  return keysets.map((keyset) => keyset.id)
}

async function changed(token: string, change: (decoded: Token) => Token): Promise<string> {
  return getEncodedToken(change(getDecodedToken(token, await keysetIds())))
}

describe('tokens of strangers', () => {
  it.each([
    ['empty', ''],
    ['no token', 'hello world'],
    ['junk base64', `cashuB${'A'.repeat(500)}`],
    ['huge', `cashuB${'A'.repeat(1_000_000)}`],
    ['cashuA of junk', 'cashuAeyJ0b2tlbiI6W119'],
    ['an array where a map belongs', 'cashuBgA'],
  ])('%s is token_invalid', async (_, token) => {
    await expect(receive(token)).rejects.toMatchObject({ code: 'token_invalid' })
  })

  it('more proofs than allowed is token_invalid before any curve work', async () => {
    const [id = ''] = await keysetIds()
    const proofs = Array.from({ length: 201 }, (_, i) => ({ id, amount: Amount.from(1), secret: `s${i}`, C: `02${'11'.repeat(32)}` }))
    await expect(receive(getEncodedToken({ mint: sandbox.mintUrl, unit: 'sat', proofs }))).rejects.toMatchObject({ code: 'token_invalid' })
  })

  it('of a mint off the list is mint_not_allowed, and that mint hears nothing', async () => {
    const token = await changed(await tokenOf(8), (decoded) => ({ ...decoded, mint: 'https://169.254.169.254/mint' }))
    await expect(receive(token)).rejects.toMatchObject({ code: 'mint_not_allowed' })
  })

  it('of the listed mint written in another way is taken as that mint', async () => {
    const token = await changed(await tokenOf(8), (decoded) => ({ ...decoded, mint: `${sandbox.mintUrl}/` }))
    expect(await receive(token)).toMatchObject({ amountSats: 7n, mintUrl: sandbox.mintUrl })
  })

  it('in another unit is token_invalid', async () => {
    const token = await changed(await tokenOf(8), (decoded) => ({ ...decoded, unit: 'usd' }))
    await expect(receive(token)).rejects.toMatchObject({ code: 'token_invalid' })
  })

  it('locked to another key is token_locked; bare where a lock is needed too', async () => {
    await expect(receive(await tokenOf(8, alice.customer.lockPubkey))).rejects.toMatchObject({ code: 'token_locked' })
    await expect(receive(await tokenOf(8), { requireLock: true })).rejects.toMatchObject({ code: 'token_locked' })
  })

  it('with a lock that we do not understand is token_locked', async () => {
    const token = await changed(await tokenOf(8), (decoded) => ({
      ...decoded,
      proofs: decoded.proofs.map(({ dleq: _, ...proof }, i) => ({
        ...proof,
        secret: JSON.stringify([
          'P2PK',
          {
            nonce: `n${i}`,
            data: bob.node.lockPubkey,
            tags: [
              ['n_sigs', '2'],
              ['pubkeys', alice.node.lockPubkey],
            ],
          },
        ]),
      })),
    }))
    await expect(receive(token)).rejects.toMatchObject({ code: 'token_locked' })
  })

  it('already spent is token_spent, for ever', async () => {
    const token = await tokenOf(16)
    expect((await receive(token)).amountSats).toBe(15n)
    const again = { ...operation(), token, creditAccount: 'node/deposit/job:hostile' as const }
    await expect(bob.node.receiveToken(again)).rejects.toMatchObject({ code: 'token_spent' })
    await expect(bob.node.receiveToken(again)).rejects.toMatchObject({ code: 'token_spent' })
    expect(bob.node.balance().atRiskSats).toBe(0n)
  })

  it('worth less than needed after fees is token_amount', async () => {
    await expect(receive(await tokenOf(16), { minNetSats: 16n })).rejects.toMatchObject({ code: 'token_amount' })
  })

  it('with a false DLEQ is token_invalid; without one the mint decides', async () => {
    const token = await tokenOf(32)
    const forged = await changed(token, (decoded) => ({
      ...decoded,
      proofs: decoded.proofs.map((proof) => ({
        ...proof,
        dleq: { e: hash('sha256', 'e'), s: hash('sha256', 's'), r: hash('sha256', 'r') },
      })),
    }))
    await expect(receive(forged)).rejects.toMatchObject({ code: 'token_invalid' })
    const bare = await changed(token, (decoded) => ({ ...decoded, proofs: decoded.proofs.map(({ dleq: _, ...proof }) => proof) }))
    expect((await receive(bare)).amountSats).toBe(31n)
    const invented = await changed(token, (decoded) => ({
      ...decoded,
      proofs: decoded.proofs.map(({ dleq: _, ...proof }) => ({ ...proof, secret: randomUUID() })),
    }))
    await expect(receive(invented)).rejects.toMatchObject({ code: 'mint_rejected' })
  })

  it('over the cap of the mint is mint_cap_exceeded', async () => {
    const big = (await alice.node.sendToken({ ...operation(), amountSats: sats(2048), debitAccount: 'node/equity/withdrawal' as const }))
      .token
    const held = bob.node.balance().balanceSats
    await bob.wallets.addMint(sandbox.mintUrl, sats(held + 2000n))
    await expect(receive(big)).rejects.toMatchObject({ code: 'mint_cap_exceeded' })
    await expect(
      bob.node.createInvoice({ ...operation(), amountSats: sats(2001), creditAccount: 'node/equity/funding' as const }),
    ).rejects.toMatchObject({ code: 'mint_cap_exceeded' })
    await bob.wallets.addMint(sandbox.mintUrl, sats(50_000))
    expect((await receive(big)).amountSats).toBe(2047n)
  })
})

describe('a mint that lies', () => {
  const lying = (next: NonNullable<typeof lie>) => {
    lie = next
    onTestFinished(() => {
      lie = undefined
    })
  }

  it('about the amount of a quote gets no invoice shown', async () => {
    lying((method, path, json) => (method === 'POST' && path === '/v1/mint/quote/bolt11' ? { ...json, amount: 1 } : undefined))
    await expect(
      bob.node.createInvoice({ ...operation(), amountSats: sats(30), creditAccount: 'node/equity/funding' as const }),
    ).rejects.toMatchObject({ code: 'invoice_invalid' })
    const other = await alice.node.createInvoice({ ...operation(), amountSats: sats(3), creditAccount: 'node/equity/funding' as const })
    lying((method, path, json) => (method === 'POST' && path === '/v1/mint/quote/bolt11' ? { ...json, request: other.request } : undefined))
    await expect(
      bob.node.createInvoice({ ...operation(), amountSats: sats(30), creditAccount: 'node/equity/funding' as const }),
    ).rejects.toMatchObject({ code: 'invoice_invalid' })
  })

  it('about the price of a payment is not paid', async () => {
    const invoice = await alice.node.createInvoice({ ...operation(), amountSats: sats(10), creditAccount: 'node/equity/funding' as const })
    const before = bob.node.balance()
    const pay = { request: invoice.request, debitAccount: 'node/expense/job' as const }
    lying((_, path, json) => (path === '/v1/melt/quote/bolt11' ? { ...json, amount: 500 } : undefined))
    await expect(bob.node.pay({ ...operation(), ...pay })).rejects.toMatchObject({ code: 'payment_failed' })
    lying((_, path, json) => (path === '/v1/melt/quote/bolt11' ? { ...json, fee_reserve: 400 } : undefined))
    await expect(bob.node.pay({ ...operation(), ...pay })).rejects.toMatchObject({ code: 'payment_failed' })
    expect(bob.node.balance()).toEqual(before)
  })

  it.each<[string, (signatures: Record<string, unknown>[]) => unknown[]]>([
    ['too few signatures', (signatures) => signatures.slice(1)],
    ['too many signatures', (signatures) => [signatures[0], ...signatures]],
    ['another amount', (signatures) => signatures.map((signature) => ({ ...signature, amount: 1024 }))],
    ['another keyset', (signatures) => signatures.map((signature) => ({ ...signature, id: '00aaaaaaaaaaaaaa' }))],
    ['no DLEQ', (signatures) => signatures.map(({ dleq: _, ...signature }) => signature)],
    [
      'a signature of another key',
      (signatures) =>
        signatures.map((signature) => ({ ...signature, C_: `02${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}` })),
    ],
    ['no list at all', () => [{}]],
  ])('giving %s is not believed; the true answer is fetched once it tells it', async (_, change) => {
    const token = await tokenOf(64)
    const { netSats } = await bob.node.inspectToken(token)
    const before = bob.node.balance().balanceSats
    const twist = (json: Record<string, unknown>) => ({ ...json, signatures: change(json['signatures'] as Record<string, unknown>[]) })
    lying((_method, path, json) => (path === '/v1/swap' || path === '/v1/restore' ? twist(json) : undefined))
    const request = { ...operation(), token, creditAccount: 'node/deposit/job:hostile' as const }
    await expect(bob.node.receiveToken(request)).rejects.toMatchObject({ code: 'payment_unknown' })
    expect(bob.node.balance().balanceSats).toBe(before)
    lie = undefined
    expect((await bob.node.receiveToken(request)).amountSats).toBe(netSats)
    expect(bob.node.balance().balanceSats).toBe(before + netSats)
  })

  it('with keys that do not belong to their keyset is refused', async () => {
    const other = await startSandbox()
    onTestFinished(() => other.stop())
    lying((_, path, json) => {
      if (!path.startsWith('/v1/keys/')) return undefined
      const [keyset] = json['keysets'] as { keys: Record<string, string> }[]
      return { keysets: [{ ...keyset, keys: { ...keyset?.keys, 1: keyset?.keys['2'] } }] }
    })
    await expect(bob.wallets.addMint(other.mintUrl)).rejects.toMatchObject({ code: 'mint_incompatible' })
    lying((_, path, json) => (path === '/v1/info' ? { ...json, nuts: { ...(json['nuts'] as object), 9: undefined } } : undefined))
    await expect(bob.wallets.addMint(other.mintUrl)).rejects.toMatchObject({ code: 'mint_incompatible', details: { missing: ['9'] } })
  })
})

describe('budgets', () => {
  const limits = { perTxSats: sats(50), perTickSats: sats(60), perDaySats: sats(100) }

  it('are held in the commit that makes the operation, and released by a refusal alone', async () => {
    await bob.wallets.transfer(bob.node.owner, bob.agent.owner, sats(400), randomUUID())
    const agent = bob.agent
    const account = accountOf(accountOwner(agent.owner), 'expense', 'zap')
    const send = (amount: number, tickId: string) =>
      agent.sendToken({ ...operation(), amountSats: sats(amount), debitAccount: account }, { subject: agent.owner.pubkey, tickId, limits })
    await expect(send(51, 'tick-1')).rejects.toMatchObject({ code: 'budget_exceeded', details: { limit: 'per transaction' } })
    const results = await Promise.allSettled([send(25, 'tick-1'), send(25, 'tick-1'), send(25, 'tick-1'), send(25, 'tick-1')])
    expect(results.filter((result) => result.status === 'fulfilled').length).toBe(2)
    expect(spentInTick(bob.store, agent.owner.pubkey, 'tick-1')).toBeLessThanOrEqual(60n)
    const spent = spentSince(bob.store, agent.owner.pubkey, 0)
    const invoice = await alice.node.createInvoice({ ...operation(), amountSats: sats(20), creditAccount: 'node/equity/funding' as const })
    await sandbox.faults({ fail: { path: '/v1/melt/bolt11', status: 400, body: { detail: 'Lightning payment failed', code: 20_004 } } })
    const pay = { request: invoice.request, debitAccount: account }
    const failing = { ...operation(), ...pay }
    await expect(agent.pay(failing, { subject: agent.owner.pubkey, tickId: 'tick-2', limits })).rejects.toMatchObject({
      code: 'payment_failed',
    })
    expect(agent.payment(failing.idempotencyKey)).toMatchObject({ state: 'failed' })
    expect(spentSince(bob.store, agent.owner.pubkey, 0)).toBe(spent)
    expect(await agent.pay({ ...operation(), ...pay }, { subject: agent.owner.pubkey, tickId: 'tick-2', limits })).toMatchObject({
      state: 'paid',
    })
    await expect(send(30, 'tick-3')).rejects.toMatchObject({ code: 'budget_exceeded', details: { limit: 'per day' } })
    expect(accountBalance(bob.store, account)).toBe(70_000n)
    await expectSound(bob, sandbox.mintUrl)
  })
})

it('refuses to forget a mint that holds sats', async () => {
  await expect(bob.wallets.removeMint(sandbox.mintUrl)).rejects.toMatchObject({ code: 'mint_in_use' })
})

it('leaves books that are sound', async () => {
  await expectSound(alice, sandbox.mintUrl)
  await expectSound(bob, sandbox.mintUrl)
})
