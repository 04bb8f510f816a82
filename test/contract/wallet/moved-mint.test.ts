/** A mint at another address is the same mint: its sats follow it, and nobody else's address will do. */
import { randomUUID } from 'node:crypto'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { auditLedger, depositsByMint } from '../../../src/store/money/ledger.ts'
import { startSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, faucet, fund, openHome, ownerCause, testWords } from './home.ts'

/** Another address of a mint. */
async function addressOf(mintUrl: string): Promise<string> {
  const { hostname, port } = new URL(mintUrl)
  const server = createServer((asked, answered) => {
    const { method, url, headers } = asked
    const passed = httpRequest({ hostname, port, method, path: url, headers }, (response) => {
      answered.writeHead(response.statusCode ?? 502, response.headers)
      response.pipe(answered)
    })
    passed.on('error', () => answered.destroy())
    asked.pipe(passed)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

it('is followed with all that it holds and owes', async () => {
  const [sandbox, other] = [await startSandbox(), await startSandbox()]
  onTestFinished(() => other.stop())
  onTestFinished(() => sandbox.stop())
  const old = sandbox.mintUrl
  const home = await openHome({ dir: tempDir(), mintUrls: [old], words: testWords() })
  onTestFinished(() => home.close())
  const operation = () => ({ idempotencyKey: randomUUID(), cause: ownerCause() })
  await fund(home, home.node, old, 300)
  await home.wallets.transfer(home.node.owner, home.agent.owner, sats(50), randomUUID())
  const job = { idempotencyKey: 'job:1:invoice', cause: { type: 'job', id: '1' } } as const
  const deposit = await home.node.createInvoice({ ...job, amountSats: sats(100), creditAccount: 'node/deposit/job:1' as const })
  await faucet(old, deposit.request)
  await expect.poll(() => home.node.invoice(job.idempotencyKey)?.state, { timeout: 15_000 }).toBe('settled')
  const late = { ...operation(), amountSats: sats(21), creditAccount: 'node/equity/funding' as const }
  const unpaid = await home.node.createInvoice(late)
  const sent = await home.node.sendToken({ ...operation(), amountSats: sats(32), debitAccount: 'node/equity/withdrawal' as const })
  const before = [home.node.balance().balanceSats, home.agent.balance().balanceSats]

  const now = await addressOf(old)
  await expect(home.wallets.addMint(now)).rejects.toMatchObject({
    code: 'mint_moved',
    message: expect.stringContaining(`pylon wallet mints move ${old} ${now}`),
  })
  await expect(home.wallets.removeMint(old)).rejects.toMatchObject({ code: 'mint_in_use', message: expect.stringContaining('mints move') })
  await expect(home.wallets.moveMint(old, other.mintUrl)).rejects.toMatchObject({ code: 'mint_incompatible' })
  await expect(home.wallets.moveMint('http://127.0.0.1:1', now)).rejects.toMatchObject({ code: 'mint_not_allowed' })

  expect(await home.wallets.moveMint(old, `${now}/`)).toMatchObject({ url: now })
  expect(home.wallets.mints().map((mint) => mint.url)).toEqual([now])
  expect([home.node.balance().balanceSats, home.agent.balance().balanceSats]).toEqual(before)
  expect([...depositsByMint(home.store, 'node')]).toEqual([[now, 100_000n]])
  expect(auditLedger(home.store).problems).toEqual([])
  // What was under way goes on there; tokens that name the old address are of this mint.
  await faucet(old, unpaid.request)
  await expect.poll(() => home.node.invoice(late.idempotencyKey)?.state, { timeout: 20_000 }).toBe('settled')
  const got = await home.agent.receiveToken({
    ...operation(),
    token: sent.token,
    creditAccount: `agent:${home.agent.owner.pubkey}/equity/funding` as const,
  })
  expect(got.mintUrl).toBe(now)
  const again = await home.node.sendToken({ ...operation(), amountSats: sats(200), debitAccount: 'node/equity/withdrawal' as const })
  expect(again.mintUrl).toBe(now)
  // The old address is taken for the mint that it was, and the mint may go back.
  await expect(home.wallets.addMint(old)).rejects.toMatchObject({ code: 'mint_moved' })
  expect(await home.wallets.moveMint(now, old)).toMatchObject({ url: old })
  await expectSound(home, old)
  expect(auditLedger(home.store).problems).toEqual([])
})
