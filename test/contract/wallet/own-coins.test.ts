/** Coins that the books hold already come in again, or are gone without the books knowing: nothing is counted twice, nothing stale goes out. */
import { randomUUID } from 'node:crypto'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { Account } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import { accountBalance, auditLedger } from '../../../src/store/money/ledger.ts'
import { listProofs } from '../../../src/store/money/proofs.ts'
import { putSetting } from '../../../src/store/settings.ts'
import { RESTORED_AT_KEY } from '../../../src/wallet/operations/restores.ts'
import type { Wallet } from '../../../src/wallet/types.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, fund, openHome, ownerCause, type TestHome, testWords } from './home.ts'

let sandbox: TestSandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

afterAll(() => sandbox.stop())

async function open(dir: string, words: string): Promise<TestHome> {
  const home = await openHome({ dir, mintUrls: [sandbox.mintUrl], words })
  onTestFinished(() => home.close())
  return home
}

const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
const send = (wallet: Wallet, amount: number) =>
  wallet.sendToken({ ...operation(), amountSats: sats(amount), debitAccount: 'node/equity/withdrawal' as const })
const receive = (wallet: Wallet, token: string, creditAccount: Account) => wallet.receiveToken({ ...operation(), token, creditAccount })

/** A home of 500 sats, its tokens of `amounts` sent after the backup, and the backup put back as `pylon restore` does it. */
async function restoredAfter(amounts: readonly number[]) {
  const words = testWords()
  const [dir, backup] = [tempDir(), tempDir()]
  const before = await openHome({ dir, mintUrls: [sandbox.mintUrl], words })
  await fund(before, before.node, sandbox.mintUrl, 500)
  await before.close()
  cpSync(join(dir, 'pylon.db'), join(backup, 'pylon.db'))
  const later = await open(dir, words)
  const tokens: string[] = []
  for (const amount of amounts) tokens.push((await send(later.node, amount)).token)
  await later.close()
  const restored = await open(backup, words)
  const at = Date.now()
  await restored.store.write(putSetting({ key: RESTORED_AT_KEY, value: at, at }))
  return { restored, tokens }
}

it('tokens sent after the backup count once, whoever brings them, and as what', async () => {
  const { restored, tokens } = await restoredAfter([60, 256, 16, 128, 32])
  const [swapped = '', whole = '', small = '', claimed = '', gone = ''] = tokens
  const { node, agent } = restored
  const held = () => node.balance().balanceSats
  // What was swapped for a token is found from the seed; what went out as it was is in the backup.
  await restored.wallets.restore(node.owner)

  const before = held()
  const own = await receive(node, swapped, 'node/equity/funding')
  expect(own).toMatchObject({ amountSats: 59n, heldBeforeSats: 60n })
  expect(held()).toBe(before - 1n)

  const paid = await receive(node, whole, 'node/deposit/job:1')
  expect(paid).toMatchObject({ amountSats: 255n, heldBeforeSats: 256n })
  expect(accountBalance(restored.store, 'node/deposit/job:1')).toBe(-255_000n)
  expect(held()).toBe(before - 2n)

  const moved = await receive(agent, small, `agent:${agent.owner.pubkey}/equity/funding`)
  expect(agent.balance().balanceSats).toBe(moved.amountSats)
  expect(held()).toBe(before - 18n)

  const stranger = await open(tempDir(), testWords())
  await receive(stranger.node, claimed, 'node/equity/funding')
  await expect(receive(node, claimed, 'node/equity/funding')).rejects.toMatchObject({ code: 'token_spent' })
  expect(held()).toBe(before - 146n)

  await receive(stranger.node, gone, 'node/equity/funding')
  expect(await restored.wallets.auditCoins()).toContainEqual(expect.objectContaining({ owner: node.owner, spent: 1, spentSats: 32n }))
  const exact = listProofs(restored.store, { pubkey: node.owner.pubkey, mintUrl: sandbox.mintUrl, state: 'unspent' })
    .map((proof) => proof.amountSats)
    .filter((amount) => amount >= 32n)
    .reduce((sum, amount) => sum + amount, 0n)
  await expect(
    node.sendToken({ ...operation(), amountSats: sats(exact), includeOwed: true, debitAccount: 'node/equity/withdrawal' as const }),
  ).resolves.toMatchObject({ amountSats: exact })
  expect(await restored.wallets.auditCoins()).not.toContainEqual(expect.objectContaining({ spent: 1 }))
  expect(auditLedger(restored.store).problems).toEqual([])
  await expectSound(restored, sandbox.mintUrl)
})

it('before the first spend after a restore the mint is asked; while it is away nothing is sent', async () => {
  const { restored, tokens } = await restoredAfter([256])
  const stranger = await open(tempDir(), testWords())
  await receive(stranger.node, tokens[0] ?? '', 'node/equity/funding')
  await sandbox.faults({ fail: { path: '/v1/checkstate', status: 502, body: 'bad gateway', count: 1 } })
  await expect(send(restored.node, 256)).rejects.toMatchObject({ code: 'mint_unreachable' })
  await expect(send(restored.node, 256)).rejects.toMatchObject({ code: 'insufficient_funds' })
  await expectSound(restored, sandbox.mintUrl)
})

it('a token that was taken may be asked about by several at once', async () => {
  const home = await open(tempDir(), testWords())
  await fund(home, home.node, sandbox.mintUrl, 100)
  const sent = await home.node.sendToken({ ...operation(), amountSats: sats(20), debitAccount: 'node/equity/withdrawal' as const })
  const stranger = await open(tempDir(), testWords())
  await receive(stranger.node, sent.token, 'node/equity/funding')
  await Promise.all([1, 2, 3].map(() => home.wallets.checkSent(sent.operationId)))
  expect(home.store.sql('SELECT token_state FROM operations WHERE id = ?').get(sent.operationId)).toEqual({ token_state: 'claimed' })
  await expectSound(home, sandbox.mintUrl)
})
