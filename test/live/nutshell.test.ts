/** The wallet against a mint that nobody here wrote: nutshell, with input fees and a keyset rotation. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sats } from '../../src/base/amounts.ts'
import { systemRandom } from '../../src/base/random.ts'
import { issueInvoice } from '../../src/sandbox/mint/invoices.ts'
import { listKeysets, oldCoins } from '../../src/store/money/keysets.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { openHome, ownerCause, type TestHome, testWords } from '../contract/wallet/home.ts'
import { ensureNutshell, type Nutshell, startNutshell } from '../support/nutshell.ts'

const missing = ensureNutshell()

describe.skipIf(missing !== undefined)(`a real nutshell mint${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const dir = mkdtempSync(join(tmpdir(), 'py-'))
  const words = testWords()
  let nutshell: Nutshell
  let home: TestHome

  beforeAll(async () => {
    nutshell = await startNutshell(dir)
    const homeDir = mkdtempSync(join(dir, 'h-'))
    home = await openHome({ dir: homeDir, mintUrls: [nutshell.mintUrl], words, invoiceNetwork: 'any' })
  })

  afterAll(async () => {
    await home?.close()
    await nutshell?.stop()
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

  async function expectSound(): Promise<void> {
    expect(auditLedger(home.store).problems).toEqual([])
    for (const audit of await home.wallets.auditCoins()) {
      expect(audit).toMatchObject({ spent: 0 })
      expect(audit.problem).toBeUndefined()
    }
  }

  it('funds a wallet', async () => {
    const request = { ...operation(), amountSats: sats(500), creditAccount: 'node/equity/funding' as const }
    await home.node.createInvoice(request)
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

  it('pays an invoice of somebody else, and has its change back', async () => {
    const nowSeconds = Math.floor(Date.now() / 1000)
    const { request } = issueInvoice({
      ...{ random: systemRandom, nodeKey: Buffer.alloc(32, 7), amountSats: 21, description: 'x', nowSeconds, expirySeconds: 600 },
    })
    const before = home.node.balance().balanceSats
    const paid = await home.node.pay({ ...operation(), request, debitAccount: 'node/equity/withdrawal' as const, maxFeeSats: sats(10) })
    expect(paid).toMatchObject({ state: 'paid' })
    const cost = before - home.node.balance().balanceSats
    expect(cost).toBeGreaterThanOrEqual(21n)
    expect(cost).toBeLessThanOrEqual(26n)
    await expectSound()
  })

  it('goes on after its keyset was rotated: old tokens are received, coins move to the new keyset', async () => {
    const before = await send(40)
    nutshell.rotate(200)
    expect((await receive(before.token)).amountSats).toBe(39n)
    home.store.sql('UPDATE mint_keysets SET fetched_at = 0').run()
    await send(10, home.agent.lockPubkey)
    expect(
      listKeysets(home.store, nutshell.mintUrl)
        .map((keyset) => keyset.active)
        .sort(),
    ).toEqual([false, true])
    const ofNode = () => oldCoins(home.store, 0).filter((coins) => coins.ownerPubkey === home.node.owner.pubkey)
    await expect.poll(ofNode, { timeout: 20_000 }).toEqual([])
    await expect.poll(() => home.node.balance().atRiskSats, { timeout: 20_000 }).toBe(0n)
    await expectSound()
  })

  it('gives everything back to the seed alone', async () => {
    const again = await openHome({ dir: mkdtempSync(join(dir, 'h-')), mintUrls: [nutshell.mintUrl], words, start: false })
    try {
      // Tokens that nobody took are found too, where they were not locked: here all were.
      expect(await again.wallets.restoreAll(again.node.owner)).toEqual({ foundSats: home.node.balance().balanceSats, problems: [] })
    } finally {
      await again.close()
    }
  })
})
