/** A mint in memory that outlives nodes, and the node's wallets over it: idempotent by key, posted to the real ledger, events at least once. */
import type { Account } from '../../src/base/accounts.ts'
import { sats } from '../../src/base/amounts.ts'
import { PylonError } from '../../src/base/errors.ts'
import { postEntry } from '../../src/store/money/ledger.ts'
import type { Store } from '../../src/store/store.ts'
import type { Invoice, SentToken, Wallet, WalletEvent, Wallets } from '../../src/wallet/types.ts'

export const MINT = 'https://mint.test'

interface MemoryToken {
  readonly sats: bigint
  readonly lock: string | undefined
  readonly mint: string
  spentBy: string | undefined
}

/** Which invoices are paid, which tokens are spent. */
export class MemoryMint {
  readonly tokens = new Map<string, MemoryToken>()
  readonly invoices = new Map<string, Invoice>()
  readonly sent = new Map<string, SentToken>()
  readonly received = new Map<string, bigint>()
  /** Those on the node's list. */
  mints = [MINT]
  mintUp = true
  /** A key of the node that it can sign with, and does not announce. */
  otherKey: string | undefined
  /** Leaves the outcome of each receive open. */
  receiveUnknown = false

  token(amount: bigint, options: { lock?: string; mint?: string } = {}): string {
    const name = `cashuB${this.tokens.size + 1}`
    this.tokens.set(name, { sats: amount, lock: options.lock, mint: options.mint ?? MINT, spentBy: undefined })
    return name
  }
}

export interface MemoryWalletsDeps {
  readonly mint: MemoryMint
  readonly store: Store
  readonly clock: { now(): number }
  /** Of the node. */
  readonly pubkey: string
  /** What is paid for; the ids of invoices, refunds and deposits begin with it. */
  readonly cause: 'job' | 'lease'
  readonly isDead: () => boolean
}

export class MemoryWallets implements Wallets {
  readonly #deps: MemoryWalletsDeps
  readonly #handlers: ((event: WalletEvent) => Promise<void>)[] = []

  constructor(deps: MemoryWalletsDeps) {
    this.#deps = deps
  }

  of(): Wallet {
    const { mint, clock, pubkey } = this.#deps
    return {
      owner: { kind: 'node', pubkey },
      lockPubkey: `02${pubkey}`,
      balance: () => ({ balanceSats: sats(0), owedSats: sats(0), atRiskSats: sats(0), mints: [] }),
      createInvoice: async ({ idempotencyKey, amountSats, expiresAt = clock.now() + 3_600_000 }) => {
        this.#assertUp()
        const invoice: Invoice = mint.invoices.get(idempotencyKey) ?? {
          ...{ id: idempotencyKey, quoteId: idempotencyKey, request: `lnbcrt${amountSats}-${idempotencyKey}` },
          ...{ paymentHash: '00'.repeat(32), amountSats, mintUrl: MINT, expiresAt, state: 'unpaid' },
        }
        mint.invoices.set(idempotencyKey, invoice)
        return invoice
      },
      invoice: (idempotencyKey) => mint.invoices.get(idempotencyKey),
      inspectToken: async (token) => {
        const found = this.#token(token)
        const lock = found.lock === undefined ? 'none' : found.lock === `02${pubkey}` || found.lock === mint.otherKey ? 'ours' : 'other'
        return {
          mintUrl: found.mint,
          unit: 'sat',
          faceSats: sats(found.sats),
          netSats: sats(found.sats),
          lock,
          byWalletKey: mint.otherKey === undefined || found.lock !== mint.otherKey,
        }
      },
      receiveToken: async ({ idempotencyKey, token, cause, minNetSats = 0n }) => {
        this.#assertUp()
        const found = this.#token(token)
        if (found.spentBy !== undefined && found.spentBy !== idempotencyKey) throw new PylonError('token_spent', 'The token was spent.')
        if (found.sats < minNetSats) throw new PylonError('token_amount', 'The token is too small.')
        if (mint.receiveUnknown) throw new PylonError('payment_unknown', 'The mint did not answer.')
        found.spentBy = idempotencyKey
        mint.received.set(idempotencyKey, found.sats)
        await this.#credit(idempotencyKey, cause.id, found.sats)
        return { amountSats: sats(found.sats), mintUrl: found.mint }
      },
      sendToken: async ({ idempotencyKey, amountSats, lockTo, cause, debitAccount }) => {
        this.#assertUp()
        const known = mint.sent.get(idempotencyKey)
        if (known !== undefined) return known
        const token = mint.token(amountSats, lockTo === undefined ? {} : { lock: lockTo })
        const sent: SentToken = { operationId: idempotencyKey, token, amountSats, feeSats: sats(0), mintUrl: MINT, state: 'pending' }
        await this.#post(`send:${idempotencyKey}`, cause.id, -amountSats * 1000n, debitAccount)
        mint.sent.set(idempotencyKey, sent)
        return sent
      },
      sentToken: (idempotencyKey) => mint.sent.get(idempotencyKey),
      reclaim: () => Promise.reject(new PylonError('conflict', 'not here')),
      pay: () => Promise.reject(new PylonError('payment_failed', 'not here')),
      payment: () => undefined,
    }
  }

