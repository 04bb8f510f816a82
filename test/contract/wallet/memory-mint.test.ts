/** What the wallets in memory, over which selling is tested, must do as the real ones do over a mint. */
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { accountBalance } from '../../../src/store/money/ledger.ts'
import type { Store } from '../../../src/store/store.ts'
import type { Wallet, WalletEvent } from '../../../src/wallet/types.ts'
import { MemoryMint, MemoryWallets } from '../../support/memory-mint.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'
import { faucet, fund, openHome, ownerCause, testWords } from './home.ts'

/** A wallet that holds enough of its own, and what happens around it. */
interface Side {
  readonly wallet: Wallet
  readonly store: Store
  readonly events: readonly WalletEvent[]
  /** Somebody pays the invoice of a job. */
  pay(jobId: string): Promise<void>
  /** A token of somebody else that is worth so much to the wallet. */
  token(netSats: number, lockTo?: string): Promise<string>
  tokenOfOtherMint(): Promise<string>
  /** Its receiver spends the refund of a job. */
  claim(jobId: string): Promise<void>
  setDown(isDown: boolean): Promise<void>
}

const OTHER_KEY = `02${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}`
const WAIT = { timeout: 20_000, interval: 20 }
const invoiceKey = (jobId: string) => `job:${jobId}:invoice`
const refundKey = (jobId: string) => `job:${jobId}:refund`
const deposit = (jobId: string) => `node/deposit/job:${jobId}` as const
const job = (id: string) => ({ type: 'job', id }) as const

let sandbox: TestSandbox
let otherSandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
  otherSandbox = await startSandbox()
})
afterAll(async () => {
  await sandbox.stop()
  await otherSandbox.stop()
})

async function openReal(): Promise<Side> {
  const home = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  const somebody = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl, otherSandbox.mintUrl], words: testWords() })
  onTestFinished(async () => {
    await home.close()
    await somebody.close()
  })
  await fund(home, home.node, sandbox.mintUrl, 100)
  const tokenAt = async (mintUrl: string, netSats: number, lockTo?: string) => {
    await fund(somebody, somebody.node, mintUrl, 60)
    const request = { idempotencyKey: `token-${systemClock.now()}`, cause: ownerCause(), mintUrl, amountSats: sats(netSats) }
    const debitAccount = 'node/equity/withdrawal' as const
    const locked = lockTo === undefined ? {} : { lockTo }
    return (await somebody.node.sendToken({ ...request, ...locked, debitAccount, coverReceiverFee: true })).token
  }
  return {
    wallet: home.node,
    store: home.store,
    events: home.events,
    pay: (jobId) => faucet(sandbox.mintUrl, home.node.invoice(invoiceKey(jobId))?.request ?? ''),
    token: (netSats, lockTo) => tokenAt(sandbox.mintUrl, netSats, lockTo),
    tokenOfOtherMint: () => tokenAt(otherSandbox.mintUrl, 5),
    async claim(jobId) {
      const token = home.node.sentToken(refundKey(jobId))?.token ?? ''
      await somebody.node.receiveToken({ idempotencyKey: 'claim', cause: ownerCause(), token, creditAccount: 'node/equity/funding' })
    },
    setDown: (isDown) => sandbox.faults({ mint_down: isDown }),
  }
}

async function openMemory(): Promise<Side> {
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const mint = new MemoryMint()
  const wallets = new MemoryWallets({ mint, store, clock: systemClock, pubkey: 'ab'.repeat(32), cause: 'job', isDead: () => false })
  const events: WalletEvent[] = []
  wallets.onEvent('job', async (event) => void events.push(event))
  return {
    wallet: wallets.of(),
    store,
    events,
    pay: (jobId) => wallets.payInvoice(jobId),
    token: async (netSats, lockTo) => mint.token(BigInt(netSats), lockTo === undefined ? {} : { lock: lockTo }),
    tokenOfOtherMint: async () => mint.token(5n, { mint: 'https://other.test' }),
    claim: (jobId) => wallets.claimRefund(jobId),
    async setDown(isDown) {
      mint.mintUp = !isDown
    },
  }
}

