/** What is wrong with the change, one signature or the preimage never undoes what was proven: a payment was made, a token is a token. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRandomSecretKey, deriveKeysetId } from '@cashu/cashu-ts'
import { pointFromScalar } from 'tiny-secp256k1'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import type { Dialer } from '../../../src/base/dialer.ts'
import { signOutput } from '../../../src/sandbox/mint/blind-signatures.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { listOwed } from '../../../src/store/money/owed-signatures.ts'
import { listProofs } from '../../../src/store/money/proofs.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

type Json = Record<string, unknown>
type Signature = { id: string; amount: number; C_: string; dleq?: { e: string; s: string } }

const G = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
const dir = mkdtempSync(join(tmpdir(), 'py-'))
let sandbox: TestSandbox
let home: TestHome
/** Changes what the home hears; what it asked is there too. Throws to break the connection. */
let lie: ((path: string, json: Json, asked: Json) => Json | undefined) | undefined

const lyingDialer = (real: Dialer): Dialer => ({
  ...real,
  fetch: async (url, options) => {
    const response = await real.fetch(url, options)
    const asked = typeof options?.body === 'string' ? (JSON.parse(options.body) as Json) : {}
    const changed = lie?.(new URL(url).pathname, JSON.parse(response.text) as Json, asked)
    return changed === undefined ? response : { ...response, status: 200, text: JSON.stringify(changed) }
  },
})

beforeAll(async () => {
  sandbox = await startSandbox()
  home = await openHome({ dir, mintUrls: [sandbox.mintUrl], words: testWords(), dialer: lyingDialer })
  await fund(home, home.node, sandbox.mintUrl, 4096)
})

beforeEach(() => {
  lie = undefined
})

afterAll(async () => {
  lie = undefined
  await expectSound(home, sandbox.mintUrl)
  await home.close()
  await sandbox.stop()
  rmSync(dir, { recursive: true, force: true })
})

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const isMelt = (path: string) => path.startsWith('/v1/melt/')

async function payTen(payer = home) {
  const { request } = await home.customer.createInvoice({ ...operation(), amountSats: sats(10), creditAccount: 'customer/equity/moved' })
  const before = payer.node.balance().balanceSats
  const paid = await payer.node.pay({ ...operation(), request, debitAccount: 'node/equity/moved', maxFeeSats: sats(100) })
  return { paid, cost: before - payer.node.balance().balanceSats }
}

const change = (json: Json) => (json['change'] ?? []) as Signature[]

describe('a payment is made although', () => {
  it.each<[string, (json: Json) => Json]>([
    [
      'its change is filled up with signatures over nothing',
      (json) => ({
        ...json,
        change: [
          ...change(json),
          { id: change(json)[0]?.id ?? '00'.repeat(8), amount: 0, C_: G, dleq: { e: '11'.repeat(32), s: '22'.repeat(32) } },
        ],
      }),
    ],
    ['a signature of its change has no proof', (json) => ({ ...json, change: change(json).map(({ dleq: _, ...rest }) => rest) })],
    ['a signature of its change is of another key', (json) => ({ ...json, change: change(json).map((one) => ({ ...one, C_: G })) })],
    ['a signature of its change is malformed', (json) => ({ ...json, change: [{ id: 7 }, null, ...change(json).slice(2)] })],
    ['its change is no list', (json) => ({ ...json, change: 'none' })],
    ['it has more change than asked for', (json) => ({ ...json, change: [...change(json), ...Array<Json>(40).fill({})] })],
    ['its preimage is no preimage', (json) => ({ ...json, payment_preimage: { a: 1 } })],
    ['the rest of the answer is missing', (json) => ({ state: json['state'] })],
  ])('%s', async (_, twist) => {
    lie = (path, json) => (isMelt(path) && json['state'] === 'PAID' ? twist(json) : undefined)
    const { paid, cost } = await payTen()
    expect(paid.state).toBe('paid')
    // The mint's own record (NUT-09) gave what the answer did not.
    expect(cost).toBeLessThanOrEqual(12n)
    expect(home.node.balance().atRiskSats).toBe(0n)
  })

  it('nothing else is answered any more; the change comes later by itself', async () => {
    let isAway = true
    lie = (path, json) => {
      if (isMelt(path) && json['state'] === 'PAID') return { ...json, change: [] }
      if (isAway && (path === '/v1/restore' || path === '/v1/checkstate')) throw new Error('the connection broke')
      return undefined
    }
    const { paid, cost } = await payTen()
    expect(paid.state).toBe('paid')
    expect(listOwed(home.store)).toHaveLength(1)
    const held = home.node.balance().balanceSats
    isAway = false
    await expect.poll(() => listOwed(home.store), { timeout: 20_000 }).toEqual([])
    const came = home.node.balance().balanceSats - held
    expect(cost - came).toBeLessThanOrEqual(12n)
  })

  it('its change is signed by the keyset that was rotated in meanwhile', async () => {
    // Coins of it are worth nothing at the sandbox: a home of its own.
    const other = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords(), dialer: lyingDialer })
    onTestFinished(() => other.close())
    await fund(other, other.node, sandbox.mintUrl, 64)
    const privateKeys = new Map(Array.from({ length: 16 }, (_, i) => [2 ** i, createRandomSecretKey()]))
    const keys = Object.fromEntries(
      [...privateKeys].map(([amount, key]) => [amount, Buffer.from(pointFromScalar(key, true) ?? []).toString('hex')]),
    )
    const id = deriveKeysetId(keys, { unit: 'sat', input_fee_ppk: 0, versionByte: 1 })
    lie = (path, json, asked) => {
      if (path === '/v1/keysets') return { keysets: [...(json['keysets'] as Json[]), { id, unit: 'sat', active: false, input_fee_ppk: 0 }] }
      if (path === `/v1/keys/${id}`) return { keysets: [{ id, unit: 'sat', input_fee_ppk: 0, keys }] }
      const blanks = asked['outputs'] as { B_: string }[] | undefined
      if (!isMelt(path) || blanks === undefined) return undefined
      const signed = change(json).map(({ amount }, i) => {
        const { c, e, s } = signOutput(Buffer.from(blanks[i]?.B_ ?? '', 'hex'), privateKeys.get(amount) as Uint8Array)
        return { id, amount, C_: c, dleq: { e, s } }
      })
      return { ...json, change: signed }
    }
    const { paid, cost } = await payTen(other)
    expect(paid.state).toBe('paid')
    expect(cost).toBeLessThanOrEqual(12n)
    const taken = listProofs(other.store, { pubkey: other.node.owner.pubkey, mintUrl: sandbox.mintUrl, state: 'unspent' })
    expect(taken.filter((proof) => proof.keysetId === id).length).toBeGreaterThan(0)
    expect(auditLedger(other.store).problems).toEqual([])
  })
})

