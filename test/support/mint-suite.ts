/** What the wallet promises at any mint, told once: played against the sandbox's in `contract`, against programs of others in `live`. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sats } from '../../src/base/amounts.ts'
import { systemRandom } from '../../src/base/random.ts'
import { issueInvoice } from '../../src/sandbox/mint/invoices.ts'
import { listKeysets, oldCoins } from '../../src/store/money/keysets.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { openHome, ownerCause, type TestHome, testWords } from '../contract/wallet/home.ts'

export interface MintPeer {
  readonly mintUrl: string
  stop(): Promise<void>
  /** The keyset signs no more, another one does, at this fee in thousandths of a sat for each input. */
  rotate(inputFeePpk: number): void | Promise<void>
  /** Has an invoice of this mint paid; left out where they pay themselves. */
  payInvoice?(request: string): Promise<void>
  /** An invoice of somebody else that it can pay; any will do where this is left out. */
  outsideInvoice?(amountSats: number): Promise<string>
}

/** @param start a mint that takes 100 thousandths of a sat for each input */
export function mintSuite(start: (dir: string) => Promise<MintPeer>): void {
  const dir = mkdtempSync(join(tmpdir(), 'py-'))
  const words = testWords()
  let mint: MintPeer
  let home: TestHome

  beforeAll(async () => {
    mint = await start(dir)
    home = await openHome({ dir: mkdtempSync(join(dir, 'h-')), mintUrls: [mint.mintUrl], words, invoiceNetwork: 'any' })
  })

  afterAll(async () => {
    await home?.close()
    await mint?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
  const send = (amount: number, lockTo?: string) =>
    home.node.sendToken({
      ...operation(),
      amountSats: sats(amount),
      debitAccount: 'node/equity/withdrawal' as const,
      ...(lockTo === undefined ? {} : { lockTo }),
    })
  const receive = (token: string) =>
    home.agent.receiveToken({ ...operation(), token, creditAccount: `agent:${home.agent.owner.pubkey}/equity/funding` as const })
  /** Of somebody else, on another node. */
  const outsideInvoice = async (amountSats: number) =>
    (await mint.outsideInvoice?.(amountSats)) ??
    issueInvoice({
      ...{ random: systemRandom, nodeKey: Buffer.alloc(32, 7), amountSats, description: 'x' },
      ...{ nowSeconds: Math.floor(Date.now() / 1000), expirySeconds: 600 },
    }).request

  async function expectSound(): Promise<void> {
    expect(auditLedger(home.store).problems).toEqual([])
    for (const audit of await home.wallets.auditCoins()) {
      expect(audit).toMatchObject({ spent: 0 })
      expect(audit.problem).toBeUndefined()
    }
  }

  it('funds a wallet', async () => {
    const request = { ...operation(), amountSats: sats(500), creditAccount: 'node/equity/funding' as const }
    const invoice = await home.node.createInvoice(request)
    await mint.payInvoice?.(invoice.request)
    await expect.poll(() => home.node.invoice(request.idempotencyKey)?.state, { timeout: 20_000 }).toBe('settled')
    expect(home.node.balance().balanceSats).toBe(500n)
  })

  it('sends and receives, bare and locked, with the fee of its inputs', async () => {
    const bare = await send(20)
    expect(await receive(bare.token)).toMatchObject({ amountSats: 19n })
    const locked = await send(33, home.agent.lockPubkey)
    expect(await home.agent.inspectToken(locked.token)).toMatchObject({ lock: 'ours', netSats: 32n })
    expect(await receive(locked.token)).toMatchObject({ amountSats: 32n })
    await expect(receive(locked.token)).rejects.toMatchObject({ code: 'token_spent' })
    await expectSound()
  })

  it('takes back what nobody took, and the late receiver gets nothing', async () => {
    const idempotencyKey = randomUUID()
    const sent = await home.node.sendToken({
      ...{ idempotencyKey, cause: ownerCause(), amountSats: sats(8), debitAccount: 'node/equity/withdrawal' },
    })
    expect(await home.node.reclaim(idempotencyKey)).toMatchObject({ state: 'reclaimed' })
    await expect(receive(sent.token)).rejects.toMatchObject({ code: 'token_spent' })
    await expectSound()
  })

  it('pays an invoice of somebody else once, and has its change back', async () => {
    const request = await outsideInvoice(21)
    const before = home.node.balance().balanceSats
    const debitAccount = 'node/equity/withdrawal' as const
    const paid = await home.node.pay({ ...operation(), request, debitAccount, maxFeeSats: sats(10) })
    expect(paid).toMatchObject({ state: 'paid' })
    const cost = before - home.node.balance().balanceSats
    expect(cost).toBeGreaterThanOrEqual(21n)
    expect(cost).toBeLessThanOrEqual(31n)
    expect(await home.node.pay({ ...operation(), request, debitAccount, maxFeeSats: sats(10) })).toEqual(paid)
    await expect(
      home.agent.pay({ ...operation(), request, debitAccount: `agent:${home.agent.owner.pubkey}/expense/invoice` }),
    ).rejects.toMatchObject({ code: 'invoice_paid' })
    expect(before - home.node.balance().balanceSats).toBe(cost)
    await expectSound()
  })

  it('moves sats between two wallets of the home', async () => {
    const before = home.agent.balance().balanceSats
    await home.wallets.transfer(home.node.owner, home.agent.owner, sats(50), randomUUID())
    expect(home.agent.balance().balanceSats).toBe(before + 50n)
    await expectSound()
  })

  it('goes on after its keyset was rotated: old tokens are received, coins move to the new keyset', async () => {
    const before = await send(40)
    await mint.rotate(200)
    expect((await receive(before.token)).amountSats).toBe(39n)
    home.store.sql('UPDATE mint_keysets SET fetched_at = 0').run()
    await send(10, home.agent.lockPubkey)
    const ofMint = listKeysets(home.store, mint.mintUrl).map((keyset) => keyset.active)
    expect(ofMint.filter(Boolean)).toHaveLength(1)
    expect(ofMint.length).toBeGreaterThan(1)
    const ofNode = () => oldCoins(home.store, 0).filter((coins) => coins.ownerPubkey === home.node.owner.pubkey)
    await expect.poll(ofNode, { timeout: 20_000 }).toEqual([])
    await expect.poll(() => home.node.balance().atRiskSats, { timeout: 20_000 }).toBe(0n)
    await expectSound()
  })

  it('gives everything back to the seed alone', async () => {
    const again = await openHome({ dir: mkdtempSync(join(dir, 'h-')), mintUrls: [mint.mintUrl], words, start: false })
    try {
      // Tokens that nobody took are found too, where they were not locked: here all were.
      expect(await again.wallets.restoreAll(again.node.owner)).toEqual({ foundSats: home.node.balance().balanceSats, problems: [] })
      expect(await again.wallets.restoreAll(again.agent.owner)).toEqual({ foundSats: home.agent.balance().balanceSats, problems: [] })
    } finally {
      await again.close()
    }
  })
}