describe.each([
  ['the real wallets', openReal],
  ['the wallets in memory', openMemory],
] as const)('%s', (_name, open) => {
  let side: Side
  beforeEach(async () => {
    side = await open()
  })

  const invoice = (jobId: string, amountSats = 7) =>
    side.wallet.createInvoice({
      ...{ idempotencyKey: invoiceKey(jobId), cause: job(jobId), amountSats: sats(amountSats), creditAccount: deposit(jobId) },
    })
  const receive = (jobId: string, token: string, minNetSats = 0) =>
    side.wallet.receiveToken({
      ...{ idempotencyKey: `job:${jobId}:token`, cause: job(jobId), token, creditAccount: deposit(jobId), minNetSats: sats(minNetSats) },
    })

  it('make one invoice a key, and credit what is paid for it once', async () => {
    expect(side.wallet.invoice(invoiceKey('a'))).toBeUndefined()
    const made = await invoice('a')
    expect(made).toMatchObject({ state: 'unpaid', amountSats: 7n })
    expect(await invoice('a')).toEqual(made)
    await side.pay('a')
    await vi.waitFor(() => expect(side.wallet.invoice(invoiceKey('a'))?.state).toBe('settled'), WAIT)
    const event = { type: 'invoice_settled', cause: job('a'), amountSats: 7n, idempotencyKey: invoiceKey('a') }
    await vi.waitFor(() => expect(side.events).toContainEqual(expect.objectContaining(event)), WAIT)
    expect(accountBalance(side.store, deposit('a'))).toBe(-7000n)
    expect(await invoice('a')).toMatchObject({ state: 'settled' })
  })

  it('tell who can spend a token, and what it is worth here', async () => {
    const tokens = [await side.token(5), await side.token(5, side.wallet.lockPubkey), await side.token(5, OTHER_KEY)]
    const seen = await Promise.all(tokens.map((token) => side.wallet.inspectToken(token)))
    expect(seen.map(({ lock }) => lock)).toEqual(['none', 'ours', 'other'])
    for (const { netSats, unit } of seen) expect({ netSats, unit }).toEqual({ netSats: 5n, unit: 'sat' })
    expect(seen[1]?.byWalletKey).toBe(true)
  })

  it('take a token once, and the same again under its key alone', async () => {
    const token = await side.token(5, side.wallet.lockPubkey)
    const taken = await receive('a', token)
    expect(taken.amountSats).toBe(5n)
    expect(await receive('a', token)).toMatchObject(taken)
    await expect(receive('b', token)).rejects.toMatchObject({ code: 'token_spent' })
    expect(accountBalance(side.store, deposit('a'))).toBe(-5000n)
    expect(accountBalance(side.store, deposit('b'))).toBe(0n)
  })

  it('leave a token whole that is too small', async () => {
    const token = await side.token(5)
    await expect(receive('a', token, 6)).rejects.toMatchObject({ code: 'token_amount' })
    expect(await receive('b', token, 5)).toMatchObject({ amountSats: 5n })
  })

  it('say what is no token, and what is of a mint that is not listed', async () => {
    await expect(receive('a', 'cashuBnonsense')).rejects.toMatchObject({ code: 'token_invalid' })
    await expect(receive('b', await side.tokenOfOtherMint())).rejects.toMatchObject({ code: 'mint_not_allowed' })
  })

  it('make one token a key, debit it, and tell when it is spent', async () => {
    await invoice('a')
    await side.pay('a')
    await vi.waitFor(() => expect(side.wallet.invoice(invoiceKey('a'))?.state).toBe('settled'), WAIT)
    const request = { idempotencyKey: refundKey('a'), cause: job('a'), amountSats: sats(7), debitAccount: deposit('a') }
    expect(side.wallet.sentToken(refundKey('a'))).toBeUndefined()
    const sent = await side.wallet.sendToken(request)
    expect(sent).toMatchObject({ state: 'pending', amountSats: 7n })
    expect(await side.wallet.sendToken(request)).toMatchObject({ token: sent.token })
    expect(accountBalance(side.store, deposit('a'))).toBe(0n)
    await side.claim('a')
    const event = { type: 'sent_claimed', cause: job('a'), idempotencyKey: refundKey('a') }
    await vi.waitFor(() => expect(side.events).toContainEqual(expect.objectContaining(event)), WAIT)
    expect(side.wallet.sentToken(refundKey('a'))?.state).toBe('claimed')
  })

  it('can do nothing while the mint is down', async () => {
    await side.setDown(true)
    onTestFinished(() => side.setDown(false))
    await expect(invoice('a')).rejects.toMatchObject({ code: 'mint_unreachable' })
  })
})