describe('a token is given although', () => {
  it('a signature of its change is no good: that is collected later', async () => {
    const other = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords(), dialer: lyingDialer })
    onTestFinished(() => other.close())
    await fund(other, other.node, sandbox.mintUrl, 64)
    let isFixed = false
    const spoil = (json: Json, at: number) => ({
      ...json,
      signatures: (json['signatures'] as Signature[]).map((one, i) => (i === at ? { ...one, C_: G } : one)),
    })
    lie = (path, json, asked) => {
      const isOfChange = ({ B_ }: { B_: string }) => B_ === spoiled
      if (path === '/v1/swap') {
        const outputs = asked['outputs'] as { B_: string; amount: number }[]
        const at = outputs.findIndex((output) => output.amount === 16)
        spoiled = outputs[at]?.B_ ?? ''
        return spoil(json, at)
      }
      const at = path === '/v1/restore' && !isFixed ? (json['outputs'] as { B_: string }[]).findIndex(isOfChange) : -1
      return at < 0 ? undefined : spoil(json, at)
    }
    let spoiled = ''
    // 64 less 1 of fee: 32 and 1 for the token, 16, 8, 4 and 2 of change.
    const lockTo = home.agent.lockPubkey
    const sent = await other.node.sendToken({ ...operation(), amountSats: sats(33), lockTo, debitAccount: 'node/equity/moved' })
    expect(sent.state).toBe('pending')
    expect(other.node.balance()).toMatchObject({ balanceSats: 14n, atRiskSats: 0n })
    expect(listOwed(other.store)).toMatchObject([{ owedSats: 16n }])
    expect(auditLedger(other.store).problems).toEqual([])
    isFixed = true
    await expect.poll(() => other.node.balance().balanceSats, { timeout: 20_000 }).toBe(30n)
    expect(listOwed(other.store)).toEqual([])
    await expectSound(other, sandbox.mintUrl)
  })
})

describe('a restore finds the rest although', () => {
  it('one signature is no good', async () => {
    const words = testWords()
    const first = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words })
    await fund(first, first.node, sandbox.mintUrl, 7)
    await first.close()
    const again = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words, dialer: lyingDialer, start: false })
    onTestFinished(() => again.close())
    lie = (path, json) => {
      const signatures = json['signatures'] as Signature[] | undefined
      if (path !== '/v1/restore' || signatures?.[0] === undefined) return undefined
      return { ...json, signatures: signatures.map((one) => (one.amount === 2 ? { ...one, dleq: undefined } : one)) }
    }
    expect(await again.wallets.restoreAll(again.node.owner)).toEqual({ foundSats: 5n, problems: [expect.stringContaining('NUT-12')] })
    lie = undefined
    expect(await again.wallets.restoreAll(again.node.owner)).toEqual({ foundSats: 2n, problems: [] })
    expect(accountBalance(again.store, 'node/equity/restore')).toBe(-7000n)
  })
})
