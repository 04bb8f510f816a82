/** A home with real wallets for tests: a database on disk, a keyring of fixed words, the real dialer; it can crash and come back. */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { expect, vi } from 'vitest'
import { accountOf, accountOwner, type WalletOwner } from '../../../src/base/accounts.ts'
import { sats } from '../../../src/base/amounts.ts'
import { type Clock, systemClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { createDialer, type Dialer } from '../../../src/base/dialer.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { HomeKeyring } from '../../../src/nostr/keys/keyring.ts'
import { newWords, secretOfAccount, seedOfWords } from '../../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import type { Cause } from '../../../src/store/money/ledger.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import type { CommitHook, Store } from '../../../src/store/store.ts'
import type { Wallet, WalletEvent } from '../../../src/wallet/types.ts'
import { createWallets, type OwnWallets, WALLET_DRAIN_MS } from '../../../src/wallet/wallets.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'

export interface TestHome {
  readonly store: Store
  readonly wallets: OwnWallets
  readonly keyring: HomeKeyring
  readonly dialer: Dialer
  readonly node: Wallet
  readonly customer: Wallet
  readonly agent: Wallet
  readonly events: WalletEvent[]
  /** Ends the wallets and the store as a stopped process would: nothing more is sent or written. */
  close(): Promise<void>
}

export interface HomeOptions {
  readonly dir: string
  readonly mintUrls: readonly string[]
  readonly words: string
  readonly clock?: Clock
  readonly dialer?: (dialer: Dialer) => Dialer
  readonly hook?: CommitHook
  readonly capSats?: number
  readonly start?: boolean
  /** Of its invoices; `any` where the mint is none of ours. */
  readonly invoiceNetwork?: 'any'
  readonly expectedMints?: readonly string[]
  /** Whether its process is dead: then its work may fail. */
  readonly isGone?: () => boolean
}

export const testWords = (): string => newWords()

/** Opens (again) the home in `dir`. The same words give the same keys and seeds. */
export async function openHome(options: HomeOptions): Promise<TestHome> {
  const { dir, mintUrls, words, clock = systemClock } = options
  const store = openStore(join(dir, 'pylon.db'), { ...(options.hook === undefined ? {} : { hook: options.hook }) })
  const nodePubkey = createSigner(secretOfAccount(seedOfWords(words), 0)).pubkey
  const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey })
  keyring.unlock(words)
  const plainDialer = createDialer()
  const dialer = options.dialer?.(plainDialer) ?? plainDialer
  const scope = testScope(clock, options.isGone)
  const wallets = createWallets({
    scope,
    store,
    logger: silentLogger,
    config: () => DEFAULT_CONFIG,
    nostr: { keyring },
    dialer,
    ...(options.invoiceNetwork === 'any' ? {} : { invoiceNetwork: 'bcrt' }),
    ...(options.expectedMints === undefined ? {} : { expectedMints: options.expectedMints }),
  })
  const events: WalletEvent[] = []
  const causes: Cause['type'][] = ['job', 'purchase', 'tick', 'action', 'zap', 'lease', 'owner', 'transfer']
  for (const cause of causes) wallets.onEvent(cause, async (event) => void events.push(event))
  for (const url of mintUrls) {
    if (!wallets.mints().some((mint) => mint.url === url)) await wallets.addMint(url, sats(options.capSats ?? 1_000_000))
  }
  if (options.start !== false) await wallets.start()
  const owner = (kind: WalletOwner['kind'], account: number): WalletOwner => ({ kind, pubkey: keyring.account(account).pubkey })
  return {
    store,
    wallets,
    keyring,
    dialer,
    node: wallets.of(owner('node', 0)),
    customer: wallets.of(owner('customer', 1)),
    agent: wallets.of(owner('agent', 10)),
    events,
    async close() {
      await scope.close(WALLET_DRAIN_MS)
      store.close()
      await plainDialer.close()
    },
  }
}

export const ownerCause = (id: string = randomUUID()): Cause => ({ type: 'owner', id })

/** Lets play money pay an invoice. */
export async function faucet(mintUrl: string, request: string): Promise<void> {
  const response = await fetch(`${mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request }) })
  expect(response.status).toBe(200)
}

/** Funds a wallet through an invoice, as `pylon wallet fund` does. */
export async function fund(home: TestHome, wallet: Wallet, mintUrl: string, amount: number): Promise<void> {
  const idempotencyKey = randomUUID()
  const invoice = await wallet.createInvoice({
    idempotencyKey,
    cause: ownerCause(),
    amountSats: sats(amount),
    mintUrl,
    creditAccount: accountOf(accountOwner(wallet.owner), 'equity', 'funding'),
  })
  await faucet(mintUrl, invoice.request)
  await vi.waitFor(() => expect(wallet.invoice(idempotencyKey)?.state).toBe('settled'), { timeout: 15_000, interval: 20 })
  expect(auditLedger(home.store).problems).toEqual([])
}

/** The books agree with the proofs, and every free proof is unspent at the mint. */
export async function expectSound(home: TestHome, mintUrl: string): Promise<void> {
  expect(auditLedger(home.store).problems).toEqual([])
  const ys = home.store.sql(`SELECT y FROM proofs WHERE state = 'unspent' AND mint_url = ?`).all(mintUrl)
  const body = JSON.stringify({ Ys: ys.map((row) => row['y']) })
  // A fault that the test ordered may still be waiting for its request.
  const states = await vi.waitFor(async () => {
    const response = await fetch(`${mintUrl}/v1/checkstate`, { method: 'POST', body })
    return ((await response.json()) as { states: { state: string }[] }).states
  }, 15_000)
  expect(states.filter((state) => state.state !== 'UNSPENT')).toEqual([])
}
