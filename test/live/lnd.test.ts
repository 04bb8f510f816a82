/**
 * Real Lightning: nutshell over an lnd that has a channel with another one, on a chain of their own. Payments that hang here hang
 * because somebody holds them.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { sats } from '../../src/base/amounts.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { openHome, ownerCause, type TestHome, testWords } from '../contract/wallet/home.ts'
import { findLnd, type Lightning, startLightning } from '../support/lnd.ts'
import { type MintPeer, mintSuite } from '../support/mint-suite.ts'
import { ensureNutshell, startNutshell } from '../support/nutshell.ts'

const found = findLnd()
const missing = 'missing' in found ? found.missing : ensureNutshell()

describe.skipIf(missing !== undefined)(`nutshell over a real lnd${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const dir = mkdtempSync(join(tmpdir(), 'py-'))
  const newDir = () => mkdtempSync(join(dir, 'd-'))
  let lightning: Lightning

  beforeAll(async () => {
    lightning = await startLightning('bin' in found ? found.bin : '', newDir())
  })
  afterAll(async () => {
    await lightning?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  describe('is a mint as any other', () => {
    mintSuite(async (mintDir) => ({
      ...(await startNutshell(mintDir, lightning.ours)),
      payInvoice: (request) => lightning.other.pay(request),
      outsideInvoice: (amountSats) => lightning.other.invoice(amountSats),
    }))
  })

  describe('a payment that somebody holds', () => {
    let mint: MintPeer
    let home: TestHome
    const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
    const debitAccount = 'node/equity/withdrawal' as const

    beforeAll(async () => {
      mint = await startNutshell(newDir(), lightning.ours)
      home = await openHome({ dir: newDir(), mintUrls: [mint.mintUrl], words: testWords(), invoiceNetwork: 'any' })
      const request = { ...operation(), amountSats: sats(400), creditAccount: 'node/equity/funding' as const }
      await lightning.other.pay((await home.node.createInvoice(request)).request)
      await vi.waitFor(() => expect(home.node.invoice(request.idempotencyKey)?.state).toBe('settled'), 20_000)
    })
    afterAll(async () => {
      await home?.close()
      await mint?.stop()
    })

    /** Begins to pay an invoice of 100 sats that is held there, and returns when it is. */
    async function begin() {
      const preimage = randomBytes(32)
      const hash = createHash('sha256').update(preimage).digest()
      const order = { ...operation(), request: await lightning.other.holdInvoice(hash, 100), debitAccount, maxFeeSats: sats(10) }
      const outcome = home.node.pay(order)
      await expect.poll(() => lightning.other.isHeld(hash), { timeout: 20_000 }).toBe(true)
      return { preimage, hash, order, outcome }
    }

    it('is paid when it is settled, and not before', async () => {
      const { preimage, order, outcome } = await begin()
      expect(home.node.balance().atRiskSats).toBeGreaterThanOrEqual(100n)
      expect(await outcome).toMatchObject({ state: 'unknown' })
      await lightning.other.settle(preimage)
      await expect
        .poll(() => home.node.payment(order.idempotencyKey), { timeout: 60_000 })
        .toMatchObject({ state: 'paid', preimage: preimage.toString('hex') })
      expect(home.node.balance().atRiskSats).toBe(0n)
      expect(auditLedger(home.store).problems).toEqual([])
    })

    it('costs nothing when it is refused, and can be paid under the same key no more', async () => {
      const before = home.node.balance().balanceSats
      const { hash, order, outcome } = await begin()
      await lightning.other.cancel(hash)
      await outcome.catch(() => undefined)
      await expect.poll(() => home.node.payment(order.idempotencyKey)?.state, { timeout: 60_000 }).toBe('failed')
      expect(before - home.node.balance().balanceSats).toBeLessThanOrEqual(1n)
      expect(home.node.balance().atRiskSats).toBe(0n)
      expect(auditLedger(home.store).problems).toEqual([])
    })
  })
})