  mints() {
    return this.#deps.mint.mints.map((url) => ({ url, capSats: sats(100_000), addedAt: 0 }))
  }

  addMint = () => Promise.reject(new PylonError('mint_unreachable', 'not here'))
  removeMint = () => Promise.resolve()
  transfer = () => Promise.resolve(sats(0))
  restore = () => Promise.reject(new PylonError('mint_unreachable', 'not here'))
  start = () => Promise.resolve()
  close = () => Promise.resolve()

  onEvent(_cause: string, handler: (event: WalletEvent) => Promise<void>): void {
    this.#handlers.push(handler)
  }

  /** Somebody pays the invoice of a job or lease; what settled before is told once more. */
  async payInvoice(id: string): Promise<void> {
    const { mint, cause } = this.#deps
    const name = `${cause}:${id}:invoice`
    const invoice = mint.invoices.get(name)
    if (invoice === undefined) throw new Error(`no invoice of ${id}`)
    mint.invoices.set(name, { ...invoice, state: 'settled' })
    await this.announceSettled()
  }

  /** Whoever paid spends the refund. @param nth of those of the same job or lease */
  async claimRefund(id: string, nth = 1): Promise<void> {
    const { mint, cause } = this.#deps
    const name = `${cause}:${id}:refund${nth > 1 ? `:${nth}` : ''}`
    const sent = mint.sent.get(name)
    if (sent === undefined) throw new Error(`no refund of ${id}`)
    mint.sent.set(name, { ...sent, state: 'claimed' })
    await this.emit({ type: 'sent_claimed', ...this.#about(id), idempotencyKey: name })
  }

  /** What the wallet says again after a restart: everything that settled. */
  async announceSettled(): Promise<void> {
    const { mint } = this.#deps
    for (const [name, { state, amountSats }] of mint.invoices) {
      if (state !== 'settled') continue
      await this.#credit(name, idIn(name), amountSats)
      await this.emit({ type: 'invoice_settled', ...this.#about(idIn(name)), amountSats, idempotencyKey: name })
    }
    for (const [name, amount] of mint.received) {
      await this.#credit(name, idIn(name), amount)
      await this.emit({ type: 'token_received', ...this.#about(idIn(name)), amountSats: sats(amount), idempotencyKey: name })
    }
  }

  async emit(event: WalletEvent): Promise<void> {
    for (const handler of this.#handlers) {
      try {
        await handler(event)
      } catch (error) {
        if (!this.#deps.isDead()) throw error
      }
    }
  }

  #about(id: string) {
    const { cause, pubkey } = this.#deps
    return { cause: { type: cause, id }, owner: { kind: 'node', pubkey } } as const
  }

  #token(token: string): MemoryToken {
    const { mint } = this.#deps
    const found = mint.tokens.get(token)
    if (found === undefined) throw new PylonError('token_invalid', 'The token cannot be read.')
    if (!mint.mints.includes(found.mint)) throw new PylonError('mint_not_allowed', 'The mint is not on the list.')
    return found
  }

  async #credit(name: string, id: string, amount: bigint): Promise<void> {
    await this.#post(`receive:${name}`, id, amount * 1000n, `node/deposit/${this.#deps.cause}:${id}`)
  }

  async #post(entryId: string, id: string, amountMsats: bigint, account: Account): Promise<void> {
    const { store, clock, cause } = this.#deps
    const postings = [
      { account: `node/wallet/${MINT}` as const, amountMsats },
      { account, amountMsats: -amountMsats },
    ]
    await store.write(postEntry({ id: entryId, cause: { type: cause, id }, at: clock.now(), postings }))
  }

  #assertUp(): void {
    if (!this.#deps.mint.mintUp) throw new PylonError('mint_unreachable', 'The mint does not answer.')
  }
}

/** Of `<cause>:<id>:...`. */
const idIn = (name: string): string => name.split(':')[1] ?? ''
